"""Checks of arguments; every error gives the argument's name, what was expected and what was passed."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral

import torch
from torch import Tensor


def check_shape(name: str, tensor: Tensor, pattern: str, **sizes: int) -> dict[str, int]:
    """Check a tensor's shape against named axes and return the size of each.

    Args:
        name: name of the tensor in the error message.
        tensor: the tensor to check.
        pattern: one word per axis, such as ``"b t c h w"``; a word that is a number must match, and a leading
            ``...`` stands for any number of axes.
        **sizes: the sizes that are already known.

    Returns:
        The size of every named axis.

    Raises:
        TypeError: if it is not a tensor.
        ValueError: if the number of axes or a known size differs.

    Example:
        >>> import torch
        >>> check_shape("audio", torch.zeros(2, 5, 128), "b t a", a=128)
        {'b': 2, 't': 5, 'a': 128}
        >>> check_shape("audio", torch.zeros(2, 4, 128), "b t a", b=2, t=5, a=128)
        Traceback (most recent call last):
        ...
        ValueError: audio: expected shape (b, t, a) with b=2, t=5, a=128, got (2, 4, 128)
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(tensor).__name__}")
    axes = pattern.split()
    shape = tuple(tensor.shape)
    if axes[0] == "...":
        axes = axes[1:]
        tail = shape[len(shape) - len(axes) :] if len(shape) >= len(axes) else ()
    else:
        tail = shape
    matches = len(tail) == len(axes) and all(
        size == (int(axis) if axis.isdigit() else sizes.get(axis, size))
        for axis, size in zip(axes, tail, strict=True)
    )
    if not matches:
        known = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        expected = f"({', '.join(pattern.split())})" + (f" with {known}" if known else "")
        raise ValueError(f"{name}: expected shape {expected}, got {shape}")
    return {axis: size for axis, size in zip(axes, tail, strict=True) if not axis.isdigit()}


def check_integer(name: str, value: float) -> None:
    """Raise ``ValueError`` unless the value is an integer, of Python or NumPy."""
    if not isinstance(value, Integral):
        raise ValueError(f"{name}: expected an integer, got {value!r}")


def check_positive(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value > 0``."""
    if not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value}")


def check_not_negative(name: str, value: float) -> None:
    """Raise ``ValueError`` unless ``value >= 0``."""
    if not value >= 0:
        raise ValueError(f"{name}: expected 0 or more, got {value}")


def check_one_of(name: str, value: str, allowed: Collection[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of the allowed words.

    Example:
        >>> check_one_of("mode", "dott", ("dot", "embedded"))
        Traceback (most recent call last):
        ...
        ValueError: mode: expected one of 'dot', 'embedded', got 'dott'
    """
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_all(allowed: Tensor, message: str) -> None:
    """Raise ``ValueError`` with a message unless all elements are True; this waits for an accelerator.

    A compiled graph cannot branch on values, so it gets an assertion instead, which raises ``RuntimeError``.
    """
    if torch.compiler.is_compiling():
        torch._assert_async(allowed.all(), message)
    elif not allowed.all():
        raise ValueError(message)
