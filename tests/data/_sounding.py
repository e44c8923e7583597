"""Readers whose clips' log-mels are easily missed: by hop, padding or a change of the sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from avslib.data import (
    AVSBenchMS3,
    AVSBenchSemantic,
    ClipFolder,
    ClipReader,
    RandomGain,
    ReaderOptions,
    write_avsbench,
)
from avslib.media import write_frame, write_wav

WAV = ReaderOptions(size=(32, 32), sound="wav")


def noise(seconds: float, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(int(seconds * 16_000), generator=torch.Generator().manual_seed(seed))


def folder(root: Path) -> ClipReader:
    """Long enough for a hop of 0.96 s to be seconds off, were it one."""
    (root / "clips.csv").write_text("id,split,seconds\na,test,8\nb,test,8\n", encoding="utf-8")
    for seed, name in enumerate("ab"):
        (root / "clips" / name / "frames").mkdir(parents=True)
        for second in range(8):
            write_frame(root / "clips" / name / f"frames/{second}.png", torch.zeros(3, 32, 32))
        swelling = noise(8, seed) * torch.linspace(0, 1, 8 * 16_000)
        write_wav(root / "clips" / name / "audio.wav", swelling, 16_000)
    return ClipFolder(root, "test", **WAV)


def short(root: Path) -> ClipReader:
    """The last examples repeat the one before."""
    write_avsbench(root, setting="ms3", clips={"test": 2}, size=32, videos=False)
    clips = AVSBenchMS3(root, "test", **WAV)
    write_wav(clips.clips[0].wav, noise(3.5), 16_000)
    return clips


def with_zeros(root: Path) -> ClipReader:
    """Zeros follow the sound of the first clip; that of the second makes no example."""
    write_avsbench(root, setting="avss", clips={"test": 3}, size=32, videos=False)
    clips = AVSBenchSemantic(root, "test", **WAV)
    write_wav(clips.clips[0].wav, noise(3.5), 16_000)
    write_wav(clips.clips[1].wav, noise(0.5), 16_000)
    return clips


def louder(root: Path) -> ClipReader:
    write_avsbench(root, setting="ms3", clips={"test": 2}, size=32, videos=False)
    return AVSBenchMS3(root, "test", **WAV, sound_transform=RandomGain(20, 20))


READERS: tuple[Callable[[Path], ClipReader], ...] = (folder, short, with_zeros, louder)
