"""Initializers: where the arrays of a layer start.

An initializer is a function ``(key, shape, dtype) -> array``, as in `jax.nn.initializers`, which is
re-exported here as it is, with JAX's errors: a negative scale gives NaN. Most draw entries of mean
0 and variance ``scale / fan``: with n_in inputs behind each output and n_out outputs behind each
input, LeCun divides by n_in and keeps the variance of linear activations, He divides by n_in / 2
and keeps it through ReLU, and Xavier (Glorot) divides by (n_in + n_out) / 2, the compromise between
activations and gradients. ``init_<layer>`` draws the arrays of one layer, under the names that the
layer's function gives them; biases start at zero.
"""

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.nn.initializers import (
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
from jaxtyping import PRNGKeyArray

from fnn.checks import attribute, check_size, check_takes, describe, shown, wrong
from fnn.dtypes import accumulator, names_floats
from fnn.functions import jitted
from fnn.kernels.conv.library import swap_channels

__all__ = [
    "Initializer",
    "constant",
    "delta_orthogonal",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "init_conv",
    "init_conv_transpose",
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


class Initializer(Protocol):
    """A function ``(key, shape, dtype) -> array``, of `jax.nn.initializers` or your own."""

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any, /) -> jax.Array:
        """Draw the array."""
        ...


XAVIER = glorot_normal()
SIZES = ("window", "c_in", "c_out", "groups", "weights", "bias", "dtype")  # of a convolution


def check_dtype(function: str, dtype: Any) -> None:
    """Raise unless this is, or names, a dtype of floating-point numbers."""
    if not names_floats(dtype):
        raise wrong(function, "dtype", shown(dtype), "one of floating-point numbers", TypeError)


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
    if callable(weights):
        check_takes(function, argument, weights, "key, shape, dtype")
    wide = accumulator(jnp.result_type(dtype))  # no orthogonal matrix is found in half precision
    array: Any = weights(key, shape, wide) if callable(weights) else weights
    if attribute(array, "shape") != shape:
        needed = f"an initializer of shape {shape}, such as fnn.initializers.he_normal()"
        raise wrong(function, argument, describe(array), needed)
    return jnp.asarray(array, dtype)


def _draw_conv(
    function: str,
    key: jax.Array,
    window: tuple[int, ...],
    c_in: int,
    c_out: int,
    groups: int,
    weights: Initializer,
    bias: bool,
    dtype: DTypeLike,
) -> dict[str, jax.Array]:
    """Draw the arrays of a convolution from c_in to c_out channels, or raise ``function``'s error.

    Every group is drawn by itself.
    """
    check_size(function, "c_in", c_in)
    check_size(function, "c_out", c_out)
    check_size(function, "groups", groups)
    if not isinstance(window, tuple) or not 1 <= len(window) <= 3:
        raise wrong(function, "window", shown(window), "a tuple of one to three ints")
    for taps in window:
        check_size(function, "window", taps)
    if math.gcd(c_in, c_out) % groups:
        needed = f"a divisor of c_in = {c_in} and of c_out = {c_out}"
        raise wrong(function, "groups", groups, needed)
    shape = (*window, c_in // groups, c_out // groups)
    keys = jax.random.split(key, groups)
    w = jax.vmap(lambda k: draw(function, weights, k, shape, dtype))(keys)
    params = {"w": jnp.moveaxis(w, 0, -2).reshape(*shape[:-1], c_out)}
    if bias:
        params["b"] = jnp.zeros(c_out, dtype)
    return params


@jitted(static=SIZES)
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
) -> dict[str, Any]:
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
    return _draw_conv("init_conv", key, window, c_in, c_out, groups, weights, bias, dtype)


@jitted(static=SIZES)
def init_conv_transpose(
    key: PRNGKeyArray,
    window: tuple[int, ...],
    c_in: int,
    c_out: int,
    *,
    groups: int = 1,
    weights: Initializer = XAVIER,
    bias: bool = True,
    dtype: DTypeLike = float,
) -> dict[str, Any]:
    """Draw the arrays of `fnn.conv_transpose`.

    At stride 1 there are ``n_in = prod(window) c_in / groups`` inputs behind each output, and
    ``n_out = prod(window) c_out / groups`` outputs that each input reaches: a stride divides n_in
    by the product of its axes. PyTorch's fan_in is n_out here, and its fan_out is groups n_in, so
    Xavier's sum is the same without groups.

    Arguments and errors are those of `init_conv`, whose window it draws, from c_in to c_out
    channels, before it exchanges the channels of each group.

    Returns:
        ``{"w": (*window, c_out // groups, c_in), "b": (c_out,)}``, without "b" for ``bias=False``.

    >>> params = init_conv_transpose(jax.random.key(0), (4, 4), 16, 8)
    >>> params["w"].shape, params["b"].shape
    ((4, 4, 8, 16), (8,))
    """
    name = "init_conv_transpose"
    params = _draw_conv(name, key, window, c_in, c_out, groups, weights, bias, dtype)
    return params | {"w": swap_channels(params["w"], groups)}
