"""Read and write the stored log-mel of a clip."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from avslib._jobs import write_whole
from avslib.data.layout import ClipFiles
from avslib.media.tensor_pickle import load_tensor_pickle


def log_mel_path(files: ClipFiles) -> Path:
    """Return the file that holds a clip's log-mel: the safetensors file if there is one, else the pickle."""
    converted = converted_path(files)
    return converted if converted.is_file() else files.log_mel


def converted_path(files: ClipFiles) -> Path:
    """Return the path of the safetensors file that replaces the pickle."""
    return files.log_mel.with_suffix(".safetensors")


def load_log_mel(path: Path) -> Tensor:
    """Read a log-mel of any shape.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or holds something else; the message names it.
    """
    if path.suffix != ".safetensors":
        return load_tensor_pickle(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)["log_mel"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: expected a safetensors file with a tensor 'log_mel' ({error})") from error


def load_examples(path: Path, seconds: int) -> Tensor:
    """Read the log-mel of a clip, ``(T, 1, 96, 64)``, float32.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, has another shape, or holds values that are not finite; the message
            names it.
    """
    examples = load_log_mel(path)
    if examples.shape != (seconds, 1, 96, 64):
        raise ValueError(f"{path}: expected a log-mel ({seconds}, 1, 96, 64), got {tuple(examples.shape)}")
    examples = examples.float()
    if not examples.isfinite().all():
        raise ValueError(
            f"{path}: expected finite values, got NaN or infinity; `avslib prepare` makes a new one"
        )
    return examples


def save_log_mel(files: ClipFiles, log_mel: Tensor) -> None:
    """Write a clip's log-mel as a safetensors file, whole or not at all."""
    from safetensors.torch import save  # save_file writes a temporary file first, which a kill leaves

    with write_whole(converted_path(files)) as path:
        path.write_bytes(save({"log_mel": log_mel.contiguous()}))
