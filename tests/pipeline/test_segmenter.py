from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avslib import create_model
from avslib.curation import prepare_folder
from avslib.data import ClipFolder
from avslib.media.mel import log_mel_examples
from avslib.media.video import read_audio
from avslib.media.video_writer import write_video
from avslib.models import AVSModel, Segmentation
from avslib.pipeline import VideoSegmenter, segmenter
from tests._films import film, numbers_of, tone


class Recorder(AVSModel):
    """A model that keeps what it is shown, and finds the bright pixels."""

    def __init__(self, num_classes: int = 1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.audio_encoder = None
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.shown: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, frames: Tensor, log_mel: Tensor | None = None, **options: object) -> Segmentation:  # type: ignore[override]
        self.shown.append((frames, log_mel))
        grey = frames.float().mean(dim=2, keepdim=True) / 255 - 0.5
        if self.num_classes > 1:  # the class is the last one where it is bright, the first one elsewhere
            grey = F.pad(grey, (0, 0, 0, 0, self.num_classes - 1, 0))
        return Segmentation(20 * grey + self.bias)

    def segment(self, frames: Tensor, audio: Tensor | None, *_: object, **__: object) -> Segmentation:  # type: ignore[override]
        raise NotImplementedError


def long_film(path: Path, seconds: float, *, fps: int = 8, sound: bool = True) -> Path:
    count = round(seconds * fps)
    times = [1000 * number // fps for number in range(count)]
    return film(path, times, sound=tone(seconds, 16_000) if sound else None)


def number_at(time: float, count: int, fps: int = 8) -> int:
    return min(count - 1, int(time * fps + 1e-6))


@pytest.mark.parametrize("seconds", [3, 7])
def test_masks_are_those_of_prepared_clips(tmp_path: Path, seconds: int) -> None:
    """The slow second version: files first, then windows by hand."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(8 * seconds, 3, 6, 8, generator=generator)
    pictures = F.interpolate(pictures, (90, 120), mode="bilinear").mul(255).to(torch.uint8)
    waveform = torch.randn(16_000 * seconds, generator=generator) * torch.linspace(0, 0.3, 16_000 * seconds)
    write_video(videos / "a.mp4", pictures, fps=8, waveform=waveform)
    torch.manual_seed(0)
    model = create_model("avsbench.small").eval()
    for block in model.fusion:  # type: ignore[union-attr]
        torch.nn.init.ones_(block.batch_norm.weight)  # at first the sound adds nothing
    prepare_folder(videos, out, size=(64, 64))
    clip = ClipFolder(out, size=None)[0]
    windows = {3: [range(3)], 7: [range(5), range(2, 7)]}[seconds]
    sums, counts = torch.zeros(seconds, 1, 64, 64), torch.zeros(seconds, 1, 1, 1)
    for window in windows:
        part = slice(window.start, window.stop)
        with torch.no_grad():
            logits = model(clip.frames[None, part], clip.log_mel[None, part]).logits[0]
        sums[part] += logits.sigmoid()
        counts[part] += 1
    expected = F.interpolate(sums / counts, (90, 120), mode="bilinear", align_corners=False)
    found = list(VideoSegmenter(model, size=(64, 64))(videos / "a.mp4"))
    probabilities = torch.stack([one.probabilities for one in found])
    assert probabilities.std() > 0.005
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-4)  # the WAV file has 16 bits
    assert [one.time for one in found] == [second + 15 / 16 for second in range(seconds)]
    assert all(one.uncertainty is None for one in found)
    assert torch.equal(found[0].mask(), (found[0].probabilities[0] > 0.5).long())


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_every_look_is_a_clip_of_one_frame_a_second(tmp_path: Path, rate: int) -> None:
    path = long_film(tmp_path / "a.mp4", 6)
    model = Recorder()
    found = list(VideoSegmenter(model, size=(32, 160), rate=rate, window=4, overlap=1)(path))
    waveform = F.pad(read_audio(path)[0], (0, 32_000))
    looks = iter(model.shown)
    for start, stop in ((0, 4), (2, 6)):
        for look in range(rate):
            frames, log_mel = next(looks)
            assert frames.shape == (1, 4, 3, 32, 160)
            times = [second + 15 / 16 + look / rate for second in range(start, stop)]
            assert numbers_of(frames[0]) == [number_at(time, 48) for time in times]
            assert log_mel is not None
            for example, second in zip(log_mel[0], range(start, stop), strict=True):
                begin = round(16_000 * (second + look / rate))
                expected = log_mel_examples(waveform[begin : begin + 15_600])[0]
                torch.testing.assert_close(example, expected)
    assert next(looks, None) is None
    times = [one.time for one in found]
    assert times == [15 / 16 + number / rate for number in range(6 * rate) if 15 / 16 + number / rate <= 6]
    assert numbers_of(torch.stack([one.frame for one in found])) == [number_at(time, 48) for time in times]
    for one in found:  # the bright pixels, at the film's own size
        assert one.probabilities.shape == (1, *one.frame.shape[1:])
        assert (
            one.frame[0][one.mask() > 0].float().mean() > one.frame[0][one.mask() == 0].float().mean() + 100
        )


@pytest.mark.parametrize(("seconds", "rate", "count"), [(0.5, 1, 1), (0.5, 4, 1), (2.25, 4, 6), (2.25, 1, 2)])
def test_a_film_of_any_length_with_or_without_sound(
    tmp_path: Path, seconds: float, rate: int, count: int
) -> None:
    for sound in (True, False):
        path = long_film(tmp_path / f"{sound}.mp4", seconds, sound=sound)
        model = Recorder()
        look = VideoSegmenter(model, size=(32, 160), rate=rate)
        found = list(look(path))
        assert len(found) == count
        assert [one.time for one in found] == look.moments(path)
        (log_mel,) = {torch.is_tensor(mel) and mel.shape[1:] for _, mel in model.shown}
        assert log_mel == (max(1, int(seconds)), 1, 96, 64)
        if not sound:
            assert all((mel - torch.tensor(0.01).log()).abs().max() < 1e-5 for _, mel in model.shown)


def test_pictures_are_read_window_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = long_film(tmp_path / "a.mp4", 40)
    read = []

    def counted(*arguments: object) -> object:
        for picture in iter_frames(*arguments):
            read.append(1)
            yield picture

    iter_frames = segmenter.iter_frames
    monkeypatch.setattr(segmenter, "iter_frames", counted)
    found = VideoSegmenter(Recorder(), size=(32, 160))(path)
    assert len(list(islice(found, 7))) == 7
    assert len(read) == 10


def test_frames_have_the_size_that_the_model_was_trained_with() -> None:
    recorder = Recorder()
    assert VideoSegmenter(recorder).size == (224, 224)
    recorder.frame_size = (64, 96)
    assert VideoSegmenter(recorder).size == (64, 96)
    assert VideoSegmenter(recorder, size=(32, 32)).size == (32, 32)


def test_a_stochastic_model_is_seeded_and_unsure(tmp_path: Path) -> None:
    path = long_film(tmp_path / "a.mp4", 6)
    torch.manual_seed(0)
    model = create_model("cvae.small").train()

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def masks(**options: int) -> Tensor:
        found = list(VideoSegmenter(model, size=(32, 64), **options)(path))
        for one in found:
            assert one.uncertainty is not None
            assert one.uncertainty.shape == one.probabilities.shape
            assert one.uncertainty.max() > 0
        return torch.stack([one.probabilities for one in found])

    assert torch.equal(masks(seed=3), masks(seed=3))
    assert not torch.equal(masks(seed=3), masks(seed=4))
    assert model.training
    (one,) = islice(VideoSegmenter(model, size=(32, 64), num_samples=1)(path), 1)
    assert one.uncertainty is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_classes_are_those_of_the_highest_score(tmp_path: Path) -> None:
    path = long_film(tmp_path / "a.mp4", 2)
    for one in VideoSegmenter(Recorder(num_classes=5), size=(32, 160))(path):
        assert one.probabilities.shape[0] == 5
        torch.testing.assert_close(one.probabilities.sum(dim=0), torch.ones(16, 160))
        assert set(one.mask().unique().tolist()) == {0, 4}
        assert numbers_of(one.frame[None]) == numbers_of(
            (one.mask() // 4 * 255)[None, None].expand(1, 3, -1, -1)
        )


def test_mistakes_are_named(tmp_path: Path) -> None:
    model = Recorder()
    for options, message in (
        ({"rate": 3}, "rate: expected a divisor of 100, got 3"),
        ({"rate": 0}, "rate: expected"),
        ({"rate": 0.5}, "rate: expected an integer, got 0.5"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"size": (64,)}, r"size: expected height and width, at least 32 px, got \(64,\)"),
        ({"size": (16, 64)}, r"size: expected height and width, at least 32 px, got \(16, 64\)"),
        ({"size": 16}, r"size: expected height and width, at least 32 px, got \(16, 16\)"),
        ({"window": 0}, "window: expected a number above 0, got 0"),
        ({"overlap": 5}, "overlap: expected 0 to 4 s, less than a window, got 5"),
        ({"num_samples": 0}, "num_samples: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            VideoSegmenter(model, **options)  # type: ignore[arg-type]
    (tmp_path / "a.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"a\.mp4: cannot be read"):
        next(VideoSegmenter(model)(tmp_path / "a.mp4"))
    with pytest.raises(FileNotFoundError, match=r"b\.mp4: no such video file"):
        next(VideoSegmenter(model)(tmp_path / "b.mp4"))
