"""What keeps the compiler from an optimization that costs more than it saves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from fnn.compiler import by_itself

pytestmark = pytest.mark.usefixtures("optimized")


def loops(text: str) -> list[str]:
    """The computations of a compiled program that are one loop each."""
    return re.findall(r"^%(?:fused|wrapped)\S* .*?^}", text, re.DOTALL | re.MULTILINE)


def test_by_itself_is_not_merged_with_what_is_around_it() -> None:
    x = jnp.arange(2.0 * 6 * 8).reshape(2, 6, 8)

    def stack(x: jax.Array) -> jax.Array:
        starts = jnp.array([[0], [1], [2]], jnp.int32)
        numbers = lax.GatherDimensionNumbers((1, 2, 3), (), (1,))
        return lax.gather(x, starts, numbers, (2, 6, 8), mode="promise_in_bounds")

    def run(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        return by_itself(stack)(padded).reshape(3, -1)

    program = jax.jit(run).lower(x).compile()
    gathers = [loop for loop in loops(program.as_text()) if "gather(" in loop]
    assert len(gathers) == 1
    assert "pad(" not in gathers[0]
    assert re.search(r"ROOT \S+ = f32\[3,2,6,8\]", gathers[0])  # and not [3,96]
    around = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    want = np.stack([around[:, t : t + 6] for t in range(3)]).reshape(3, -1)
    np.testing.assert_array_equal(program(x), want)


def test_patches_are_made_by_one_small_loop() -> None:
    """Of contiguous runs, in the order that the product reads: not one loop per tap."""
    x, w = jnp.zeros((1, 12, 12, 64)), jnp.zeros((3, 3, 64, 64))  # small, or its gradient folds
    with_window = lambda x, w: jax.vjp(fnn.conv_im2col, x, w)[1](x)[1]
    for fn in (fnn.conv_im2col, with_window):
        text = jax.jit(fn).lower(x, w).compile().as_text()
        makers = [loop for loop in loops(text) if " gather(" in loop]
        assert len(makers) == 1
        assert "concatenate(" not in text
        assert " pad(" not in makers[0]
        root = re.search(r"ROOT \S+ = f32\[[\d,]+\]\{([\d,]+)\}", makers[0])
        assert root is not None
        order = [int(axis) for axis in root[1].split(",")]
        assert order == sorted(order, reverse=True)
        assert len(order) > 2  # as a matrix, it would compute where every entry comes from
