"""Convert weights from the layouts of the published implementations to ours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import timm
import torch
from torch import Tensor, nn

from avslib._checks import check_one_of
from avslib.encoders import AudioSetHead, PCAQuantizer, VGGish, unwrap_state_dict
from avslib.fusion import TPAVI
from avslib.models.avsbench import AVSBenchBaseline
from avslib.models.base import AVSModel
from avslib.models.c3n import C3N
from avslib.models.ecmvae import ECMVAE
from avslib.models.layouts import LAYOUTS, rename

__all__ = ["MODEL_LAYOUTS", "build_from_reference", "from_reference", "left_out"]

MODEL_LAYOUTS = tuple(name for name in LAYOUTS if "-" in name)
"""The layouts of whole models; the others are layouts of parts."""

_ELSEWHERE = ("audio_encoder.", "audio_classifier.", "quantizer.", "consensus.")
"""Parts of our models whose weights were published in separate files, or not at all."""


def from_reference(name: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """Convert weights from a published layout.

    No weight is dropped silently. Each is converted, or is known by name to be unused (:func:`left_out` lists
    which and why). Unknown and missing weights are errors. Sizes may differ from the published ones
    (classes, fused levels, latent width, ...): they are read from the weights.

    Args:
        name: the layout: ``"tpavi"``, ``"vggish"``, ``"vggish_pca"``, ``"audioset_head"``, a backbone
            (``"pvt_v2_b5"``, ``"resnet50"``) or a model, such as ``"avsbench-resnet50"``; see ``LAYOUTS``.
        state_dict: mapping from names to tensors, as returned by ``torch.load(path, weights_only=True)``. A
            wrapper ``{"model": ...}``, ``{"state_dict": ...}`` or ``{"model_state_dict": ...}`` and the
            prefixes ``module.`` and ``_orig_mod.`` are removed.

    Returns:
        The same numbers under our names. A 1 x 1 x 1 convolution becomes the equivalent linear layer.
        Backbones get timm's names. Models come without the audio encoder, whose weights were published
        separately: :func:`build_from_reference` combines both.

    Raises:
        ValueError: if there is no such layout, or a weight is unknown, missing or of an impossible shape.

    Example:
        >>> published = {"pca_eigen_vectors": torch.eye(128), "pca_means": torch.zeros(128, 1)}
        >>> {key: tuple(value.shape) for key, value in from_reference("vggish_pca", published).items()}
        {'eigen_vectors': (128, 128), 'means': (128,)}
    """
    stored = unwrap_state_dict(state_dict)
    converted = {}
    unknown = []
    for key, value in stored.items():
        found = _rename(name, key)
        if found is None:
            unknown.append(key)
        elif found[1] is not None:
            converted[found[1]] = value
    if unknown:
        raise ValueError(
            f"state_dict: {len(unknown)} of {len(stored)} weights are not of the layout {name!r}, such as "
            f"{', '.join(unknown[:3])}"
        )
    return _shaped(name, converted)


def left_out(name: str, state_dict: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the published weights that :func:`from_reference` leaves out, grouped by reason.

    Example:
        >>> left_out("vggish", {"features.0.bias": torch.zeros(64), "pproc.pca_means": torch.zeros(128)})
        {'of the PCA post-processor: convert it as vggish_pca': ['pproc.pca_means']}
    """
    reasons = defaultdict(list)
    for key in unwrap_state_dict(state_dict):
        found = _rename(name, key)
        if found is not None and found[1] is None:
            reasons[found[0].reason].append(key)
    return dict(reasons)


def build_from_reference(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    vggish: Mapping[str, Any] | None = None,
    vggish_pca: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> AVSModel:
    """Build the model of a published checkpoint, with its weights.

    Args:
        name: the layout of a model, such as ``"ecmvae-pvt_v2_b5"``.
        state_dict: the checkpoint, see :func:`from_reference`.
        vggish: VGGish's published weights; None leaves the audio encoder with random weights.
        vggish_pca: the published constants of VGGish's post-processor, which only C3N uses.
        arguments: constructor arguments that the weights do not determine, such as ``attention``.

    Raises:
        ValueError: if ``name`` is not the layout of a model, ``vggish_pca`` is given for a model without a
            post-processor, or as for :func:`from_reference`.
    """
    check_one_of("name", name, MODEL_LAYOUTS)
    converted = from_reference(name, state_dict)
    model = _model(name, converted, arguments or {})
    missing, unexpected = model.load_state_dict(converted, strict=False)
    assert not unexpected
    assert all(key.startswith(_ELSEWHERE) for key in missing)
    if vggish is not None:
        assert model.audio_encoder is not None
        model.audio_encoder.network.load_state_dict(from_reference("vggish", vggish))
    if vggish_pca is not None:
        if not isinstance(model, C3N) or model.quantizer is None:
            raise ValueError(f"vggish_pca: expected None, {type(model).__name__} has no post-processor")
        model.quantizer.load_state_dict(from_reference("vggish_pca", vggish_pca))
    return model


_CLASSIFIERS = ("head.", "fc.")
"""Parts of a backbone that a segmentation model does not use, so that files may lack them."""


def _rename(name: str, key: str) -> Any:
    check_one_of("name", name, LAYOUTS)
    return rename(key, LAYOUTS[name])


def _shaped(name: str, converted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reshape every weight to fit its module; no weight may be missing."""
    try:
        with torch.device("meta"):
            wanted = _TARGETS[name](name, converted).state_dict()
    except KeyError as error:  # a weight that a size is read from
        raise ValueError(
            f"state_dict: {error.args[0]} (our name) is missing in the layout {name!r}"
        ) from error
    optional = _CLASSIFIERS if _TARGETS[name] is _backbone else _ELSEWHERE
    missing = [key for key in wanted if key not in converted and not key.startswith(optional)]
    if missing:
        raise ValueError(
            f"state_dict: {len(missing)} weights of the layout {name!r} are missing, such as "
            f"{', '.join(missing[:3])} (our names)"
        )
    shaped = {}
    for key, value in converted.items():
        if key not in wanted or value.squeeze().shape != wanted[key].squeeze().shape:
            expected = tuple(wanted[key].shape) if key in wanted else "no such weight"
            raise ValueError(f"state_dict: {key} (our name): expected {expected}, got {tuple(value.shape)}")
        shaped[key] = value.reshape(wanted[key].shape)
    return shaped


def _backbone(name: str, converted: Mapping[str, Tensor]) -> nn.Module:
    return timm.create_model(name)


def _tpavi(name: str, converted: Mapping[str, Tensor]) -> TPAVI:
    hidden, channels = converted["value.weight"].shape[:2]
    mode = (
        "concatenate" if "pair.weight" in converted else "dot" if "query.weight" in converted else "gaussian"
    )
    return TPAVI(
        channels,
        audio_channels=converted["align.weight"].shape[1] if "align.weight" in converted else None,
        hidden_channels=hidden,
        mode=mode,
        batch_norm="batch_norm.weight" in converted,
        audio_bias="align.bias" in converted,
    )


def _model(
    name: str, converted: Mapping[str, Tensor], arguments: Mapping[str, Any] = MappingProxyType({})
) -> AVSModel:
    """Return the model with the sizes that the weights have."""
    family, backbone = name.split("-")
    head = "prior.decoder." if family == "ecmvae" else "decoder."
    num_classes, channels = (
        converted[f"{head}classify.2.weight"].shape[0],
        converted[f"{head}reduce.weight"].shape[1],
    )
    if family == "avsbench":
        fused = [level for level in range(4) if f"fusion.{level}.value.weight" in converted]
        align = f"fusion.{fused[0]}.align." if fused else ""
        read = {
            "num_classes": num_classes,
            "channels": channels,
            "audio_channels": converted[align + "weight"].shape[1] if fused else 128,
            "fused_levels": fused,
            "window": 5,
            "audio_bias": not fused or align + "bias" in converted,
        }
        return AVSBenchBaseline(backbone, **{**read, **arguments})
    if family == "c3n":
        read = {"num_classes": num_classes, "channels": channels}
        return C3N(backbone, **{**read, **arguments})
    latent_dim, flat = converted["prior.encoders.visual.mean.weight"].shape
    read = {
        "num_classes": num_classes,
        "channels": channels,
        "latent_dim": latent_dim,
        "mutual_dim": converted["prior.information.mean.weight"].shape[0],
        "neck": "reduction" if "prior.neck.0.1.running_mean" in converted else "dilated",
        "grid": round((flat / channels) ** 0.5),
    }
    return ECMVAE(backbone, **{**read, **arguments})


_TARGETS: dict[str, Callable[[str, Mapping[str, Tensor]], nn.Module]] = {
    "tpavi": _tpavi,
    "vggish": lambda name, converted: VGGish(embedding_dim=converted["embeddings.4.bias"].shape[0]),
    "vggish_pca": lambda name, converted: PCAQuantizer(),
    "audioset_head": lambda name, converted: AudioSetHead(
        in_channels=converted["layers.0.0.weight"].shape[1],
        hidden_channels=converted["classify.weight"].shape[1],
        num_classes=converted["classify.weight"].shape[0],
    ),
    "pvt_v2_b5": _backbone,
    "resnet50": _backbone,
} | dict.fromkeys(MODEL_LAYOUTS, _model)
