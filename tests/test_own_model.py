"""The page on a model of one's own: what it tells runs."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from avslib.clip import Clip
from avslib.data import write_avsbench
from avslib.media import write_video

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "examples" / "own_model.md"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("own_model")


@pytest.fixture
def names(example: Any) -> dict[str, Any]:
    """Return a clip; the blocks import all else."""
    torch.manual_seed(0)
    return {"frames": torch.rand(1, 2, 3, 64, 96), "log_mel": torch.randn(1, 2, 1, 96, 64)}


def blocks() -> Iterator[str]:
    return iter(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL))


@pytest.mark.slow
def test_it_loads_itself(
    example: Any, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_avsbench(tmp_path / "AVSBench", setting="ms3", clips={"test": 2}, size=224, videos=False)
    write_video(tmp_path / "holiday.mp4", torch.zeros(16, 3, 32, 48, dtype=torch.uint8), fps=8)
    example.GatedSegmenter(**example.SMALL).save_pretrained(tmp_path / "run" / "model")
    monkeypatch.chdir(tmp_path)
    exec(next(blocks()), names)
    assert [found.mask().shape for found in names["moments"]] == 2 * [(32, 48)]


def test_a_loss_and_a_model_that_draws(example: Any, names: dict[str, Any]) -> None:
    _, loss, drawing = blocks()
    exec(loss, names)
    model = names["Sparing"](**example.SMALL)
    masks = torch.randint(0, 2, (1, 2, 64, 96))
    every = torch.ones(1, 2, dtype=torch.bool)
    clip = Clip(names["frames"], names["log_mel"], masks, every, every, ["a"])
    output = model(*clip[:5])
    assert [weights.shape for weights in output.terms.weights] == 4 * [(1, 2, 64)]
    terms = names["objective"](output, clip)
    terms["loss"].backward()
    assert terms["loss"] == terms["segmentation"] + 0.01 * terms["price"]
    assert all(gate.weigh.weight.grad.any() for gate in model.fusion)

    exec(drawing, names)
    assert names["output"].samples.shape == (4, 1, 2, 1, 64, 96)
    assert names["output"].uncertainty().any()
    model = names["Drawing"](**example.SMALL).eval()
    drawn = [
        model(names["frames"], names["log_mel"], num_samples=2, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert drawn[0].logits.equal(drawn[1].logits)
    assert not drawn[0].logits.equal(drawn[2].logits)


def test_the_model_hears_its_own_second_alone(example: Any, names: dict[str, Any]) -> None:
    model = example.GatedSegmenter(**example.SMALL).eval()
    for gate in model.fusion:
        torch.nn.init.normal_(gate.weigh.weight)
    other = names["log_mel"].clone()
    other[:, 1] = torch.randn(1, 1, 96, 64)
    with torch.no_grad():
        first, second = (model(names["frames"], heard).logits for heard in (names["log_mel"], other))
    assert first[:, 0].equal(second[:, 0])
    assert not torch.allclose(first[:, 1], second[:, 1], atol=1e-3)
