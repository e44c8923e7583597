"""Similarity between the names of two sets of classes, by any text encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avslib._checks import check_positive, check_shape
from avslib._jobs import write_whole

_NAME, _DIGEST = "similarity", "labels_sha256"


@torch.no_grad()
def label_similarity(
    visual_labels: Sequence[str],
    audio_labels: Sequence[str],
    encode: Callable[[list[str]], Any],
    *,
    cache: str | Path | None = None,
    batch_size: int = 64,
) -> Tensor:
    """Return the cosine similarity of each visual label with each audio label, ``(I, J)``.

    C3N compares the names of ImageNet's 1000 classes with those of AudioSet's 527, in the order in which its
    two classifiers number them. The names are encoded unchanged, so add any prompt beforehand.

    Args:
        visual_labels: I names.
        audio_labels: J names.
        encode: function from texts to embeddings ``(n, D)``, a tensor or an array, such as
            ``SentenceTransformer(...).encode``.
        cache: a ``.safetensors`` file. If it exists, it is read and nothing is encoded; if not, it is
            written. It records the labels but not the encoder: use another file for another encoder.
        batch_size: number of texts to encode at a time.

    Returns:
        Numbers from -1 to 1, float32, on the CPU.

    Raises:
        ValueError: if there are no labels, if the encoder returns another shape, or if the cache holds other
            labels or is not such a file.

    Example:
        >>> def encode(texts):  # how often each vowel occurs
        ...     return torch.tensor([[float(text.count(vowel)) for vowel in "aeiou"] for text in texts])
        >>> label_similarity(["cat", "violin"], ["dog", "bat"], encode)
        tensor([[0.0000, 1.0000],
                [0.4472, 0.0000]])
    """
    check_positive("batch_size", batch_size)
    for name, labels in (("visual_labels", visual_labels), ("audio_labels", audio_labels)):
        if isinstance(labels, str) or not labels:
            raise ValueError(f"{name}: expected a sequence of at least one name, got {labels!r}")
    digest = hashlib.sha256(json.dumps([list(visual_labels), list(audio_labels)]).encode()).hexdigest()
    shape = (len(visual_labels), len(audio_labels))
    if cache is not None and Path(cache).is_file():
        return _read(Path(cache), digest, shape)

    def embed(labels: Sequence[str]) -> Tensor:
        batches = []
        for start in range(0, len(labels), batch_size):
            texts = list(labels[start : start + batch_size])
            embedding = torch.as_tensor(encode(texts))
            check_shape("encode(texts)", embedding, "n d", n=len(texts))
            batches.append(F.normalize(embedding.float(), dim=1))
        return torch.cat(batches)

    similarity = (embed(visual_labels) @ embed(audio_labels).mT).cpu()
    if cache is not None:
        _write(Path(cache), digest, similarity)
    return similarity


def _read(path: Path, digest: str, shape: tuple[int, int]) -> Tensor:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            stored, similarity = (file.metadata() or {}).get(_DIGEST), file.get_tensor(_NAME)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected similarities that were stored before: {error}") from error
    if stored != digest or similarity.shape != shape:
        raise ValueError(
            f"{path}: expected the similarities of these {shape[0]} visual and {shape[1]} audio labels, "
            f"got {tuple(similarity.shape)} similarities of others; remove the file or give another cache"
        )
    return similarity


def _write(path: Path, digest: str, similarity: Tensor) -> None:
    from safetensors.torch import save  # save_file writes a file that only its owner can read

    with write_whole(path) as unfinished:
        unfinished.write_bytes(save({_NAME: similarity}, metadata={_DIGEST: digest}))
