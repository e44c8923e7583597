"""Base class of all models: frames and sound in, a segmentation out; saved and loaded by the hub mixin."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations at run time.
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Generator, Tensor, nn

from avslib._checks import check_positive, check_shape
from avslib._jobs import permit_as_usual
from avslib._version import __version__
from avslib.encoders import AudioEncoder
from avslib.media import normalize_frames
from avslib.models.output import Segmentation

_CARD = """---
{{ card_data }}
---

# {{ name }}

{{ summary }}

```python
from {{ module }} import {{ name }}

model = {{ name }}.from_pretrained("path/or/repository").eval()
output = model(frames, log_mel)  # (B, T, 3, H, W), ImageNet-normalised; (B, T, 1, 96, 64), VGGish log-mels
masks = output.masks()  # (B, T, H, W), 0 is background
```

## Data

{{ data | default("Not stated.", true) }}

## Protocol

{{ protocol | default("Not stated: numbers without a protocol cannot be compared.", true) }}

## Numbers

{% if numbers %}| measure | value |
| --- | --- |
{% for measure, value in numbers.items() %}| {{ measure }} | {{ value }} |
{% endfor %}{% else %}None stated.
{% endif %}
## Configuration

```json
{{ config }}
```

Source: {{ paper_url or "see the class's documentation" }}. Saved by avslib {{ version }}.
"""


class AVSModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="avslib",
    tags=["audio-visual-segmentation"],
    license="apache-2.0",
    model_card_template=_CARD,
):
    """Base of every model: ``model(frames, log_mel, masks=None, ...) -> Segmentation``.

    ``forward`` embeds the sound, unless it is given precomputed embeddings, and calls :meth:`segment`, which
    each model defines. Training and inference share it, because a distributed wrapper sees only ``forward``.

    ``save_pretrained(folder, model_card_kwargs={"data": ..., "protocol": ..., "numbers": {...}})`` writes
    weights, configuration and a model card with the given statements. ``push_to_hub`` takes the same
    arguments, and ``from_pretrained`` reads a folder or a repository of the hub.
    """

    stochastic: ClassVar[bool] = False
    """Whether two calls may differ and several samples can be drawn."""

    num_classes: int
    """K, number of channels of the logits."""

    frame_size: tuple[int, int] = (224, 224)
    """``(H, W)`` of the training frames, px; saved with the model, which accepts other sizes too."""

    audio_encoder: AudioEncoder | None

    _unwritable: Sequence[str] = ()
    """Constructor arguments that JSON cannot represent; with them the model cannot be saved."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Let the mixin record the arguments, in types that it can write."""
        model = super().__new__(cls, *map(_plain, args), **{name: _plain(x) for name, x in kwargs.items()})
        passed = {**dict(zip(list(cls._hub_mixin_init_parameters)[1:], args, strict=False)), **kwargs}
        model._unwritable = [name for name, x in passed.items() if not cls._is_jsonable(_plain(x))]
        return model

    def forward(
        self,
        frames: Tensor,
        log_mel: Tensor | None = None,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment a batch of clips.

        Args:
            frames: ``(B, T, 3, H, W)``, ImageNet-normalised, or uint8 RGB, which is normalised here;
                ``H, W >= 32``.
            log_mel: VGGish log-mel examples, ``(B, T, 1, 96, 64)``; or their audio embeddings, ``(B, T, A)``,
                as from :class:`~avslib.storage.CachedAudio`, in which case the audio encoder is not called.
                Audio-blind models ignore it.
            masks: ground truth, ``(B, T, H, W)``; if given, the output includes the inputs of the objective.
            labelled: which frames have ground truth, ``(B, T)`` bool; None for all. Masks of other frames
                are ignored.
            valid: which frames are not padding, ``(B, T)`` bool; None for all. The logits of padding are 0.
            num_samples: S, number of predictions to draw from a stochastic model. Given masks in training
                mode, it predicts once. The encoders run once; the logits are those of the mean probability,
                and ``output.samples`` holds each sample.
            generator: source of all noise; the same seed on the same device gives the same masks.

        Raises:
            TypeError: if an argument is not a tensor.
            ValueError: if a tensor is missing or has the wrong shape or type, several samples are requested
                from a deterministic model, or embeddings are given while the audio encoder is being trained;
                the message names the argument.
        """
        size = check_shape("frames", frames, "b t 3 h w")
        b, t = size["b"], size["t"]
        if not b or not t:
            raise ValueError(f"frames: expected at least one clip of one second, got {tuple(frames.shape)}")
        if frames.dtype != torch.uint8 and not frames.is_floating_point():
            raise ValueError(f"frames: expected uint8 or floating-point numbers, got {frames.dtype}")
        check_positive("num_samples", num_samples)
        if num_samples > 1 and not self.stochastic:
            raise ValueError(
                f"num_samples: expected 1, {type(self).__name__} is deterministic, got {num_samples}"
            )
        if masks is not None:
            check_shape("masks", masks, "b t h w", **size)
        for name, flags in (("labelled", labelled), ("valid", valid)):
            if flags is not None:
                check_shape(name, flags, "b t", b=b, t=t)
                if flags.dtype != torch.bool:
                    raise ValueError(f"{name}: expected bool, got {flags.dtype}")
        frames, audio = self.embed(frames, log_mel)
        output = self.segment(
            frames, audio, masks, labelled, valid, num_samples=num_samples, generator=generator
        )
        return output if valid is None else output.without_padding(valid)

    def embed(self, frames: Tensor, log_mel: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return frames and sound as :meth:`segment` takes them, in the dtype of the weights.

        The arguments are those of :meth:`forward`.
        """
        b, t = frames.shape[:2]
        dtype = next(self.parameters()).dtype
        frames = (normalize_frames(frames) if frames.dtype == torch.uint8 else frames).to(dtype)
        if self.audio_encoder is None:
            return frames, None
        if log_mel is None:
            raise ValueError(
                f"log_mel: expected the sound, {type(self).__name__} is not audio-blind, got None"
            )
        log_mel = log_mel.to(dtype)
        if log_mel.dim() != 3:
            check_shape("log_mel", log_mel, "b t 1 96 64", b=b, t=t)
            return frames, self.audio_encoder(log_mel)
        check_shape("log_mel", log_mel, "b t a", b=b, t=t, a=self.audio_encoder.embedding_dim)
        if self.training and not self.audio_encoder.frozen:
            raise ValueError(
                "log_mel: expected log-mel examples (b, t, 1, 96, 64), since the audio encoder is not frozen "
                f"and being trained, got embeddings {tuple(log_mel.shape)}"
            )
        return frames, log_mel

    def segment(
        self,
        frames: Tensor,
        audio: Tensor | None,
        masks: Tensor | None = None,
        labelled: Tensor | None = None,
        valid: Tensor | None = None,
        *,
        num_samples: int = 1,
        generator: Generator | None = None,
    ) -> Segmentation:
        """Segment frames with audio embeddings ``(B, T, A)``; the rest is as in :meth:`forward`."""
        raise NotImplementedError

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the card; keywords ``data``, ``protocol`` and ``numbers`` fill its sections."""
        return super().generate_model_card(
            name=type(self).__name__,
            module=_public_module(type(self)),
            summary=(type(self).__doc__ or "").split("\n\n")[0],
            config=json.dumps(self._hub_mixin_config, indent=2, sort_keys=True),
            version=__version__,
            **kwargs,
        )

    def check_saveable(self) -> None:
        """Raise ``ValueError`` if the model cannot be saved: JSON must be able to hold its arguments."""
        if self._unwritable:
            raise ValueError(
                f"{', '.join(self._unwritable)}: expected what JSON can say, or it is lost when the model is "
                "saved; the state_dict can be saved in any case"
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write weights, configuration and frame size, and the class name that ``load_model`` reads."""
        self.check_saveable()
        super()._save_pretrained(save_directory)
        permit_as_usual(save_directory / "model.safetensors")
        config = cast("dict[str, Any]", self._hub_mixin_config or {})
        told = {**config, "architectures": [type(self).__name__], "frame_size": self.frame_size}
        text = json.dumps(told, sort_keys=True, indent=2)
        (save_directory / "config.json").write_text(text, encoding="utf-8")

    @classmethod
    def _from_pretrained(
        cls, *, strict: bool = True, config: dict[str, Any] | None = None, **arguments: Any
    ) -> Self:
        """Load as the mixin does, but by default refuse a file with missing weights."""
        model = super()._from_pretrained(strict=strict, **arguments)
        size = (config or {}).get("frame_size", cls.frame_size)
        if not isinstance(size, list | tuple) or [type(side) for side in size] != [int, int]:
            raise ValueError(f"frame_size: expected height and width in config.json, px, got {size!r}")
        model.frame_size = (size[0], size[1])
        return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Keep a model in evaluation mode, and restore the mode of every part afterwards."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def every_frame(frames: Tensor) -> Tensor:
    """Return the default of ``labelled``: True for every frame, ``(B, T)``."""
    return torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)


def _public_module(kind: type) -> str:
    """Return the module to import a class from: ``avslib.models`` for ours, a running script's own name."""
    if kind.__module__.startswith("avslib."):
        return "avslib.models"
    script = getattr(sys.modules["__main__"], "__file__", None)
    return Path(script).stem if kind.__module__ == "__main__" and script else kind.__module__


def _plain(value: Any) -> Any:
    """Convert a NumPy number or a range to a type that JSON has; return anything else unchanged."""
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, range) else value
