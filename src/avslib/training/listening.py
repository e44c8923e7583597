"""Testing whether a model listens, by scoring it with other sounds than the true one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

from torch import nn
from torchmetrics import Metric

from avslib.data.mixing import ClipsWithWaveforms
from avslib.data.off_screen import OffScreenSound
from avslib.data.sound import ClipDataset, NoiseSound, ShiftedSound, SilentSound, SwappedSound
from avslib.metrics import FalsePositiveRate, FScore, MaskIoU
from avslib.metrics.dependence import OnsetAccuracy, g_measure
from avslib.storage import CachedAudio
from avslib.training.evaluation import evaluate

TRUE = "true sound"
OTHER_CATEGORY = "another clip's sound, other category"
ANOTHER = "another clip's sound"


def sound_protocols(clips: ClipDataset, *, categories: Sequence[str] | None = None) -> dict[str, ClipDataset]:
    """Return a dataset with each of the other sounds that can be made for it.

    - ``"silence"`` and ``"white noise"``: always;
    - ``"another clip's sound"``: if there are two clips or more;
    - ``"another clip's sound, same category"`` and ``"another clip's sound, other category"``: if the
      categories are known and every clip has such a partner;
    - ``"shifted by 1 s"``: unless a clip is 1 s long (if no reader tells the lengths: unless the first is);
    - ``"off-screen sound added"``: if the dataset gives its waveforms; from another category if possible.

    The classes in :mod:`avslib.data` say what a model that listens finds with each.

    Args:
        clips: the dataset, with the true sound as log-mels. With embeddings, the clips of the silent and the
            noisy dataset raise ``ValueError`` when read.
        categories: what sounds in each clip; None to ask the dataset, which works for a reader of S4.

    Returns:
        Datasets of the same clips, by the name of their row.

    Raises:
        ValueError: if there is not one category per clip.
    """
    if categories is not None and len(categories) != len(clips):
        raise ValueError(f"categories: expected one of each of {len(clips)} clips, got {len(categories)}")
    sounds: dict[str, ClipDataset] = {"silence": SilentSound(clips), "white noise": NoiseSound(clips)}
    with suppress(ValueError):
        sounds[ANOTHER] = SwappedSound(clips)
    with suppress(ValueError):
        sounds[f"{ANOTHER}, same category"] = SwappedSound(clips, category="same", categories=categories)
    with suppress(ValueError):
        sounds[OTHER_CATEGORY] = SwappedSound(clips, category="other", categories=categories)
    with suppress(ValueError):
        sounds["shifted by 1 s"] = ShiftedSound(clips)
    category = "other" if OTHER_CATEGORY in sounds else "any"
    with suppress(ValueError):
        sounds["off-screen sound added"] = OffScreenSound(
            cast(ClipsWithWaveforms, clips), category=category, categories=categories
        )
    return sounds


def three_sounds(clips: ClipDataset) -> dict[str, ClipDataset]:
    """Return a dataset's clips with their true sound, in silence, and with another clip's sound, by name.

    A single clip has no other. Silence needs log-mels: nothing is known of how an encoder embeds it, so clips
    with embeddings have no such row, unless they are :class:`~avslib.storage.CachedAudio`, which knows the
    log-mels too.
    """
    sounds: dict[str, ClipDataset] = {TRUE: clips}
    own = clips.clips if isinstance(clips, CachedAudio) else clips
    if own[0].log_mel.dim() > 2:
        sounds["silence"] = SilentSound(own)
    if len(clips) > 1:
        sounds[ANOTHER] = SwappedSound(clips)
    return sounds


def listen(
    model: nn.Module,
    clips: ClipDataset,
    *,
    sounds: Mapping[str, ClipDataset] | None = None,
    num_samples: int = 1,
    batch_size: int = 4,
    num_workers: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Score a model with the true sound and with others, against the ground truth of the true sound.

    Every row has:

    - ``"miou"`` and ``"f_score"``, as :func:`evaluate` returns them;
    - ``"sounding_miou"``: J over the frames with ground truth only, since predicting nothing, as without any
      sound, is right in the others;
    - ``"area"``: the fraction of a frame that is predicted. If nothing in the picture makes the sound, all of
      it is a false positive;
    - ``"drop"``, except in the row of the true sound: how far ``"sounding_miou"`` is below that of the true
      sound. If a model that listens would find nothing, a drop near 0 shows that this model does not listen.

    If sounds start or stop, the row of the true sound also has ``"onset_accuracy"`` and ``"transitions"``
    (see :class:`~avslib.metrics.OnsetAccuracy`). F does not fall to 0 under any sound: its best threshold may
    be the one that selects the whole frame.

    Args:
        model: as for :func:`evaluate`, with one logit per pixel, for datasets of binary masks.
        clips: the dataset, with the true sound.
        sounds: other datasets of the same clips, by the name of their row; None for those of
            `sound_protocols`.
        num_samples: samples per frame of a stochastic model.
        batch_size: clips per batch.
        num_workers: number of loader processes.
        seed: seed of a stochastic model's noise, the same for every sound.

    Returns:
        The table by row, the true sound first.
    """

    def score(sounding: ClipDataset, *, onsets: bool = False) -> dict[str, float]:
        metrics: dict[str, Metric] = {
            "miou": MaskIoU(),
            "f_score": FScore(),
            "sounding_miou": MaskIoU(empty="skip"),
            "area": FalsePositiveRate(),
        }
        changes: dict[str, Metric] = {
            "onset_accuracy": OnsetAccuracy(),
            "transitions": OnsetAccuracy("transitions"),
        }
        scores = evaluate(
            model,
            sounding,
            metrics=metrics | changes if onsets else metrics,
            num_samples=num_samples,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        return {name: value for name, value in scores.items() if name not in changes or not math.isnan(value)}

    true = score(clips, onsets=True)
    table = {TRUE: true}
    for row, sounding in (sound_protocols(clips) if sounds is None else sounds).items():
        scores = score(sounding)
        table[row] = scores | {"drop": true["sounding_miou"] - scores["sounding_miou"]}
    return table


def format_listening(table: Mapping[str, Mapping[str, float]], combined: Mapping[str, float]) -> str:
    """Format the table that `listen` returned, and the G-measures, as fixed-width text.

    Example:
        >>> scores = {"miou": 0.6, "f_score": 0.7, "sounding_miou": 0.55, "area": 0.1}
        >>> table = {"true sound": scores | {"onset_accuracy": 0.9}, "silence": scores | {"drop": 0.0}}
        >>> print(format_listening(table, {"g_miou": 0.5}))
                                                  mIoU         F  sounding      area      drop
        true sound                               0.600     0.700     0.550     0.100
        silence                                  0.600     0.700     0.550     0.100     0.000
        <BLANKLINE>
        onset_accuracy 0.900
        g_miou 0.500
    """
    columns = {"miou": "mIoU", "f_score": "F", "sounding_miou": "sounding", "area": "area", "drop": "drop"}
    lines = [f"{'':36}" + "".join(f"{title:>10}" for title in columns.values())]
    for row, scores in table.items():
        lines.append(f"{row:36}" + "".join(f"{scores[name]:10.3f}" for name in columns if name in scores))
    onsets = {name: table[TRUE][name] for name in ("onset_accuracy", "transitions") if name in table[TRUE]}
    return "\n".join([*lines, "", *(f"{name} {value:.3f}" for name, value in {**onsets, **combined}.items())])


def g_measures(
    table: Mapping[str, Mapping[str, float]], *, negatives: Sequence[str] | None = None
) -> dict[str, float]:
    """Summarise the table that `listen` returned: does the model find what sounds, and nothing else?

    ``"g_miou"`` and ``"g_f_score"`` are :func:`~avslib.metrics.g_measure` of ``"sounding_miou"`` and
    ``"f_score"``; ``"g_fpr"`` is the mean of ``"area"`` over the negative sounds. AVSBench-Robust reports
    numbers with these names but gives no formula; the formulas are ours. A G-measure of a NaN, for example
    if no frame has ground truth, is left out.

    Args:
        table: the table that `listen` returned.
        negatives: rows in which a model that listens finds nothing. None for silence, white noise and
            another clip's sound, the one of another category if there is such a row.

    Returns:
        The numbers, in ``[0, 1]``; higher is better, except for ``"g_fpr"``.

    Raises:
        ValueError: if a row is not in the table.
    """
    if negatives is None:
        negatives = ("silence", "white noise", OTHER_CATEGORY if OTHER_CATEGORY in table else ANOTHER)
    missing = [row for row in (TRUE, *negatives) if row not in table]
    if missing:
        raise ValueError(f"table: expected a row {missing[0]!r}, got {', '.join(map(repr, table))}")
    rows = [table[row] for row in negatives]

    numbers: dict[str, float] = {}
    for name, of in (("g_miou", "sounding_miou"), ("g_f_score", "f_score")):
        true, *others = (row[of] for row in (table[TRUE], *rows))
        if not any(map(math.isnan, (true, *others))):
            numbers[name] = g_measure(true, others)
    return numbers | {"g_fpr": sum(row["area"] for row in rows) / len(rows)}
