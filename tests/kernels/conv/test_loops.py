"""Loops over blocks, of which several are made at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.kernels.conv.loops import beside, stacked, summed


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_every_block_is_in_its_place(steps: int, at_once: int) -> None:
    """Also where the turns of a loop leave some blocks over."""
    x = np.arange(steps * 6, dtype=np.float32).reshape(steps, 2, 3)

    @jax.jit
    def joined(x: jax.Array) -> tuple[jax.Array, ...]:
        block = lambda step: jax.lax.dynamic_index_in_dim(x, step, keepdims=False)
        return (
            beside(block, steps, -1, x, at_once=at_once),
            stacked(block, steps, x, at_once=at_once),
            summed(block, steps, x, at_once=at_once),
        )

    got = joined(jnp.asarray(x))
    for have, want in zip(got, (np.concatenate(x, -1), x, x.sum(0)), strict=True):
        np.testing.assert_array_equal(have, want)


def test_blocks_that_are_made_at_once_are_of_one_turn() -> None:
    """Five blocks, two at once: one before the loop, and two turns."""

    def gathered(x: jax.Array) -> jax.Array:
        return stacked(lambda step: jnp.sin(x) + step.astype(x.dtype), 5, x, at_once=2)

    program = str(jax.make_jaxpr(gathered)(jnp.ones(3)))
    assert program.count("sin") == 3
    assert "length=2" in program
