"""Rectifiers: `relu` and its kin, which pass what is positive and bend what is negative.

At 0 each takes the derivative of its negative side, as ReLU'(0) = 0. `relu` and `relu6` are
`jax.nn`'s own. Those below keep their relative accuracy where x is very negative: the derivative of
``exp(x) - 1`` is ``exp(x)``, not the value plus 1, which is 0 from x = -17 in float32.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.nn import relu as relu
from jax.nn import relu6 as relu6
from jaxtyping import Array, Float

from fnn.checks import describe, wrong
from fnn.layers.activations import sigmoid


@functools.partial(jax.jit, static_argnames=("negative_slope",), inline=True)
def leaky_relu(
    x: Float[Array, "*shape"], *, negative_slope: float = 0.01
) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``negative_slope x`` elsewhere.

    Args:
        x: any shape, float.
        negative_slope: usually small; 0 gives `relu`, its derivative at 0 included (that of
            `jax.nn.leaky_relu` at 0 is 1).

    Returns:
        The shape and dtype of x; the derivative at 0 is ``negative_slope``.

    Source: A. Maas, A. Hannun, A. Ng, Rectifier nonlinearities (2013).

    >>> leaky_relu(jnp.array([-200.0, 3.0])).tolist()
    [-2.0, 3.0]
    """
    return jnp.where(x > 0, x, negative_slope * x)


@functools.partial(jax.jit, inline=True)
def prelu(x: Float[Array, "*shape"], slope: Float[Array, "*trailing"]) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``slope x`` elsewhere, with learned slopes.

    Args:
        x: any shape, float.
        slope: the shape of the trailing axes of x, as (channels,) or (), of x's dtype.

    Returns:
        The shape and dtype of x; the derivative at 0 is the slope.

    Raises:
        ValueError: the shape of slope is not that of trailing axes of x.

    Source: K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers (2015).

    >>> prelu(jnp.array([[-2.0, -2.0], [3.0, 3.0]]), jnp.array([0.5, 0.0])).tolist()
    [[-1.0, -0.0], [3.0, 3.0]]
    """
    lead = x.ndim - slope.ndim
    if lead < 0 or slope.shape != x.shape[lead:]:
        raise wrong("prelu", "slope", describe(slope), f"the trailing axes of x {describe(x)}")
    return jnp.where(x > 0, x, slope.reshape((1,) * lead + slope.shape) * x)


@jax.custom_jvp
def _expm1(x: jax.Array) -> jax.Array:
    return jnp.expm1(x)


_expm1.defjvps(lambda t, y, x: t * jnp.exp(x))


@functools.partial(jax.jit, static_argnames=("alpha",), inline=True)
def elu(x: Float[Array, "*shape"], *, alpha: float = 1.0) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``alpha (exp(x) - 1)`` elsewhere.

    Args:
        x: any shape, float.
        alpha: the value at minus infinity, negated.

    Returns:
        The shape and dtype of x; the derivative at 0 is alpha.

    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, Exponential linear units (2015).

    >>> elu(jnp.array([-1e4, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 3.0]
    """
    return jnp.where(x > 0, x, alpha * _expm1(jnp.where(x > 0, 0, x)))


@functools.partial(jax.jit, static_argnames=("alpha",), inline=True)
def celu(x: Float[Array, "*shape"], *, alpha: float = 1.0) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``alpha (exp(x / alpha) - 1)`` elsewhere.

    Args:
        x: any shape, float.
        alpha: positive, the value at minus infinity, negated.

    Returns:
        The shape and dtype of x; the derivative at 0 is 1 and the second ``1 / alpha``.

    Raises:
        ValueError: alpha is not positive.

    Source: J. T. Barron, Continuously differentiable exponential linear units (2017).

    >>> celu(jnp.array([-1e4, 0.0, 3.0]), alpha=2.0).tolist()
    [-2.0, 0.0, 3.0]
    """
    if not alpha > 0:
        raise wrong("celu", "alpha", alpha, "a positive number")
    return jnp.where(x > 0, x, alpha * _expm1(jnp.where(x > 0, 0, x) / alpha))


@functools.partial(jax.jit, inline=True)
def selu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``1.0507 elu(x, alpha=1.6733)``, which keeps mean 0 and variance 1 through layers.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative at 0 is 1.7581.

    Source: G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, Self-normalizing networks (2017).

    >>> selu(jnp.array([-1e4, 0.0]))
    Array([-1.7580993,  0.       ], dtype=float32)
    """
    negative = 1.6732632423543772 * _expm1(jnp.where(x > 0, 0, x))
    return 1.0507009873554805 * jnp.where(x > 0, x, negative)


@jax.custom_jvp
def _squareplus(z: jax.Array) -> jax.Array:
    root = jnp.hypot(z, jnp.ones_like(z))
    return jnp.where(z > 0, z / 2 + root / 2, 0.5 / (root - z))


# (1 + z / sqrt(z^2 + 1)) / 2 = sigmoid(2 asinh z), which does not cancel.
_squareplus.defjvps(lambda t, y, z: t * sigmoid(2 * jnp.arcsinh(z)))


@functools.partial(jax.jit, static_argnames=("b",), inline=True)
def squareplus(x: Float[Array, "*shape"], *, b: float = 4.0) -> Float[Array, "*shape"]:
    """Return ``(x + sqrt(x^2 + b)) / 2``, a smooth ReLU without exponentials.

    `jax.nn.squareplus` subtracts nearly equal numbers where x is negative (0 from x = -80 in
    float16), and squares to infinity from |x| = 256 in float16.

    Args:
        x: any shape, float.
        b: positive, the width of the bend; the value at 0 is sqrt(b) / 2.

    Returns:
        The shape and dtype of x, not negative.

    Raises:
        ValueError: b is not positive.

    Source: J. T. Barron, Squareplus: a softplus-like algebraic rectifier (2021).

    >>> squareplus(jnp.array([-1.5, 0.0, 1.5])).tolist()
    [0.5, 1.0, 2.0]
    """
    if not b > 0:
        raise wrong("squareplus", "b", b, "a positive number")
    root = math.sqrt(b)
    return root * _squareplus(x / root)
