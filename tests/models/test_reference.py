"""Whole models against the numbers of the published implementations, through the converted weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from avslib.latent import jensen_shannon_surrogate, kl_divergence
from avslib.losses import AudioVisualMatching, binary_cross_entropy, difference_loss
from avslib.models import C3N, ECMVAE, AVSBenchBaseline, AVSModel, FactorTerms, MatchingTerms
from avslib.models.ecmvae import Factors
from avslib.models.layouts import LAYOUTS, rename
from avslib.models.weights import build_from_reference
from tests import _golden


def layout(name: str) -> str:
    family = {"E_avsbench": "avsbench", "E_avss": "avsbench", "E_ecmvae": "ecmvae", "E_c3n": "c3n"}
    backbone = "pvt_v2_b5" if "_pvt" in name else "resnet50"
    return f"{family['_'.join(name.split('_')[:2])]}-{backbone}"


def build(name: str) -> AVSModel:
    model = build_from_reference(layout(name), _golden.reference_weights(name))
    return model.train(_golden.case(name)["mode"].startswith("train"))


def clip(name: str, t: int = 5) -> dict[str, Tensor]:
    """The inputs of a case with the seconds of a clip on an axis of their own."""
    loaded = {key: torch.from_numpy(value) for key, value in _golden.inputs(name).items()}
    return {
        key: value if key == "similarity_matrix" else rearrange(value, "(b t) ... -> b t ...", t=t)
        for key, value in loaded.items()
    }


class Stages:
    """What modules returned, in float64, by their names in the reference."""

    def __init__(self) -> None:
        self.tensors: dict[str, list[Tensor]] = {}

    def watch(self, name: str, module: nn.Module, take: Any = lambda output: output) -> None:
        def remember(_: nn.Module, __: Any, output: Any) -> None:
            self.tensors.setdefault(name, []).append(take(output).detach())

        module.register_forward_hook(remember)

    def assert_match(self, name: str) -> int:
        """Compare every stage that was seen; return how many there were."""
        seen = 0
        counts: dict[str, int] = {}
        for row, stage in enumerate(_golden.case(name)["stage_names"]):
            index = counts.get(stage, 0)
            counts[stage] = index + 1
            if stage not in self.tensors:
                continue
            x = self.tensors[stage][index].contiguous().flatten()
            picked = x[torch.from_numpy(np.linspace(0, len(x) - 1, 64).astype(np.int64))]
            found = {
                "stage_probe": picked,
                "stage_stats": torch.stack([x.mean(), x.std(correction=0), x.min(), x.max()]),
            }
            for output, value in found.items():
                entry = next(o for o in _golden.case(name)["outputs"] if o["key"] == f"out.{output}")
                expected = _golden.arrays(name)[entry["key"]][row]
                np.testing.assert_allclose(value, expected, rtol=entry["rtol"], atol=entry["atol"])
            seen += 1
        return seen


def assert_output(name: str, output: str, actual: Tensor) -> None:
    shape = next(o for o in _golden.case(name)["outputs"] if o["key"] == f"out.{output}")["shape"]
    _golden.assert_matches(name, f"out.{output}", actual.reshape(shape))


def assert_logits(name: str, logits: Tensor, output: str = "logits") -> None:
    logits = logits.flatten(0, 1)
    for entry in _golden.case(name)["outputs"]:
        if entry["key"] == f"out.{output}":
            assert_output(name, output, logits)
        elif entry["key"] == f"out.{output}_stride4":
            assert_output(name, f"{output}_stride4", logits[..., ::4, ::4])


def assert_gradients(name: str, model: nn.Module) -> None:
    """The norm of the gradient of every published parameter; those without one are those we left out."""
    rules = LAYOUTS[layout(name)]
    gradients = {key: p.grad for key, p in model.named_parameters()}
    stored = _golden.arrays(name)
    entry = next(o for o in _golden.case(name)["outputs"] if o["key"] == "out.grad_norms")
    compared = set()
    for theirs, norm in zip(stored["out.grad_norm_names"], stored["out.grad_norms"], strict=True):
        found = rename(str(theirs), rules)
        assert found is not None
        assert found[1] is not None, f"{theirs} is trained there and left out here"
        gradient = gradients[found[1]]
        assert gradient is not None, found[1]
        np.testing.assert_allclose(
            gradient.norm(), norm, rtol=entry["rtol"], atol=entry["atol"], err_msg=found[1]
        )
        compared.add(found[1])
    trained = {key for key, gradient in gradients.items() if gradient is not None}
    assert trained == compared


@pytest.mark.parametrize("name", _golden.names("E_avsbench_pvt_") + _golden.names("E_avsbench_r50_"))
def test_avsbench(name: str) -> None:
    model, inputs = build(name), clip(name)
    assert isinstance(model, AVSBenchBaseline)
    stages = Stages()
    for level in range(4):
        stages.watch(f"conv{level + 1}", model.neck[level])
        if not isinstance(model.fusion[level], nn.Identity) and len(model.fusion.attention) == 1:
            stages.watch(
                f"tpavi_b{level + 1}.z[B,C,T,H,W]",
                model.fusion[level],
                lambda output: rearrange(output[0], "b t c h w -> b c t h w"),
            )
    both = _golden.case(name)["constructor"]["tpavi_vv_flag"]
    if both:
        model.fusion.attention = ("visual", "audio")
    with torch.set_grad_enabled(model.training):
        output = model.segment(inputs["frames"], inputs["audio"])
    assert_logits(name, output.logits)
    assert stages.assert_match(name) >= 4
    if "notpavi" in name:
        assert output.terms is None
        return
    assert isinstance(output.terms, MatchingTerms)
    levels = _golden.case(name)["constructor"]["tpavi_stages"]
    for level, aligned in zip(levels, output.terms.audio, strict=True):
        if f"out.a_fea{level}" in _golden.arrays(name):
            assert_output(name, f"a_fea{level}", aligned)
    returned = Stages()
    returned.tensors = {
        f"returned_feature_map{level}": [features.flatten(0, 1).detach()]
        for level, features in zip(levels, output.terms.features, strict=True)
    }
    assert returned.assert_match(name) == len(levels)
    if model.training:
        masks = inputs["mask"].squeeze(2).long()
        segmentation = binary_cross_entropy(output.logits, masks)
        matching = AudioVisualMatching()(output.logits, *output.terms)
        loss = segmentation + 0.5 * matching
        assert_output(name, "iou_loss", segmentation)
        assert_output(name, "sa_loss", matching)
        assert_output(name, "loss", loss)
        loss.backward()
        assert_gradients(name, model)


def test_avsbench_semantic() -> None:
    name = "E_avss_r50_32"
    model, inputs = build(name), clip(name, t=10)
    with torch.no_grad():
        output = model.segment(inputs["frames"], inputs["audio"], valid=inputs["flag"].bool())
        output = output.without_padding(inputs["flag"].bool())
    assert_logits(name, output.logits)
    assert (
        output.logits.argmax(2).flatten(0, 1).numpy() == _golden.arrays(name)["out.argmax"]
    ).mean() > 0.9999
    assert isinstance(output.terms, MatchingTerms)
    for level, aligned in enumerate(output.terms.audio):
        assert_output(name, f"a_fea{level}", aligned)


@pytest.mark.parametrize("name", [name for name in _golden.names("E_ecmvae_") if "train" not in name])
def test_ecmvae(name: str) -> None:
    model, inputs = build(name), clip(name)
    assert isinstance(model, ECMVAE)
    stages = Stages()
    for level in range(4):
        stages.watch(f"neck_prior{level}", model.prior.neck[level])
        stages.watch(f"fusion{level}.z", model.fusion[level], lambda output: output[0].flatten(0, 1))
    stages.watch("noise_conv_prior", model.prior.inject.conv)
    with torch.no_grad():
        factors = model.prior.distributions(inputs["frames"], inputs["audio"])
        codes = Factors(
            *(
                gaussian.sample(noise=inputs.get(f"eps_{key}", torch.zeros_like(gaussian.mean)))
                for key, gaussian in zip(("z_prior_vs", "z_prior_as", "z_prior_vac"), factors, strict=True)
            )
        )
        levels = model.prior.neck(model.visual_encoder(inputs["frames"].flatten(0, 1)))
        logits, _ = model.decode(levels, inputs["frames"], inputs["audio"], codes)
    for key, code in zip(("z_prior_vs", "z_prior_as", "z_prior_vac"), codes, strict=True):
        assert_output(name, key, code)
    assert_logits(name, logits)
    assert stages.assert_match(name) == 9


@pytest.mark.parametrize("name", [name for name in _golden.names("E_ecmvae_") if "train" in name])
def test_ecmvae_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build(name), clip(name)
    masks = inputs["mask"].squeeze(2).long()
    monkeypatch.setattr(torch, "randn", lambda *size, generator=None, **kwargs: torch.zeros(*size, **kwargs))
    output = model.segment(inputs["frames"], inputs["audio"], masks)
    terms = output.terms
    assert isinstance(terms, FactorTerms)
    assert_logits(name, output.logits, "logits_prior")
    assert_logits(name, terms.posterior_logits, "logits_post")
    kl = (
        sum(kl_divergence(*pair, published_scale=True).mean() for pair in (terms.visual, terms.audio))
        + jensen_shannon_surrogate(
            terms.shared.prior,
            terms.shared.posterior,
            noise=(inputs["eps_js_prior"].flatten(0, 1), inputs["eps_js_post"].flatten(0, 1)),
        ).mean()
    )
    difference = sum(
        difference_loss(*pair) for pair in zip(terms.specific_codes, terms.shared_codes, strict=True)
    )
    assert_output(name, "kl_loss", kl)
    assert_output(name, "mi_loss", terms.mutual_information)
    assert_output(name, "diff_loss", difference)
    total = 0.01 * kl + 0.001 * terms.mutual_information + 0.001 * difference
    total = (
        total
        + binary_cross_entropy(output.logits, masks)
        + binary_cross_entropy(terms.posterior_logits, masks)
    )
    assert_output(name, "total_for_gradient", total)
    total.backward()
    assert_gradients(name, model)


@pytest.mark.parametrize("name", _golden.names("E_c3n_pvt_"))
def test_c3n(name: str) -> None:
    model, inputs = build(name), clip(name)
    assert isinstance(model, C3N)
    model.consensus.set_similarity(inputs["similarity_matrix"])
    stages = Stages()
    for level in range(4):
        stages.watch(f"conv{level + 1} (ASPP)", model.neck[level])
        stages.watch(
            f"tpavi_{level + 1}.z[B,C,T,H,W]",
            model.fusion[level],
            lambda output: rearrange(output[0], "b t c h w -> b c t h w"),
        )
    with torch.no_grad():
        output = model.segment_with_scores(inputs["frames"], inputs["audio"], inputs["audio_cls"])
    assert_logits(name, output.logits)
    assert stages.assert_match(name) == 8
    assert all(p.grad is None for p in model.parameters())
