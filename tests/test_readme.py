import re
from pathlib import Path
from typing import Any

import pytest
import torch

from avslib.clip import Clip
from avslib.data import write_avsbench
from avslib.media import write_video
from avslib.models import create_model

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_code_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks one after the other, where a set called AVSBench lies, on tensors of the shapes it names."""
    write_avsbench(tmp_path / "AVSBench", setting="ms3", clips={"test": 1}, size=224, videos=False)
    write_video(tmp_path / "holiday.mp4", torch.zeros(8, 3, 32, 48, dtype=torch.uint8), fps=8)
    create_model("diffusion_avs.small").save_pretrained(tmp_path / "run" / "model")
    monkeypatch.chdir(tmp_path)
    frames, log_mel = torch.randn(1, 2, 3, 64, 64), torch.randn(1, 2, 1, 96, 64)
    masks = torch.randint(0, 2, (1, 2, 64, 64))
    every = torch.ones(1, 2, dtype=torch.bool)
    names: dict[str, Any] = {
        "frames": frames,
        "log_mel": log_mel,
        "masks": masks,
        "clip": Clip(frames, log_mel, masks, every, every, ["a"]),
        "features": torch.randn(1, 2, 256, 8, 8),
        "audio": torch.randn(1, 2, 128),
        "condition": torch.randn(1, 2, 24),
    }
    blocks = code(README)
    assert len(blocks) == 5
    for block in blocks:
        exec(block, names)
    assert names["latent"].shape == (1, 2, 24)
    assert names["output"].uncertainty().shape == (1, 2, 1, 64, 64)


def test_the_code_on_the_home_page_runs() -> None:
    names: dict[str, Any] = {}
    (block,) = code(README.parent / "docs" / "index.md")
    exec(block, names)
    assert names["output"].masks().shape == (1, 5, 224, 224)
    assert names["output"].uncertainty().shape == (1, 5, 1, 224, 224)


def code(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
