from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from avslib.metrics import MaskIoU, frame_iou, mask_iou
from tests._golden import arrays

# C_bin_gt_1_over_255 is left out: its ground truth is 1/255, which we refuse (see the errors below).
GOLDEN = (
    "all_empty",
    "all_empty_perfect",
    "extreme_1e4",
    "gt_full",
    "inverted",
    "n1",
    "n10_some_empty",
    "perfect",
    "random_n5",
    "ties_at_half",
    "ties_at_thresholds",
)


def clips(count: int, *, t: int = 3, size: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Clips of which about a third of the frames have no ground truth."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, t, size, size), generator=generator)
    masks *= torch.rand(count, t, 1, 1, generator=generator) > 0.3
    logits = torch.randn(count, t, 1, size, size, generator=generator) + masks[:, :, None]
    return logits, masks


def literal_iou(logits: Tensor, mask: Tensor) -> float:
    """One frame ``(H, W)``, pixel by pixel."""
    pairs = [
        (bool(p > 0.5), bool(m))
        for p, m in zip(logits.float().sigmoid().flatten(), mask.flatten(), strict=True)
    ]
    if not any(m for _, m in pairs):
        return sum(not p for p, _ in pairs) / (len(pairs) + 1e-7)
    return sum(p and m for p, m in pairs) / (sum(p or m for p, m in pairs) + 1e-7)


@given(
    b=st.integers(1, 3),
    t=st.integers(1, 4),
    h=st.integers(1, 5),
    w=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_it_is_the_ratio_counted_pixel_by_pixel(b: int, t: int, h: int, w: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-1, 2, (b, t, 1, h, w), generator=generator).double()  # many ties at 0
    masks = torch.randint(0, 2, (b, t, h, w), generator=generator)
    masks *= torch.rand(b, t, 1, 1, generator=generator) > 0.3
    expected = [[literal_iou(logits[i, j, 0], masks[i, j]) for j in range(t)] for i in range(b)]
    assert frame_iou(logits, masks).tolist() == expected
    torch.testing.assert_close(mask_iou(logits, masks), torch.tensor(expected, dtype=torch.float64).mean())


@given(order=st.permutations(range(7)), cuts=st.sets(st.integers(1, 6)), seed=st.integers(0, 9))
def test_with_one_clip_a_batch_neither_order_nor_grouping_counts(
    order: list[int], cuts: set[int], seed: int
) -> None:
    logits, masks = clips(7, seed=seed)
    metric = MaskIoU()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 7], strict=True):
        metric.update(logits[order[start:stop]], masks[order[start:stop]])
    assert metric.compute().item() == pytest.approx(mask_iou(logits, masks).item(), abs=1e-9)


@pytest.mark.parametrize("user", [1, 2, 3, 7])
@pytest.mark.parametrize("clips_per_batch", [2, 4])
def test_the_protocols_batches_are_not_the_users(clips_per_batch: int, user: int) -> None:
    logits, masks = clips(7)
    expected = torch.stack(
        [
            mask_iou(*part)
            for part in zip(logits.split(clips_per_batch), masks.split(clips_per_batch), strict=True)
        ]
    ).mean()
    metric = MaskIoU(clips_per_batch=clips_per_batch)
    for part in zip(logits.split(user), masks.split(user), strict=True):
        metric.update(*part)
    torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=1e-9)
    assert metric.compute() != mask_iou(logits, masks)  # the short last batch weighs as much as a full one


@pytest.mark.parametrize("clips_per_batch", [1, 2])
def test_padding_is_no_frame_and_a_clip_of_padding_no_clip(clips_per_batch: int) -> None:
    logits, masks = clips(3, t=4)
    valid = torch.tensor([[True] * 4, [False] * 4, [True, True, False, False]])
    padded = logits.masked_fill(~valid[:, :, None, None, None], torch.nan)
    metric = MaskIoU(clips_per_batch=clips_per_batch)
    metric.update(padded, masks.masked_fill(~valid[:, :, None, None], 255), valid)
    kept = [(logits[:1], masks[:1]), (logits[2:, :2], masks[2:, :2])]
    frames = torch.cat([frame_iou(*clip)[0] for clip in kept])
    expected = frames.mean() if clips_per_batch == 2 else (frames[:4].mean() + frames[4:].mean()) / 2
    torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("clips_per_batch", [1, 4])
def test_forward_scores_the_batch_and_goes_on_counting(clips_per_batch: int) -> None:
    logits, masks = clips(6)
    metric, whole = MaskIoU(clips_per_batch=clips_per_batch), MaskIoU(clips_per_batch=clips_per_batch)
    for part in zip(logits.split(3), masks.split(3), strict=True):
        alone = MaskIoU(clips_per_batch=clips_per_batch)
        alone.update(*part)
        torch.testing.assert_close(metric(*part), alone.compute())
    whole.update(logits, masks)
    torch.testing.assert_close(metric.compute(), whole.compute())
    metric.reset()
    metric.update(*clips(6))
    torch.testing.assert_close(metric.compute(), whole.compute())


def test_bfloat16_logits_are_taken_to_float32_first() -> None:
    logits, masks = clips(2)
    logits = (logits * 1e-3).bfloat16()  # all near one half, where bfloat16 knows only 1 of 256 steps
    assert torch.equal(frame_iou(logits, masks), frame_iou(logits.float(), masks))
    assert not torch.equal(logits.sigmoid() > 0.5, logits.float().sigmoid() > 0.5)


def test_a_threshold_moves_the_line() -> None:
    logits, masks = torch.tensor([0.8, 0.6, 0.4, 0.2]).logit().view(1, 1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    for threshold, share in ((0.1, 1.0), (0.5, 0.5), (0.7, 0.25), (0.9, 0.0)):
        metric = MaskIoU(threshold=threshold)
        metric.update(logits, masks)
        assert metric.compute().item() == pytest.approx(share)
        assert mask_iou(logits, masks, threshold=threshold).item() == pytest.approx(share)


@pytest.mark.parametrize("name", GOLDEN)
def test_published_implementation(name: str) -> None:
    stored = arrays(f"C_bin_{name}")
    logits, masks = (torch.from_numpy(stored[key])[None] for key in ("in.pred_logits", "in.gt"))
    assert mask_iou(logits[:, :, None], masks).item() == pytest.approx(
        stored["out.mask_iou"].item(), abs=2e-6
    )
    if "out.mask_iou_per_frame" in stored:
        expected = torch.from_numpy(stored["out.mask_iou_per_frame"])[None].double()
        torch.testing.assert_close(frame_iou(logits[:, :, None], masks), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "clips_per_batch"), [("batches_2_2_1", 2), ("batchsize_1", 1)])
def test_published_test_loop(name: str, clips_per_batch: int) -> None:
    stored = arrays(f"C_loop_{name}")
    metric = MaskIoU(clips_per_batch=clips_per_batch)
    logits, masks = (torch.from_numpy(stored[key]) for key in ("in.pred_logits", "in.gt"))
    logits, masks = logits.unflatten(0, (-1, 5)).unsqueeze(2), masks.unflatten(0, (-1, 5))
    for part in zip(logits.split(3), masks.split(3), strict=True):
        metric.update(*part)
    assert metric.compute().item() == pytest.approx(stored["out.miou"].item(), abs=2e-6)


def test_errors_name_the_argument() -> None:
    metric = MaskIoU()
    logits, masks = torch.zeros(2, 3, 1, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"^logits: expected shape \(b, t, 1, h, w\), got \(2, 3, 4, 4\)"):
        metric.update(masks.float(), masks)
    with pytest.raises(
        ValueError, match=r"^masks: expected shape .* with b=2, t=3, h=4, w=4, got \(2, 3, 8, 8\)"
    ):
        metric.update(logits, torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"^valid: expected shape \(b, t\) with b=2, t=3, got \(2,\)"):
        metric.update(logits, masks, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^protocol: expected one of 'avsbench', 'sama', .*, got 'avss'"):
        MaskIoU("avss")
    with pytest.raises(
        ValueError, match=r"^empty: expected one of 'tn_ratio', 'skip', 'zero_one', got 'one'"
    ):
        frame_iou(logits, masks, empty="one")
    with pytest.raises(ValueError, match=r"^clips_per_batch: expected a number above 0, got 0"):
        MaskIoU(clips_per_batch=0)
    with pytest.raises(ValueError, match=r"^threshold: expected a probability in \[0, 1\), got 1.5"):
        MaskIoU(threshold=1.5)


@pytest.mark.parametrize("value", [2, 255, -1, 1 / 255])
def test_masks_must_be_binary(value: float) -> None:
    logits, masks = torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 2, 4, 4)
    masks[0, 1, 2, 3] = value
    metric = MaskIoU()
    for refuses in (metric.update, frame_iou, mask_iou):
        with pytest.raises(ValueError, match=r"^masks: expected the values 0 and 1"):
            refuses(logits, masks)
    assert metric.batches == 0


def test_masks_that_were_not_binary_on_an_accelerator_are_refused_by_compute() -> None:
    metric = MaskIoU()
    metric.update(*clips(1))
    metric.wrong_frames += 1  # what `update` counts where it does not look
    with pytest.raises(ValueError, match=r"^masks: expected the values 0 and 1"):
        metric.compute()


@pytest.mark.parametrize("clips_per_batch", [1, 4])
def test_without_a_clip_the_score_is_nan_and_torchmetrics_warns(clips_per_batch: int) -> None:
    metric = MaskIoU(clips_per_batch=clips_per_batch)
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert metric.compute().isnan()
    metric.update(*clips(1))
    assert metric.compute().isfinite()
