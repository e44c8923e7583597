import torch
from hypothesis import settings

settings.register_profile("avslib", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("avslib")
torch.set_num_threads(2)
