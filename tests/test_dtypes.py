"""The rules of precision, each over all functions of arrays that it concerns."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.dtypes import accumulator, magnitude
from tests.check import HALF, close


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (jnp.float16, "float32"),
        (jnp.bfloat16, "float32"),
        (jnp.float8_e4m3fn, "float32"),
        (jnp.float32, "float32"),
        (jnp.float64, "float64"),
        (jnp.int8, "int8"),
        (jnp.bool_, "bool"),
        (jnp.complex64, "complex64"),
    ],
)
def test_sums_of_narrow_floats_alone_are_formed_in_another_dtype(dtype: object, wide: str) -> None:
    assert accumulator(dtype) == accumulator(jnp.dtype(dtype)) == jnp.dtype(wide)


# Numbers that configure a function; `test_table.py` has more about them.

NUMBERS: list[tuple[Callable[..., Any], str, float]] = [
    (fnn.leaky_relu, "negative_slope", 0.1),
    (fnn.elu, "alpha", 0.3),
    (fnn.celu, "alpha", 0.3),
    (fnn.softplus, "beta", 1.0),
    (fnn.squareplus, "b", 1.0),
    (fnn.hard_tanh, "low", -1.0),
]


PLACES = 8192  # a sum of so many ones ends at 256 in bfloat16, and at 2048 in float16


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_gradient_of_a_number_is_summed_in_float32(dtype: Any) -> None:
    @jax.jit
    def gradients(x: Any) -> Any:
        def total(value: Any, x: Any, fn: Any, name: str) -> Any:
            return fn(x, **{name: value}).astype(jnp.float32).sum()

        return [[jax.grad(total)(v, a, fn, name) for a in (x, x[:1])] for fn, name, v in NUMBERS]

    # Sums of 1.4, unlike those of 1.5, are no numbers of the dtype, in whatever order XLA adds.
    x = jnp.full(PLACES, -1.4, dtype)
    for many, one in gradients(x):
        assert one != 0
        close(many, PLACES * one, length=PLACES)


# Numbers at the ends. Last, as what stands after it would be optimized too.


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dividing_by_the_magnitude_rounds_nothing(dtype: Any) -> None:
    info = np.finfo(dtype)
    tops = np.array([info.max, 11, 3.7, 1.0, 1e-3, 16 * info.tiny], dtype)
    rest = np.array([1.1, 0.9, -0.3, 1e-3, 0.7, 0.5], dtype) / 2
    x = np.stack([tops, tops * rest])

    @jax.jit
    def divided(x: Any) -> Any:
        unit = magnitude(x, 0)
        return unit, x / unit

    with jax.enable_x64(True):
        unit, scaled = map(np.asarray, divided(x))
    np.testing.assert_array_equal(scaled * unit, x)
    zero = jnp.zeros((2, 3))
    mantissa, _ = np.frexp(unit)
    assert (mantissa == 0.5).all()
    assert (np.abs(scaled).max(0) <= 12).all()
    assert (np.abs(scaled).max(0) >= 6).all()
    assert not np.any(zero / magnitude(zero))
    assert magnitude(jnp.zeros((2, 0), np.float32)).shape == (1, 1)
