"""Every weight of every published layout is converted, or left out for a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avslib.encoders import AudioSetHead, PCAQuantizer, VGGish, VisualEncoder
from avslib.fusion import TPAVI
from avslib.models import C3N, AVSBenchBaseline
from avslib.models.layouts import LAYOUTS
from avslib.models.weights import build_from_reference, from_reference, left_out
from tests import _golden

NAMES = json.loads((_golden.ROOT / "F_name_maps.json").read_text())
TABLES = {
    "avsbench_avss_r50_tpavi0123.json": "avsbench-resnet50",
    "avsbench_pvt_notpavi.json.gz": "avsbench-pvt_v2_b5",
    "avsbench_pvt_tpavi0123.json": "avsbench-pvt_v2_b5",
    "avsbench_pvt_tpavi23.json.gz": "avsbench-pvt_v2_b5",
    "avsbench_r50_notpavi.json.gz": "avsbench-resnet50",
    "avsbench_r50_tpavi0123.json": "avsbench-resnet50",
    "avsbench_r50_tpavi23.json.gz": "avsbench-resnet50",
    "c3n_pvt.json": "c3n-pvt_v2_b5",
    "ecmvae_pvt_224.json": "ecmvae-pvt_v2_b5",
    "ecmvae_pvt_img64.json.gz": "ecmvae-pvt_v2_b5",
    "ecmvae_pvt_img64_aspp_latent8.json.gz": "ecmvae-pvt_v2_b5",
    "ecmvae_r50_224.json": "ecmvae-resnet50",
    "ecmvae_r50_img64.json.gz": "ecmvae-resnet50",
    "ecmvae_r50_img64_aspp_latent8.json.gz": "ecmvae-resnet50",
    "vggish.json": "vggish",
    "vggish_pca_postprocessor.json": "vggish_pca",
    "vggish_with_pca.json": "vggish",
}


def numbered(table: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that tell which they are: filled with their place in the table, in no memory to speak of."""
    return {key: torch.tensor(float(i)).expand(shape) for i, (key, shape) in enumerate(table.items())}


def test_no_table_is_forgotten() -> None:
    assert {path.name for path in (_golden.ROOT / "state_dicts").iterdir()} == TABLES.keys()


@pytest.mark.parametrize("table", TABLES)
def test_every_weight_is_used_or_explained(table: str) -> None:
    name, published = TABLES[table], numbered(_golden.table(table))
    converted = from_reference(name, published)
    unused = [key for keys in left_out(name, published).values() for key in keys]
    assert all(left_out(name, published))
    used = sorted(value.flatten()[0].item() for value in converted.values())
    rest = sorted(published[key].flatten()[0].item() for key in unused)
    assert sorted(used + rest) == [float(i) for i in range(len(published))]
    assert all(
        value.numel() == published[list(published)[int(value.flatten()[0])]].numel()
        for value in converted.values()
    )


@pytest.mark.parametrize("name", _golden.names("A_tpavi_"))
def test_every_tpavi(name: str) -> None:
    published = numbered(_golden.table(name))
    converted = from_reference("tpavi", published)
    assert len(converted) == len(published)


def test_the_audio_classifier() -> None:
    published = numbered(_golden.table("B_c3n_audio_class_head"))
    converted = from_reference("audioset_head", published)
    head = AudioSetHead()
    assert len(converted) == len(published)
    head.load_state_dict(converted)


@pytest.mark.parametrize("backbone", ["pvt_v2_b5", "resnet50"])
def test_backbones_get_the_names_of_timm(backbone: str, tmp_path: Path) -> None:
    table = dict(NAMES[backbone]["table"])
    name = "avsbench_pvt_tpavi0123.json" if backbone == "pvt_v2_b5" else "avsbench_r50_tpavi0123.json"
    prefix = "encoder_backbone." if backbone == "pvt_v2_b5" else "resnet."
    published = {
        key.removeprefix(prefix): value
        for key, value in numbered(_golden.table(name)).items()
        if key.startswith(prefix)
    }
    assert published.keys() <= table.keys()
    converted = from_reference(backbone, published)
    expected = {table[key]: value for key, value in published.items() if table[key] is not None}
    assert converted.keys() == expected.keys()
    for key, value in converted.items():
        assert torch.equal(value, expected[key])
    torch.save({key: value.clone() for key, value in converted.items()}, tmp_path / "backbone.pth")
    VisualEncoder(backbone, weights=tmp_path / "backbone.pth")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights},
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {f"module.{key}": value for key, value in weights.items()},
        lambda weights: {f"module._orig_mod.{key}": value for key, value in weights.items()},
        lambda weights: {"model": {f"module.module.{key}": value for key, value in weights.items()}},
    ],
)
def test_wrappers_come_off(wrap: Any) -> None:
    published = numbered(_golden.table("vggish.json"))
    assert from_reference("vggish", wrap(published)).keys() == from_reference("vggish", published).keys()


def test_the_constants_of_the_post_processor_may_lie_beside_the_network() -> None:
    both = numbered(_golden.table("vggish_with_pca.json"))
    assert from_reference("vggish_pca", both).keys() == PCAQuantizer().state_dict().keys()
    assert from_reference("vggish", both).keys() == VGGish().state_dict().keys()
    flat = {"pca_eigen_vectors": torch.eye(128), "pca_means": torch.ones(128)}
    assert from_reference("vggish_pca", flat)["means"].shape == (128,)


def test_what_does_not_fit_is_named() -> None:
    published = numbered(_golden.table("avsbench_r50_tpavi0123.json"))
    with pytest.raises(
        ValueError, match=r"1 of 631 weights are not of the layout 'avsbench-resnet50', such as extra"
    ):
        from_reference("avsbench-resnet50", {**published, "extra.weight": torch.ones(1)})
    without = {key: value for key, value in published.items() if key != "path2.resConfUnit1.conv1.bias"}
    with pytest.raises(
        ValueError, match=r"1 weights .* are missing, such as decoder\.lateral\.1\.conv1\.bias"
    ):
        from_reference("avsbench-resnet50", without)
    short = {key: value for key, value in published.items() if not key.startswith("output_conv")}
    with pytest.raises(ValueError, match=r"decoder\.classify\.2\.weight \(our name\) is missing"):
        from_reference("avsbench-resnet50", short)
    wrong = {**published, "tpavi_b1.theta.bias": torch.ones(7)}
    with pytest.raises(
        ValueError, match=r"fusion\.0\.query\.bias \(our name\): expected \(128,\), got \(7,\)"
    ):
        from_reference("avsbench-resnet50", wrong)
    with pytest.raises(ValueError, match="are not of the layout 'ecmvae-resnet50'"):
        from_reference("ecmvae-resnet50", published)
    with pytest.raises(ValueError, match=r"name: expected one of 'tpavi', .*, got 'avsbench'"):
        from_reference("avsbench", published)
    with pytest.raises(ValueError, match="state_dict: expected names and tensors, got 'epoch': int"):
        from_reference("vggish", {"epoch": 3})
    with pytest.raises(ValueError, match="state_dict: expected names and tensors, got nothing"):
        from_reference("vggish", {})


def test_sizes_are_read_off_the_weights() -> None:
    fused = build_from_reference(
        "avsbench-resnet50",
        numbered(_golden.table("avsbench_r50_tpavi23.json.gz")),
        arguments={"attention": ("audio", "visual")},
    )
    assert isinstance(fused, AVSBenchBaseline)
    assert [isinstance(level, TPAVI) for level in fused.fusion] == [False, False, True, True]
    assert fused.fusion.attention == ("visual", "audio")
    assert (
        build_from_reference(
            "avsbench-resnet50", numbered(_golden.table("avsbench_avss_r50_tpavi0123.json"))
        ).num_classes
        == 71
    )


def test_a_model_with_its_audio_encoder() -> None:
    sound = numbered(_golden.table("vggish_with_pca.json"))
    model = build_from_reference(
        "c3n-pvt_v2_b5", numbered(_golden.table("c3n_pvt.json")), vggish=sound, vggish_pca=sound
    )
    assert isinstance(model, C3N)
    assert model.quantizer is not None
    assert model.audio_encoder is not None
    place = list(sound).index("pproc.pca_means")
    assert model.quantizer.means.tolist() == [place] * 128
    assert model.audio_encoder.state_dict()["network.embeddings.4.bias"][0] == list(sound).index(
        "embeddings.4.bias"
    )
    with pytest.raises(ValueError, match="vggish_pca: expected None, AVSBenchBaseline has no post-processor"):
        build_from_reference(
            "avsbench-resnet50", numbered(_golden.table("avsbench_r50_tpavi0123.json")), vggish_pca=sound
        )
    with pytest.raises(ValueError, match="name: expected one of 'avsbench-resnet50'"):
        build_from_reference("vggish", sound)


def test_the_layouts_of_the_docs() -> None:
    assert set(LAYOUTS) == {"pvt_v2_b5", "resnet50", "tpavi", "audioset_head", *TABLES.values()}
