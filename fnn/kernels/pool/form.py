"""Pooling as reductions over windows, and what a pooling kernel is.

A kernel supplies two reductions of ``x (n, *spatial, c)`` over the windows of `fnn.windows`: the
maximum, where padding never wins, and the sum, where padding adds nothing. Five poolings follow:
the minimum is the maximum of the reversed order, the mean a sum over a count, the p-norm a sum of
powers. Both reductions are differentiable any number of times, in both modes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import describe, wrong
from fnn.dtypes import accumulator
from fnn.windows import Ints, Padding, Pads, Windows, resolve


class PoolKernel(NamedTuple):
    """One algorithm for the two reductions.

    Attributes:
        max: ``(x, windows) -> y``; the gradient goes whole to the first maximum in window order.
        sum: ``(x, windows) -> y``, in the dtype of x.
    """

    max: Callable[[jax.Array, Windows], jax.Array]
    sum: Callable[[jax.Array, Windows], jax.Array]


class Call(NamedTuple):
    """The window arguments of one pooling call, in the order of its signature."""

    window: Ints
    stride: Ints | None
    padding: Padding
    dilation: Ints
    ceil_mode: bool


def is_float(x: jax.Array) -> bool:
    """Return whether x holds floating-point numbers."""
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def least(dtype: Any) -> np.ndarray:
    """Return the neutral element of the maximum."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(-np.inf, dtype)
    return np.asarray(np.iinfo(dtype).min, dtype)


def check_dtype(name: str, x: jax.Array) -> None:
    """Refuse what has no order."""
    if not is_float(x) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise wrong(name, "x", describe(x), "a floating or integer dtype", TypeError)


def check_input(name: str, x: jax.Array) -> None:
    """Refuse what has no spatial axis or no order."""
    check_dtype(name, x)
    if x.ndim < 3:
        raise wrong(name, "x", describe(x), "(n, *spatial, c) with at least one spatial axis")


def inside(w: Windows, spatial: tuple[int, ...], pads: Pads) -> list[np.ndarray]:
    """Per axis and stop, how many taps fall into the input enlarged by ``pads``."""
    counts = []
    for i, o, k, s, d, (lo, _), (before, after) in zip(
        spatial, w.output(spatial), w.size, w.stride, w.dilation, w.padding, pads, strict=True
    ):
        place = np.arange(o)[:, None] * s + np.arange(k)[None, :] * d - lo
        counts.append(((place >= -before) & (place < i + after)).sum(1))
    return counts


def _ceil(w: Windows, spatial: tuple[int, ...]) -> Windows:
    """Pad the end for one more stop where the stride leaves a rest, if it starts inside."""
    pads = []
    for i, e, s, (lo, hi) in zip(spatial, w.span, w.stride, w.padding, strict=True):
        o = -(-(lo + i + hi - e) // s) + 1
        o -= (o - 1) * s >= lo + i
        pads.append((lo, max(hi, (o - 1) * s + e - lo - i)))
    return w._replace(padding=tuple(pads))


def read(name: str, x: jax.Array, call: Call, empty: bool) -> tuple[Windows, Pads]:
    """Return the windows of a call and the padding its caller asked for, `_ceil` apart.

    Raises:
        ValueError: a malformed argument, or, unless ``empty`` windows have a value, a window that
            lies in the padding alone.
    """
    check_input(name, x)
    spatial = x.shape[1:-1]
    stride = call.window if call.stride is None else call.stride
    asked = resolve(name, spatial, call.window, stride, call.padding, call.dilation)
    w = _ceil(asked, spatial) if call.ceil_mode else asked
    bare = ((0, 0),) * len(spatial)
    if not empty and any((c == 0).any() for c in inside(w, spatial, bare)):
        got = f"{call.padding!r} for a window {w.size} with dilation {w.dilation}"
        needed = f"less padding: every window must reach into the input {spatial}"
        raise wrong(name, "padding", got, needed)
    return w, asked.padding


def reverse(x: jax.Array) -> jax.Array:
    """Reverse the order: -x, or for integers ~x, which cannot overflow."""
    return -x if is_float(x) else ~x


def maximum(name: str, kernel: PoolKernel, x: jax.Array, call: Call) -> jax.Array:
    """Maximum of every window."""
    return kernel.max(x, read(name, x, call, False)[0])


def minimum(name: str, kernel: PoolKernel, x: jax.Array, call: Call) -> jax.Array:
    """Minimum of every window."""
    return reverse(kernel.max(reverse(x), read(name, x, call, False)[0]))


def total(name: str, kernel: PoolKernel, x: jax.Array, call: Call) -> jax.Array:
    """Sum of every window."""
    w, _ = read(name, x, call, True)
    return kernel.sum(x.astype(accumulator(x.dtype)), w).astype(x.dtype)


def widened(x: jax.Array) -> tuple[jax.Array, Any]:
    """x in the dtype its means are formed in, and the result's dtype; integers become floats."""
    dtype = x.dtype if is_float(x) else jnp.result_type(float)
    return x.astype(accumulator(dtype)), dtype


def mean(
    name: str, kernel: PoolKernel, x: jax.Array, call: Call, count_include_pad: bool
) -> jax.Array:
    """Mean of every window, over its taps in the input or over those in the padding too."""
    w, asked = read(name, x, call, count_include_pad)
    spatial = x.shape[1:-1]
    counted = asked if count_include_pad else ((0, 0),) * len(spatial)
    wide, dtype = widened(x)
    count = np.ones((1,) * x.ndim)
    for axis, taps in enumerate(inside(w, spatial, counted), 1):
        alike = taps[:1] if (taps == taps[:1]).all() else taps
        count = count * np.expand_dims(alike, [a for a in range(x.ndim) if a != axis])
    return (kernel.sum(wide, w) / count.astype(wide.dtype)).astype(dtype)


def norm(name: str, kernel: PoolKernel, x: jax.Array, p: float, call: Call) -> jax.Array:
    """p-norm of every window; where it is 0 its gradient is set to 0."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 1 <= p < np.inf:
        raise wrong(name, "p", repr(p), "a finite number >= 1 (for infinity: max_pool of |x|)")
    w, _ = read(name, x, call, True)
    wide, dtype = widened(x)
    exponent = int(p) if p == int(p) else p
    s = kernel.sum(wide**exponent if exponent % 2 == 0 else jnp.abs(wide) ** exponent, w)
    zero = s == 0
    root = jnp.where(zero, jnp.ones_like(s), s) ** (1 / p)
    return jnp.where(zero, jnp.zeros_like(s), root).astype(dtype)
