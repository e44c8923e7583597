"""Convert media files to tensors and back, independently of datasets and networks."""

from avslib.media._image import MAX_PIXELS
from avslib.media.audio import read_wav, resample, write_wav
from avslib.media.frame import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    denormalize_frames,
    normalize_frames,
    read_frame,
    resize_frame,
    write_frame,
)
from avslib.media.mask import read_mask, read_numbers, write_mask
from avslib.media.mel import LogMel, fit_examples, log_mel_examples, mel_matrix
from avslib.media.palette import class_palette, read_classes, write_classes
from avslib.media.tensor_pickle import load_tensor_pickle, save_tensor_pickle
from avslib.media.video import (
    VideoInfo,
    iter_frames,
    probe_video,
    read_audio,
    read_frames,
    read_sound,
)
from avslib.media.video_writer import write_video

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "LogMel",
    "VideoInfo",
    "class_palette",
    "denormalize_frames",
    "fit_examples",
    "iter_frames",
    "load_tensor_pickle",
    "log_mel_examples",
    "mel_matrix",
    "normalize_frames",
    "probe_video",
    "read_audio",
    "read_classes",
    "read_frame",
    "read_frames",
    "read_mask",
    "read_numbers",
    "read_sound",
    "read_wav",
    "resample",
    "resize_frame",
    "save_tensor_pickle",
    "write_classes",
    "write_frame",
    "write_mask",
    "write_video",
    "write_wav",
]
