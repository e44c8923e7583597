import csv
from pathlib import Path

import pytest
import torch

from avslib.cli import main
from avslib.media.mask import read_mask
from avslib.media.palette import class_palette, read_classes
from avslib.media.video import probe_video, read_audio, read_frames
from avslib.models import create_model
from avslib.pipeline import VideoSegmenter, draw_mask, segment_video, write_overlay
from tests.pipeline.test_segmenter import Recorder, long_film


def test_what_is_found_is_in_the_folder(tmp_path: Path) -> None:
    film = long_film(tmp_path / "a.mp4", 3)
    look, out, ticks = VideoSegmenter(Recorder(), size=(32, 160), rate=2), tmp_path / "out", []
    (out / "masks").mkdir(parents=True)
    for old in ("masks/000099.png", "masks/mine.png", "overlay.mp4"):
        (out / old).touch()
    (out / "moments.csv").write_text("mask,time,area,uncertainty\n")
    assert segment_video(look, film, out, progress=ticks.append) == 5
    assert ticks == [1] * 5
    found = list(look(film))
    names = [f"{number:06}.png" for number in range(5)]
    assert sorted(path.name for path in (out / "masks").iterdir()) == [*names, "mine.png"]
    with (out / "moments.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == names
    for row, one in zip(rows, found, strict=True):
        assert torch.equal(read_mask(out / "masks" / row["mask"]), one.mask())
        assert float(row["time"]) == one.time
        assert float(row["area"]) == pytest.approx(one.mask().float().mean().item(), abs=1e-4)
        assert row["uncertainty"] == ""
    overlay = probe_video(out / "overlay.mp4")
    assert len(overlay.times) == 24
    assert overlay.end == pytest.approx(3, abs=0.05)
    assert len(read_audio(out / "overlay.mp4")[0]) == pytest.approx(3 * 48_000, abs=3000)
    segment_video(look, film, out, overlay=False)
    assert not (out / "overlay.mp4").exists()
    assert (out / "masks" / "mine.png").exists()


def test_no_file_is_lost_that_no_earlier_call_wrote(tmp_path: Path) -> None:
    film = long_film(tmp_path / "overlay.mp4", 2)
    look = VideoSegmenter(Recorder(), size=(32, 160))
    for name in ("masks/000000.png", "overlay.mp4", "moments.csv"):
        mine = tmp_path / "out" / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
        with pytest.raises(
            FileExistsError, match=f"{Path(name).name}: not from an earlier call, which would have written"
        ):
            segment_video(look, film, tmp_path / "out")
        assert mine.read_text() == "mine"
        mine.unlink()
    with pytest.raises(ValueError, match="out: expected a folder in which the video is not replaced"):
        segment_video(look, film, tmp_path)
    assert probe_video(film).times
    segment_video(look, film, tmp_path / "out")
    overlay = tmp_path / "out" / "overlay.mp4"
    with pytest.raises(ValueError, match="the video is not replaced"):
        segment_video(look, overlay, tmp_path / "out")
    assert probe_video(overlay).times


def test_what_an_earlier_call_left_stays_until_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = long_film(tmp_path / "a.mp4", 2)
    look, out = VideoSegmenter(Recorder(), size=(32, 160)), tmp_path / "out"
    segment_video(look, film, out)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("avslib.pipeline.files.write_overlay", fail)
    with pytest.raises(OSError, match="disk full"):
        segment_video(look, long_film(tmp_path / "b.mp4", 3), out)
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_classes_keep_their_colours(tmp_path: Path) -> None:
    film = long_film(tmp_path / "a.mp4", 2, sound=False)
    look = VideoSegmenter(Recorder(num_classes=5), size=(32, 160))
    segment_video(look, film, tmp_path)
    for number, one in enumerate(look(film)):
        mask = read_classes(tmp_path / "masks" / f"{number:06}.png", num_classes=5, unknown="raise")
        assert torch.equal(mask, one.mask())
    assert not probe_video(tmp_path / "overlay.mp4").has_sound


def test_every_frame_has_the_nearest_mask(tmp_path: Path) -> None:
    film = long_film(tmp_path / "a.mp4", 3)
    masks = [torch.zeros(16, 160, dtype=torch.long) for _ in range(3)]
    for number, mask in enumerate(masks):
        mask[:, 40 * number : 40 * number + 40] = 1
    asked: list[int] = []

    def mask_of(number: int) -> torch.Tensor:
        asked.append(number)
        return masks[number]

    write_overlay(tmp_path / "b.mp4", film, [0.5, 1.0, 2.5], mask_of)
    assert asked == [0, 1, 2]
    times = [number / 8 for number in range(24)]
    for time, frame, drawn in zip(
        times, read_frames(film, times), read_frames(tmp_path / "b.mp4", times), strict=True
    ):
        nearest = min(range(3), key=lambda number: abs([0.5, 1.0, 2.5][number] - time))
        tinted = (drawn.float() - frame.float()).abs().mean(dim=(0, 1)).view(4, 40).mean(dim=1)
        assert int(tinted.argmax()) == nearest


def test_a_mask_is_tinted_and_its_edge_drawn_and_nothing_else_touched() -> None:
    frame = torch.randint(256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(40, 50, dtype=torch.long)
    mask[5:20, 5:30], mask[20:30, 5:30] = 1, 2
    palette = class_palette(3)
    before = frame.clone()
    drawn = draw_mask(frame, mask, palette)
    assert torch.equal(frame, before)
    for y in range(40):
        for x in range(50):
            around = mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            number = int(mask[y, x])
            if number == 0:
                expected = frame[:, y, x]
            elif (around != number).any():
                expected = palette[number]
            else:
                expected = frame[:, y, x] // 2 + palette[number] // 2
            assert torch.equal(drawn[:, y, x], expected)
    assert torch.equal(draw_mask(frame, mask > 1), draw_mask(frame, (mask > 1).byte()))
    with pytest.raises(ValueError, match=r"mask: expected shape \(h, w\) with h=40, w=50"):
        draw_mask(frame, mask[:-1])
    with pytest.raises(ValueError, match=r"mask: expected classes from 0 to 1, .* got 0 to 2"):
        draw_mask(frame, mask)
    with pytest.raises(ValueError, match=r"mask: expected classes, integers or bool, got torch\.float32"):
        draw_mask(frame, mask.float())
    with pytest.raises(ValueError, match="frame: expected uint8"):
        draw_mask(frame.float(), mask)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long_film(tmp_path / "a.mp4", 2)
    saved = create_model("diffusion_avs.small")
    saved.frame_size = (32, 32)
    saved.save_pretrained(tmp_path / "model")
    capsys.readouterr()
    film, out, model = (str(tmp_path / name) for name in ("a.mp4", "out", "model"))
    command = ["segment", film, out, "--model", model]
    assert main([*command, "--num-samples", "2", "--device", "cpu"]) == 0
    assert "out: 2 masks" in capsys.readouterr().out
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert names == {"masks/000000.png", "masks/000001.png", "moments.csv", "overlay.mp4"}
    for changed, message in (
        (["--rate", "7"], "avslib segment: rate: expected a divisor of 100, got 7"),
        (["--size", "8"], "avslib segment: size: expected height and width, at least 32 px"),
        (["--model", str(tmp_path / "no" / "model")], "no such folder, and not the name of a repository"),
    ):
        assert main([*command, *changed]) == 1
        assert message in capsys.readouterr().err
    assert main(["segment", str(tmp_path / "no.mp4"), *command[2:]]) == 1
    assert "no.mp4: no such video file" in capsys.readouterr().err
