"""A dataset folder -> Clip."""

from avslib.data.avsbench import AVSBenchMS3, AVSBenchS4
from avslib.data.sound import ClipDataset, SilentSound, SwappedSound
from avslib.data.synthetic import (
    SyntheticAVS,
    SyntheticConfig,
    audio_blind_ceiling,
    clip_indices,
    write_avsbench,
)

__all__ = [
    "AVSBenchMS3",
    "AVSBenchS4",
    "ClipDataset",
    "SilentSound",
    "SwappedSound",
    "SyntheticAVS",
    "SyntheticConfig",
    "audio_blind_ceiling",
    "clip_indices",
    "write_avsbench",
]
