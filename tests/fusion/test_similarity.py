from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from avslib.fusion.similarity import label_similarity

VISUAL = ["tabby cat", "violin", "lawn mower"]
AUDIO = ["Meow", "Violin, fiddle", "Lawn mower", "Silence", "Speech"]


class Letters:
    """An encoder of text that counts letters, and how it was called."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.calls.append(texts)
        counts = [[text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        return torch.tensor(counts, dtype=torch.float64)


def cosine(one: str, other: str) -> float:
    a, b = Letters()([one, other]).tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@given(batch_size=st.integers(1, 6))
def test_it_is_the_cosine_of_every_pair(batch_size: int) -> None:
    encode = Letters()
    similarity = label_similarity(VISUAL, AUDIO, encode, batch_size=batch_size)
    assert similarity.dtype == torch.float32
    assert similarity.shape == (3, 5)
    for i, seen in enumerate(VISUAL):
        for j, heard in enumerate(AUDIO):
            assert similarity[i, j].item() == pytest.approx(cosine(seen, heard), abs=1e-6)
    assert [text for texts in encode.calls for text in texts] == VISUAL + AUDIO
    assert max(map(len, encode.calls)) <= batch_size


def test_names_that_are_alike_are_1_and_the_gradient_stays_out() -> None:
    table = torch.randn(3, 4, requires_grad=True)
    similarity = label_similarity(VISUAL, VISUAL, lambda texts: table[: len(texts)])
    torch.testing.assert_close(similarity.diag(), torch.ones(3))
    assert not similarity.requires_grad


def test_a_cache_is_written_once_and_read_after(tmp_path: Path) -> None:
    cache, encode = tmp_path / "new" / "similarity.safetensors", Letters()
    first = label_similarity(VISUAL, AUDIO, encode, cache=cache)
    assert [path.name for path in cache.parent.iterdir()] == ["similarity.safetensors"]
    calls = len(encode.calls)
    assert torch.equal(label_similarity(tuple(VISUAL), tuple(AUDIO), encode, cache=str(cache)), first)
    assert len(encode.calls) == calls


@pytest.mark.parametrize(
    ("visual", "audio"),
    [(VISUAL[::-1], AUDIO), (VISUAL[:2], AUDIO), (VISUAL, [*AUDIO[:-1], "Dog"]), (AUDIO, VISUAL)],
)
def test_a_cache_of_other_labels_is_refused(visual: list[str], audio: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "similarity.safetensors"
    label_similarity(VISUAL, AUDIO, Letters(), cache=cache)
    before = cache.read_bytes()
    with pytest.raises(ValueError, match=r"similarity\.safetensors: expected the similarities of these"):
        label_similarity(visual, audio, Letters(), cache=cache)
    assert cache.read_bytes() == before


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    cache = tmp_path / "similarity.safetensors"
    for content in (b"", b"hello", bytes(40)):
        cache.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"similarity\.safetensors: expected similarities that were stored"
        ):
            label_similarity(VISUAL, AUDIO, Letters(), cache=cache)
    save_file({"weight": torch.zeros(3, 5)}, cache)
    with pytest.raises(ValueError, match=r"similarity\.safetensors: expected similarities that were stored"):
        label_similarity(VISUAL, AUDIO, Letters(), cache=cache)
    save_file({"similarity": torch.zeros(3, 5)}, cache)
    with pytest.raises(ValueError, match=r"similarity\.safetensors: expected the similarities of these"):
        label_similarity(VISUAL, AUDIO, Letters(), cache=cache)


def test_an_encoder_may_return_an_array() -> None:
    expected = label_similarity(VISUAL, AUDIO, Letters())
    assert torch.equal(label_similarity(VISUAL, AUDIO, lambda texts: Letters()(texts).numpy()), expected)


def test_several_may_write_one_cache(tmp_path: Path) -> None:
    """As the processes of a distributed run do, which all find no cache when they begin."""
    cache = tmp_path / "similarity.safetensors"
    together = threading.Barrier(4)

    def encode(texts: list[str]) -> Tensor:
        if texts == AUDIO:
            together.wait(timeout=60)
        return Letters()(texts)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: label_similarity(VISUAL, AUDIO, encode, cache=cache), range(4)))
    assert all(torch.equal(one, found[0]) for one in found)
    assert [path.name for path in tmp_path.iterdir()] == [cache.name]


def test_an_encoder_that_fails_leaves_no_cache(tmp_path: Path) -> None:
    def fail(texts: list[str]) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        label_similarity(VISUAL, AUDIO, fail, cache=tmp_path / "similarity.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"encode\(texts\): expected shape \(n, d\) with n=3, got \(3,\)"):
        label_similarity(VISUAL, AUDIO, lambda texts: torch.zeros(len(texts)))
    with pytest.raises(ValueError, match=r"audio_labels: expected a sequence of at least one name, got \[\]"):
        label_similarity(VISUAL, [], Letters())
    with pytest.raises(
        ValueError, match="visual_labels: expected a sequence of at least one name, got 'cat'"
    ):
        label_similarity("cat", AUDIO, Letters())
    with pytest.raises(ValueError, match="batch_size: expected a number above 0, got 0"):
        label_similarity(VISUAL, AUDIO, Letters(), batch_size=0)
