from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnxruntime
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.export import ExportedProgram

import avslib
from avslib.latent import cosine_ddim
from avslib.models import AVSModel, Segmentation, create_model, load_model
from avslib.models.export import export_onnx, export_program

SECONDS, SIZE = 2, (64, 64)
DRAWS = {"cvae": [24], "diffusion_avs": [24], "ecmvae": [16, 16, 16]}
"""Lengths of the codes that a model draws, in the order in which it draws them."""
FAMILIES = ("audio_blind", "avsbench", "cvae", "diffusion_avs", "ecmvae")
VARIANTS = ("audio_blind_temporal", "avsbench_semantic")


class Tiny(AVSModel):
    """Draws noise twice: of two numbers a second, and of one."""

    stochastic = True

    def __init__(self, *, uniform: bool = False) -> None:
        super().__init__()
        self.num_classes = 1
        self.audio_encoder = None
        self.uniform = uniform
        self.classify = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Dropout(0.5))

    def segment(self, frames: Tensor, *_: Any, generator: Generator | None = None, **__: Any) -> Segmentation:
        b, t = frames.shape[:2]
        first = torch.randn(b, t, 2, generator=generator)
        second = torch.randn((1, b, t, 1), generator=generator)[0]
        shift = 10 * first[..., 0] + 100 * first[..., 1] + 1000 * second[..., 0]
        if self.uniform:
            shift = shift + 1000 * torch.rand(b, t)
        logits = self.classify(frames.flatten(0, 1)).unflatten(0, (b, t))
        return Segmentation(logits + shift[..., None, None, None])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def build(family: str, **overrides: Any) -> AVSModel:
    torch.manual_seed(0)
    model = create_model(f"{family}.small", **overrides)
    for module in model.modules():  # where a fresh block passes its input through, nothing could be seen
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine and not module.weight.any():
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model.eval()


@cache
def exported(family: str) -> tuple[AVSModel, ExportedProgram]:
    """Of a tiny backbone: what is slow is tracing every layer."""
    model = build(family, backbone="test_resnet")
    return model, export_program(model, seconds=SECONDS, size=SIZE)


def make_inputs(model: AVSModel, draws: list[int], clips: int, seed: int = 1) -> dict[str, Tensor]:
    """The noise is what the model draws from a generator of the same seed."""
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(clips, SECONDS, length, generator=generator) for length in draws]
    inputs = {"frames": torch.randint(0, 256, (clips, SECONDS, 3, *SIZE), dtype=torch.uint8)}
    if model.audio_encoder is not None:
        inputs["log_mel"] = torch.randn(clips, SECONDS, 1, 96, 64)
    if noise:
        inputs["noise"] = torch.cat(noise, dim=-1)
    return inputs


@torch.no_grad()
def predict(model: AVSModel, inputs: dict[str, Tensor], seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return model(inputs["frames"], inputs.get("log_mel"), generator=generator).logits


def run_onnx(path: Path, inputs: dict[str, Tensor]) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])


@pytest.mark.parametrize(
    "family", [*FAMILIES, *(pytest.param(variant, marks=pytest.mark.slow) for variant in VARIANTS)]
)
def test_the_graph_is_the_model_for_any_number_of_clips(family: str) -> None:
    model, program = exported(family)
    for clips in (1, 3):
        inputs = make_inputs(model, DRAWS.get(family, []), clips)
        assert program.graph_signature.user_inputs == tuple(inputs)
        torch.testing.assert_close(program.module()(**inputs), predict(model, inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", DRAWS)
def test_a_graph_repeats_itself_and_every_number_of_the_noise_counts(family: str) -> None:
    model, program = exported(family)
    graph = program.module()
    inputs = make_inputs(model, DRAWS[family], 1)
    logits = graph(**inputs)
    assert torch.equal(graph(**inputs), logits)
    for i in (0, inputs["noise"].shape[-1] // 2, -1):
        noise = inputs["noise"].clone()
        noise[..., i] += 1
        assert not torch.equal(graph(**inputs | {"noise": noise}), logits)


def test_draws_stand_one_after_another_in_the_noise() -> None:
    program = export_program(Tiny().eval(), seconds=SECONDS, size=(32, 32))
    frames = torch.zeros(3, SECONDS, 3, 32, 32, dtype=torch.uint8)
    graph = program.module()
    nothing = graph(frames=frames, noise=torch.zeros(3, SECONDS, 3))
    shifted = graph(frames=frames, noise=torch.tensor([1.0, 2.0, 3.0]).expand(3, SECONDS, 3))
    torch.testing.assert_close(shifted - nothing, torch.full_like(nothing, 3210.0))


def test_noise_of_another_kind_is_no_silent_constant() -> None:
    with pytest.raises(RuntimeError, match=r"torch.export: expected the model's logits, .* differ by up to"):
        export_program(Tiny(uniform=True), seconds=SECONDS, size=(32, 32))


def test_the_graph_is_a_snapshot_in_evaluation_and_the_model_stays_as_it_is() -> None:
    model = Tiny().train()
    model.classify[0].eval()
    inputs = make_inputs(model, [2, 1], 1)
    graph = export_program(model, seconds=SECONDS, size=SIZE).module()
    before = graph(**inputs)
    assert torch.equal(graph(**inputs), before)  # no dropout
    assert model.training
    assert model.classify[1].training
    assert not model.classify[0].training
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        model.classify[0].bias.add_(1)
    assert torch.equal(graph(**inputs), before)


def test_a_graph_survives_its_file(tmp_path: Path) -> None:
    model, program = exported("diffusion_avs")
    inputs = make_inputs(model, DRAWS["diffusion_avs"], 3)
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert torch.equal(loaded(**inputs), program.module()(**inputs))


def test_a_saved_model_gives_the_same_graph(tmp_path: Path) -> None:
    model, program = exported("cvae")
    model.save_pretrained(tmp_path)
    inputs = make_inputs(model, DRAWS["cvae"], 1)
    again = export_program(load_model(tmp_path), seconds=SECONDS, size=SIZE).module()
    assert torch.equal(again(**inputs), program.module()(**inputs))


def test_onnx_gives_the_models_logits_for_any_number_of_clips(tmp_path: Path) -> None:
    model, path = Tiny().eval(), tmp_path / "tiny.onnx"
    assert export_onnx(model, path, seconds=SECONDS, size=SIZE) < 1e-3  # of logits up to some thousands
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.onnx"]
    assert b".py" not in path.read_bytes()  # nothing says where the source lay
    for clips in (1, 3):
        inputs = make_inputs(model, [2, 1], clips)
        torch.testing.assert_close(run_onnx(path, inputs), predict(model, inputs), rtol=1e-6, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        *((family, {}) for family in (*FAMILIES, *VARIANTS)),
        ("avsbench", {"backbone": "pvt_v2_b0", "attention": ("audio", "visual")}),
        ("diffusion_avs", {"backbone": "resnet18", "audio_encoder": "vggish", "num_inference_steps": 3}),
    ],
)
def test_onnx_of_every_model(family: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    model, path = build(family, **overrides), tmp_path / "model.onnx"
    assert export_onnx(model, path, seconds=SECONDS, size=SIZE) < 1e-5
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    inputs = make_inputs(model, DRAWS.get(family, []), 3)
    assert shapes == {name: ["batch", *x.shape[1:]] for name, x in inputs.items()}
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == ("logits", ["batch", SECONDS, model.num_classes, *SIZE])
    for clips in (1, 3):
        inputs = make_inputs(model, DRAWS.get(family, []), clips)
        expected = predict(model, inputs)
        assert np.ptp(expected.numpy()) > 0.01
        torch.testing.assert_close(run_onnx(path, inputs), expected, rtol=0, atol=1e-5)


def test_onnx_is_not_written_where_onnxruntime_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avslib.models.export.TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="onnxruntime: expected the model's logits"):
        export_onnx(Tiny(), tmp_path / "tiny.onnx", seconds=1, size=(32, 32))
    assert not list(tmp_path.iterdir())


def test_c3n_is_refused_and_the_parts_that_are_named_can_be_exported() -> None:
    model = build("c3n", backbone="test_resnet")
    with pytest.raises(ValueError, match="model: expected one whose inference takes no gradient, got C3N"):
        export_program(model)
    levels = [
        torch.rand(4, width, 16 // 2**i, 16 // 2**i) for i, width in enumerate(model.visual_encoder.channels)
    ]
    fused = [torch.rand(2, 2, 64, 16 // 2**i, 16 // 2**i) for i in range(4)]
    for part, arguments, keywords in (
        (model.audio_encoder, (torch.rand(2, 2, 1, 96, 64),), {}),
        (model.neck, (levels,), {}),
        (model.fusion, (fused, torch.rand(2, 2, 128)), {}),
        (model.decoder, (fused,), {"size": SIZE}),
    ):
        graph = torch.export.export(part, arguments, keywords).module()
        torch.testing.assert_close(
            list(graph(*arguments, **keywords)), list(part(*arguments, **keywords)), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("name", ["DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_schedulers_that_draw_noise_or_keep_a_state_are_refused(name: str) -> None:
    scheduler = getattr(diffusers, name).from_config(cosine_ddim().config)
    with pytest.raises(ValueError, match=f"scheduler: expected DDIM .* got {name}"):
        export_program(build("diffusion_avs", backbone="test_resnet", scheduler=scheduler))


def test_sizes_that_no_model_takes_are_refused() -> None:
    model = build("audio_blind", backbone="test_resnet")
    with pytest.raises(ValueError, match="seconds: expected a number above 0, got 0"):
        export_program(model, seconds=0)
    with pytest.raises(ValueError, match="at least 32 px, got 16 x 64"):
        export_program(model, size=(16, 64))


def test_a_folder_that_is_not_there_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder to write model\.onnx to"):
        export_onnx(build("c3n", backbone="test_resnet"), tmp_path / "none" / "model.onnx")


@pytest.mark.parametrize("package", ["onnxruntime", "onnx_ir.passes.common"])
def test_without_the_packages_the_error_says_which_extra_has_them(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "avslib\[onnx\]"'):
        export_onnx(Tiny(), tmp_path / "tiny.onnx")


@pytest.mark.slow
def test_the_code_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    section = text.split("## Export\n")[1].split("\n## ")[0]
    names: dict[str, Any] = {"avslib": avslib, "torch": torch}
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert len(blocks) == 3
    exec(blocks[0] + blocks[1], names)
    by_onnxruntime = torch.from_numpy(names["logits"])
    exec(blocks[2], names)
    assert by_onnxruntime.shape == (1, 5, 1, 224, 224)
    torch.testing.assert_close(names["logits"], by_onnxruntime, rtol=0, atol=1e-4)
