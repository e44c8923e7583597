"""Datasets of clips: readers of files, synthetic clips, other sounds and random changes."""

from avslib.data.avsbench import AVSBenchMS3, AVSBenchS4
from avslib.data.avss import AVSBenchSemantic
from avslib.data.folder import ClipFolder
from avslib.data.mixing import ClipsWithWaveforms, MixedClips, paste_sounding
from avslib.data.off_screen import OffScreenSound
from avslib.data.reader import ClipReader, ReaderOptions
from avslib.data.readers import READERS
from avslib.data.sound import ClipDataset, NoiseSound, OtherSound, ShiftedSound, SilentSound, SwappedSound
from avslib.data.sound_transforms import AddNoise, RandomGain, RandomLogMelGain, add_noise, log_mel_gain
from avslib.data.synthetic import (
    SyntheticAVS,
    SyntheticConfig,
    audio_blind_ceiling,
    clip_indices,
    write_avsbench,
)
from avslib.data.transforms import ClipTransform, train_transform
from avslib.data.vpo import VPO

__all__ = [
    "READERS",
    "VPO",
    "AVSBenchMS3",
    "AVSBenchS4",
    "AVSBenchSemantic",
    "AddNoise",
    "ClipDataset",
    "ClipFolder",
    "ClipReader",
    "ClipTransform",
    "ClipsWithWaveforms",
    "MixedClips",
    "NoiseSound",
    "OffScreenSound",
    "OtherSound",
    "RandomGain",
    "RandomLogMelGain",
    "ReaderOptions",
    "ShiftedSound",
    "SilentSound",
    "SwappedSound",
    "SyntheticAVS",
    "SyntheticConfig",
    "add_noise",
    "audio_blind_ceiling",
    "clip_indices",
    "log_mel_gain",
    "paste_sounding",
    "train_transform",
    "write_avsbench",
]
