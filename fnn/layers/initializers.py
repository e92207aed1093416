"""Initializers: where the arrays of a layer start.

An initializer is a function ``(key, shape, dtype) -> array``, as in `jax.nn.initializers`, which is
re-exported here. Most draw entries of mean 0 and variance ``scale / fan``: with n_in inputs behind
each output and n_out outputs behind each input, LeCun divides by n_in and keeps the variance of
linear activations, He divides by n_in / 2 and keeps it through ReLU, and Xavier (Glorot) divides by
(n_in + n_out) / 2, the compromise between activations and gradients. ``init_<layer>`` draws the
arrays of one layer, under the names that the layer's function gives them; biases start at zero.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import (
    Initializer,
    constant,
    delta_orthogonal,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
    zeros,
)
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from fnn.checks import attribute, check_int, describe, wrong
from fnn.dtypes import accumulator, names_floats
from fnn.functions import jitted

__all__ = [
    "Initializer",
    "constant",
    "delta_orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "init_conv",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "zeros",
]

XAVIER = glorot_normal()


def check_dtype(function: str, dtype: Any) -> None:
    """Raise unless this is, or names, a dtype of floating-point numbers."""
    if not names_floats(dtype):
        raise wrong(function, "dtype", dtype, "one of floating-point numbers", TypeError)


def draw(
    function: str,
    weights: Initializer,
    key: jax.Array,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    argument: str = "weights",
) -> jax.Array:
    """Draw an array by an initializer, or raise the error of the public function."""
    check_dtype(function, dtype)
    wide = accumulator(jnp.result_type(dtype))  # no orthogonal matrix is found in half precision
    array: Any = weights(key, shape, wide) if callable(weights) else weights
    if attribute(array, "shape") != shape:
        needed = f"an initializer of shape {shape}, such as fnn.initializers.he_normal()"
        raise wrong(function, argument, describe(array), needed)
    return jnp.asarray(array, dtype)


@jitted(static=("window", "c_in", "c_out", "groups", "weights", "bias", "dtype"))
def init_conv(
    key: PRNGKeyArray,
    window: tuple[int, ...],
    c_in: int,
    c_out: int,
    *,
    groups: int = 1,
    weights: Initializer = XAVIER,
    bias: bool = True,
    dtype: DTypeLike = float,
) -> dict[str, Float[Array, "..."]]:
    """Draw the arrays of `fnn.conv`.

    Every group is a convolution of its own: ``n_in = prod(window) c_in / groups`` inputs behind
    each output and, at stride 1, ``n_out = prod(window) c_out / groups`` outputs behind each input.

    Args:
        key: random key.
        window: taps along each spatial axis, one to three ints.
        c_in, c_out: channels.
        groups: a divisor of both, as in `fnn.conv`.
        weights: draws the window of one group; Xavier normal, variance 2 / (n_in + n_out).
        bias: whether to include a bias, of zeros.
        dtype: of the arrays; ``float`` is float32, or float64 with x64 on.

    Returns:
        ``{"w": (*window, c_in // groups, c_out), "b": (c_out,)}``, without "b" for ``bias=False``.

    Raises:
        ValueError: a size is below 1, groups does not divide the channels, or the weights
            do not have their shape.
        TypeError: dtype is not a floating-point one.

    Source: X. Glorot, Y. Bengio, Understanding the difficulty of training deep feedforward neural
    networks (AISTATS 2010).

    >>> params = init_conv(jax.random.key(0), (3, 3), 4, 16, groups=2)
    >>> params["w"].shape, params["b"].shape
    ((3, 3, 2, 16), (16,))
    """
    check_int("init_conv", "c_in", c_in, 1)
    check_int("init_conv", "c_out", c_out, 1)
    check_int("init_conv", "groups", groups, 1)
    if not isinstance(window, tuple) or not 1 <= len(window) <= 3:
        raise wrong("init_conv", "window", repr(window), "a tuple of one to three ints")
    for taps in window:
        check_int("init_conv", "window", taps, 1)
    if math.gcd(c_in, c_out) % groups:
        needed = f"a divisor of c_in = {c_in} and of c_out = {c_out}"
        raise wrong("init_conv", "groups", groups, needed)
    shape = (*window, c_in // groups, c_out // groups)
    keys = jax.random.split(key, groups)
    w = jax.vmap(lambda k: draw("init_conv", weights, k, shape, dtype))(keys)
    params = {"w": jnp.moveaxis(w, 0, -2).reshape(*shape[:-1], c_out)}
    if bias:
        params["b"] = jnp.zeros(c_out, dtype)
    return params
