"""The library's kernel: the form in which its convolution reaches XLA on a CPU."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close
from tests.oracles import conv as oracle


def paddings(fn: Any, *args: Any) -> list[str]:
    """The padding of every convolution of a program as XLA gets it."""
    return re.findall(
        r"stablehlo.convolution.* pad = (.*?), lhs", jax.jit(fn).lower(*args).as_text()
    )


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of XLA's CPU backend")
@pytest.mark.parametrize(("side", "k", "pad"), [(7, 9, 4), (6, 4, 2)])
def test_a_window_larger_than_the_input_meets_one_that_has_room(
    side: int, k: int, pad: int
) -> None:
    """XLA's loop for such windows is 12 times slower than its product.

    With all padding there before, that would take longer again. In the second case the cotangent,
    which is the window of the window's gradient, is the larger.
    """
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, side, side, 3)), rng.standard_normal((k, k, 3, 4))
    small = [jnp.asarray(a, jnp.float32) for a in (x, w)]

    def gradient(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.grad(lambda w: (fnn.conv_lax(x, w, padding=pad) ** 2).sum())(w)

    room = [max(0, k - side), max(0, 2 * pad - k + 1)]
    left = [f"[[{pad - r}, {pad}], [{pad - r}, {pad}]]" for r in room]
    assert paddings(gradient, *small) == left
    assert jax.jit(gradient).lower(*small).as_text().count("optimization_barrier") == 1
    y = oracle.conv(x, w, padding=((pad, pad),) * 2)
    close(fnn.conv_lax(*small, padding=pad), y, length=w[..., 0].size)
    wide = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(wide, y.shape[1:3], (1, 2))
    want = 2 * np.einsum("nabcij,nijo->abco", seen, y)
    close(gradient(*small), want, length=w[..., 0].size + y[..., 0].size)


@pytest.mark.parametrize(("size", "k", "pad"), [(4, 2, (20, 0)), (2, 4, (6, 1)), (7, 2, (0, 3))])
def test_the_input_gradient_pads_nothing_negatively(size: int, k: int, pad: Any) -> None:
    """Of more padding than the window reaches into, XLA gave it NaN and 1e18, of other arrays."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, size, 28)), rng.standard_normal((k, 28, 24))
    g = rng.standard_normal(oracle.conv(x, w, padding=(pad,)).shape)
    arrays = [jnp.asarray(a, jnp.float32) for a in (x, w, g)]

    def gradient(x: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: fnn.conv_lax(x, w, padding=(pad,)), x)[1](g)[0]

    assert "-" not in "".join(paddings(gradient, *arrays))
    want, _ = oracle.conv_gradients(x, w, g, padding=(pad,))
    close(jax.jit(gradient)(*arrays), want, length=k * 24)
