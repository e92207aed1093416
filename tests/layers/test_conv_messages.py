"""Wrong calls of the convolutions: one clear error each, before anything is computed."""

import re
from typing import Any

import jax
import numpy as np
import pytest

import fnn
from tests.layers.test_conv import every, normal

GOOD: dict[str, Any] = {
    "x": np.ones((2, 5, 6, 4), np.float32),
    "w": np.ones((3, 3, 2, 6), np.float32),
}
GOOD |= {"b": np.ones(6, np.float32), "groups": 2}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"x": np.ones((2, 5, 6, 5), np.float32)}, "x: got float32[2,5,6,5]; needed 4 channels on its"),
    ({"x": np.ones((5, 6, 4), np.float32)}, "x: got float32[5,6,4]; needed 4 axes (n, *spatial,"),
    ({"w": np.ones((2, 6), np.float32)}, "w: got float32[2,6]; needed (*window, c_in // groups,"),
    ({"w": np.ones((1,) * 6, np.float32)}, "w: got float32[1,1,1,1,1,1]; needed (*window"),
    ({"groups": 4}, "groups: got 4; needed a divisor of 6, the last axis of w"),
    ({"groups": 3}, "x: got float32[2,5,6,4]; needed 6 channels on its last axis, for w"),
    ({"groups": 0}, "groups: got 0; needed an int >= 1"),
    ({"groups": True}, "groups: got True; needed an int >= 1"),
    ({"b": np.ones(5, np.float32)}, "b: got float32[5]; needed shape (6,) or, untied, (5, 6, 6)"),
    ({"b": np.ones((1, 1, 6), np.float32)}, "b: got float32[1,1,6]; needed shape (6,) or"),
    ({"stride": -1}, "stride: got -1; needed an int >= 1 or a tuple of 2"),
    ({"stride": (1, 2, 3)}, "stride: got (1, 2, 3)"),
    ({"dilation": 0}, "dilation: got 0"),
    ({"padding": "FULL"}, 'padding: got \'FULL\'; needed "SAME", "VALID", an int'),
    ({"padding": -1}, "padding: got -1"),
    ({"padding_mode": "mirror"}, "padding_mode: got 'mirror'; needed 'zeros' or 'circular' or"),
    ({"padding_mode": ["zeros"]}, "padding_mode: got ('zeros',)"),
    ({"w": np.ones((7, 3, 2, 6), np.float32), "padding": "VALID"}, "window: got (7, 3) with"),
    (
        {"padding": ((0, 6), (0, 0)), "padding_mode": "circular"},
        "padding: got ((0, 6), (0, 0)); needed at most 5 on each side of an axis of size 5 with",
    ),
    (
        {"padding": ((0, 0), (6, 0)), "padding_mode": "reflect"},
        'needed at most 5 on each side of an axis of size 6 with "reflect"',
    ),
    (
        {"x": np.ones((2, 0, 6, 4), np.float32), "padding": 2, "padding_mode": "replicate"},
        'needed at most 0 on each side of an axis of size 0 with "replicate"',
    ),
]
WRONG_TYPES: list[tuple[dict[str, Any], str]] = [
    ({"x": [[1.0]]}, "x: got list [[1.0]]; needed an array, such as jnp.asarray makes of a list"),
    ({"w": None}, "w: got NoneType None; needed an array"),
    (
        {"w": np.ones((3, 3, 2, 6), np.float16)},
        "w: got float16[3,3,2,6]; needed float32, the dtype",
    ),
    ({"b": np.ones(6, np.int32)}, "b: got int32[6]; needed float32, the dtype of x"),
    (
        {"x": np.ones((2, 5, 6, 4), bool)},
        "x: got bool[2,5,6,4]; needed a floating or integer dtype",
    ),
    ({"x": np.ones((2, 5, 6, 4), np.complex64)}, "x: got complex64[2,5,6,4]; needed real numbers"),
    ({"b": [0.0] * 6}, "b: got list [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]; needed an array"),
    ({"stride": jax.numpy.int32(2)}, "stride: got int32[]; needed a Python value, known before"),
    ({"dilation": {"height": 2}}, "dilation: got dict {'height': 2}; needed numbers, strings, tup"),
]


def split(call: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    call = GOOD | call
    return [call.pop(name) for name in "xwb"], call


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_values(call: dict[str, Any], message: str) -> None:
    args, config = split(call)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        fnn.conv(*args, **config)
    assert str(error.value).startswith("fnn.conv: ")


@pytest.mark.parametrize(("call", "message"), WRONG_TYPES)
def test_wrong_types(call: dict[str, Any], message: str) -> None:
    args, config = split(call)
    with pytest.raises(TypeError, match=re.escape(message)) as error:
        fnn.conv(*args, **config)
    assert str(error.value).startswith("fnn.conv: ")


@every
def test_each_algorithm_names_itself(fn: Any) -> None:
    args, config = split({"groups": 4})
    with pytest.raises(ValueError, match=re.escape(f"fnn.{fn.__name__}: groups: got 4; needed")):
        fn(*args, **config)


REFUSED: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (
        fnn.conv_winograd,
        ((1, 6, 1), (6, 1, 1)),
        {},
        "needed a window of at most 5, stride 1;",
    ),
    (fnn.conv_winograd2, ((1, 6, 1), (3, 1, 1)), {"stride": 2}, "needed a window of at most 3"),
]


@pytest.mark.parametrize(("fn", "shapes", "config", "message"), REFUSED)
def test_refused_forms(fn: Any, shapes: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        fn(*normal(*shapes), **config)
    assert str(error.value).startswith(f"fnn.{fn.__name__}: x, w: got float32[1,6,1], float32[")
    assert str(error.value).endswith("; fnn.conv takes every form")


def test_integers_refused() -> None:
    x = np.ones((1, 6, 1), np.int32)
    with pytest.raises(
        ValueError, match=re.escape("fnn.conv_fft: x, w: got int32[1,6,1]")
    ) as error:
        fnn.conv_fft(x, x[0, :3, :, None])
    assert "needed a floating dtype; fnn.conv takes every form" in str(error.value)


def test_wrong_under_jit() -> None:
    args, config = split({"b": np.ones(5, np.float32)})
    with pytest.raises(ValueError, match=re.escape("fnn.conv: b: got float32[5]")):
        jax.jit(lambda *a: fnn.conv(*a, **config))(*args)


OTHERS_WRONG: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (fnn.conv_transpose, ((1, 4, 2), (3, 5, 3)), {}, "x: got float32[1,4,2]; needed 3 channels"),
    (fnn.conv_transpose, ((1, 4, 3), (3, 5, 3)), {"groups": 2}, "groups: got 2; needed a divisor"),
    (fnn.conv_transpose, ((1, 4, 3), (3, 5, 3), (3,)), {}, "b: got float32[3]; needed shape (5,)"),
    (
        fnn.conv_transpose,
        ((1, 4, 3), (3, 5, 3)),
        {"output_padding": 1, "padding": 1},
        "output_padding: got (1,); needed less than the stride (1,)",
    ),
    (
        fnn.conv_transpose,
        ((1, 4, 3), (3, 3)),
        {},
        "w: got float32[3,3]; needed (*window, c_out // groups, c_in) with 1, 2 or 3 window axes",
    ),
    (
        fnn.conv_transpose,
        ((1, 0, 3), (2, 3, 3)),
        {"stride": 4, "padding": "VALID"},
        "spatial sizes: got (0,); needed 1 or more: an empty axis of x has no",
    ),
    (fnn.convolve, ((1, 4, 2), (3, 3, 3)), {}, "x: got float32[1,4,2]; needed 3 channels"),
    (fnn.convolve, ((1, 4, 2), (3, 3)), {}, "w: got float32[3,3]; needed (*window"),
    (fnn.conv_matrix, ((3, 2, 3),), {"spatial": (4, 4)}, "spatial: got (4, 4); needed an int >= 1"),
    (fnn.conv_matrix, ((3, 3),), {"spatial": 4}, "w: got float32[3,3]; needed (*window"),
]


@pytest.mark.parametrize(("fn", "shapes", "config", "message"), OTHERS_WRONG)
def test_wrong_elsewhere(fn: Any, shapes: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        fn(*normal(*shapes), **config)
    assert str(error.value).startswith(f"fnn.{fn.__name__}: ")
