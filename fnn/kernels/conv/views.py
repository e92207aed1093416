"""What the taps of a window see, as one gather: it compiles to one small loop.

Stacked slices compile to a loop per slice, and take several times as long, to compile and to run.
What one tap sees alone is a slice (`shifted`).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.compiler import by_itself as compiled_by_itself
from fnn.dtypes import accumulator
from fnn.kernels.conv.form import Form, devices, stops_inside
from fnn.windows import Axis

VECTOR = 8  # channels
FIND = 24  # cost of finding out where a tap meets padding: channels that it multiplies meanwhile
COPY = 30  # cost of a padded copy, as a number of taps
MANY = 40  # taps, beside which a copy is nothing


def by_itself(fn: Callable[..., jax.Array], form: Form) -> Callable[..., jax.Array]:
    """Let the compiler merge fn with nothing before or after it, on the CPU."""

    def run(*arrays: jax.Array) -> jax.Array:
        alone = form.platform == "cpu" and devices(arrays[0]) == 1
        return (compiled_by_itself(fn) if alone else fn)(*arrays)

    return run


def views(
    x: jax.Array,
    axes: Sequence[int],
    starts: np.ndarray,
    longs: Sequence[int],
    strides: Sequence[int],
    at: int,
) -> jax.Array:
    """Stack ``x[start : start + long : stride]`` of some axes, for all starts, as a new axis.

    ``starts`` is ``(views, axes)``.
    """
    sizes, steps = list(x.shape), [1] * x.ndim
    for axis, long, stride in zip(axes, longs, strides, strict=True):
        sizes[axis], steps[axis] = long, stride
    if len(starts) == 1:
        for axis, start, long, stride in zip(axes, starts[0], longs, strides, strict=True):
            x = lax.slice_in_dim(x, int(start), int(start) + long, stride, axis)
        return jnp.expand_dims(x, at)
    kept = tuple(d for d in range(x.ndim + 1) if d != at)
    numbers = lax.GatherDimensionNumbers(kept, (), tuple(axes))
    places = jnp.asarray(starts, jnp.int32)
    y = lax.gather(x, places, numbers, tuple(sizes), mode="promise_in_bounds")
    steps.insert(at, 1)
    return y if max(steps) == 1 else lax.slice(y, [0] * y.ndim, y.shape, steps)


def taps(x: jax.Array, axis: int, spatial: int, form: Form, at: int) -> jax.Array:
    """What each tap of a spatial axis sees, of padded x's ``axis``: stacked as axis ``at``."""
    k, s, d = (v[spatial] for v in (form.windows.size, form.windows.stride, form.windows.dilation))
    starts, long = np.arange(k)[:, None] * d, (form.out[spatial] - 1) * s + 1
    return views(x, [axis], starts, [long], [s], at)


def runs(x: jax.Array, spatial: int, form: Form) -> jax.Array:
    """``(..., size, c)`` to ``(..., out, taps * c)``: without a dilation, taps lie side by side."""
    k, s, c = form.windows.size[spatial], form.windows.stride[spatial], x.shape[-1]
    x = x.reshape(*x.shape[:-2], -1)
    last, starts = x.ndim - 1, np.arange(form.out[spatial])[:, None] * s * c
    return views(x, [last], starts, [k * c], [1], last)


def padded(x: jax.Array, form: Form) -> jax.Array:
    """x with its padding, in the dtype in which half precision is summed."""
    x = x.astype(accumulator(x.dtype))
    return jnp.pad(x, ((0, 0), *form.windows.padding, (0, 0)))


def filling(form: Form, each: int) -> int:
    """How many extra channels of zeros a large depthwise window reads, so that vectors are whole.

    A loop on a CPU takes channels that fill no vector one by one: 29 take longer than 32.
    ``each`` is the number of outputs of a group.
    """
    size, channels = form.windows.size, form.groups
    large = form.platform == "cpu" and len(size) > 1 and math.prod(size) > MANY
    return -channels % VECTOR if large and each == 1 and channels > VECTOR else 0


def filled(x: jax.Array, more: int, axis: int = -1) -> jax.Array:
    """x with this many extra channels of zeros."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, more)
    return jnp.pad(x, pads) if more else x


def shifted(x: jax.Array, form: Form, axis: int, tap: Any) -> jax.Array:
    """What one tap, maybe traced, of a spatial axis of padded x sees: one element per output."""
    s, d, o = form.windows.stride[axis], form.windows.dilation[axis], form.out[axis]
    if isinstance(tap, int):
        return lax.slice_in_dim(x, tap * d, tap * d + (o - 1) * s + 1, s, axis + 1)
    long = lax.dynamic_slice_in_dim(x, tap * d, (o - 1) * s + 1, axis + 1)
    return lax.slice_in_dim(long, 0, None, s, axis + 1)


def unpadded(x: jax.Array, form: Form) -> bool:
    """Whether the taps of a depthwise window read x itself, and not a padded copy."""
    win, c = form.windows, x.shape[-1]
    cheaper = math.prod(win.size) * (c + FIND) <= COPY * c
    alone = form.platform == "cpu" and devices(x) == 1
    return alone and cheaper and any(map(any, win.padding))


def met_or_zero(x: jax.Array, form: Form, place: tuple[int, ...]) -> jax.Array:
    """What the tap at this place of the window meets of x at every stop, and zeros for padding."""
    stops = [lax.broadcasted_iota(jnp.int32, form.out, axis) for axis in range(len(place))]
    taps = zip(stops, place, form.axes, strict=True)
    return gathered(x, [stop * a.s + (tap * a.d - a.lo) for stop, tap, a in taps])


def gathered(x: jax.Array, places: Sequence[jax.Array]) -> jax.Array:
    """``(n, *spatial, c)`` to ``(n, *p, c)``: x at the places, zeros at those outside of it.

    ``places`` has an array ``(*p)`` for each spatial axis. Outside of x the nearest element is
    read, and left out. XLA makes one loop of that and what follows, the channels innermost.
    """
    axes, rank = tuple(range(1, 1 + len(places))), places[0].ndim
    numbers = lax.GatherDimensionNumbers((0, 1 + rank), axes, axes)
    sizes = (x.shape[0], *(1 for _ in places), x.shape[-1])
    nearest = lax.gather(x, jnp.stack(places, -1), numbers, sizes, mode="clip")
    inside = [(at >= 0) & (at < i) for at, i in zip(places, x.shape[1:], strict=False)]
    within = functools.reduce(jnp.logical_and, inside)[None, ..., None]
    return jnp.where(within, nearest, jnp.zeros((), x.dtype))


def met(form: Form, place: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The inputs that the tap at this place of the window meets, without padding; and the outputs.

    >>> from fnn.windows import resolve
    >>> form = Form((9,), resolve("", (9,), (3,), 2, "SAME", 3), 1)
    >>> form.windows.padding, form.out
    (((3, 3),), (5,))
    >>> met(form, (0,)), met(form, (2,))
    (((slice(1, 6, 2),), (slice(2, 5, None),)), ((slice(3, 8, 2),), (slice(0, 3, None),)))
    """
    inputs, outputs = list[slice](), list[slice]()
    for a, tap in zip(form.axes, place, strict=True):
        start = tap * a.d - a.lo
        first, stop = stops_inside(a.i, a.o, a.s, start)
        outputs.append(slice(first, stop))
        seen = slice(start + first * a.s, start + (stop - 1) * a.s + 1, a.s)
        inputs.append(seen if first < stop else slice(0, 0))
    return tuple(inputs), tuple(outputs)


def met_only(x: jax.Array, form: Form) -> tuple[jax.Array, Form]:
    """x without what no window meets, and the form of that.

    It may be NaN, but zeros that fill a block of outputs, or a row that a tap moved, would meet it.
    What lies behind the last stop of an axis is cut off; what lies between dilated taps is 0.
    """
    win, sizes, pads = form.windows, list[int](), list[tuple[int, int]]()
    for a in form.axes:
        reach = (a.o - 1) * a.s + a.span - a.lo
        sizes.append(reach if 0 < reach < a.i else a.i)
        pads.append((a.lo, 0 if 0 < reach < a.i else a.hi))
    if (*sizes,) != form.spatial:
        x = lax.slice(x, (0,) * x.ndim, (x.shape[0], *sizes, x.shape[-1]))
        form = form._replace(spatial=(*sizes,), windows=win._replace(padding=(*pads,)))
    for axis, d in enumerate(win.dilation):
        if d > 1 and not (places := _places_met(form.axes[axis])).all():
            x = jnp.where(places.reshape(-1, *(1,) * (x.ndim - axis - 2)), x, 0)
    return x, form


def _places_met(a: Axis) -> np.ndarray:
    """Which places of a spatial axis any tap meets at any stop."""
    places = np.zeros(a.i, bool)
    for start in range(-a.lo, a.k * a.d - a.lo, a.d):
        places[start + a.s * np.arange(*stops_inside(a.i, a.o, a.s, start))] = True
    return places


def share_met(form: Form) -> float:
    """The share of a window's taps, at all its stops, that are not on the padding.

    >>> from fnn.windows import resolve
    >>> share_met(Form((3, 1), resolve("", (3, 1), (3, 1), 1, "SAME", 1), 1))
    0.7777777777777778
    """
    share = 1.0
    for i, o, k, s, d, lo, _ in form.axes:
        reach = (stops_inside(i, o, s, tap * d - lo) for tap in range(k))
        share *= sum(stop - first for first, stop in reach) / (k * o)
    return share
