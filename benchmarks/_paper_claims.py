"""The paper's numbers, and the claims that it draws from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from _paper_rows import BY_SECOND, IN_SILENCE

WINDOWS = {"": "whole clip", BY_SECOND: "own second"}
"""Which sounds a pixel hears, by the suffix of the row's name."""

Scores = Mapping[str, Mapping[str, float]]
"""By setting, then by measure: mIoU in percent, F in [0, 1]."""


class Published(NamedTuple):
    """A row of the paper."""

    label: str
    scores: Scores


class Table(NamedTuple):
    """A table: its question, its reference and the paper's numbers."""

    title: str
    question: str
    reference: str
    """The row that the others are compared with."""
    published: Mapping[str, Published] = {}
    """The paper's rows, by their names in ``_paper_rows``."""


class Claim(NamedTuple):
    """The claim that one row is better than another."""

    table: str
    text: str
    better: str
    worse: str

    def rows(self, window: str = "") -> tuple[str, str]:
        """Return the names of the better and the worse row, with a window of ``WINDOWS``."""
        return self.better + window, self.worse + window

    def published(self, setting: str, measure: str) -> float | None:
        """Return the paper's difference between the two rows; None where the paper has no number."""
        rows = TABLES_OF_PAPER.get(self.table, Table("", "", "")).published
        scores = [rows[name].scores.get(setting, {}) for name in self.rows() if name in rows]
        if len(scores) < 2 or any(measure not in score for score in scores):
            return None
        return scores[0][measure] - scores[1][measure]


def _row(label: str, s4: tuple[float, float], ms3: tuple[float, float]) -> Published:
    return Published(label, {"s4": _scores(s4), "ms3": _scores(ms3)})


def _scores(pair: tuple[float, float]) -> dict[str, float]:
    return {"miou": pair[0], "f_score": pair[1]}


TABLES_OF_PAPER: dict[str, Table] = {
    "1": Table(
        "Table I: systems",
        "How good is the whole model beside others? AVSBench also has another neck and decoder; what the "
        "latent adds is tested against E-D, in table II. The paper also lists four systems from related "
        "tasks, which are not here; audio-blind decoders, ECMVAE and C3N are not in the paper's table. C3N "
        "keeps the classifiers by which the encoders learned, and its audio encoder is frozen. For an "
        "audio-blind decoder no pixel is more likely heard than not, so its masks are empty.",
        "avsbench",
        {
            "avsbench": _row("AVSBench", (78.74, 0.879), (54.00, 0.645)),
            "full": _row("the full model", (81.38, 0.902), (58.18, 0.709)),
        },
    ),
    "2": Table(
        "Table II: the latent diffusion model",
        "Does a generated latent help, and is diffusion the way to generate it? E-D has the encoders, "
        "fusion, neck and head of the LDM, but no latent. None of these rows has the contrastive loss. The "
        "row without diffusion is not the paper's: it has the LDM's networks, and its latent is what the "
        "noise estimator makes of the condition in one pass.",
        "e_d",
        {
            "e_d": _row("E-D", (78.89, 0.881), (54.28, 0.648)),
            "cvae": _row("CVAE", (79.97, 0.888), (55.21, 0.661)),
            "ldm": _row("LDM", (81.02, 0.894), (57.67, 0.698)),
        },
    ),
    "3": Table(
        "Table III: the condition",
        "What should the diffusion be conditioned on? None of these rows has the contrastive loss. Whatever "
        "the condition, the sound also reaches the head through the fusion.",
        "ldm_none",
        {
            "ldm_none": _row("None", (80.04, 0.889), (56.12, 0.671)),
            "ldm_audio": _row("Audio", (80.29, 0.892), (56.59, 0.680)),
            "ldm_visual": _row("Visual", (80.68, 0.892), (57.21, 0.688)),
            "ldm": _row("Audio-visual", (81.02, 0.894), (57.67, 0.698)),
        },
    ),
    "4": Table(
        "Table IV: contrastive learning",
        "Does it help to pull the condition towards the code of its own mask, and away from those of others?",
        "ldm",
        {
            "ldm": _row("without the contrastive loss", (81.02, 0.894), (57.67, 0.698)),
            "full": _row("with it", (81.38, 0.902), (58.18, 0.709)),
        },
    ),
    "5": Table(
        "Table V: pre-training on S4",
        "Does MS3 gain from weights that were trained on S4? A row that starts from them has had twice the "
        "steps. The last row, which the paper lacks, has had twice the steps on MS3 alone, and shows what "
        "the steps gain.",
        "full",
        {
            "full": Published("from scratch", {"ms3": {"miou": 58.18}}),
            "full_from_s4": Published("pre-trained on S4", {"ms3": {"miou": 60.94}}),
        },
    ),
    "6": Table(
        "Table VI: the size of the latent",
        "How many dimensions should the latent have?",
        "full",
        {
            "d8": _row("D = 8", (81.04, 0.892), (57.28, 0.689)),
            "d16": _row("D = 16", (81.18, 0.895), (57.98, 0.704)),
            "full": _row("D = 24", (81.38, 0.902), (58.18, 0.709)),
            "d32": _row("D = 32", (80.78, 0.891), (57.01, 0.687)),
        },
    ),
}
"""The paper's numbers with PVT v2, the only ones in its tables II, III, IV and VI. Labels are shortened."""

TABLES_BEYOND: dict[str, Table] = {
    "decode_from": Table(
        "`decode_from`: which latent the head learns to decode",
        "The paper does not say whether, in training, the head decodes the code of the true mask, that code "
        "with noise, or what the diffusion makes of it. The reference is the library's default, a mixture.",
        "full",
    ),
    "loss": Table(
        "The contrastive loss, and what gradients reach",
        "Whether other frames of the same clip are negatives; whether the gradient of the contrastive loss "
        "reaches z0; the weight lambda 2 (0.1 in the paper and in the reference); and a z0 that is neither "
        "detached from the diffusion loss nor normalised.",
        "full",
    ),
    "sampler": Table(
        "The noise estimator, and how the latent is sampled",
        "What the noise estimator predicts (`prediction_type`), of what the diffusion loss is, and which "
        "noise levels sampling visits (`timestep_spacing`). In every row but one the loss is on the noise "
        "(equation 9). The reference predicts the velocity, from which the noise follows, and starts at the "
        "noisiest level (trailing); *leading* never visits that level.",
        "ldm",
    ),
    "variants": Table(
        "`condition`: from the fused pyramid, or from the whole clip",
        "The paper's condition encoder sees a frame through five convolutions of its own. In `fused` the "
        "condition is read from the pyramid that the head sees, which the diffusion loss then also trains; "
        "in `clip` the seconds attend to each other as well.",
        "ldm",
    ),
    "fusion": Table(
        "`fusion`: TPAVI, or FiLM",
        "In TPAVI the sound of a second gives each pixel one number, which scales the mean of that second's "
        "values before it is added to the pixel. FiLM has no attention: the sound of a second scales and "
        "shifts the channels of that second's features. Like `window=1` it hears only the own second. The "
        "paper does not have it.",
        "e_d",
    ),
    "frozen": Table(
        "A frozen audio encoder",
        "The paper's audio encoder, VGGish, is frozen, so that neither the diffusion nor the contrastive "
        "loss can change what the fusion hears. In all other tables a small encoder is trained, and by both "
        "of these losses too. Here it stays as the pre-training left it.",
        "e_d_frozen",
    ),
    "in_silence": Table(
        "Where the mask cannot be known",
        "On these clips frame and sound together determine the mask, and a generative model has nothing to "
        "choose. Trained and tested without sound it has: nothing tells which of the objects are ground "
        "truth. How good individual samples then are is shown below, under *Several samples*.",
        "e_d" + IN_SILENCE,
    ),
}

CLAIMS = (
    Claim("1", "the full model beats AVSBench", "full", "avsbench"),
    Claim("2", "a CVAE beats E-D", "cvae", "e_d"),
    Claim("2", "the LDM beats the CVAE", "ldm", "cvae"),
    Claim("2", "the LDM beats E-D", "ldm", "e_d"),
    Claim("text", "diffusion, not parameters, brings the gain", "ldm", "regressor"),
    Claim("3", "an audio condition beats none", "ldm_audio", "ldm_none"),
    Claim("3", "a visual condition beats an audio one", "ldm_visual", "ldm_audio"),
    Claim("3", "an audio-visual condition beats a visual one", "ldm", "ldm_visual"),
    Claim("3", "an audio-visual condition beats none", "ldm", "ldm_none"),
    Claim("4", "contrastive learning helps", "full", "ldm"),
    Claim("5", "pre-training on S4, which means twice the steps, helps", "full_from_s4", "full"),
    Claim("6", "D = 24 beats D = 8", "full", "d8"),
    Claim("6", "D = 24 beats D = 16", "full", "d16"),
    Claim("6", "D = 24 beats D = 32", "full", "d32"),
)
"""The claims table by table, and what section IV-B says about parameters."""

NAMES = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V", "6": "VI", "text": "IV-B, text"}
"""The paper's names for its tables."""
