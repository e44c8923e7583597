from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from avslib.losses import InfoNCE, info_nce, mutual_information_bound

rows = st.integers(1, 7)
seeds = st.integers(0, 1000)
temperatures = st.floats(0.05, 5)


def pairs(n: int, d: int = 6, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    query = torch.randn(n, d, generator=rng, dtype=torch.float64)
    return query, query + torch.randn(n, d, generator=rng, dtype=torch.float64)


def literal(
    query: Tensor, positive: Tensor, temperature: float = 1.0, clip: list[int] | None = None
) -> float:
    """Equation 1, one pair after the other."""

    def f(i: int, j: int) -> float:
        s = (query[i] @ positive[j] / (query[i].norm() * positive[j].norm())).item()
        return math.exp(s / temperature)

    loss = 0.0
    for i in range(len(query)):
        negatives = [j for j in range(len(query)) if j != i and (clip is None or clip[j] != clip[i])]
        loss -= math.log(f(i, i) / sum(f(i, j) for j in [i, *negatives]))
    return loss / len(query)


@given(rows, seeds, temperatures)
def test_it_is_equation_1(n: int, seed: int, temperature: float) -> None:
    query, positive = pairs(n, seed=seed)
    loss = info_nce(query, positive, temperature=temperature).item()
    assert loss == pytest.approx(literal(query, positive, temperature), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), seeds)
def test_with_clips_the_other_rows_of_a_clip_are_no_negatives(clip: list[int], seed: int) -> None:
    query, positive = pairs(len(clip), seed=seed)
    loss = info_nce(query, positive, clip=torch.tensor(clip)).item()
    assert loss == pytest.approx(literal(query, positive, clip=clip), rel=1e-9, abs=1e-12)


@given(rows, seeds)
def test_the_order_of_the_rows_does_not_matter(n: int, seed: int) -> None:
    query, positive = pairs(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(info_nce(query[order], positive[order]), info_nce(query, positive))


@given(rows, seeds, st.floats(1e-3, 1e3))
def test_the_length_of_a_vector_does_not_matter(n: int, seed: int, scale: float) -> None:
    query, positive = pairs(n, seed=seed)
    lengths = torch.logspace(-3, 3, n, dtype=torch.float64)[:, None]
    torch.testing.assert_close(info_nce(scale * query, lengths * positive), info_nce(query, positive))


@given(rows, seeds, temperatures)
def test_it_lies_between_the_best_and_the_worst_cosines(n: int, seed: int, temperature: float) -> None:
    loss = info_nce(*pairs(n, seed=seed), temperature=temperature).item()
    assert loss >= math.log1p((n - 1) * math.exp(-2 / temperature)) - 1e-12
    assert loss <= math.log1p((n - 1) * math.exp(2 / temperature)) + 1e-12


@given(rows, temperatures)
def test_positives_that_are_all_alike_cost_log_n(n: int, temperature: float) -> None:
    query, positive = pairs(n)
    loss = info_nce(query, positive[:1].expand(n, -1), temperature=temperature)
    assert loss.item() == pytest.approx(math.log(n), abs=1e-12)


@given(rows, temperatures)
def test_aligned_pairs_with_orthogonal_negatives(n: int, temperature: float) -> None:
    codes = torch.eye(n, dtype=torch.float64)
    expected = math.log1p((n - 1) * math.exp(-1 / temperature))
    assert info_nce(codes, codes, temperature=temperature).item() == pytest.approx(expected, abs=1e-12)


def test_aligned_pairs_with_opposite_negatives_are_the_least_loss() -> None:
    codes = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert info_nce(codes, codes).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_the_temperature_does_not_cancel() -> None:
    query, positive = pairs(6)
    losses = [info_nce(query, positive, temperature=t).item() for t in (0.5, 1.0, 2.0, 1e9)]
    assert len(set(losses)) == 4
    assert losses[-1] == pytest.approx(math.log(6))


def test_a_low_temperature_does_not_overflow() -> None:
    codes = torch.eye(3)
    assert info_nce(codes, codes, temperature=1e-4) == 0
    assert info_nce(codes, codes.flip(0), temperature=1e-4).item() == pytest.approx(2e4 / 3)


@pytest.mark.parametrize("clip", [None, torch.tensor([4])])
def test_a_row_alone_costs_nothing(clip: Tensor | None) -> None:
    query, positive = pairs(1)
    loss = info_nce(query.requires_grad_(), positive, clip=clip)
    assert loss == 0
    assert (torch.autograd.grad(loss, query)[0] == 0).all()


def test_a_batch_of_one_clip_has_no_negatives() -> None:
    query, positive = pairs(5)
    loss = info_nce(query.requires_grad_(), positive, clip=torch.zeros(5))
    assert loss == 0
    assert (torch.autograd.grad(loss, query)[0] == 0).all()


@pytest.mark.parametrize("clip", [None, torch.zeros(0)])
def test_no_row_costs_nothing_and_training_goes_on(clip: Tensor | None) -> None:
    layer = nn.Linear(3, 4)
    loss = InfoNCE(same_clip_negatives=clip is None)(layer(torch.zeros(0, 3)), torch.zeros(0, 4), clip)
    assert loss == 0
    loss.backward()
    assert torch.equal(layer.weight.grad, torch.zeros(4, 3))


def test_narrow_vectors_are_compared_in_float32_also_under_autocast() -> None:
    query, positive = (x.bfloat16() for x in pairs(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = InfoNCE()(query, positive.float())
    assert loss.dtype == torch.float32
    assert loss == info_nce(query.float(), positive.float())


def test_positives_get_a_gradient_only_if_asked() -> None:
    query, positive = (x.requires_grad_() for x in pairs(5))
    InfoNCE()(query, positive).backward()
    assert query.grad is not None
    assert positive.grad is None
    InfoNCE(detach_positive=False)(query, positive).backward()
    assert positive.grad is not None
    assert (positive.grad != 0).any()


@pytest.mark.parametrize("clip", [None, torch.tensor([0, 0, 1, 2, 2])])
def test_gradients_are_those_of_finite_differences(clip: Tensor | None) -> None:
    query, positive = (x.requires_grad_() for x in pairs(5))
    loss = InfoNCE(temperature=0.7, detach_positive=False, same_clip_negatives=clip is None)
    torch.autograd.gradcheck(lambda q, p: info_nce(q, p, temperature=0.7, clip=clip), (query, positive))
    expected = torch.autograd.grad(info_nce(query, positive, temperature=0.7, clip=clip), (query, positive))
    torch.testing.assert_close(torch.autograd.grad(loss(query, positive, clip), (query, positive)), expected)


def test_same_clip_negatives_are_the_default_whether_or_not_clips_are_given() -> None:
    query, positive = pairs(5)
    clip = torch.tensor([0, 0, 0, 1, 1])
    assert InfoNCE()(query, positive, clip) == InfoNCE()(query, positive) == info_nce(query, positive)
    assert InfoNCE(same_clip_negatives=False)(query, positive, clip) == info_nce(query, positive, clip=clip)


@pytest.mark.parametrize("kinds", [1, 2, 4])
def test_the_bound_finds_the_information_of_a_code_with_few_values(kinds: int) -> None:
    codes = torch.eye(4, dtype=torch.float64)[torch.arange(32) % kinds]
    bound = InfoNCE(temperature=0.02).mutual_information_bound(codes, codes)
    assert bound.item() == pytest.approx(math.log(kinds), abs=1e-12)


@given(rows, seeds, temperatures)
def test_the_bound_exceeds_neither_log_n_nor_what_cosines_allow(
    n: int, seed: int, temperature: float
) -> None:
    bound = InfoNCE(temperature=temperature).mutual_information_bound(*pairs(n, seed=seed)).item()
    assert bound <= min(math.log(n), 2 / temperature) + 1e-12


def test_the_bound_averages_the_logarithms_of_the_candidates() -> None:
    query, positive = pairs(6)
    clip = torch.tensor([0, 0, 0, 1, 1, 2])  # 3 rows meet 3 others and themselves, 2 meet 4, 1 meets 5
    expected = (3 * math.log(4) + 2 * math.log(5) + math.log(6)) / 6 - info_nce(query, positive, clip=clip)
    torch.testing.assert_close(
        InfoNCE(same_clip_negatives=False).mutual_information_bound(query, positive, clip), expected
    )
    loss = info_nce(query, positive)
    torch.testing.assert_close(mutual_information_bound(loss, 6), math.log(6) - loss)
    torch.testing.assert_close(mutual_information_bound(loss, torch.full((6,), 6)), math.log(6) - loss)


@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_too_small_to_compare_bounds_nothing(n: int) -> None:
    assert InfoNCE().mutual_information_bound(*pairs(n)) == 0


def test_wrong_shapes_are_named() -> None:
    query, positive = pairs(4)
    with pytest.raises(ValueError, match=r"query: expected shape \(n, d\), got \(4, 1, 6\)"):
        info_nce(query[:, None], positive)
    with pytest.raises(ValueError, match=r"positive: expected shape \(n, d\) with n=4, d=6, got \(3, 6\)"):
        InfoNCE()(query, positive[:3])
    with pytest.raises(ValueError, match=r"clip: expected shape \(n\) with n=4, got \(3,\)"):
        InfoNCE(same_clip_negatives=False)(query, positive, torch.arange(3))


def test_a_temperature_above_0_is_asked_for() -> None:
    for call in (lambda: InfoNCE(temperature=0), lambda: info_nce(*pairs(2), temperature=0)):
        with pytest.raises(ValueError, match="temperature: expected a number above 0, got 0"):
            call()


def test_clips_are_asked_for_where_they_matter() -> None:
    with pytest.raises(ValueError, match="clip: expected the clip of each row, as same_clip_negatives is"):
        InfoNCE(same_clip_negatives=False)(*pairs(4))


def test_a_bound_needs_a_candidate() -> None:
    with pytest.raises(ValueError, match="candidates: expected a number above 0, got 0"):
        mutual_information_bound(torch.tensor(0.0), 0)


# The clip of each row, as each of two processes numbers its own, and as one process numbers all.
LAYOUTS = [
    ([7, 7, 3], [4, 3], [0, 0, 1, 2, 3]),
    ([], [7, 7, 3, 4, 4], [0, 0, 1, 2, 2]),
    ([], [], []),
]
VARIANTS = [(detach, same_clip) for detach in (True, False) for same_clip in (True, False)]


class TwoBranches(nn.Module):
    """One layer for query and positive, so that it learns even where positives are detached."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4, dtype=torch.float64)
        nn.init.orthogonal_(self.layer.weight, generator=torch.Generator().manual_seed(0))
        nn.init.ones_(self.layer.bias)

    def forward(self, query: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(query), self.layer(positive)


def learn(model: nn.Module, process: int) -> list[Tensor]:
    """The loss, the bound and the gradients of every layout and variant; process 2 has the whole batch."""
    results = []
    for *apart, whole in LAYOUTS:
        clip = torch.tensor([*apart, whole][process], dtype=torch.int64)
        start = len(apart[0]) if process == 1 else 0
        query, positive = (x[start : start + len(clip)] for x in pairs(5))
        for detach, same_clip in VARIANTS:
            loss = InfoNCE(detach_positive=detach, same_clip_negatives=same_clip)
            model.zero_grad()
            encoded = model(query, positive)
            value = loss(*encoded, clip)
            (0.1 * value).backward()
            bound = loss.mutual_information_bound(*encoded, clip)
            results += [value.detach(), bound, *(p.grad.clone() for p in model.parameters())]
    return results


def one_of_two_processes(process: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=process, world_size=2)
    torch.save(learn(DistributedDataParallel(TwoBranches()), process), folder / f"{process}.pt")
    dist.barrier()  # they leave together: on a busy machine one was seen to abort as the other had left
    dist.destroy_process_group()


def test_two_processes_with_uneven_rows_learn_what_one_learns_from_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_of_two_processes, (tmp_path,), nprocs=2)
    expected = learn(TwoBranches(), 2)
    assert any((x != 0).any() for x in expected)
    for process in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{process}.pt"), expected)
