"""The names of weights in the published implementations, and our names for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

_UNUSED = "built but never used by the published code"


class Rule(NamedTuple):
    """A pattern of published names, and our name for the weights that match it."""

    theirs: str
    """Regular expression that the whole published name must match."""
    ours: str | Callable[[re.Match[str]], str] | None
    """Our name, as a replacement for :func:`re.sub`; None leaves the weight out."""
    reason: str = ""
    """Why the weight is left out."""


def rename(key: str, rules: tuple[Rule, ...]) -> tuple[Rule, str | None] | None:
    """Return the first rule that matches the key, and our name for it; None if no rule matches."""
    for rule in rules:
        match = re.fullmatch(rule.theirs, key)
        if match:
            if rule.ours is None:
                return rule, None
            return rule, rule.ours(match) if callable(rule.ours) else match.expand(rule.ours)
    return None


def _below(theirs: str, ours: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the same rules for a module that is part of another one: both names get a prefix."""

    def place(rule: Rule) -> Rule:
        if rule.ours is None:
            return Rule(theirs + rule.theirs, None, rule.reason)
        inner = rule.ours

        def target(match: re.Match[str]) -> str:
            return ours + (inner(match) if callable(inner) else match.expand(inner))

        return Rule(theirs + rule.theirs, target)

    return tuple(place(rule) for rule in rules)


def _level(theirs: str, ours: str, shift: int, rules: Mapping[str, str]) -> tuple[Rule, ...]:
    """Return rules for numbered modules: published number k is our level ``k + shift``, or ``shift - k``.

    ``theirs`` has the number as its first group, ``ours`` has ``{}`` instead; the rest of the name is looked
    up in ``rules``. A positive ``shift`` counts down (``shift - k``).
    """

    def place(inner: str, target: str) -> Rule:
        def name(match: re.Match[str]) -> str:
            number = int(match[1])
            level = number + shift if shift <= 0 else shift - number
            return ours.format(level) + match.expand(target)

        return Rule(theirs + inner, name)

    return tuple(place(inner, target) for inner, target in rules.items())


TPAVI = (
    Rule(r"align_channel\.(weight|bias)", r"align.\1"),
    Rule(r"theta\.(weight|bias)", r"query.\1"),
    Rule(r"phi\.(weight|bias)", r"key.\1"),
    Rule(r"g\.(weight|bias)", r"value.\1"),
    Rule(r"W_f\.0\.(weight|bias)", r"pair.\1"),
    Rule(r"W_z(?:\.0)?\.(weight|bias)", r"out.\1"),
    Rule(r"W_z\.1\.(\w+)", r"batch_norm.\1"),
    Rule(r"norm_layer\.(weight|bias)", r"layer_norm.\1"),
)

_PCA = (
    Rule(r"(?:pproc\.)?pca_eigen_vectors", "eigen_vectors"),
    Rule(r"(?:pproc\.)?pca_means", "means"),
)
VGGISH = (
    Rule(r"((?:features|embeddings)\..+)", r"\1"),
    Rule(r"pproc\..+", None, "of the PCA post-processor: convert it as vggish_pca"),
)
AUDIOSET_HEAD = (
    Rule(r"emb\.bn0\.(\w+)", r"input_norm.\1"),
    *_level(r"emb\.conv(\d)\.", "layers.{}.0.", -1, {r"(weight)": r"\2"}),
    *_level(r"emb\.bn(\d)\.", "layers.{}.1.", -1, {r"(\w+)": r"\2"}),
    Rule(r"attention\.att\.(\w+)", r"attention.\1"),
    Rule(r"attention\.cla\.(\w+)", r"value.\1"),
    Rule(r"bn_attention\.(\w+)", r"output_norm.\1"),
    Rule(r"fc_final\.(\w+)", r"classify.\1"),
)
VGGISH_PCA = (*_PCA, Rule(r"(?:features|embeddings)\..+", None, "of the network: convert it as vggish"))


def _pvt_v2(stage: str) -> tuple[Rule, ...]:
    """Return the rules of PVT v2; timm names its stages ``stages.{}``, or ``stages_{}`` for features only."""

    def count(rest: str) -> Callable[[re.Match[str]], str]:
        return lambda match: stage.format(int(match[1]) - 1) + match.expand(rest)

    return (
        Rule(r"patch_embed1\.(.+)", r"patch_embed.\1"),
        Rule(r"patch_embed(\d)\.(.+)", count(r".downsample.\2")),
        Rule(r"block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)", count(r".blocks.\2.mlp.dwconv.\3")),
        Rule(r"block(\d)\.(\d+)\.(.+)", count(r".blocks.\2.\3")),
        Rule(r"norm(\d)\.(.+)", count(r".norm.\2")),
    )


_PVT_HEAD = Rule(r"(head\.(?:weight|bias))", r"\1")
_NO_HEAD = "of the classifier, which a backbone for segmentation does not have"
PVT_V2 = (*_pvt_v2("stages.{}"), _PVT_HEAD)
RESNET = (
    Rule(r"layer([34])_1\.(.+)", r"layer\1.\2"),
    Rule(r"layer([34])_2\..+", None, f"a second copy of the stage, {_UNUSED}"),
    Rule(r"((?:conv1|bn1|layer\d)\..+)", r"\1"),
    Rule(r"fc\..+", None, _NO_HEAD),
)
_BACKBONES = {
    "pvt_v2_b5": (*_pvt_v2("stages_{}"), Rule(r"head\..+", None, _NO_HEAD)),
    "resnet50": RESNET,
}

_TOP_DOWN = (
    Rule(r"path4\.resConfUnit1\..+", None, _UNUSED),
    *_level(r"path(\d)\.resConfUnit1\.", "decoder.lateral.{}.", -1, {r"(conv\d\.\w+)": r"\2"}),
    *_level(r"path(\d)\.resConfUnit2\.", "decoder.refine.{}.", -1, {r"(conv\d\.\w+)": r"\2"}),
    Rule(r"output_conv\.0\.(\w+)", r"decoder.reduce.\1"),
    Rule(r"output_conv\.2\.(\w+)", r"decoder.classify.0.\1"),
    Rule(r"output_conv\.4\.(\w+)", r"decoder.classify.2.\1"),
)


def _fusion(theirs: str) -> tuple[Rule, ...]:
    """Return the rules of TPAVI at four levels, which the published code counts from 1."""
    return tuple(
        rule for level in range(4) for rule in _below(theirs.format(level + 1), f"fusion.{level}.", TPAVI)
    )


def _avsbench(backbone: str) -> tuple[Rule, ...]:
    prefix = r"resnet\." if backbone.startswith("resnet") else r"encoder_backbone\."
    return (
        *_below(prefix, "visual_encoder.backbone.", _BACKBONES[backbone]),
        *_level(r"conv(\d)\.", "neck.{}.", -1, {r"conv2d_list\.(\d)\.(\w+)": r"\2.\3"}),
        *_fusion(r"tpavi_b{}\."),
        *_TOP_DOWN,
    )


_C3N = (
    *_below(r"encoder_backbone\.", "visual_encoder.backbone.", PVT_V2),
    *_level(
        r"conv(\d)\.",
        "neck.{}.",
        -1,
        {
            r"conv\.(\w+)": r"mean.\2",
            r"atrous_block1\.(\w+)": r"pixel.\2",
            r"atrous_block6\.(\w+)": r"dilated.0.\2",
            r"atrous_block12\.(\w+)": r"dilated.1.\2",
            r"atrous_block18\.(\w+)": r"dilated.2.\2",
            r"conv_1x1_output\.(\w+)": r"project.\2",
        },
    ),
    *_fusion(r"tpavi_{}\."),
    *_TOP_DOWN,
)

_GAUSSIAN_ENCODER = (
    *_level(r"layer(\d)\.", "convolutions.{}.0.", -1, {r"(\w+)": r"\2"}),
    *_level(r"bn(\d)\.", "convolutions.{}.1.", -1, {r"(\w+)": r"\2"}),
    Rule(r"fc1\.(\w+)", r"mean.\1"),
    Rule(r"fc2\.(\w+)", r"log_variance.\1"),
    Rule(r"fc_gt_vector\.(\w+)", r"summary.\1"),
)
_UNIT = {
    rf"ConvBNReLU{i}\.{theirs}\.(\w+)": rf"{ours}{i}.\2"
    for i in (1, 2)
    for theirs, ours in (("conv", "conv"), ("norm", "batch_norm"))
}


def _ecmvae_side(theirs: str, long: str, suffix: str, ours: str) -> tuple[Rule, ...]:
    decoder = rf"decoder_{theirs}\."
    return (
        *_level(
            rf"neck_{theirs}\.conv_list\.(\d)\.",
            f"{ours}.neck.{{}}.",
            0,
            {
                rf"reduce\.{i}\.{name}\.(\w+)": rf"{2 * i + j}.\2"
                for i in range(3)
                for j, name in enumerate(("conv", "norm"))
            }
            | {r"conv2d_list\.(\d)\.conv\.(\w+)": r"\2.\3"},
        ),
        Rule(decoder + r"fusion_block_1\.resConfUnit1\..+", None, _UNUSED),
        *_level(decoder + r"fusion_block_(\d)\.resConfUnit1\.", f"{ours}.decoder.lateral.{{}}.", 4, _UNIT),
        *_level(decoder + r"fusion_block_(\d)\.resConfUnit2\.", f"{ours}.decoder.refine.{{}}.", 4, _UNIT),
        Rule(decoder + r"head_up_2\.output_conv\.0\.(\w+)", rf"{ours}.decoder.reduce.\1"),
        Rule(decoder + r"head_up_2\.output_conv\.2\.(\w+)", rf"{ours}.decoder.classify.0.\1"),
        Rule(decoder + r"head_up_2\.output_conv\.4\.(\w+)", rf"{ours}.decoder.classify.2.\1"),
        *(
            rule
            for name, factor in (("vs", "visual"), ("as", "audio"), ("vac", "shared"))
            for rule in _below(
                rf"mm_vae_model\.enc_{name}{suffix}\.", f"{ours}.encoders.{factor}.", _GAUSSIAN_ENCODER
            )
        ),
        Rule(rf"mm_vae_model\.sc1_{long}\.(\w+)", rf"{ours}.join_visual.\1"),
        Rule(rf"mm_vae_model\.sc2_{long}\.(\w+)", rf"{ours}.join_audio.\1"),
        Rule(rf"mm_vae_model\.noise_model_{theirs}\.noise_conv\.(\w+)", rf"{ours}.inject.conv.\1"),
        Rule(rf"mm_vae_model\.ba_lower_bound_mu_{theirs}\.(\w+)", rf"{ours}.information.mean.\1"),
        Rule(rf"mm_vae_model\.ba_lower_bound_logvar_{theirs}\.(\w+)", rf"{ours}.information.log_variance.\1"),
        Rule(rf"mm_vae_model\.ba_lower_bound_sc_a_{theirs}\.(\w+)", rf"{ours}.information.other.\1"),
    )


def _ecmvae(backbone: str) -> tuple[Rule, ...]:
    return (
        *_below(r"encoder\.", "visual_encoder.backbone.", _BACKBONES[backbone]),
        Rule(r"audio_neck\.(?:weight|bias)", None, _UNUSED),
        *(
            rule
            for level in range(4)
            for rule in _below(rf"fusion_modules\.{level}\.", f"fusion.{level}.", TPAVI)
        ),
        *_ecmvae_side("prior", "prior", "", "prior"),
        *_ecmvae_side("post", "posterior", "_y", "posterior"),
    )


LAYOUTS: dict[str, tuple[Rule, ...]] = {
    "tpavi": TPAVI,
    "vggish": VGGISH,
    "vggish_pca": VGGISH_PCA,
    "audioset_head": AUDIOSET_HEAD,
    "pvt_v2_b5": PVT_V2,
    "resnet50": RESNET,
    "avsbench-resnet50": _avsbench("resnet50"),
    "avsbench-pvt_v2_b5": _avsbench("pvt_v2_b5"),
    "ecmvae-resnet50": _ecmvae("resnet50"),
    "ecmvae-pvt_v2_b5": _ecmvae("pvt_v2_b5"),
    "c3n-pvt_v2_b5": _C3N,
}
"""The published layouts that :func:`~avslib.models.weights.from_reference` knows, by name."""
