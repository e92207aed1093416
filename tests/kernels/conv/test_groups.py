"""Groups have nothing to do with each other: what is not finite in one stays in it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

SUMS = [fnn.conv, fnn.conv_lax, fnn.conv_im2col, fnn.conv_taps]
KERNELS = [*SUMS, fnn.conv_winograd, fnn.conv_winograd2, fnn.conv_fft]
CASES = [(2, 3, (6, 7)), (12, 7, (6, 7)), (3, 4, (11,))]


def drawn(channels: int, outputs: int, spatial: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Input and window of two models, one behind the other; the first has NaN and infinity."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(2, 3, *spatial, channels)).astype(np.float32)
    w = rng.normal(size=(2, *(3,) * len(spatial), channels, outputs)).astype(np.float32)
    x[0, 1, 4, ..., 0] = np.nan
    x[0, 2, 2, ..., -1] = -np.inf
    return jnp.asarray(x), jnp.asarray(w)


def maps(conv: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> list[jax.Array]:
    """The output and both gradients of a loss whose slope is not finite where the output is not."""
    y, pullback = jax.vjp(conv, x, w)
    return [y, *pullback(y)]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("conv", KERNELS, ids=lambda conv: conv.__name__)
def test_a_model_that_diverged_leaves_the_others_of_a_vmap_alone(
    conv: Callable[..., jax.Array], case: tuple[int, int, tuple[int, ...]]
) -> None:
    x, w = drawn(*case)
    together = jax.jit(jax.vmap(lambda x, w: maps(conv, x, w)))(x, w)
    alone = maps(fnn.conv_taps, x[1], w[1])
    for both, want in zip(together, alone, strict=True):
        assert np.isfinite(want).all()
        np.testing.assert_allclose(both[1], want, rtol=1e-4, atol=1e-3)
        assert not np.isfinite(both[0]).all()


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("conv", SUMS, ids=lambda conv: conv.__name__)
def test_nan_and_infinity_are_where_a_sum_of_their_group_has_them(
    conv: Callable[..., jax.Array], case: tuple[int, int, tuple[int, ...]]
) -> None:
    x, w = drawn(*case)
    both, window = (jnp.concatenate([*a], -1) for a in (x, w))
    y = jax.jit(lambda x, w: conv(x, w, groups=2))(both, window)
    first, second = jnp.split(y, 2, -1)
    np.testing.assert_allclose(second, fnn.conv_taps(x[1], w[1]), rtol=1e-4, atol=1e-3)
    want = fnn.conv_taps(x[0], w[0])
    np.testing.assert_array_equal(np.isnan(first), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(first), np.isinf(want))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("conv", SUMS, ids=lambda conv: conv.__name__)
def test_an_infinite_weight_is_met_by_its_group_alone(
    conv: Callable[..., jax.Array], case: tuple[int, int, tuple[int, ...]]
) -> None:
    _, w = drawn(*case)
    x = jnp.ones((2, 3, *case[2], case[0]))
    w = w.at[0, ..., 0, 0].set(jnp.inf)
    both, window = (jnp.concatenate([*a], -1) for a in (x, w))
    valid = {"padding": "VALID"}  # infinity times a zero of the padding is NaN, and need not be met
    y = jax.jit(lambda x, w: conv(x, w, groups=2, **valid))(both, window)
    want = jnp.concatenate([fnn.conv_lax(*one, **valid) for one in zip(x, w, strict=True)], -1)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)
