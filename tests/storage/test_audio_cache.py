from __future__ import annotations

import os
import pickle
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from avslib.clip import Clip
from avslib.data import (
    AVSBenchMS3,
    AVSBenchS4,
    AVSBenchSemantic,
    ClipTransform,
    NoiseSound,
    RandomLogMelGain,
    ShiftedSound,
    SilentSound,
    SwappedSound,
    write_avsbench,
)
from avslib.encoders import AudioEncoder
from avslib.models import AVSModel, DiffusionAVS, create_model
from avslib.storage.audio_cache import CachedAudio, cache_audio
from avslib.storage.cache import CachedClips
from avslib.training import AVSBenchObjective, DiffusionAVSObjective, ModelPredictions, evaluate, fit
from tests.storage._tiny import TinyClips, assert_same

forks = pytest.mark.filterwarnings("ignore:This process", "ignore:This DataLoader")  # on few cores


class UnevenClips(TinyClips):
    """Clips of one to three seconds."""

    def __getitem__(self, index: int) -> Clip:
        index = range(len(self))[index]
        return TinyClips(self.count, seconds=1 + index % 3)[index]


def make_encoder(seed: int = 0, **options: Any) -> AudioEncoder:
    torch.manual_seed(seed)
    encoder = AudioEncoder("mel_cnn", **({"embedding_dim": 16, "frozen": True} | options))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that it matters in which mode they are
            nn.init.uniform_(module.running_mean, -1, 1)
    return encoder


def calls_of(network: nn.Module) -> list[nn.Module]:
    """Return a list that grows by one at every call of a network."""
    calls: list[nn.Module] = []
    network.register_forward_hook(lambda module, arguments, output: calls.append(module))
    return calls


def train_clips(folder: Path, **options: Any) -> AVSBenchMS3:
    return AVSBenchMS3(folder, "train", size=(32, 32), **options)


@pytest.fixture(scope="module")
def ms3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ms3")
    write_avsbench(folder, setting="ms3", clips={"train": 4, "val": 4}, size=32, videos=False)
    return folder


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    return make_encoder().eval()


@pytest.fixture(scope="module")
def stored(ms3: Path, encoder: AudioEncoder) -> Path:
    cache_audio(train_clips(ms3), encoder, ms3 / "train.safetensors")
    return ms3 / "train.safetensors"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_every_clip_has_what_the_encoder_makes_of_it(tmp_path: Path, batch_size: int) -> None:
    clips, encoder = UnevenClips(7), make_encoder()  # in training mode, as it is when it is built
    cache_audio(clips, encoder, tmp_path / "new" / "sound.safetensors", batch_size=batch_size)
    cached = CachedAudio(clips, tmp_path / "new" / "sound.safetensors", encoder)
    encoder.eval()
    assert len(cached) == 7
    for index in (*range(7), -1, -7):
        clip = clips[index]
        expected = clip._replace(log_mel=encoder(clip.log_mel))
        assert cached[index].log_mel.dtype == torch.float32
        torch.testing.assert_close(cached[index].log_mel, expected.log_mel, rtol=1e-6, atol=1e-6)
        assert_same(cached[index]._replace(log_mel=expected.log_mel), expected)
    with pytest.raises(IndexError):
        cached[7]


@pytest.mark.parametrize("reader", [AVSBenchS4, AVSBenchMS3, AVSBenchSemantic])
def test_readers_too_padding_included(tmp_path: Path, encoder: AudioEncoder, reader: Any) -> None:
    setting = {AVSBenchS4: "s4", AVSBenchMS3: "ms3", AVSBenchSemantic: "avss"}[reader]
    write_avsbench(tmp_path, setting=setting, clips={"test": 3}, size=32, videos=False)
    clips = reader(tmp_path, "test", size=(32, 32))
    cache_audio(clips, encoder, tmp_path / "test.safetensors")
    cached = CachedAudio(clips, tmp_path / "test.safetensors", encoder)
    (batch,) = DataLoader(cached, batch_size=3)
    expected = encoder(torch.stack([clips[index].log_mel for index in range(3)]))
    torch.testing.assert_close(batch.log_mel, expected, rtol=1e-6, atol=1e-6)


def test_progress_counts_the_clips(tmp_path: Path, encoder: AudioEncoder) -> None:
    counts: list[int] = []
    cache_audio(TinyClips(5), encoder, tmp_path / "a.safetensors", batch_size=4, progress=counts.append)
    assert counts == [2, 2, 1]


def test_the_file_says_what_it_is(tmp_path: Path, encoder: AudioEncoder) -> None:
    cache_audio(UnevenClips(3), encoder, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert file.get_tensor("embeddings").shape == (6, 16)
        assert file.get_tensor("offsets").tolist() == [0, 1, 3, 6]
    assert metadata.pop("weights_sha256").isalnum()
    assert metadata == {"version": "1", "network": "MelCNN", "dataset": "UnevenClips"}


def test_reading_clips_is_left_out_of_inference_mode(tmp_path: Path, encoder: AudioEncoder) -> None:
    """Else a dataset that keeps what it read could not be trained on afterwards."""

    class Kept(TinyClips):
        kept: list[Tensor] = []  # noqa: RUF012

        def __getitem__(self, index: int) -> Clip:
            clip = super().__getitem__(index)
            self.kept.append(clip.log_mel)
            return clip

    cache_audio(Kept(2), encoder, tmp_path / "a.safetensors")
    assert not any(log_mel.is_inference() for log_mel in Kept.kept)


def test_what_is_read_may_be_changed_in_place(tmp_path: Path, encoder: AudioEncoder) -> None:
    cache_audio(TinyClips(2), encoder, tmp_path / "a.safetensors")
    cached = CachedAudio(TinyClips(2), tmp_path / "a.safetensors", encoder)
    before = cached[1].log_mel.clone()
    cached[1].log_mel.zero_()
    assert torch.equal(cached[1].log_mel, before)


# ---- what a model does with it


@pytest.fixture
def model() -> AVSModel:
    torch.manual_seed(0)
    return create_model("avsbench.small", freeze_audio=True).eval()


def cached_for(model: AVSModel, clips: Any, path: Path) -> CachedAudio:
    assert model.audio_encoder is not None
    cache_audio(clips, model.audio_encoder, path)
    return CachedAudio(clips, path, model.audio_encoder)


def test_scores_and_predictions_stay_and_the_network_is_not_called(
    ms3: Path, tmp_path: Path, model: AVSModel
) -> None:
    clips = train_clips(ms3)
    cached = cached_for(model, clips, tmp_path / "a.safetensors")
    expected = evaluate(model, clips), [each.logits for each in ModelPredictions(model, clips)]
    assert model.audio_encoder is not None
    calls = calls_of(model.audio_encoder)
    assert evaluate(model, cached) == pytest.approx(expected[0], abs=1e-6)
    for ours, theirs in zip(ModelPredictions(model, cached), expected[1], strict=True):
        torch.testing.assert_close(ours.logits, theirs, rtol=0, atol=1e-6)
    assert not calls


def test_training_takes_the_same_steps_and_the_network_is_not_called(ms3: Path, tmp_path: Path) -> None:
    weights, histories, called = [], [], []
    for with_cache in (False, True):
        torch.manual_seed(0)
        model = create_model("avsbench.small", freeze_audio=True)
        clips = train_clips(ms3)
        dataset = cached_for(model, clips, tmp_path / "a.safetensors") if with_cache else clips
        assert model.audio_encoder is not None
        calls = calls_of(model.audio_encoder)
        history = fit(
            model,
            AVSBenchObjective(),
            DataLoader(dataset, batch_size=2),
            torch.optim.SGD(model.parameters(), 1e-3),  # Adam's first steps turn a last bit into a sign
            epochs=1,
            run_dir=tmp_path / f"{with_cache}",
            validate=lambda network, on=dataset: evaluate(network, on)["miou"],
            progress=False,
        )
        weights.append(model.state_dict())
        histories.append(history)
        called.append(len(calls))
    assert called == [3, 0]  # two batches to train on, one to score
    assert histories[1] == [pytest.approx(record, rel=1e-5, abs=1e-6) for record in histories[0]]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("latent", ["sampled", "noise", "ground_truth"])
def test_a_diffusion_model_is_scored_with_every_latent(ms3: Path, tmp_path: Path, latent: str) -> None:
    torch.manual_seed(0)
    model = DiffusionAVS("test_resnet.r160_in1k", audio_encoder="mel_cnn", freeze_audio=True, channels=64)
    clips = train_clips(ms3)
    cached = cached_for(model, clips, tmp_path / "a.safetensors")
    expected = evaluate(model, clips, latent=latent)
    assert evaluate(model, cached, latent=latent) == pytest.approx(expected, abs=1e-6)
    clip = next(iter(DataLoader(cached, batch_size=2)))
    DiffusionAVSObjective()(model.train()(*clip[:5]), clip)["loss"].backward()


# ---- which clips a file serves


def test_it_serves_the_same_sounds_with_other_pictures(
    ms3: Path, stored: Path, encoder: AudioEncoder
) -> None:
    flip = ClipTransform(v2.RandomHorizontalFlip(1.0))
    raw = train_clips(ms3, normalize=False)
    expected = CachedAudio(train_clips(ms3), stored, encoder)
    for clips in (
        AVSBenchMS3(ms3, "train", size=(48, 40)),
        train_clips(ms3, transform=flip),
        CachedClips(raw, ms3 / "cache"),
        CachedClips(raw, ms3 / "cache", transform=flip, normalize=False),
        train_clips(ms3, sound="wav"),  # the stored log-mels of this set were computed from these files
    ):
        cached = CachedAudio(clips, stored, encoder)
        for index in range(4):
            assert torch.equal(cached[index].log_mel, expected[index].log_mel)
            assert_same(cached[index]._replace(log_mel=clips[index].log_mel), clips[index])


@pytest.mark.parametrize("other", [SilentSound, NoiseSound, SwappedSound, ShiftedSound])
def test_another_sound_is_refused(
    ms3: Path, stored: Path, encoder: AudioEncoder, other: Callable[[Any], Any]
) -> None:
    with pytest.raises(ValueError, match=r"clips: '\w+' does not sound as it did .* a mean log-mel of"):
        CachedAudio(other(train_clips(ms3)), stored, encoder)


def test_other_clips_are_refused(ms3: Path, stored: Path, tmp_path: Path, encoder: AudioEncoder) -> None:
    with pytest.raises(ValueError, match=r"clips: .* does not sound as it did when .*train.safetensors was"):
        CachedAudio(AVSBenchMS3(ms3, "val"), stored, encoder)
    with pytest.raises(ValueError, match="got 4 s, expected 5; give the clips that were embedded"):
        CachedAudio(train_clips(ms3, seconds=4), stored, encoder)
    cache_audio(TinyClips(5), encoder, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"clips: .* was made of 5 clips, got 4; create it again"):
        CachedAudio(TinyClips(4), tmp_path / "a.safetensors", encoder)
    with pytest.raises(ValueError, match=r"log_mel: expected shape \(t, 1, 96, 64\), got \(5, 16\)"):
        CachedAudio(CachedAudio(train_clips(ms3), stored, encoder), stored, encoder)


class OneOther(TinyClips):
    """The clip in the middle has changed."""

    def __getitem__(self, index: int) -> Clip:
        clip = super().__getitem__(index)
        return clip._replace(log_mel=clip.log_mel * 1.1) if clip.id == "clip.2" else clip


@forks
@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_in_the_middle_is_refused_when_it_is_read(
    tmp_path: Path, encoder: AudioEncoder, workers: int
) -> None:
    cache_audio(TinyClips(5), encoder, tmp_path / "a.safetensors")
    cached = CachedAudio(OneOther(5), tmp_path / "a.safetensors", encoder)
    with pytest.raises(ValueError, match=r"clips: 'clip.2' does not sound as it did"):
        list(DataLoader(cached, num_workers=workers))


def test_a_sound_that_changes_at_random_is_refused(ms3: Path, stored: Path, encoder: AudioEncoder) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="does not sound as it did"):
        CachedAudio(train_clips(ms3, transform=RandomLogMelGain()), stored, encoder)


def test_the_last_bits_of_a_log_mel_do_not_matter(tmp_path: Path, encoder: AudioEncoder) -> None:
    class Elsewhere(TinyClips):
        def __getitem__(self, index: int) -> Clip:
            clip = super().__getitem__(index)
            return clip._replace(log_mel=clip.log_mel * (1 + 1e-6))

    cache_audio(TinyClips(3), encoder, tmp_path / "a.safetensors")
    cached = CachedAudio(Elsewhere(3), tmp_path / "a.safetensors", encoder)
    assert len([clip.id for clip in cached]) == 3


def test_a_clip_that_can_no_longer_be_read_is_passed_over(tmp_path: Path, encoder: AudioEncoder) -> None:
    write_avsbench(tmp_path, setting="ms3", clips={"train": 3}, size=32, videos=False)
    clips = train_clips(tmp_path, on_error="skip")
    cache_audio(clips, encoder, tmp_path / "a.safetensors")
    frame = clips.clips[0].frames[0]
    whole = frame.read_bytes()
    frame.write_bytes(whole[:40])
    with pytest.warns(UserWarning, match="is left out"):
        cached = CachedAudio(clips, tmp_path / "a.safetensors", encoder)
    with pytest.warns(UserWarning, match="is left out"):
        assert not cached[0].valid.any()
    with pytest.warns(UserWarning, match="is left out"):
        cache_audio(clips, encoder, tmp_path / "b.safetensors")
    frame.write_bytes(whole)
    assert cached[0].valid.all()
    with pytest.raises(ValueError, match="does not sound as it did"):  # what was embedded is no sound
        CachedAudio(clips, tmp_path / "b.safetensors", encoder)


# ---- which encoders


def test_another_encoder_is_refused(ms3: Path, stored: Path, encoder: AudioEncoder) -> None:
    clips = train_clips(ms3)
    with pytest.raises(
        ValueError, match=r"audio_encoder: .* weights_sha256='.*', expected .* create it again"
    ):
        CachedAudio(clips, stored, make_encoder(1))
    with pytest.raises(ValueError, match=r"made with weights_sha256="):
        CachedAudio(clips, stored, make_encoder(embedding_dim=8))
    with torch.device("meta"):
        vggish = AudioEncoder("vggish")
    vggish.network.embeddings = vggish.network.features = nn.Identity()
    with pytest.raises(ValueError, match=r"made with network='MelCNN', expected 'VGGish'"):
        CachedAudio(clips, stored, vggish)


def test_an_encoder_that_learns_is_refused(ms3: Path, stored: Path, tmp_path: Path) -> None:
    learning = make_encoder(frozen=False)
    with pytest.raises(ValueError, match=r"audio_encoder: expected a frozen one, .* freeze_audio=True"):
        cache_audio(TinyClips(2), learning, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="audio_encoder: expected a frozen one"):
        CachedAudio(train_clips(ms3), stored, learning)
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_replaced_by_that_of_another_encoder_is_noticed(
    tmp_path: Path, encoder: AudioEncoder
) -> None:
    cache_audio(TinyClips(2), encoder, tmp_path / "a.safetensors")
    cached = CachedAudio(TinyClips(2), tmp_path / "a.safetensors", encoder)
    cache_audio(TinyClips(2), make_encoder(1), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"audio_encoder: .* was made with weights_sha256="):
        cached[0]


# ---- what is not stored


def test_what_would_be_stored_for_ever_is_refused(ms3: Path, tmp_path: Path, encoder: AudioEncoder) -> None:
    for clips, message in (
        (train_clips(ms3, transform=lambda clip: clip), "expected a dataset without transform"),
        (
            train_clips(ms3, sound="wav", sound_transform=lambda waveform: 2 * waveform),
            "expected a dataset without sound_transform",
        ),
        (TinyClips(0), "expected at least one, got none"),
    ):
        with pytest.raises(ValueError, match=f"clips: {message}"):
            cache_audio(clips, encoder, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="batch_size: expected a number above 0, got 0"):
        cache_audio(TinyClips(1), encoder, tmp_path / "a.safetensors", batch_size=0)
    assert not list(tmp_path.iterdir())


# ---- the file


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_a_damaged_file_is_refused(tmp_path: Path, encoder: AudioEncoder, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    cache_audio(TinyClips(2), encoder, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a.safetensors: is damaged; create it again with cache_audio \("):
        CachedAudio(TinyClips(2), path, encoder)


def test_a_file_of_something_else_is_refused(tmp_path: Path, encoder: AudioEncoder) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match=r"a.safetensors: no such file; cache_audio makes it"):
        CachedAudio(TinyClips(2), path, encoder)
    save_file({"log_mel": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"was made with version=None, expected '1'"):
        CachedAudio(TinyClips(2), path, encoder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("moment", ["embedding", "writing"])
@pytest.mark.parametrize("old", [False, True])
def test_after_a_kill_there_is_the_old_file_or_none(
    tmp_path: Path, encoder: AudioEncoder, moment: str, old: bool
) -> None:
    path = tmp_path / "a.safetensors"
    if old:
        cache_audio(TinyClips(2), encoder, path)
    before = path.read_bytes() if old else b""

    def end(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # to fork beside threads: they are idle
        child = os.fork()
    if not child:
        try:
            if moment == "writing":
                os.fsync = end  # all is written, but not under its name
            cache_audio(TinyClips(5), encoder, path, progress=end if moment == "embedding" else None)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert path.exists() is old
    assert not old or path.read_bytes() == before
    cache_audio(TinyClips(5), encoder, path)
    assert len(CachedAudio(TinyClips(5), path, encoder)) == 5


@forks
def test_workers_read_the_same(ms3: Path, stored: Path, encoder: AudioEncoder) -> None:
    cached = CachedAudio(train_clips(ms3), stored, encoder)
    batches = list(DataLoader(cached, batch_size=2, num_workers=2))
    for batch, expected in zip(batches, DataLoader(cached, batch_size=2), strict=True):
        assert batch.log_mel.shape == (2, 5, 16)
        assert_same(batch, expected)
    sent = pickle.dumps(cached)
    assert len(sent) < len(pickle.dumps(cached.clips)) + 1000
    assert_same(pickle.loads(sent)[1], cached[1])
