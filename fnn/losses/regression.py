"""Losses: one number per example or entry, unreduced; finite, with finite gradients, at extremes.

A classification loss (`fnn.categorical`) reduces its last axis, the classes: ``(*n, classes)`` to
``(*n)``. A regression or binary loss compares entry by entry and keeps the shape; its mean over all
axes is the usual one. Means and sums are the caller's: ``loss.mean()``.

``where=`` keeps entries of the first argument: a bool array of its shape, or 1 along some axes, so
that ``mask[:, None]`` keeps whole examples. The loss is that of the kept entries alone, whatever
the others hold, NaN included, and 0 with gradient 0 where none is kept; the mean over the kept is
``loss.sum() / mask.sum()``. Shapes are never broadcast: (n,) against (n, 1) raises. A label that no
class has cannot raise inside a compiled function: its loss is NaN. Everything is computed in
float32 or wider and rounded once.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from fnn.checks import describe, wrong
from fnn.dtypes import accumulator
from fnn.layers.activations import softplus
from fnn.layers.softmax import check_where


def _entries(
    function: str, name: str, x: jax.Array, y: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Check two arrays to compare entry by entry; widen them, with 0 for what is not kept."""
    if y.shape != x.shape:
        raise wrong(function, name, describe(y), f"the shape of {describe(x)}, nothing broadcast")
    if jnp.issubdtype(y.dtype, jnp.floating) and y.dtype != x.dtype:
        raise wrong(function, name, describe(y), f"the dtype of {describe(x)}", TypeError)
    check_where(function, x, where)
    wide = accumulator(x.dtype)
    x, y = x.astype(wide), y.astype(wide)
    return (x, y) if where is None else (jnp.where(where, x, 0), jnp.where(where, y, 0))


@functools.partial(jax.jit, inline=True)
def squared_error(
    x: Float[Array, "*shape"],
    y: Float[Array, "*shape"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return ``(x - y)^2``, entry by entry.

    Args:
        x, y: prediction and target, of one shape and dtype.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of x; infinite where the square exceeds the dtype's largest number.

    Raises:
        ValueError, TypeError: shapes or dtypes differ.

    Source: A.-M. Legendre, least squares (1805).

    >>> squared_error(jnp.array([1.0, 5.0]), jnp.array([3.0, 5.0])).tolist()
    [4.0, 0.0]
    """
    a, b = _entries("squared_error", "y", x, y, where)
    return jnp.square(a - b).astype(x.dtype)


@functools.partial(jax.jit, inline=True)
def absolute_error(
    x: Float[Array, "*shape"],
    y: Float[Array, "*shape"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return ``|x - y|``, entry by entry.

    Args:
        x, y: prediction and target, of one shape and dtype.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of x; the derivative where x = y is 0.

    Raises:
        ValueError, TypeError: shapes or dtypes differ.

    Source: R. J. Boscovich, least absolute deviations (1757).

    >>> absolute_error(jnp.array([1.0, 5.0]), jnp.array([3.0, 5.0])).tolist()
    [2.0, 0.0]
    """
    a, b = _entries("absolute_error", "y", x, y, where)
    d = a - b
    return (d * jnp.sign(d)).astype(x.dtype)  # the derivative of jnp.abs at 0 is 1


@functools.partial(jax.jit, static_argnames=("delta",), inline=True)
def huber(
    x: Float[Array, "*shape"],
    y: Float[Array, "*shape"],
    *,
    delta: float = 1.0,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return ``d^2 / 2`` for ``d = x - y`` up to delta, and ``delta (|d| - delta / 2)`` beyond.

    Args:
        x, y: prediction and target, of one shape and dtype.
        delta: positive, where the square turns into the line.
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
    if not delta > 0:
        raise wrong("huber", "delta", delta, "a positive number")
    a, b = _entries("huber", "y", x, y, where)
    d = a - b
    far = delta * (d * jnp.sign(d) - delta / 2)
    return jnp.where(jnp.abs(d) < delta, jnp.square(d) / 2, far).astype(x.dtype)


@functools.partial(jax.jit, inline=True)
def binary_cross_entropy(
    logits: Float[Array, "*shape"],
    labels: Real[Array, "*shape"] | Bool[Array, "*shape"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return ``-y log p - (1 - y) log(1 - p)`` for ``p = sigmoid(logits)``, entry by entry.

    Computed as ``y softplus(-x) + (1 - y) softplus(x)``, a sum of positive terms.

    Args:
        logits: any shape, float.
        labels: the shape of logits: bool, integer 0 and 1, or float probabilities of its dtype.
        where: bool, the shape of logits or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of logits; NaN for a label outside [0, 1].

    Raises:
        ValueError, TypeError: shapes differ, or the dtypes of two float arrays.

    Source: D. R. Cox, The regression analysis of binary sequences (1958).

    >>> binary_cross_entropy(jnp.array([0.0, -1e4]), jnp.array([1, 1]))
    Array([6.931472e-01, 1.000000e+04], dtype=float32)
    """
    x, y = _entries("binary_cross_entropy", "labels", logits, labels, where)
    loss = weighted(y, softplus(-x)) + weighted(1 - y, softplus(x))
    loss = jnp.where((y >= 0) & (y <= 1), loss, jnp.nan)
    return _kept(loss, where).astype(logits.dtype)


@functools.partial(jax.jit, inline=True)
def hinge(
    scores: Float[Array, "*shape"],
    labels: Real[Array, "*shape"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*shape"]:
    """Return ``max(0, 1 - y s)``, entry by entry.

    Args:
        scores: any shape, float.
        labels: the shape of scores: -1 and 1, integer or of the dtype of scores.
        where: bool, the shape of scores or 1 along some axes: the entries to keep.

    Returns:
        The shape and dtype of scores; NaN for another label. The derivative at y s = 1 is 0.

    Raises:
        ValueError, TypeError: shapes differ, or the dtypes of two float arrays.

    Source: C. Cortes, V. Vapnik, Support-vector networks (1995).

    >>> hinge(jnp.array([0.5, 2.0, 2.0]), jnp.array([1, 1, -1])).tolist()
    [0.5, 0.0, 3.0]
    """
    s, y = _entries("hinge", "labels", scores, labels, where)
    loss = jnp.where(jnp.abs(y) == 1, jax.nn.relu(1 - y * s), jnp.nan)
    return _kept(loss, where).astype(scores.dtype)


def _kept(loss: jax.Array, where: jax.Array | None) -> jax.Array:
    return loss if where is None else jnp.where(where, loss, 0)


def weighted(weight: jax.Array, loss: jax.Array) -> jax.Array:
    """Weight times loss, where no weight times an infinite loss is 0."""
    return weight * jnp.where((weight == 0) & jnp.isinf(loss), 0, loss)


@functools.partial(jax.jit, inline=True)
def cosine_distance(
    x: Float[Array, "*n features"],
    y: Float[Array, "*n features"],
    *,
    where: Bool[Array, "..."] | None = None,
) -> Float[Array, "*n"]:
    """Return ``1 - <x, y> / (|x| |y|)`` over the last axis.

    Computed as ``|x / |x| - y / |y||^2 / 2``, which does not cancel for nearly parallel vectors.

    Args:
        x, y: (*n, features), of one shape and dtype.
        where: bool, the shape of x or 1 along some axes: the entries to keep.

    Returns:
        (*n), of x's dtype, in [0, 2]; 1 with gradient 0 where x or y is zero.

    Raises:
        ValueError, TypeError: shapes or dtypes differ, or there is no axis.

    Source: G. Salton, A. Wong, C. Yang, A vector space model for automatic indexing (1975).

    >>> cosine_distance(jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([[0.0, 2.0], [3.0, 3.0]]))
    Array([1., 0.], dtype=float32)
    """
    if x.ndim < 1:
        raise wrong("cosine_distance", "x", describe(x), "at least one axis, the features last")
    a, b = _entries("cosine_distance", "y", x, y, where)
    (a, some_a), (b, some_b) = _unit(a), _unit(b)
    loss = jnp.where(some_a & some_b, jnp.sum(jnp.square(a - b), -1) / 2, 1)
    if where is not None:
        loss = jnp.where(jnp.any(jnp.broadcast_to(where, x.shape), -1), loss, 0)
    return loss.astype(x.dtype)


def _unit(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors of length 1 along the last axis, and which were not zero; nothing overflows."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), -1, keepdims=True, initial=0))
    some = size > 0
    x = x / jnp.where(some, size, 1)
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    return x / jnp.sqrt(jnp.where(some, square, 1)), jnp.squeeze(some, -1)
