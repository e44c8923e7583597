import re

import numpy as np
import pytest
import torch

from avslib._checks import check_integer, check_not_negative, check_one_of, check_positive, check_shape


def test_sizes_are_returned_by_name() -> None:
    assert check_shape("x", torch.zeros(2, 5, 3, 8, 9), "b t 3 h w") == {"b": 2, "t": 5, "h": 8, "w": 9}


def test_leading_axes_are_free() -> None:
    assert check_shape("x", torch.zeros(7, 2, 4), "... d", d=4) == {"d": 4}
    assert check_shape("x", torch.zeros(4), "... d") == {"d": 4}


@pytest.mark.parametrize(
    ("shape", "pattern", "sizes", "message"),
    [
        ((2, 3), "b t c", {}, "x: expected shape (b, t, c), got (2, 3)"),
        ((2, 3), "b t", {"t": 5}, "x: expected shape (b, t) with t=5, got (2, 3)"),
        ((2, 4, 8, 8), "b 3 h w", {}, "x: expected shape (b, 3, h, w), got (2, 4, 8, 8)"),
        ((), "... d", {}, "x: expected shape (..., d), got ()"),
    ],
)
def test_an_error_names_argument_expectation_and_what_came(
    shape: tuple[int, ...], pattern: str, sizes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_shape("x", torch.zeros(shape), pattern, **sizes)


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_what_is_not_positive_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="steps: expected a number above 0"):
        check_positive("steps", value)


@pytest.mark.parametrize("value", [-1, -0.1, float("nan")])
def test_a_number_must_not_be_negative(value: float) -> None:
    check_not_negative("seed", 0)
    with pytest.raises(ValueError, match=f"seed: expected 0 or more, got {value}"):
        check_not_negative("seed", value)


@pytest.mark.parametrize("value", [2.0, float("inf"), "2", None])
def test_an_integer_of_any_type_is_one_and_nothing_else(value: object) -> None:
    check_integer("rate", 2)
    check_integer("rate", np.int64(2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(f"rate: expected an integer, got {value!r}")):
        check_integer("rate", value)  # type: ignore[arg-type]


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="frames: expected a tensor, got ndarray"):
        check_shape("frames", torch.zeros(2).numpy(), "n")  # type: ignore[arg-type]


def test_a_word_must_be_known() -> None:
    check_one_of("mode", "dot", ("dot",))
    with pytest.raises(ValueError, match="mode: expected one of 'dot', got 'Dot'"):
        check_one_of("mode", "Dot", ("dot",))
