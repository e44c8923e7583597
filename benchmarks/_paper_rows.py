"""The rows of the paper's tables and additional controls: the model of each row, and its objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor

from avslib.latent import cosine_ddim
from avslib.losses import InfoNCE
from avslib.models import AVSModel, DiffusionAVS, Segmentation, create_model
from avslib.training import (
    CLASSES,
    AVSBenchObjective,
    C3NObjective,
    CVAEObjective,
    DiffusionAVSObjective,
    ECMVAEObjective,
    SegmentationObjective,
)
from avslib.training.trainer import Objective


class Regressor(DiffusionAVS):
    """The same network without diffusion: the noise estimator predicts the latent from the condition.

    It has every parameter that DiffusionAVS uses in inference, and runs the estimator once instead of ten
    times. An advantage of DiffusionAVS over it therefore does not come from capacity.
    """

    stochastic: ClassVar[bool] = False

    def segment(
        self,
        frames: Tensor,
        audio: Tensor | None,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment frames with the regressed latent; see :meth:`AVSModel.forward`."""
        assert audio is not None
        encoded = self.encode(frames, audio, valid)
        condition = encoded.condition
        level = torch.zeros(condition.shape[:-1], device=condition.device)
        latent = self.diffusion.denoiser(torch.zeros_like(condition), level, condition)
        size = (frames.shape[-2], frames.shape[-1])
        return Segmentation(self.decode(encoded.pyramid, latent, size=size))


def _diffusion(weight: float = 0.1, *, error: str = "noise", **loss: bool) -> Callable[[], Objective]:
    return lambda: DiffusionAVSObjective(
        contrastive_weight=weight, contrastive=InfoNCE(**loss), diffusion=error
    )


@dataclass(frozen=True)
class Row:
    """One configuration to train: the arguments of the model's constructor, and the objective."""

    title: str
    objective: Callable[[], Objective]
    family: str = "diffusion_avs"
    regressed: bool = False
    """Whether the model is a :class:`Regressor`, built with the arguments of the family's preset."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    shuffled: bool = False
    """Whether it is trained with the sound of other clips, so that hearing cannot help it."""
    silent: bool = False
    """Whether it is trained and tested without sound, so that nothing tells which objects are heard."""
    begins_as: str | None = None
    """The row whose trained weights it starts from."""
    begins_in: str | None = None
    """The setting in which that row was trained; None for the same setting."""

    @property
    def diffuses(self) -> bool:
        """Whether the model draws its latent by diffusion."""
        return self.family == "diffusion_avs" and not self.regressed

    @property
    def hears(self) -> bool:
        """Whether the model is given sound."""
        return not self.family.startswith("audio_blind")

    def build(self, **sizes: Any) -> AVSModel:
        """Build the model; ``sizes`` come from the budget."""
        arguments = {key: make() if callable(make) else make for key, make in self.arguments.items()}
        variant = sizes.pop("variant")
        if not self.hears:
            sizes.pop("audio_encoder", None)
        model = create_model(f"{self.family}.{variant}", **sizes, **arguments)
        if not self.regressed:
            return model
        regressor = Regressor(**{**cast("dict[str, Any]", model._hub_mixin_config), **arguments})
        regressor.load_state_dict(model.state_dict())  # starts from the same weights as the original
        return regressor


ROWS: dict[str, Row] = {
    "e_d": Row("E-D", SegmentationObjective, "encoder_decoder"),
    "cvae": Row("CVAE", CVAEObjective, "cvae"),
    "ldm": Row("LDM, audio-visual condition", _diffusion(0.0)),
    "ldm_none": Row("LDM, no condition", _diffusion(0.0), arguments={"condition": "none"}),
    "ldm_audio": Row("LDM, audio condition", _diffusion(0.0), arguments={"condition": "audio"}),
    "ldm_visual": Row("LDM, visual condition", _diffusion(0.0), arguments={"condition": "visual"}),
    "full": Row("LDM with contrastive loss", _diffusion()),
    "full_from_s4": Row("the full model, pre-trained on S4", _diffusion(), begins_as="full", begins_in="s4"),
    "full_twice": Row("the full model, trained twice", _diffusion(), begins_as="full"),
    "regressor": Row("the same network without diffusion", SegmentationObjective, regressed=True),
    "shuffled": Row("LDM, trained with other clips' sound", _diffusion(0.0), shuffled=True),
    "d8": Row("D = 8", _diffusion(), arguments={"latent_dim": 8}),
    "d16": Row("D = 16", _diffusion(), arguments={"latent_dim": 16}),
    "d32": Row("D = 32", _diffusion(), arguments={"latent_dim": 32}),
    "from_truth": Row("decodes z0", _diffusion(), arguments={"decode_from": "ground_truth"}),
    "from_noised": Row("decodes z0 with noise", _diffusion(), arguments={"decode_from": "noised"}),
    "from_one_step": Row(
        "decodes the one-step estimate", _diffusion(), arguments={"decode_from": "one_step"}
    ),
    "from_sampled": Row("decodes samples", _diffusion(), arguments={"decode_from": "sampled"}),
    "from_half": Row(
        "decodes z0 and samples alike",
        _diffusion(),
        arguments={"decode_from": {"ground_truth": 0.5, "sampled": 0.5}},
    ),
    "masked": Row("no negatives of the same clip", _diffusion(same_clip_negatives=False)),
    "attached": Row("contrastive gradient reaches z0", _diffusion(detach_positive=False)),
    "weight_0.01": Row("lambda 2 = 0.01", _diffusion(0.01)),
    "weight_1": Row("lambda 2 = 1", _diffusion(1.0)),
    "epsilon_leading": Row(
        "LDM, noise as output, leading timesteps",
        _diffusion(0.0),
        arguments={"scheduler": lambda: cosine_ddim(prediction_type="epsilon", timestep_spacing="leading")},
    ),
    "epsilon_trailing": Row(
        "LDM, noise as output, trailing timesteps",
        _diffusion(0.0),
        arguments={"scheduler": lambda: cosine_ddim(prediction_type="epsilon")},
    ),
    "leading": Row(
        "LDM, leading timesteps",
        _diffusion(0.0),
        arguments={"scheduler": lambda: cosine_ddim(timestep_spacing="leading")},
    ),
    "velocity": Row("LDM, loss of the velocity", _diffusion(0.0, error="velocity")),
    "fused": Row("LDM, condition from the fused pyramid", _diffusion(0.0), arguments={"condition": "fused"}),
    "clip": Row("LDM, condition from the whole clip", _diffusion(0.0), arguments={"condition": "clip"}),
    "clip_regressor": Row(
        "LDM, condition from the whole clip, without diffusion",
        SegmentationObjective,
        regressed=True,
        arguments={"condition": "clip"},
    ),
    "fused_from_truth": Row(
        "LDM, condition from the fused pyramid, decodes z0",
        _diffusion(0.0),
        arguments={"condition": "fused", "decode_from": "ground_truth"},
    ),
    "fused_regressor": Row(
        "LDM, condition from the fused pyramid, without diffusion",
        SegmentationObjective,
        regressed=True,
        arguments={"condition": "fused"},
    ),
    "joint": Row(
        "z0 neither detached nor normalised",
        _diffusion(),
        arguments={"detach_diffusion": False, "normalize_latent": False},
    ),
    "e_d_film": Row("E-D with FiLM", SegmentationObjective, "encoder_decoder_film"),
    "ldm_film": Row("LDM with FiLM", _diffusion(0.0), arguments={"fusion": "film"}),
    "e_d_frozen": Row(
        "E-D, frozen audio encoder",
        SegmentationObjective,
        "encoder_decoder",
        arguments={"freeze_audio": True},
    ),
    "ldm_frozen": Row("LDM, frozen audio encoder", _diffusion(0.0), arguments={"freeze_audio": True}),
    "full_frozen": Row(
        "LDM with contrastive loss, frozen audio encoder", _diffusion(), arguments={"freeze_audio": True}
    ),
    "weight_1_frozen": Row(
        "lambda 2 = 1, frozen audio encoder", _diffusion(1.0), arguments={"freeze_audio": True}
    ),
    "e_d_film_frozen": Row(
        "E-D with FiLM, frozen audio encoder",
        SegmentationObjective,
        "encoder_decoder_film",
        arguments={"freeze_audio": True},
    ),
    "audio_blind": Row("audio-blind", SegmentationObjective, "audio_blind"),
    "audio_blind_temporal": Row("audio-blind, temporal", SegmentationObjective, "audio_blind_temporal"),
    "avsbench": Row("AVSBench", AVSBenchObjective, "avsbench"),
    "ecmvae": Row("ECMVAE", ECMVAEObjective, "ecmvae"),
    "c3n": Row(
        "C3N",
        C3NObjective,
        "c3n",
        arguments={
            "num_visual_classes": len(CLASSES),
            "num_audio_classes": len(CLASSES),
            "freeze_audio": True,  # no loss reaches the classifier of sound
        },
    ),
}

BY_SECOND = "_by_second"
"""Suffix of the name of a row whose fusion gives every second only its own sound."""


def _by_second(row: Row) -> Row:
    return replace(
        row,
        title=f"{row.title}, own second",
        arguments={**row.arguments, "window": 1},
        begins_as=row.begins_as and row.begins_as + BY_SECOND,
    )


ROWS |= {name + BY_SECOND: _by_second(row) for name, row in ROWS.items() if row.hears}

IN_SILENCE = "_in_silence"
"""Suffix of the name of a row that is trained and tested without sound."""
_SILENT = ("e_d", "ldm", "fused_from_truth")
ROWS |= {
    name + IN_SILENCE: replace(ROWS[name], title=f"{ROWS[name].title}, in silence", silent=True)
    for name in _SILENT
}

TABLES: dict[str, Sequence[str]] = {
    "1": ("audio_blind", "audio_blind_temporal", "avsbench", "ecmvae", "c3n", "full"),
    "2": ("e_d", "cvae", "ldm", "regressor"),
    "3": ("ldm_none", "ldm_audio", "ldm_visual", "ldm"),
    "4": ("ldm", "full"),
    "5": ("full", "full_from_s4", "full_twice"),
    "6": ("d8", "d16", "full", "d32"),
    "decode_from": ("from_truth", "from_noised", "from_one_step", "from_sampled", "from_half", "full"),
    "loss": ("full", "masked", "attached", "weight_0.01", "weight_1", "joint"),
    "sampler": ("ldm", "velocity", "leading", "epsilon_leading", "epsilon_trailing"),
    "variants": ("ldm", "fused", "fused_regressor", "fused_from_truth", "clip", "clip_regressor"),
    "fusion": ("e_d", "e_d_film", "ldm", "ldm_film"),
    "frozen": ("e_d_frozen", "ldm_frozen", "full_frozen", "weight_1_frozen", "e_d_film_frozen"),
    "in_silence": [name + IN_SILENCE for name in _SILENT],
    "controls": ("regressor", "shuffled", "full"),
}
