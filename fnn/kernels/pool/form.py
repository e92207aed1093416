"""Pooling as reductions over windows, and what a pooling kernel is.

A kernel supplies three reductions of ``x (n, *spatial, c)`` over the windows of `fnn.windows`: the
maximum, where padding never wins, the sum and the p-norm, to which padding adds nothing. Five
poolings follow: the minimum is the maximum of the reversed order, the mean a sum over a count. All
reductions are differentiable any number of times, in both modes, but for what
`fnn/layers/pooling.py` says of `lax.scan` before JAX 0.12.

The poolings take the name of the public function, for messages, a kernel, and that function's own
arguments, which `read` makes windows of.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import Range, check_number, describe, wrong
from fnn.compiler import kept_apart
from fnn.dtypes import computed_wide, is_floating, is_real, real, widen
from fnn.windows import Axis, Ints, Padding, Pads, Windows, check_fits, explicit

FROM_ONE = Range(1, high_closed=False)  # infinity is the maximum of |x|
STORED = 1 << 20  # the most numbers of a constant


class PoolKernel(NamedTuple):
    """One algorithm for the three reductions.

    Attributes:
        name: what ends the names of the public functions that use it, ``max_pool_<name>``.
        max: ``(x, windows) -> y``; the gradient goes whole to the first maximum in window order, a
            NaN counting as infinity.
        sum: ``(x, windows) -> y``, in the dtype of x.
        norm: ``(x, windows, p) -> y``, for floats, in the dtype of x.
    """

    name: str
    max: Callable[[jax.Array, Windows], jax.Array]
    sum: Callable[[jax.Array, Windows], jax.Array]
    norm: Callable[[jax.Array, Windows, int | float], jax.Array]


def with_infinity(x: jax.Array) -> jax.Array:
    """Return x, widened where its dtype has no infinity, as most floats of 8 bits have none.

    >>> with_infinity(jnp.ones(1, jnp.float8_e4m3fn)).dtype, with_infinity(jnp.ones(1, int)).dtype
    (dtype('float32'), dtype('int32'))
    """
    floats = is_floating(x.dtype)
    return widen(x) if floats and not np.isinf(np.asarray(np.inf, x.dtype)) else x


def least(dtype: Any) -> np.ndarray:
    """Return the neutral element of the maximum, of integers or floats with infinity."""
    if is_floating(dtype):
        return np.asarray(-np.inf, dtype)
    return np.asarray(np.iinfo(dtype).min, dtype)


def comparable(x: jax.Array) -> jax.Array:
    """Return x with infinity for NaN, as which it competes for the gradient of the maximum."""
    return jnp.where(x < jnp.inf, x, jnp.inf) if is_floating(x.dtype) else x


def reverse(x: jax.Array) -> jax.Array:
    """Reverse the order: -x, or for integers ~x, which cannot overflow."""
    return -x if is_floating(x.dtype) else ~x


def check_dtype(name: str, x: jax.Array, argument: str = "x") -> None:
    """Raise for bools and complex numbers."""
    if not is_real(x.dtype) or x.dtype == bool:
        raise wrong(name, argument, describe(x), "a floating or integer dtype", TypeError)


def check_input(name: str, x: jax.Array, argument: str = "x") -> None:
    """Raise for an x without a spatial axis, or whose entries have no order."""
    check_dtype(name, x, argument)
    if x.ndim < 3:
        needed = "(n, *spatial, c) with at least one spatial axis"
        raise wrong(name, argument, describe(x), needed)


def check_sizes(name: str, x: jax.Array, sizes: tuple[Any, ...]) -> None:
    """Raise where one of these sizes of x is a symbol, as `jax.export` has them."""
    if not all(isinstance(size, int) for size in sizes):
        needed = "a number, not a symbol, for the size of every axis that is pooled"
        raise wrong(name, "x", describe(x), needed)


def along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Return the values laid along one of ``rank`` axes; one alone where all are equal."""
    alike = values[:1] if (values == values[:1]).all() else values
    return np.expand_dims(alike, [a for a in range(rank) if a != axis])


def combined(op: Callable[[Any, Any], Any], parts: Sequence[np.ndarray], dtype: Any) -> Any:
    """Combine values that lie `along` different axes, a large plane of them only as it is read.

    As a constant it would be stored in the program. The parts are kept apart, or XLA would combine
    them as well when it compiles.
    """
    arrays: Sequence[Any] = [part.astype(dtype) for part in parts]
    if math.prod(np.broadcast_shapes(*(part.shape for part in parts))) > STORED:
        arrays = kept_apart(*map(jnp.asarray, arrays))
    return functools.reduce(op, arrays)


def taps_inside(a: Axis, before: int = 0, after: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return at every stop the first and the last tap inside the input enlarged by so much."""
    start = np.arange(a.o) * a.s - a.lo
    first = np.maximum(0, -((start + before) // a.d))
    return first, np.minimum(a.k - 1, (a.i + after - 1 - start) // a.d)


def inside(windows: Windows, spatial: tuple[int, ...], pads: Pads) -> list[np.ndarray]:
    """Return per axis and stop how many taps fall into the input enlarged by ``pads``."""
    ends = [taps_inside(a, *p) for a, p in zip(windows.axes(spatial), pads, strict=True)]
    return [np.maximum(0, last - first + 1) for first, last in ends]


def _ceil(windows: Windows, spatial: tuple[int, ...]) -> Windows:
    """Pad the end for one more stop where the stride leaves a rest, if it starts inside."""
    pads = []
    for a in windows.axes(spatial):
        o = -(-(a.lo + a.i + a.hi - a.span) // a.s) + 1
        o -= (o - 1) * a.s >= a.lo + a.i
        pads.append((a.lo, max(a.hi, (o - 1) * a.s + a.span - a.lo - a.i)))
    return windows._replace(padding=tuple(pads))


def read(
    name: str,
    x: jax.Array,
    empty: bool,
    window: Ints,
    stride: Ints | None,
    padding: Padding,
    dilation: Ints,
    ceil_mode: bool,
) -> tuple[Windows, Pads]:
    """Return the windows of a call, and the padding that its caller asked for, `_ceil` apart.

    Raises:
        ValueError: a malformed argument, or, unless ``empty`` windows have a value, a window that
            lies in the padding alone.
    """
    check_input(name, x)
    spatial = x.shape[1:-1]
    check_sizes(name, x, spatial)
    stride = window if stride is None else stride
    asked = explicit(name, spatial, window, stride, padding, dilation)
    windows = _ceil(asked, spatial) if ceil_mode else asked
    if padding != "SAME":
        check_fits(name, spatial, windows)
    bare = ((0, 0),) * len(spatial)
    if not empty and any((c == 0).any() for c in inside(windows, spatial, bare)):
        got = f"{padding!r} for a window {windows.size} with dilation {windows.dilation}"
        needed = f"less padding: every window must reach into the input {spatial}"
        raise wrong(name, "padding", got, needed)
    return windows, asked.padding


def maximum(name: str, kernel: PoolKernel, x: jax.Array, *config: Any, **named: Any) -> jax.Array:
    """Maximum of every window."""
    windows, _ = read(name, x, False, *config, **named)
    return kernel.max(with_infinity(x), windows).astype(x.dtype)


def minimum(name: str, kernel: PoolKernel, x: jax.Array, *config: Any, **named: Any) -> jax.Array:
    """Minimum of every window."""
    windows, _ = read(name, x, False, *config, **named)  # first: it refuses what has no order
    return reverse(kernel.max(reverse(with_infinity(x)), windows)).astype(x.dtype)


def total(name: str, kernel: PoolKernel, x: jax.Array, *config: Any, **named: Any) -> jax.Array:
    """Sum of every window."""
    windows, _ = read(name, x, True, *config, **named)
    return computed_wide(lambda wide: kernel.sum(wide, windows), x)


def mean(
    name: str,
    kernel: PoolKernel,
    x: jax.Array,
    window: Ints,
    stride: Ints | None,
    padding: Padding,
    dilation: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
) -> jax.Array:
    """Mean of every window, over its taps in the input or over those in the padding too."""
    windows, asked = read(name, x, count_include_pad, window, stride, padding, dilation, ceil_mode)
    spatial = x.shape[1:-1]
    counted = asked if count_include_pad else ((0, 0),) * len(spatial)
    taps = enumerate(inside(windows, spatial, counted), 1)
    counts = [along(count, axis, x.ndim) for axis, count in taps]
    return computed_wide(
        lambda x: kernel.sum(x, windows) / combined(operator.mul, counts, x.dtype), real(x)
    )


def norm(
    name: str,
    kernel: PoolKernel,
    x: jax.Array,
    window: Ints,
    p: int | float,
    *config: Any,
    **named: Any,
) -> jax.Array:
    """p-norm of every window."""
    check_number(name, "p", p, FROM_ONE)
    windows, _ = read(name, x, True, window, *config, **named)
    exponent = int(p) if p == int(p) else p  # a whole power is a product
    return computed_wide(lambda wide: kernel.norm(wide, windows, exponent), real(x))
