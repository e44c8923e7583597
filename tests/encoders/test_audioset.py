from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from avslib.encoders.audioset import AudioSetHead
from avslib.encoders.pca import scale_quantized
from tests import _golden

NAMES = (
    (r"input_norm\.", "emb.bn0."),
    (r"layers\.(\d)\.0\.", r"emb.conv\1."),
    (r"layers\.(\d)\.1\.", r"emb.bn\1."),
    (r"attention\.", "attention.att."),
    (r"value\.", "attention.cla."),
    (r"output_norm\.", "bn_attention."),
    (r"classify\.", "fc_final."),
)


def rename(key: str) -> str:
    key = re.sub(r"^layers\.(\d)", lambda match: f"layers.{int(match[1]) + 1}", key)
    (found,) = (re.sub(f"^{ours}", theirs, key) for ours, theirs in NAMES if re.match(ours, key))
    return found


def make(*, seed: int = 0) -> AudioSetHead:
    torch.manual_seed(seed)
    head = AudioSetHead(in_channels=6, hidden_channels=8, num_classes=5)
    for name, tensor in head.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return head.eval()


def literal(head: AudioSetHead, embedding: Tensor) -> Tensor:
    """The published layers on one stretch of sound ``(time, A)``, a step and a channel after the other."""
    steps = []
    for step in embedding:
        x = head.input_norm(step[None])[0]
        for linear, norm, *_ in head.layers:
            x = norm((linear.weight @ x)[None])[0].clamp(min=0)
        steps.append(x)
    pooled = torch.zeros(8)
    for channel in range(8):
        weights = [torch.sigmoid(head.attention(x)[channel]).item() for x in steps]
        values = [head.value(x)[channel].item() for x in steps]
        pooled[channel] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    return head.classify(head.output_norm(pooled[None])[0].clamp(min=0))


@pytest.mark.parametrize("time", [1, 2, 7])
def test_it_is_the_published_layers_one_after_the_other(time: int) -> None:
    head, embedding = make(), torch.randn(2, 3, time, 6)
    expected = torch.stack([literal(head, sound) for sound in embedding.flatten(0, 1)]).view(2, 3, 5)
    torch.testing.assert_close(head(embedding), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head(embedding[0, 0]), expected[0, 0], rtol=1e-4, atol=1e-5)


def test_time_has_no_order_and_repeated_steps_change_nothing() -> None:
    head, embedding = make(), torch.randn(3, 4, 6)
    expected = head(embedding)
    torch.testing.assert_close(head(embedding[:, [2, 0, 3, 1]]), expected)
    torch.testing.assert_close(head(embedding.repeat(1, 3, 1)), expected)


def test_attention_that_shuts_everywhere_is_a_mean() -> None:
    head, embedding = make(), torch.randn(3, 4, 6)
    nn.init.zeros_(head.attention.weight)
    nn.init.zeros_(head.attention.bias)
    expected = head(embedding)
    nn.init.constant_(head.attention.bias, -1e4)
    torch.testing.assert_close(head(embedding), expected)


def test_a_batch_norm_in_training_sees_all_steps_of_all_sounds() -> None:
    head, embedding = make().train(), torch.randn(3, 4, 6) + 2
    head.input_norm.reset_running_stats()
    head(embedding).sum().backward()
    torch.testing.assert_close(head.input_norm.running_mean, 0.1 * embedding.mean(dim=(0, 1)))
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_scores_are_the_published_ones() -> None:
    name = "B_c3n_audio_class_head"
    head = AudioSetHead().eval()
    assert {rename(key) for key in head.state_dict()} == set(_golden.table(name))
    _golden.load_filled(head, name, rename)
    quantized = torch.from_numpy(_golden.inputs(name)["quantised"])
    with torch.no_grad():
        _golden.assert_matches(name, "logits", head(scale_quantized(quantized)[:, None]))


def test_runs_under_autocast() -> None:
    head, embedding = make(), torch.randn(3, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(embedding)
    found.float().sum().backward()
    torch.testing.assert_close(found.float(), head(embedding), rtol=0.05, atol=0.05)


def test_a_new_head_starts_as_published() -> None:
    head = AudioSetHead(num_classes=5)
    for name, parameter in head.named_parameters():
        if parameter.ndim == 2:  # uniform, of variance 2 / fan_in
            assert parameter.var().item() == pytest.approx(2 / parameter.shape[1], rel=0.1)
            assert parameter.abs().max() <= (6 / parameter.shape[1]) ** 0.5
        elif name.endswith("bias"):
            assert not parameter.any()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"embedding: expected shape \(\.\.\., time, a\) with a=6, got \(3, 4, 7\)"
    ):
        make()(torch.zeros(3, 4, 7))
    with pytest.raises(ValueError, match="time: expected a number above 0, got 0"):
        make()(torch.zeros(3, 0, 6))
    with pytest.raises(ValueError, match="num_classes: expected a number above 0, got 0"):
        AudioSetHead(num_classes=0)


def test_state_dict_round_trip() -> None:
    head, other, embedding = make(), make(seed=1), torch.randn(3, 4, 6)
    assert not torch.equal(other(embedding), head(embedding))
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(embedding), head(embedding))
