from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from avslib import Neck, VisualEncoder
from avslib.encoders.state_dict import read_state_dict


@pytest.mark.parametrize(
    ("backbone", "channels"),
    [
        ("resnet50", (256, 512, 1024, 2048)),
        ("pvt_v2_b5", (64, 128, 320, 512)),
        ("resnet18", (64, 128, 256, 512)),
    ],
)
def test_the_papers_backbones_have_the_papers_channels(backbone: str, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):
        assert VisualEncoder(backbone).channels == channels


@settings(max_examples=6)
@given(h=st.integers(32, 90), w=st.integers(32, 90))
def test_four_levels_at_strides_4_to_32_for_any_size(h: int, w: int) -> None:
    encoder = VisualEncoder("resnet18").eval()
    levels = encoder(torch.randn(1, 3, h, w))
    assert [level.shape[2:] for level in levels] == [(-(-h // s), -(-w // s)) for s in (4, 8, 16, 32)]


def test_a_backbone_that_puts_channels_last_is_turned() -> None:
    encoder = VisualEncoder("swin_tiny_patch4_window7_224").eval()
    levels = encoder(torch.randn(1, 3, 224, 224))
    assert [tuple(level.shape) for level in levels] == [
        (1, channels, side, side) for channels, side in zip(encoder.channels, (56, 28, 14, 7), strict=True)
    ]


def test_channels_last_are_told_from_a_height_that_equals_their_number() -> None:
    encoder = VisualEncoder("mambaout_femto").eval()  # 48 channels in its first level
    shapes = [tuple(level.shape) for level in encoder(torch.randn(1, 3, 192, 64))]
    assert shapes == [
        (1, c, 192 // s, 64 // s) for c, s in zip(encoder.channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize("backbone", ["resnet18", "pvt_v2_b0"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_of_the_whole_classifier_fit(backbone: str, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = timm.create_model(backbone, pretrained=False).eval()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(classifier.state_dict(), path)
    else:
        save_file(classifier.state_dict(), path)
    encoder = VisualEncoder(backbone, weights=path).eval()
    frames = torch.randn(1, 3, 64, 64)
    expected = classifier.forward_intermediates(frames, intermediates_only=True)[-4:]
    for level, same in zip(encoder(frames), expected, strict=True):
        torch.testing.assert_close(level, same)


@pytest.mark.parametrize(
    "backbone",
    [
        "densenet121",  # features.denseblock1 -> features_denseblock1
        "tresnet_m",  # body.conv1 -> body_conv1, and a head that is left out
        "cspresnet50",  # stages.0.blocks -> stages_0.blocks, stem.conv1 -> stem_conv1
        "hiera_tiny_224",  # wrapped as `model`
        "legacy_xception",  # wrapped as `body`
    ],
)
def test_timms_own_names_are_found_however_features_only_changes_them(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):  # names and shapes alone
        stored = timm.create_model(backbone).state_dict()
        encoder = VisualEncoder(backbone)
    monkeypatch.setattr("avslib.encoders.backbone.read_state_dict", lambda _: stored)
    encoder.load_weights(tmp_path / "weights.pth")


def test_weights_of_another_backbone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    with pytest.raises(
        ValueError, match=r"resnet18\.safetensors: expected the weights .* are missing or have another"
    ):
        VisualEncoder("resnet34", weights=path)


def test_what_is_no_file_of_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file of weights"):
        read_state_dict(tmp_path / "none.pth")
    for name in ("a.pth", "a.safetensors"):
        for content in (b"", b"hello", b"\x80\x02" + bytes(40)):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name}: expected a file of weights"):
                read_state_dict(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: expected a dictionary of tensors, got list"):
        read_state_dict(tmp_path / "list.pth")


def test_a_file_of_weights_runs_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "canary",))

    torch.save({"weight": Hostile()}, tmp_path / "hostile.pth")
    # nor does the message advise to let it, as torch's own does
    with pytest.raises(
        ValueError, match=r"hostile\.pth: expected a file of weights .* save only its state_dict$"
    ):
        read_state_dict(tmp_path / "hostile.pth")
    assert not (tmp_path / "canary").exists()


def test_unknown_backbones_and_wrong_frames_are_named() -> None:
    with pytest.raises(ValueError, match=r"got 'resnet5'; the nearest are .*resnet50"):
        VisualEncoder("resnet5")
    with pytest.raises(
        ValueError, match=r"backbone: expected strides \(4, 8, 16, 32\), 'vit_tiny_patch16_224' has"
    ):
        VisualEncoder("vit_tiny_patch16_224")
    with pytest.raises(ValueError, match="frames: expected H and W of at least 32 px, got 31 x 64"):
        VisualEncoder("resnet18")(torch.zeros(1, 3, 31, 64))


def test_checkpointing_keeps_less_and_gives_the_same_gradients() -> None:
    kept, gradients = [], []
    for enable in (False, True):
        torch.manual_seed(0)
        encoder = VisualEncoder("pvt_v2_b0").train()
        encoder.set_grad_checkpointing(enable)
        saved: dict[int, int] = {}

        def pack(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            levels = encoder(torch.rand(2, 3, 64, 64))
        kept.append(sum(saved.values()))
        torch.stack([level.square().mean() for level in levels]).sum().backward()
        gradients.append([p.grad for p in encoder.parameters()])
    assert kept[1] < kept[0] / 2
    torch.testing.assert_close(*gradients)


def test_a_backbone_that_cannot_checkpoint_is_named() -> None:
    with pytest.raises(ValueError, match="backbone: expected one whose gradients timm can checkpoint"):
        VisualEncoder("hrnet_w18_small").set_grad_checkpointing()


def test_the_neck_brings_every_level_to_one_width() -> None:
    neck = Neck((8, 16, 32), out_channels=12)
    levels = neck([torch.randn(2, c, 5, 7) for c in (8, 16, 32)])
    assert [tuple(level.shape) for level in levels] == [(2, 12, 5, 7)] * 3
    with pytest.raises(ValueError, match="pyramid: expected 3 levels, got 2"):
        neck([torch.randn(2, 8, 5, 7)] * 2)
