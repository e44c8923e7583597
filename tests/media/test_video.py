from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from avslib.media.video import iter_frames, probe_video, read_audio, read_frames, read_sound
from avslib.media.video_writer import write_video
from tests._films import film as make_film
from tests._films import numbered, numbers_of, tone


def numbered_frames(count: int, h: int = 64, w: int = 80) -> Tensor:
    """Frames of which the grey level tells the index, brighter in the upper half."""
    frames = torch.zeros(count, 3, h, w, dtype=torch.uint8)
    for index in range(count):
        frames[index] = 40 + 4 * index
        frames[index, :, : h // 2] += 40
    return frames


def number_of(frame: Tensor) -> int:
    return round((frame[:, frame.shape[1] * 3 // 4 :].float().mean().item() - 40) / 4)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "film.mp4"
    waveform = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(5 * 16_000) / 16_000)
    waveform[: 2 * 16_000] = 0  # sound sets in at 2 s
    write_video(path, numbered_frames(40), fps=8, waveform=waveform)
    return path


def test_the_file_is_what_plays_everywhere(film: Path) -> None:
    with av.open(str(film)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, picture.pix_fmt, picture.average_rate) == ("h264", "yuv420p", 8)
        assert (sound.codec_context.name, sound.rate, sound.channels) == ("aac", 16_000, 1)
        assert float(container.duration / av.time_base) == pytest.approx(5, abs=0.1)


def test_frames_are_the_last_at_or_before_each_time(film: Path) -> None:
    seconds = [4.99, 0.0, 0.12, 0.125, 0.126, 1.0, 1.0, 2.9375, 4.875, 100.0]
    frames = read_frames(film, seconds)
    assert frames.shape == (10, 3, 64, 80)
    assert frames.dtype == torch.uint8
    assert [number_of(frame) for frame in frames] == [min(39, int(8 * second)) for second in seconds]


@pytest.mark.parametrize("second", [0.5, 1.125, 2.0, 3.25, 4.5])
def test_frames_read_alone_are_those_read_together(film: Path, second: float) -> None:
    assert torch.equal(read_frames(film, [second])[0], read_frames(film, [0.0, second])[1])


@pytest.mark.parametrize("options", [{"g": "25", "bf": "2"}, {"g": "90", "bf": "3", "sc_threshold": "0"}])
@pytest.mark.parametrize("suffix", ["ts", "mts", "mpg", "mkv", "mp4"])
def test_frames_read_alone_are_right_in_any_container(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    path = tmp_path / f"film.{suffix}"
    with av.open(str(path), "w", format="mpegts" if suffix == "mts" else None) as container:
        codec = "mpeg1video" if suffix == "mpg" else "libx264"
        stream = container.add_stream(codec, rate=25, options={} if suffix == "mpg" else options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 64, "yuv420p", 2_000_000
        for frame in numbered(90):
            pixels = np.ascontiguousarray(frame.repeat(1, 4, 1).permute(1, 2, 0).numpy())
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    alone = [read_frames(path, [number / 25 + 0.005]) for number in range(0, 90, 4)]
    assert numbers_of(torch.cat(alone)) == list(range(0, 90, 4))


def test_colours_and_the_upper_side_survive(film: Path) -> None:
    colours = torch.tensor([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=torch.uint8)
    frames = colours.view(3, 3, 1, 1).repeat(1, 1, 32, 32)
    write_video(film.with_name("colours.mp4"), frames, fps=1)
    again = read_frames(film.with_name("colours.mp4"), [0, 1, 2])
    torch.testing.assert_close(again.float(), frames.float(), rtol=0, atol=4)
    upper, lower = read_frames(film, [1])[0].float().chunk(2, dim=1)
    assert upper.mean() > lower.mean() + 30


@pytest.mark.parametrize("fps", [25, 29.97])
def test_frames_one_by_one_make_the_same_film_with_its_sound_beside_them(tmp_path: Path, fps: float) -> None:
    frames = numbered_frames(50, h=32, w=48).repeat(8, 1, 1, 1)
    seconds = len(frames) / fps + 0.3
    waveform = 0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(int(16_000 * seconds)) / 16_000)
    write_video(tmp_path / "whole.mp4", frames, fps=fps, waveform=waveform)
    write_video(tmp_path / "parts.mp4", iter(frames), fps=fps, waveform=waveform)
    whole, parts = (probe_video(tmp_path / f"{name}.mp4") for name in ("whole", "parts"))
    assert whole.times == parts.times
    shown = [read_frames(tmp_path / f"{name}.mp4", whole.times).float() for name in ("whole", "parts")]
    torch.testing.assert_close(*shown, rtol=0, atol=4)  # x264 may decide a block differently a second time
    heard, rate = read_audio(tmp_path / "parts.mp4")
    assert torch.equal(heard, read_audio(tmp_path / "whole.mp4")[0])
    assert len(heard) / rate == pytest.approx(seconds, abs=0.1)
    middle = slice(2000, len(waveform) - 2000)
    assert (heard[: len(waveform)] - waveform)[middle].abs().max() < 0.05
    with av.open(str(tmp_path / "parts.mp4")) as container:
        packets = sorted(
            (packet for packet in container.demux() if packet.pts is not None), key=lambda p: p.pos
        )
        latest = {"video": 0.0, "audio": 0.0}
        for packet in packets:
            latest[packet.stream.type] = float(packet.pts * packet.time_base)
            assert abs(latest["video"] - latest["audio"]) < 2.5  # s apart at one place in the file


@pytest.mark.parametrize(("h", "w"), [(33, 48), (32, 47), (1, 1)])
def test_an_odd_size_is_filled_up_with_its_last_row_or_column(tmp_path: Path, h: int, w: int) -> None:
    board = (torch.arange(h)[:, None] // 4 + torch.arange(w) // 4) % 2 * 255  # whose edges show any shift
    picture = board.expand(3, h, w).to(torch.uint8)
    write_video(tmp_path / "odd.mp4", picture[None], fps=1)
    frame = read_frames(tmp_path / "odd.mp4", [0])[0].float()
    assert frame.shape == (3, h + h % 2, w + w % 2)
    filled = np.pad(picture.float(), ((0, 0), (0, h % 2), (0, w % 2)), mode="edge")
    assert np.abs(frame.numpy() - filled).max() <= 12


@pytest.mark.parametrize("fps", [29.97, 23.976, 0.5])
def test_broken_rates_keep_time(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.mp4", numbered_frames(9), fps=fps)
    frames = read_frames(tmp_path / "a.mp4", [(index + 0.5) / fps for index in range(9)])
    assert [number_of(frame) for frame in frames] == list(range(9))


@pytest.mark.parametrize(("fps", "count"), [(8, 40), (29.97, 31), (0.5, 1)])
def test_a_probe_tells_when_each_frame_is_shown(tmp_path: Path, fps: float, count: int) -> None:
    write_video(tmp_path / "a.mp4", numbered_frames(count), fps=fps)
    video = probe_video(tmp_path / "a.mp4")
    assert video.times == pytest.approx([index / fps for index in range(count)], abs=1e-3)
    assert video.end == pytest.approx(count / fps, abs=1e-3)
    assert video.fps == pytest.approx(fps, rel=1e-4)
    assert not video.has_sound


def test_a_probe_hears_whether_there_is_sound(film: Path) -> None:
    assert probe_video(film).has_sound


def test_frames_come_one_by_one_as_they_come_together(film: Path) -> None:
    seconds = [0.0, 0.3, 0.3, 2.9, 4.0, 50.0, 60.0]
    one_by_one = list(iter_frames(film, seconds))
    assert torch.equal(torch.stack(one_by_one), read_frames(film, seconds))
    frames = iter_frames(film, seconds)
    assert torch.equal(next(frames), one_by_one[0])
    frames.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"seconds: expected times in order, got \[1, 0\]"):
        next(iter_frames(film, [1, 0]))


def test_a_playlist_is_not_followed(film: Path) -> None:
    playlist = film.with_name("list.mp4")
    playlist.write_text(f"ffconcat version 1.0\nfile {film.name}\n")
    for read in (lambda path: read_frames(path, [0]), read_audio, probe_video):
        with pytest.raises(ValueError, match=r"list\.mp4: cannot be read .* as a video"):
            read(playlist)


def test_a_name_is_not_taken_for_a_protocol(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(film.parent)
    Path("subfile:a.mp4").write_bytes(film.read_bytes())
    assert torch.equal(read_frames("subfile:a.mp4", [1]), read_frames(film, [1]))


def test_sound_keeps_its_time_and_loudness(film: Path) -> None:
    waveform, rate = read_audio(film)
    assert rate == 16_000
    assert waveform.dtype == torch.float32
    assert waveform.shape[0] == pytest.approx(5 * rate, abs=1024)
    assert waveform[: round(1.9 * rate)].abs().max() < 0.01
    assert waveform[round(2.1 * rate) : round(4.9 * rate)].square().mean().sqrt() == pytest.approx(
        0.354, abs=0.01
    )


def test_stereo_sound_is_averaged_and_late_sound_is_preceded_by_zeros(tmp_path: Path) -> None:
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=8)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8_000, layout="stereo")
        for _ in range(16):
            container.mux(
                picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24"))
            )
        container.mux(picture.encode())
        samples = np.array([[16384, 0] * 800], np.int16)
        block = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        block.sample_rate, block.pts, block.time_base = 8_000, 4_000, Fraction(1, 8_000)
        container.mux(sound.encode(block))
        container.mux(sound.encode())
    waveform, rate = read_audio(path)
    assert rate == 8_000
    assert waveform.shape == (4_800,)
    assert not waveform[:4_000].any()
    assert waveform[4_000:].eq(0.25).all()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_sound_after_a_gap_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    waveform = torch.zeros(12 * 16_000)
    for second in range(12):  # a click each second
        waveform[second * 16_000 : second * 16_000 + 400] = 0.8 * torch.sin(0.5 * torch.arange(400))
    write_video(tmp_path / "whole.mp4", numbered_frames(24), fps=2, waveform=waveform)
    path = tmp_path / f"gap.{suffix}"
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(path), "w") as gapped:
        streams = {stream.index: gapped.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            is_sound = packet.stream.type == "audio"
            if packet.dts is None or (is_sound and 2.5 <= packet.pts * packet.time_base < 5.5):
                continue
            packet.stream = streams[packet.stream.index]
            gapped.mux(packet)
    heard, rate = read_audio(path)
    assert len(heard) / rate == pytest.approx(12, abs=0.15)
    tenths = heard[: 118 * rate // 10].unflatten(0, (-1, rate // 10)).abs().amax(dim=1)
    assert [place / 10 for place in (tenths > 0.3).nonzero().flatten().tolist()] == [
        *range(3),
        *range(6, 12),
    ]


def test_a_beginning_is_decoded_no_further(film: Path) -> None:
    whole, rate = read_audio(film)
    for seconds in (0.3, 2.5):
        assert torch.equal(read_audio(film, seconds=seconds)[0], whole[: round(seconds * rate)])
    assert torch.equal(read_audio(film, seconds=9)[0], whole)
    video = probe_video(film)
    beginning = read_sound(film, video, 11_025, seconds=2.5)
    torch.testing.assert_close(
        beginning, read_sound(film, video, 11_025)[: len(beginning)], rtol=0, atol=1e-6
    )
    with av.open(str(film)) as container:
        late = next(packet.pos for packet in container.demux(audio=0) if packet.pts * packet.time_base >= 3)
    broken = film.with_name("broken.mp4")
    broken.write_bytes(film.read_bytes()[:late])  # the index is at the front
    assert read_sound(broken, video, 16_000, seconds=2).shape == (32_000,)
    with pytest.raises(ValueError, match=r"broken\.mp4: "):
        read_sound(broken, video, 16_000)


def test_a_film_that_a_telephone_took_upright_is_turned(film: Path) -> None:
    identity, quarter = (
        b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 2**30))
        for a, b, c, d in ((2**16, 0, 0, 2**16), (0, 2**16, -(2**16), 0))
    )
    content = film.read_bytes()
    at = content.index(identity, content.index(b"tkhd"))  # that of the first track, the pictures
    turned = film.with_name("turned.mp4")
    turned.write_bytes(content[:at] + quarter + content[at + len(quarter) :])
    upright = torch.rot90(read_frames(film, [1.0]), -1, (2, 3))  # a quarter clockwise
    assert torch.equal(read_frames(turned, [1.0]), upright)


def test_files_that_are_no_video_are_named(film: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello " * 100)
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read .* as a video .*does ffmpeg play it"):
            read_frames(tmp_path / name, [0])
        with pytest.raises(ValueError, match=rf"{name}: cannot be read"):
            read_audio(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.mp4: no such video file"):
        read_frames(tmp_path / "none.mp4", [0])


@pytest.fixture(scope="module")
def remuxed(film: Path) -> Callable[[str], Path]:
    """The film in any container, with the same packets."""

    def remux(suffix: str) -> Path:
        path = film.with_name(f"remuxed.{suffix}")
        with av.open(str(film)) as source, av.open(str(path), "w") as target:
            streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    target.mux(packet)
        return path

    return remux


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "flv"])
@pytest.mark.parametrize("kept", [0.3, 0.4, 0.5])
def test_a_film_that_was_cut_off_is_refused(
    remuxed: Callable[[str], Path], tmp_path: Path, suffix: str, kept: float
) -> None:
    whole, cut = remuxed(suffix), tmp_path / f"cut.{suffix}"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(kept * len(content))])
    for read in (lambda path: read_frames(path, [4.9]), read_audio, probe_video):
        read(whole)
        with pytest.raises(ValueError, match=rf"cut\.{suffix}: (ends after \d\.\d s of|cannot be read)"):
            read(cut)


def test_pictures_and_sound_of_other_lengths_are_no_cut(tmp_path: Path) -> None:
    times = range(0, 8000, 500)
    short, long = (
        make_film(tmp_path / f"{seconds}.mkv", times, sound=tone(seconds, 16_000)) for seconds in (2, 20)
    )
    for path, seconds in ((short, 2), (long, 20)):
        waveform, rate = read_audio(path)
        assert len(waveform) == seconds * rate
        assert probe_video(path).end == pytest.approx(8, abs=0.01)
        assert numbers_of(read_frames(path, [60])) == [15]


def test_sound_of_which_only_the_bit_rate_is_known_is_whole(tmp_path: Path) -> None:
    waveform = torch.zeros(10 * 16_000)
    waveform[2 * 16_000 :] = 0.3 * torch.randn(8 * 16_000, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "quiet_first.aac"  # so FFmpeg takes it for twice as long
    with av.open(str(path), "w", format="adts") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for start in range(0, len(waveform), 1024):
            samples = waveform[None, start : start + 1024].numpy()
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.duration / av.time_base > 15
    assert len(read_audio(path)[0]) == pytest.approx(10 * 16_000, abs=2048)


def test_a_bare_stream_is_told_that_it_needs_a_container(film: Path) -> None:
    bare = film.with_name("bare.h264")
    with av.open(str(film)) as source, av.open(str(bare), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    for read in (lambda path: read_frames(path, [0]), probe_video):
        with pytest.raises(ValueError, match=r"bare\.h264: .* no picture that says when .* OUTPUT\.mp4"):
            read(bare)


def test_a_missing_stream_is_named(tmp_path: Path) -> None:
    from avslib.media.audio import write_wav

    write_wav(tmp_path / "sound.wav", torch.zeros(8_000), 8_000)
    write_video(tmp_path / "silent.mp4", numbered_frames(2), fps=2)
    with pytest.raises(ValueError, match=r"sound\.wav: expected a video, found no stream of pictures"):
        read_frames(tmp_path / "sound.wav", [0])
    with pytest.raises(ValueError, match=r"sound\.wav: expected a video, found no stream of pictures"):
        probe_video(tmp_path / "sound.wav")
    with pytest.raises(
        ValueError, match=r"silent\.mp4: expected a video with sound, found no stream of sound"
    ):
        read_audio(tmp_path / "silent.mp4")
    assert read_audio(tmp_path / "sound.wav")[0].shape == (8_000,)


def test_wrong_arguments_are_named(film: Path) -> None:
    for seconds in ([], [-1.0], [float("nan")]):
        with pytest.raises(ValueError, match="seconds: expected at least one time of 0 s or later"):
            read_frames(film, seconds)
    path = film.with_name("never.mp4")
    with pytest.raises(ValueError, match=r"frames: expected uint8, got torch\.float32"):
        write_video(path, torch.zeros(1, 3, 32, 32), fps=1)
    with pytest.raises(ValueError, match=r"frames: expected shape \(n, 3, h, w\), got \(1, 32, 32, 3\)"):
        write_video(path, torch.zeros(1, 32, 32, 3, dtype=torch.uint8), fps=1)
    with pytest.raises(ValueError, match=r"waveform: expected shape \(s\)"):
        write_video(path, numbered_frames(1), fps=1, waveform=torch.zeros(2, 100))
    with pytest.raises(ValueError, match=r"waveform: expected floating-point samples .* got torch\.int16"):
        write_video(path, numbered_frames(1), fps=1, waveform=torch.zeros(100, dtype=torch.int16))
    for fps in (0, 1e-4, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="fps: expected a finite number of at least 1/1001, got"):
            write_video(path, numbered_frames(1), fps=fps)
    with pytest.raises(FileNotFoundError, match=r"a\.mp4: no such folder to write into"):
        write_video(film.parent / "nowhere" / "a.mp4", numbered_frames(1), fps=1)
    with pytest.raises(ValueError, match="frames: expected at least one, got none"):
        write_video(path, iter([]), fps=1)
    assert not path.exists()
    frames = (torch.zeros(3, 32, width, dtype=torch.uint8) for width in (32, 34))
    with pytest.raises(ValueError, match=r"frames: expected one size, \(3, 32, 32\), got \(3, 32, 34\) at 1"):
        write_video(path, frames, fps=1)


def test_without_pyav_the_error_says_how_to_get_it(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for call in (
        lambda: read_frames(film, [0]),
        lambda: probe_video(film),
        lambda: read_audio(film),
        lambda: write_video(film, numbered_frames(1), fps=1),
    ):
        with pytest.raises(ImportError, match=r'pip install "avslib\[video\]"'):
            call()
