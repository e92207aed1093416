"""Losses by entry between numbers, and the distance between directions.

`fnn.losses` says what all losses share.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from fnn.checks import POSITIVE, describe, wrong
from fnn.dtypes import Floats, Number, Where, magnitude, number_like
from fnn.functions import jitted
from fnn.losses.targets import entries


@jitted()
def squared_error(
    x: Floats,
    y: Real[Array, "*shape"],
    *,
    where: Where | None = None,
) -> Floats:
    """Return ``(x - y)^2``, entry by entry.

    Args:
        x: prediction, any shape, float.
        y: target, the shape of x: of its dtype, or integers.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of x; infinite where the square exceeds the dtype's largest number.

    Raises:
        ValueError, TypeError: shapes or dtypes differ.

    Source: A.-M. Legendre, least squares (1805).

    >>> squared_error(jnp.array([1.0, 5.0]), jnp.array([3.0, 5.0])).tolist()
    [4.0, 0.0]
    """
    a, b = entries("squared_error", "y", x, y, where)
    return jnp.square(a - b).astype(x.dtype)


@jitted()
def absolute_error(
    x: Floats,
    y: Real[Array, "*shape"],
    *,
    where: Where | None = None,
) -> Floats:
    """Return ``|x - y|``, entry by entry.

    Args:
        x: prediction, any shape, float.
        y: target, the shape of x: of its dtype, or integers.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of x; the derivative where x = y is 0.

    Raises:
        ValueError, TypeError: shapes or dtypes differ.

    Source: R. J. Boscovich, least absolute deviations (1757).

    >>> absolute_error(jnp.array([1.0, 5.0]), jnp.array([3.0, 5.0])).tolist()
    [2.0, 0.0]
    """
    a, b = entries("absolute_error", "y", x, y, where)
    d = a - b
    return (d * jnp.sign(d)).astype(x.dtype)  # the derivative of jnp.abs at 0 is 1


@jitted(ranges={"delta": POSITIVE})
def huber(
    x: Floats,
    y: Real[Array, "*shape"],
    *,
    delta: Number = 1.0,
    where: Where | None = None,
) -> Floats:
    """Return ``d^2 / 2`` for ``d = x - y`` up to delta, and ``delta (|d| - delta / 2)`` beyond.

    Args:
        x: prediction, any shape, float.
        y: target, the shape of x: of its dtype, or integers.
        delta: a positive number, where the square turns into the line.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of x; the derivative is d clipped to [-delta, delta], the second at
        |d| = delta is 0.

    Raises:
        ValueError, TypeError: shapes or dtypes differ, or delta is not positive.

    Source: P. J. Huber, Robust estimation of a location parameter (1964).

    >>> huber(jnp.array([1.0, 5.0]), jnp.array([3.0, 4.5])).tolist()
    [1.5, 0.125]
    """
    a, b = entries("huber", "y", x, y, where)
    bend = number_like(delta, a)
    near = (jnp.abs(a - b) < bend) | jnp.isinf(bend)
    square = jnp.where(near, a - b, 0)
    # Beyond delta at half scale, since d may overflow where the loss does not.
    half, slope = jnp.where(near, 0, a / 2 - b / 2), jnp.where(near, 0, bend)
    line = 2 * slope * (half * jnp.sign(half) - slope / 4)
    return (square * (square / 2) + line).astype(x.dtype)


@jitted()
def cosine_distance(
    x: Float[Array, "*n features"],
    y: Real[Array, "*n features"],
    *,
    where: Where | None = None,
) -> Float[Array, "*n"]:
    """Return ``1 - <x, y> / (|x| |y|)`` over the last axis.

    Computed as ``|x / |x| - y / |y||^2 / 2``, which does not cancel for nearly parallel vectors.

    Args:
        x: (*n, features), float.
        y: the shape of x: of its dtype, or integers.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        (*n), of x's dtype, in [0, 2] to rounding; 1 with gradient 0 where x or y is zero. Infinite
        entries outweigh all others, and each other equally.

    Raises:
        ValueError, TypeError: shapes or dtypes differ, or there is no axis.

    Source: G. Salton, A. Wong, C. Yang, A vector space model for automatic indexing (1975).

    >>> x, y = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[0.0, 2.0], [3.0, 3.0]])
    >>> cosine_distance(x, y).round(6).tolist()
    [1.0, 0.0]
    """
    if x.ndim < 1:
        raise wrong("cosine_distance", "x", describe(x), "at least one axis, the features last")
    a, b = entries("cosine_distance", "y", x, y, where)
    (a, some_a), (b, some_b) = _unit(a), _unit(b)
    loss = jnp.where(some_a & some_b, jnp.sum(jnp.square(a - b), -1) / 2, 1)
    if where is not None:
        loss = jnp.where(jnp.any(jnp.broadcast_to(where, x.shape), -1), loss, 0)
    return loss.astype(x.dtype)


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors of length 1 along the last axis, and which were not zero; nothing overflows."""
    size = magnitude(x, -1)
    infinite = jnp.where(jnp.isfinite(x), 0, jnp.sign(x))
    x = jnp.where(jnp.isinf(size), infinite, x / size)
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    some = square != 0
    return x / jnp.sqrt(jnp.where(some, square, 1)), jnp.squeeze(some, -1)
