"""Pooling over regions that no stride describes: the whole image, equal shares, any partition.

The whole image is one axis, and shares that are equal are windows of `fnn.layers.pooling`. All
others are blocks of indices of an axis, several axes one after the other, last axis first; blocks
of one size are gathered and reduced together. As in `fnn.layers.pooling`, the first of tied maxima
gets the whole gradient, and a NaN is the result of its region.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from fnn.checks import check_axis, check_one_of, describe, shown, wrong
from fnn.dtypes import computed_wide, is_floating, nan_where, real
from fnn.functions import jitted
from fnn.kernels.pool.form import check_dtype, check_input, check_sizes, comparable, reverse
from fnn.layers.pooling import Images, Pooled, avg_pool, max_pool
from fnn.windows import Ints, per_axis

Blocks = Sequence[Sequence[int]]
Reduce = Callable[[jax.Array, int], jax.Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _first_max(x: jax.Array, axis: int) -> jax.Array:
    # XLA's own maximum over an axis on a CPU passes over a NaN (openxla/xla#21461).
    unknown = jnp.isnan(x).any(axis)
    return nan_where(unknown, x.max(axis))


@_first_max.defjvp
def _first_max_tangent(
    axis: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    winner = jnp.argmax(comparable(x), axis, keepdims=True)  # the first
    return _first_max(x, axis), jnp.take_along_axis(t, winner, axis).squeeze(axis)


def _max(x: jax.Array, axis: int) -> jax.Array:
    return _first_max(x, axis) if is_floating(x.dtype) else x.max(axis)


def _min(x: jax.Array, axis: int) -> jax.Array:
    return reverse(_max(reverse(x), axis))


def _avg(x: jax.Array, axis: int) -> jax.Array:
    return x.mean(axis)


def _by_blocks(x: jax.Array, blocks: Blocks, axis: int, reduce: Reduce) -> jax.Array:
    """Reduce every block of indices of an axis; blocks of one size together."""
    if not blocks:  # of an axis without entries
        return x
    parts, order = [], []
    for size in sorted({len(block) for block in blocks}):
        alike = [j for j, block in enumerate(blocks) if len(block) == size]
        table = np.asarray([blocks[j] for j in alike])
        parts.append(reduce(jnp.take(x, table, axis, mode="clip"), axis + 1))
        order += alike
    y = jnp.concatenate(parts, axis)
    return y if len(parts) == 1 else jnp.take(y, np.argsort(order), axis, mode="clip")


def _computed(reduce: Reduce, formula: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Compute in float32 at least; a mean of integers is a float."""
    return computed_wide(formula, real(x) if reduce is _avg else x)


def _check_spatial(name: str, x: jax.Array) -> None:
    """Raise for an x without a spatial axis, or with an empty one."""
    check_input(name, x)
    if 0 in x.shape[1:-1]:
        raise wrong(name, "x", describe(x), "at least one element along every spatial axis")


def _global(name: str, x: jax.Array, reduce: Reduce) -> jax.Array:
    _check_spatial(name, x)
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    return _computed(reduce, lambda x: reduce(x, 1), flat)


@jitted()
def global_max_pool(x: Images) -> Num[Array, "n c"]:
    """Return the maximum of every channel.

    ``y[n, c] = max_p x[n, p, c]`` over all positions p.

    Args:
        x: (n, *spatial, c), floats or integers.

    Returns:
        (n, c) in the dtype of x.

    Raises:
        ValueError: x has no spatial axis, or an empty one.
        TypeError: x is neither floating nor integer.

    Source: M. Oquab et al., Is object localization for free? (2015).

    >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[6.0, 7.0]]
    """
    return _global("global_max_pool", x, _max)


@jitted()
def global_min_pool(x: Images) -> Num[Array, "n c"]:
    """Return the minimum of every channel.

    ``y[n, c] = min_p x[n, p, c]`` over all positions p.

    Args, Returns, Raises: as `global_max_pool`.

    Source: ``min x = -max(-x)``, applied to `global_max_pool`.

    >>> global_min_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[0.0, 1.0]]
    """
    return _global("global_min_pool", x, _min)


@jitted()
def global_avg_pool(x: Images) -> Float[Array, "n c"]:
    """Return the mean of every channel.

    ``y[n, c] = mean_p x[n, p, c]`` over all positions p; half precision is summed in float32. Where
    the sum overflows the mean is infinite.

    Args, Raises: as `global_max_pool`.

    Returns:
        (n, c) in the dtype of x; for integers in the default float dtype.

    Source: M. Lin, Q. Chen, S. Yan, Network in network (2014).

    >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]
    """
    return _global("global_avg_pool", x, _avg)


def _adaptive(
    name: str, x: jax.Array, out: Ints, whole: Callable[..., jax.Array], reduce: Reduce
) -> jax.Array:
    """Equal windows by the pooling of `fnn.layers.pooling`, others block by block."""
    _check_spatial(name, x)
    spatial = x.shape[1:-1]
    check_sizes(name, x, spatial)
    sizes = per_axis(name, "out", out, len(spatial), 1)
    if all(i % o == 0 for i, o in zip(spatial, sizes, strict=True)):
        return whole(x, tuple(i // o for i, o in zip(spatial, sizes, strict=True)))

    def by_axes(x: jax.Array) -> jax.Array:
        for axis, (i, o) in reversed([*enumerate(zip(spatial, sizes, strict=True), 1)]):
            blocks = [range(j * i // o, -(-(j + 1) * i // o)) for j in range(o)]
            x = _by_blocks(x, blocks, axis, reduce)
        return x

    return _computed(reduce, by_axes, x)


@jitted(static=("out",))
def adaptive_max_pool(x: Images, out: Ints) -> Pooled:
    """Return maxima over windows that share each axis out into ``out`` parts.

    Along an axis of size i, window j of o is ``[floor(j i / o), ceil((j + 1) i / o))``: windows of
    unequal size, overlapping where o does not divide i.

    Args:
        x: (n, *spatial, c), floats or integers.
        out: output sizes, an int for all axes or one per axis.

    Returns:
        (n, *out, c) in the dtype of x.

    Raises:
        ValueError: ``out`` is malformed, or x has no spatial axis, or an empty one.
        TypeError: x is neither floating nor integer.

    Source: PyTorch, `AdaptiveMaxPool2d`; K. He et al., Spatial pyramid pooling in deep
    convolutional networks (2014).

    >>> adaptive_max_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).ravel().tolist()
    [2.0, 4.0]
    """
    return _adaptive("adaptive_max_pool", x, out, max_pool, _max)


@jitted(static=("out",))
def adaptive_avg_pool(x: Images, out: Ints) -> Float[Array, "n *out c"]:
    """Return means over windows that share each axis out into ``out`` parts.

    Windows, arguments and errors are those of `adaptive_max_pool`; half precision is summed in
    float32. Where the sum overflows the mean is infinite.

    Returns:
        (n, *out, c) in the dtype of x; for integers in the default float dtype.

    Source: PyTorch, `AdaptiveAvgPool2d`.

    >>> adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).ravel().tolist()
    [1.0, 3.0]
    """
    return _adaptive("adaptive_avg_pool", x, out, avg_pool, _avg)


REDUCTIONS: dict[str, Reduce] = {"max": _max, "min": _min, "avg": _avg}


@jitted(static=("blocks", "reduce", "axis"))
def partition_pool(
    x: Num[Array, "*shape"],
    blocks: Sequence[Sequence[int]],
    reduce: str = "max",
    *,
    axis: int | None = None,
) -> Num[Array, "*pooled"]:
    """Return the maximum, minimum or mean over each block of a partition of an axis.

    ``y[..., j, ...] = reduce over i in blocks[j] of x[..., i, ...]``. Half precision is summed in
    float32; where the sum overflows the mean is infinite.

    Args:
        x: floats or integers, of any shape.
        blocks: for each output its indices into the axis; every index of the axis is in exactly one
            block. Blocks may differ in size and need not be contiguous.
        reduce: "max", "min" (the first of a tie in the block's order gets the gradient) or "avg".
        axis: the axis that is partitioned; None means 1, the first after that of the examples, or
            the only axis of a vector.

    Returns:
        x with ``len(blocks)`` entries along the axis, in the dtype of x; a mean of integers in the
        default float dtype.

    Raises:
        ValueError: x has no axis, an index is missing, repeated or outside the axis, a block is
            empty, the axis does not exist, or ``reduce`` is unknown.
        TypeError: x is neither floating nor integer.

    Source: Y.-L. Boureau, J. Ponce, Y. LeCun, A theoretical analysis of feature pooling in visual
    recognition (2010).

    >>> partition_pool(jnp.array([[5.0, 1.0, 2.0]]), [[0, 2], [1]], "avg").tolist()
    [[3.5, 1.0]]
    """
    name = "partition_pool"
    check_dtype(name, x)
    if not x.ndim:
        raise wrong(name, "x", describe(x), "at least one axis")
    axis = min(1, x.ndim - 1) if axis is None else axis
    check_axis(name, x, axis)
    check_one_of(name, "reduce", reduce, tuple(REDUCTIONS))
    axis %= x.ndim
    check_sizes(name, x, x.shape[axis : axis + 1])
    _check_partition(name, blocks, x.shape[axis])
    chosen = REDUCTIONS[reduce]
    return _computed(chosen, lambda x: _by_blocks(x, blocks, axis, chosen), x)


def _check_partition(name: str, blocks: Any, size: int) -> None:
    """Raise unless every index of an axis of this size is in exactly one of the blocks."""
    counts = dict.fromkeys(range(size), 0)
    if not isinstance(blocks, tuple) or not all(isinstance(b, tuple | range) for b in blocks):
        raise wrong(name, "blocks", shown(blocks), "one sequence of indices for every output")
    for block in blocks:
        if not block:
            raise wrong(name, "blocks", "an empty block", "at least one index in every block")
        for i in block:
            if not isinstance(i, int) or isinstance(i, bool) or i not in counts:
                raise wrong(name, "blocks", f"index {shown(i)}", f"ints from 0 to {size - 1}")
            counts[i] += 1
    for i, count in counts.items():
        if count != 1:
            got = f"index {i} {count} times"
            raise wrong(name, "blocks", got, "every index in exactly one block")
