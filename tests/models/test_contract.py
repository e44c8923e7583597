"""What every model promises, for every name in ``list_models()``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avslib.clip import Clip
from avslib.fusion import channel_spatial_attention, consensus
from avslib.models import C3N, ECMVAE, AVSModel, create_model, list_models
from avslib.training import published_objective

UNTRAINED = {"c3n": ("audio_classifier.", "visual_encoder.backbone.head.", "visual_encoder.backbone.fc.")}
"""Parts that no loss reaches: C3N's classifiers only point out channels."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[] if name.endswith(".small") else [pytest.mark.slow])
        for name in list_models()
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(name: str, **overrides: Any) -> AVSModel:
    torch.manual_seed(0)
    model = create_model(name, **overrides)
    if isinstance(model, C3N):
        model.consensus.set_similarity(torch.rand_like(model.consensus.similarity))
    for module in model.modules():  # where a fresh block passes its input through, nothing could be seen
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine and not module.weight.any():
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model


@pytest.fixture(scope="module")
def model(name: str) -> AVSModel:
    return build(name).eval()


@pytest.fixture(autouse=True)
def in_evaluation(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "model" in request.fixturenames:
        request.getfixturevalue("model").eval().zero_grad()


def make_clip(model: AVSModel, b: int = 2, t: int = 3, h: int = 45, w: int = 61) -> Clip:
    generator = torch.Generator().manual_seed(1)
    masks = torch.randint(0, max(model.num_classes, 2), (b, t, h // 8, w // 8), generator=generator)
    masks = nn.functional.interpolate(masks.float(), size=(h, w)).long()
    every = torch.ones(b, t, dtype=torch.bool)
    return Clip(
        torch.randn(b, t, 3, h, w, generator=generator),
        torch.randn(b, t, 1, 96, 64, generator=generator),
        masks,
        every,
        every,
        [str(i) for i in range(b)],
    )


def predict(model: AVSModel, clip: Clip, **arguments: Any) -> Tensor:
    with torch.no_grad():
        return model(
            clip.frames, clip.log_mel, generator=torch.Generator().manual_seed(3), **arguments
        ).logits


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (2, 3, 45, 61)])
def test_any_batch_any_seconds_any_size(model: AVSModel, shape: tuple[int, int, int, int]) -> None:
    clip = make_clip(model, *shape)
    logits = predict(model, clip)
    assert logits.shape == (*shape[:2], model.num_classes, *shape[2:])
    assert logits.isfinite().all()


def test_with_a_window_of_one_a_second_hears_its_own_sound_alone(name: str) -> None:
    if name.startswith("audio_blind"):
        pytest.skip("it hears nothing")
    whole_clip = [2] if name.startswith("encoder_decoder_film") else [0, 1, 2]  # FiLM is always by second
    for window, touched in ((1, [2]), (None, whole_clip)):
        model = build(name, window=window).eval()
        clip = make_clip(model)
        other = clip.log_mel.clone()
        other[:, 2] += 1
        change = predict(model, clip) - predict(model, clip._replace(log_mel=other))
        largest = change.abs().amax(dim=(0, 2, 3, 4))
        assert [t for t in range(3) if largest[t] > 1e-5 * largest.max()] == touched


def test_the_same_seed_gives_the_same_masks(model: AVSModel) -> None:
    clip = make_clip(model)
    first = predict(model, clip)
    assert torch.equal(first, predict(model, clip))
    with torch.no_grad():
        other = model(clip.frames, clip.log_mel, generator=torch.Generator().manual_seed(4)).logits
    assert torch.equal(first, other) is not model.stochastic


def test_several_samples_are_for_stochastic_models(model: AVSModel) -> None:
    clip = make_clip(model, t=1)
    if not model.stochastic:
        with pytest.raises(ValueError, match=r"num_samples: expected 1, \w+ is deterministic, got 3"):
            model(clip.frames, clip.log_mel, num_samples=3)
        return
    with torch.no_grad():
        output = model(clip.frames, clip.log_mel, num_samples=3)
    assert output.samples is not None
    assert output.samples.shape == (3, *output.logits.shape)
    torch.testing.assert_close(output.probabilities(), output.samples.sigmoid().mean(0))
    assert output.uncertainty().max() > 0


def test_ground_truth_changes_nothing_in_evaluation(model: AVSModel) -> None:
    clip = make_clip(model, t=2)
    samples = {"num_samples": 2} if model.stochastic else {}
    labelled = torch.tensor([[True, False], [False, False]])
    for flags in (None, labelled, torch.zeros_like(labelled)):
        with torch.no_grad():
            told = model(*clip[:3], flags, generator=torch.Generator().manual_seed(3), **samples)
        assert torch.equal(told.logits, predict(model, clip, **samples))
        assert (told.samples is not None) == model.stochastic


def test_the_sound_is_heard_unless_the_model_is_audio_blind(model: AVSModel, name: str) -> None:
    clip = make_clip(model)
    other = clip._replace(log_mel=-clip.log_mel)
    assert torch.equal(predict(model, clip), predict(model, other)) is name.startswith("audio_blind")


def test_embedded_sound_takes_the_place_of_log_mels(name: str, model: AVSModel) -> None:
    clip = make_clip(model)
    if model.audio_encoder is None:
        assert torch.equal(
            predict(model, clip), predict(model, clip._replace(log_mel=torch.empty(2, 3, 128)))
        )
        return
    with torch.no_grad():
        embedded = clip._replace(log_mel=model.audio_encoder(clip.log_mel))
    expected = predict(model, clip)
    calls: list[nn.Module] = []
    hook = model.audio_encoder.register_forward_hook(lambda module, *_: calls.append(module))
    assert torch.equal(predict(model, embedded), expected)
    with torch.autocast("cpu", torch.bfloat16):  # what is stored is float32
        assert predict(model, embedded).isfinite().all()
    assert not calls
    hook.remove()


def test_embedded_sound_gives_the_gradients_of_a_frozen_encoder(name: str) -> None:
    if not name.endswith(".small"):
        pytest.skip("the same code as the small variant")
    if name.startswith("audio_blind"):
        pytest.skip("hears nothing")
    gradients = []
    for embed in (False, True):
        model = build(name, freeze_audio=True).train()
        clip = make_clip(model)
        assert model.audio_encoder is not None
        if embed:
            clip = clip._replace(log_mel=model.audio_encoder(clip.log_mel))
        torch.manual_seed(0)
        published_objective(model)(model(*clip[:5]), clip)["loss"].backward()
        gradients.append({key: each.grad for key, each in model.named_parameters() if each.grad is not None})
    without, having = gradients
    assert without
    assert without.keys() == having.keys()
    for key, gradient in without.items():
        assert torch.equal(having[key], gradient), key


def test_a_batch_is_its_clips_one_by_one(model: AVSModel, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(model)
    monkeypatch.setattr(torch, "randn", lambda *size, **kwargs: torch.zeros(*size))  # the noise of a model
    together = predict(model, clip)
    for i in range(2):
        one = clip._replace(frames=clip.frames[i : i + 1], log_mel=clip.log_mel[i : i + 1])
        torch.testing.assert_close(predict(model, one), together[i : i + 1], rtol=1e-3, atol=1e-4)


def test_padded_frames_have_logits_of_zero_and_change_nothing_but_attention(model: AVSModel) -> None:
    clip = make_clip(model)
    valid = torch.tensor([[True, True, False], [True, True, True]])
    logits = predict(model, clip, valid=valid)
    assert not logits[0, 2].any()
    assert logits[~torch.isclose(logits, torch.zeros(()))].numel() > 0
    other = clip._replace(frames=clip.frames.clone())
    other.frames[0, 2] = 7.0
    torch.testing.assert_close(predict(model, other, valid=valid), logits)


def test_training_reaches_every_parameter_that_should_learn_and_no_other(name: str, model: AVSModel) -> None:
    clip = make_clip(model)
    model.train()
    output = model(clip.frames, clip.log_mel, clip.masks, clip.labelled, clip.valid)
    terms = published_objective(model)(output, clip)
    assert terms["loss"].isfinite()
    terms["loss"].backward()
    untrained = UNTRAINED.get(name.split(".")[0], ())
    if model.audio_encoder is not None and model.audio_encoder.frozen:
        untrained = (*untrained, "audio_encoder.")
    for key, parameter in model.named_parameters():
        reached = parameter.grad is not None
        assert reached is not key.startswith(untrained), key
        assert not reached or parameter.grad.isfinite().all(), key


def test_masks_of_unlabelled_frames_are_not_read(name: str) -> None:
    if not name.endswith(".small"):
        pytest.skip("the same code as the small variant")
    labelled = torch.tensor([[True, False, True], [True, True, False]])
    losses = []
    for other in (0, 1):
        model = build(name).train()
        clip = make_clip(model)
        masks = torch.where(labelled[..., None, None], clip.masks, other)
        clip = clip._replace(masks=masks, labelled=labelled)
        torch.manual_seed(0)
        output = model(*clip[:5])
        torch.manual_seed(0)
        losses.append(published_objective(model)(output, clip)["loss"])
    assert torch.equal(*losses)


def test_a_batch_without_ground_truth_costs_nothing_and_leaves_a_graph(name: str) -> None:
    if not name.endswith(".small"):
        pytest.skip("the same code as the small variant")
    model = build(name).train()
    clip = make_clip(model)
    clip = clip._replace(labelled=torch.zeros_like(clip.labelled))
    terms = published_objective(model)(model(*clip[:5]), clip)
    matching = terms.pop("matching", torch.zeros(()))  # of sights and sounds: it needs no truth
    for term in terms.values():
        assert term.isfinite()
    terms["loss"].backward()
    assert matching.any() or not terms["loss"].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_weights_make_the_model(name: str, model: AVSModel) -> None:
    other = create_model(name).eval()
    clip = make_clip(model, t=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(predict(other, clip), predict(model, clip))


def test_a_saved_model_is_the_same_model(model: AVSModel, tmp_path: Path) -> None:
    numbers = {"mIoU": 0.123}
    model.frame_size = (96, 64)
    model.save_pretrained(
        tmp_path, model_card_kwargs={"data": "MS3", "protocol": "avsbench", "numbers": numbers}
    )
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert loaded.frame_size == (96, 64)
    clip = make_clip(model, t=1)
    assert torch.equal(predict(loaded, clip), predict(model, clip))
    card = (tmp_path / "README.md").read_text()
    assert type(model).__name__ in card
    for line in ("MS3", "avsbench", "| mIoU | 0.123 |", '"backbone"'):
        assert line in card


def test_bfloat16_agrees_with_float32(model: AVSModel) -> None:
    clip = make_clip(model)
    full = predict(model, clip).sigmoid()
    with torch.autocast("cpu", torch.bfloat16):
        half = predict(model, clip).float().sigmoid()
    assert half.isfinite().all()
    # eight bits of mantissa through some fifty layers; C3N's class may change, and its attention with it
    assert (full - half).abs().mean() < 0.05


def test_weights_in_bfloat16_segment_what_readers_give(model: AVSModel) -> None:
    if isinstance(model, C3N):
        pytest.skip("a class may change, and its attention with it")
    clip = make_clip(model)
    frames = (clip.frames * 40 + 128).clamp(0, 255).byte()
    clip = clip._replace(frames=frames)
    full = predict(model, clip).sigmoid()
    half = predict(copy.deepcopy(model).bfloat16(), clip)
    assert half.dtype == torch.bfloat16
    assert (full - half.float().sigmoid()).abs().mean() < 0.05
    wide = predict(copy.deepcopy(model).double(), clip)
    assert wide.dtype == torch.float64
    if not model.stochastic:  # in another type, other noise
        torch.testing.assert_close(wide.sigmoid().float(), full, rtol=1e-3, atol=1e-3)


def test_the_forward_pass_compiles_as_one_graph(model: AVSModel) -> None:
    """Without code generation: what is shown is that nothing in it stops the tracing."""
    clip = make_clip(model, t=2)
    if isinstance(model, C3N):  # a gradient is taken in the middle; the parts around it compile
        compile_parts(model, clip)
        return
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.manual_seed(0)
        expected = model(clip.frames, clip.log_mel).logits
        torch.manual_seed(0)
        actual = compiled(clip.frames, clip.log_mel).logits
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def compile_parts(model: C3N, clip: Clip) -> None:
    seen = model.visual_encoder(clip.frames.flatten(0, 1))
    n = len(seen.scores)
    heard = torch.randn(n, model.consensus.similarity.shape[1])
    attend = partial(consensus, similarity=model.consensus.similarity)
    gate = partial(channel_spatial_attention, weights=torch.randn(n, seen.levels[0].shape[1]))
    levels = [level[None] for level in model.neck(seen.levels)]
    audio = torch.randn(1, n, model.audio_encoder.embedding_dim)
    decode = partial(model.decoder, size=clip.frames.shape[-2:])
    for part, arguments in (
        (attend, (seen.scores.detach(), heard)),
        (gate, (seen.levels[0],)),
        (model.neck, (seen.levels,)),
        (model.fusion, (levels, audio)),
        (decode, (levels,)),
    ):
        torch._dynamo.reset()
        actual = torch.compile(part, backend="eager", fullgraph=True)(*arguments)
        torch.testing.assert_close(actual, part(*arguments), rtol=1e-4, atol=1e-4)


def test_wrong_shapes_are_named(model: AVSModel) -> None:
    clip = make_clip(model)
    with pytest.raises(ValueError, match=r"frames: expected shape \(b, t, 3, h, w\)"):
        model(clip.frames[:, :, :2], clip.log_mel)
    with pytest.raises(ValueError, match=r"frames: expected at least one clip of one second, got \(2, 0, 3"):
        model(clip.frames[:, :0], clip.log_mel[:, :0])
    with pytest.raises(ValueError, match=r"frames: expected uint8 or floating-point .*, got torch\.int32"):
        model(clip.frames.int(), clip.log_mel)
    with pytest.raises(TypeError, match="frames: expected a tensor, got ndarray"):
        model(clip.frames.numpy(), clip.log_mel)
    with pytest.raises(ValueError, match="at least 32 px, got 16 x 61"):
        model(clip.frames[..., :16, :], clip.log_mel)
    with pytest.raises(ValueError, match=r"masks: expected shape .* h=45, w=61"):
        model(clip.frames, clip.log_mel, clip.masks[..., :-1])
    with pytest.raises(ValueError, match=r"labelled: expected shape \(b, t\) with b=2, t=3"):
        model(clip.frames, clip.log_mel, clip.masks, clip.labelled[:, :2])
    with pytest.raises(ValueError, match=r"valid: expected shape \(b, t\) with b=2, t=3"):
        model(clip.frames, clip.log_mel, valid=clip.valid[:1])
    with pytest.raises(ValueError, match=r"labelled: expected bool, got torch\.int64"):
        model(clip.frames, clip.log_mel, clip.masks, clip.labelled.long())
    if model.audio_encoder is not None:
        with pytest.raises(ValueError, match="log_mel: expected the sound"):
            model(clip.frames)
        with pytest.raises(ValueError, match=r"log_mel: expected shape \(b, t, 1, 96, 64\) with b=2, t=3"):
            model(clip.frames, clip.log_mel[:, :2])
        width = model.audio_encoder.embedding_dim
        with pytest.raises(
            ValueError, match=rf"log_mel: expected shape \(b, t, a\) with b=2, t=3, a={width}"
        ):
            model(clip.frames, torch.zeros(2, 3, width + 1))
        if not model.audio_encoder.frozen:
            model.train()
            with pytest.raises(ValueError, match=r"log_mel: expected log-mel examples .* not frozen"):
                model(clip.frames, torch.zeros(2, 3, width))


def test_ecmvae_draws_other_codes_for_its_posterior() -> None:
    model = build("ecmvae.small").eval()
    assert isinstance(model, ECMVAE)
    clip = make_clip(model)
    with torch.no_grad():
        output = model(clip.frames, clip.log_mel, clip.masks)
    assert not torch.equal(output.logits, output.terms.posterior_logits)
