"""Loops over blocks, of which several are made at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.kernels.conv.loops import beside, by_group, stacked, summed


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


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_every_group_is_in_its_place(groups: int, at_once: int) -> None:
    """The first array has two channels in each group, the second three, the result six."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((5, groups * c)).astype(np.float32) for c in (2, 3))

    @jax.jit
    def joined(a: jax.Array, b: jax.Array) -> jax.Array:
        one = lambda a, b: (a[:, :, None] * b[:, None]).reshape(len(a), -1)
        return by_group(one, groups, a, b, at_once=at_once)

    pairs = zip(np.split(a, groups, -1), np.split(b, groups, -1), strict=True)
    want = [np.einsum("nc,no->nco", *pair).reshape(5, -1) for pair in pairs]
    np.testing.assert_allclose(joined(a, b), np.concatenate(want, -1), rtol=1e-6)


def test_blocks_that_are_made_at_once_are_of_one_turn() -> None:
    """Five blocks, two at once: one before the loop, and two turns."""

    def gathered(x: jax.Array) -> jax.Array:
        return stacked(lambda step: jnp.sin(x) + step.astype(x.dtype), 5, x, at_once=2)

    program = str(jax.make_jaxpr(gathered)(jnp.ones(3)))
    assert program.count("sin") == 3
    assert "length=2" in program
