"""Softmax and its kin: normalised exponentials over one or more axes.

``softmax(x)_i = exp(x_i) / sum_j exp(x_j)``; `log_softmax` is its logarithm and `logsumexp` the
logarithm of the denominator, after a shift by the largest x. An entry is absent when it is -inf or
where the mask ``where=`` is False: its exponential is 0, and no gradient flows to it, except to an
entry of -inf from its own `log_softmax`. When all are absent, the sum is 0: logsumexp is -inf,
softmax 0, and the gradient 0. Entries of +inf outweigh all others and share equally, which is the
limit: softmax of (inf, 0) is (1, 0), logsumexp is inf. In both cases `jax.nn` gives NaN. Half
precision is computed in float32: a float16 sum of 65,520 ones is infinite.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.checks import check_axis, describe, wrong
from fnn.dtypes import Floats, Where, widen
from fnn.functions import jitted

Axes = int | tuple[int, ...] | None


class Shifted(NamedTuple):
    """What the three functions share; float32 or wider, reduced axes of size 1.

    Attributes:
        x: the entries less the top, -inf where absent.
        top: the largest entry, without gradient; 0 where all are absent.
        total: the sum of exp(x); 1 where all are absent.
        present: whether any entry is present.
    """

    x: jax.Array
    top: jax.Array
    total: jax.Array
    present: jax.Array


def check_where(function: str, x: jax.Array, where: jax.Array | None) -> None:
    """Raise unless the mask is boolean, and of the shape of x or 1 along an axis."""
    if where is None:
        return
    if where.dtype != jnp.bool_:
        raise wrong(function, "where", describe(where), "bool", TypeError)
    if where.ndim != x.ndim or any(
        m not in (1, n) for m, n in zip(where.shape, x.shape, strict=True)
    ):
        needed = f"the shape {x.shape}, or 1 along some of its axes"
        if where.shape == x.shape[:-1]:
            needed += "; for whole rows write where[..., None]"
        raise wrong(function, "where", describe(where), needed)


def check_axes(function: str, x: jax.Array, axis: Axes) -> None:
    """Raise unless these are axes of x, each once."""
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for one in axes:
        check_axis(function, x, one)
    if len({one % x.ndim for one in axes}) < len(axes):
        raise wrong(function, "axis", axis, f"axes of x {describe(x)}, each once")


@jax.custom_jvp
def _less(x: jax.Array, top: jax.Array) -> jax.Array:
    """``x - top``, which is 0 where both are infinite, as its limit is."""
    return jnp.where(x == top, 0, x - top)


_less.defjvps(lambda t, y, x, top: t, None)


def shift(function: str, x: jax.Array, axis: Axes, where: jax.Array | None) -> Shifted:
    """Subtract the largest present entry and sum the exponentials."""
    check_axes(function, x, axis)
    check_where(function, x, where)
    x = widen(x)
    x = x if where is None else jnp.where(where, x, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(x, axis, keepdims=True, initial=-jnp.inf))
    top = jnp.where(top == -jnp.inf, 0, top)
    shifted = _less(x, top)
    total = jnp.sum(jnp.exp(shifted), axis, keepdims=True)
    present = total != 0  # not by the top: XLA's maximum on a CPU passes over a NaN
    return Shifted(shifted, top, jnp.where(present, total, 1), present)


@jitted(static=("axis",))
def softmax(x: Floats, *, axis: Axes = -1, where: Where | None = None) -> Floats:
    """Return ``exp(x) / sum(exp(x))``, the sum over the axis.

    Args:
        x: any shape, float; an entry of -inf is absent.
        axis: one axis, several, or None for all.
        where: bool, the shape of x or 1 along some axes; False entries are absent.

    Returns:
        The shape and dtype of x; 0 for absent entries, and all 0 where all are absent.

    Raises:
        ValueError: the axis is not one of x, or there twice; the mask has another shape.
        TypeError: the mask is not bool.

    Source: J. Bridle, Probabilistic interpretation of classification network outputs (1990).

    >>> softmax(jnp.array([1e4, 1e4, -jnp.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    shifted = shift("softmax", x, axis, where)
    return (jnp.exp(shifted.x) / shifted.total).astype(x.dtype)


@jitted(static=("axis",))
def log_softmax(x: Floats, *, axis: Axes = -1, where: Where | None = None) -> Floats:
    """Return ``log(softmax(x)) = x - logsumexp(x)``, the sum over the axis.

    Args:
        x: any shape, float; an entry of -inf is absent.
        axis: one axis, several, or None for all.
        where: bool, the shape of x or 1 along some axes; False entries are absent.

    Returns:
        The shape and dtype of x, not positive; -inf for absent entries.

    Raises:
        ValueError: the axis is not one of x, or there twice; the mask has another shape.
        TypeError: the mask is not bool.

    Source: as `softmax`.

    >>> log_softmax(jnp.array([1e4, 1e4, -jnp.inf]))
    Array([-0.6931472, -0.6931472,       -inf], dtype=float32)
    """
    shifted = shift("log_softmax", x, axis, where)
    return (shifted.x - jnp.log(shifted.total)).astype(x.dtype)


@jitted(static=("axis", "keepdims"))
def logsumexp(
    x: Float[Array, "..."],
    *,
    axis: Axes = None,
    keepdims: bool = False,
    where: Where | None = None,
) -> Float[Array, "..."]:
    """Return ``log(sum(exp(x)))``, the sum over the axis; its gradient is `softmax`.

    Args:
        x: any shape, float; an entry of -inf is absent.
        axis: one axis, several, or None for all, as in `jax.nn.logsumexp`.
        keepdims: whether the axis stays, with size 1.
        where: bool, the shape of x or 1 along some axes; False entries are absent.

    Returns:
        The shape of x without the axis, of x's dtype; -inf where all entries are absent, or none
        are there.

    Raises:
        ValueError: the axis is not one of x, or there twice; the mask has another shape.
        TypeError: the mask is not bool.

    Source: P. Blanchard, D. Higham, N. Higham, Accurately computing the log-sum-exp (2021).

    >>> jax.grad(logsumexp)(jnp.full(2, -jnp.inf)).tolist()
    [0.0, 0.0]
    """
    shifted = shift("logsumexp", x, axis, where)
    value = jnp.where(shifted.present, jnp.log(shifted.total) + shifted.top, -jnp.inf)
    return (value if keepdims else jnp.squeeze(value, axis)).astype(x.dtype)
