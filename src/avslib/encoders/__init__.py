"""One modality -> features."""

from avslib.encoders.mel_cnn import MelCNN
from avslib.encoders.neck import Neck
from avslib.encoders.vggish import VGGish
from avslib.encoders.visual import VisualEncoder

__all__ = ["MelCNN", "Neck", "VGGish", "VisualEncoder"]
