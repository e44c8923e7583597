"""Names of the evaluation protocols, which the guide to the metrics explains."""

from __future__ import annotations

from collections.abc import Mapping

from avslib._checks import check_one_of
from avslib.metrics.statistics import check_threshold

PROTOCOLS: dict[str, str] = {
    "avsbench": "score of a batch of clips, mean over batches; F at the best threshold of every batch",
    "sama": "avsbench, but F puts its thresholds on the logits (SAMA-AVS forgets the sigmoid)",
    "combo": "avsbench with one clip a batch; the mean of the means of every GPU",
    "stepping_stones": "avsbench with one clip a batch, from two logits; F from sigmoid(2 l1 - l0)",
    "davis": "J, boundary F and J&F of every frame, mean over the frames of a clip, then over clips",
    "dataset": "from areas summed over the whole set; the foreground, or it and the background, or classes",
    "cavp": "from areas summed over the whole set; mean of background and foreground, or of all classes",
    "ddeseg": "from areas summed over the whole set; mean of the classes that occur",
    "avsbench_semantic": "per frame and class, mean over the frames with that class, then over all classes",
    "present": "per frame and class, mean over the frames labelled with that class, then over classes",
    "robust": "fraction of the image that is predicted under a wrong sound (AVSBench-Robust)",
    "refavs": "root of the fraction of the images that is predicted for a null reference (Ref-AVS)",
}
"""Every protocol with its description; a metric that takes a protocol lists its own in ``protocols``."""

READING: dict[str, str] = {
    "avsbench": "probability",
    "sama": "logit",
    "combo": "probability",
    "stepping_stones": "stepping_stones",
    "davis": "probability",
    "dataset": "probability",
    "cavp": "argmax",
    "ddeseg": "argmax_probability",
}
"""How each protocol of binary masks reads logits, see :func:`~avslib.metrics.frame_statistics`."""


WHOLE_SET = ("dataset", "cavp", "ddeseg")
"""The protocols of binary masks that compute one ratio for the whole set."""

TWO_LOGITS = (*WHOLE_SET, "combo", "stepping_stones")
"""The protocols of binary masks that take one logit or two."""


def check_arguments(
    protocol: str,
    options: Mapping[str, tuple[str, ...]],
    *,
    clips_per_batch: float,
    ranks: int,
    threshold: float,
    empty: str,
    empty_words: tuple[str, ...],
    background: str,
) -> None:
    """Raise ``ValueError`` unless a binary metric's arguments are valid and belong to its protocol.

    Args:
        protocol: one of the keys of ``options``.
        options: for each protocol, the arguments that may differ from their default.
        clips_per_batch: default 1.
        ranks: default 1.
        threshold: default 0.5.
        empty: default the first of ``empty_words``.
        empty_words: values that ``empty`` may have.
        background: default ``"drop"``.
    """
    check_one_of("protocol", protocol, options)
    check_one_of("empty", empty, empty_words)
    check_one_of("background", background, ("drop", "keep"))
    check_threshold(threshold)
    given: dict[str, tuple[object, object]] = {
        "clips_per_batch": (clips_per_batch, 1),
        "ranks": (ranks, 1),
        "threshold": (threshold, 0.5),
        "empty": (empty, empty_words[0]),
        "background": (background, "drop"),
    }
    for name, (value, default) in given.items():
        if value != default and name not in options[protocol]:
            raise ValueError(f"{name}: the protocol {protocol!r} has {default!r}, got {value!r}")
