import torch
from hypothesis import settings

settings.register_profile("avslib", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("avslib")
torch.set_num_threads(1)  # the tensors are small: threads would wait for one another longer than they work
