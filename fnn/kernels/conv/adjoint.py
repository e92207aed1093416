"""The input gradient as a plain convolution, for algorithms that know only the forward one.

``x[i]`` collects ``y[o] w[k]`` over all o and k with ``i + lo = o s + k d``.

- Without a stride it is y convolved with the flipped window, its channels exchanged.
- With a stride s, write ``i + lo = q s + p`` and ``k = t s + p``. The inputs of each phase p, from
  0 to s - 1, are then y convolved without a stride with every s-th tap. All phases together are one
  convolution with s times the channels, and a reshape puts their results in turn. The window is
  filled up with zeros to a multiple of s; phases without a tap (a stride longer than the window)
  are zero.
- An axis with a stride and a dilation spreads y with zeros, and then has no stride.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from fnn.kernels.conv.form import Form, Map
from fnn.windows import Windows


def through_output(output: Map) -> Map:
    """Make the map ``y w -> x`` from the map ``x w -> y`` of the same algorithm."""

    def input_map(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
        y, form = _spread(y, form)
        y, plain = read(y, form)
        if 0 in y.shape:
            return nothing(y, w, form)
        taps = plain.windows.size
        met = tuple(min(a.k, a.s) for a in form.axes)
        x = output(y, _phases(w, taps, met, form.groups), plain)
        x = _interleave(x, met, form.windows.stride, form.groups)
        starts = [a.lo % a.s for a in form.axes]
        stops = [a.lo % a.s + a.i for a in form.axes]
        return lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]))

    return input_map


def of_narrower(window: Map, times: int) -> Map:
    """Make the map ``x y -> w`` exchange x and y where x has so many times more channels.

    It is for maps that copy or transform their first operand. Without a stride the input gradient
    convolves y with the flipped window, so the window's gradient is also that of this convolution,
    with y for the input and x for the output. The result is then flipped back, which costs more
    than it saves where the result is larger than x.
    """

    def window_map(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
        win, (*places, c), o = form.windows, x.shape, y.shape[-1]
        small = math.prod(win.size) * o <= math.prod(places)
        if not small or c < times * o or form.groups > 1 or max(win.stride) > 1:
            return window(x, y, form)
        y, plain = read(y, form)
        if 0 in y.shape:
            return jnp.zeros((*win.size, c, o), x.dtype)
        return jnp.swapaxes(jnp.flip(window(y, x, plain), range(len(win.size))), -1, -2)

    return window_map


def nothing(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """The input gradient where y is read nowhere: all that the window meets is padding."""
    return jnp.zeros((y.shape[0], *form.spatial, w.shape[-2] * form.groups), y.dtype)


def read(y: jax.Array, form: Form) -> tuple[jax.Array, Form]:
    """The part of y that the phases read, and the form of the convolution that all of them are."""
    taps = tuple(-(-a.k // a.s) for a in form.axes)
    pads = [
        ((t - 1) * a.d - a.lo // a.s, (a.i - 1 + a.lo) // a.s - (a.o - 1))
        for t, a in zip(taps, form.axes, strict=True)
    ]
    y = crop(y, pads)
    around = tuple((max(0, a), max(0, b)) for a, b in pads)
    windows = Windows(taps, (1,) * len(taps), around, form.windows.dilation)
    return y, form._replace(spatial=y.shape[1:-1], windows=windows)


def _spread(y: jax.Array, form: Form) -> tuple[jax.Array, Form]:
    """Put zeros between the elements of y along axes with both a stride and a dilation."""
    gaps = [a.s - 1 if a.s > 1 and a.d > 1 else 0 for a in form.axes]
    if not any(gaps):
        return y, form
    y = lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *((0, 0, g) for g in gaps), (0, 0, 0)])
    axes = list(zip(form.axes, gaps, strict=True))
    stride = tuple(1 if gap else a.s for a, gap in axes)
    # Inputs that no tap meets, behind the last stop, count as cut off: by negative padding.
    ends = [(a.o - 1) * a.s + a.span - a.lo - a.i if gap else a.hi for a, gap in axes]
    pads = tuple((a.lo, end) for (a, _), end in zip(axes, ends, strict=True))
    return y, form._replace(windows=form.windows._replace(stride=stride, padding=pads))


def crop(y: jax.Array, pads: list[tuple[int, int]]) -> jax.Array:
    """Cut off what negative padding takes away, at most everything."""
    ends = list(zip(y.shape[1:-1], pads, strict=True))
    starts = [min(o, max(0, -a)) for o, (a, _) in ends]
    stops = [max(first, o - max(0, -b)) for first, (o, (_, b)) in zip(starts, ends, strict=True)]
    return lax.slice(y, (0, *starts, 0), (y.shape[0], *stops, y.shape[-1]))


def _phases(w: jax.Array, taps: tuple[int, ...], met: tuple[int, ...], groups: int) -> jax.Array:
    """``(*k, c_in/g, g c_out/g)`` to flipped ``(*taps, c_out/g, g * phases * c_in/g)``."""
    rank = len(taps)
    fill = [(0, t * p - k) for t, p, k in zip(taps, met, w.shape, strict=False)]
    w = jnp.pad(w, (*fill, (0, 0), (0, 0)))
    split = [size for pair in zip(taps, met, strict=True) for size in pair]
    w = w.reshape(*split, w.shape[-2], groups, -1)  # t0 s0 t1 s1 .. c_in g c_out
    times, phases = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    c_in, g, c_out = 2 * rank, 2 * rank + 1, 2 * rank + 2
    w = w.transpose(*times, c_out, g, *phases, c_in)
    return jnp.flip(w.reshape(*taps, w.shape[rank], -1), tuple(range(rank)))


def _interleave(
    x: jax.Array, met: tuple[int, ...], stride: tuple[int, ...], groups: int
) -> jax.Array:
    """``(n, *q, g * phases * c)`` to ``(n, *(q stride), g * c)``, zero in the phases not met."""
    rank = len(stride)
    if all(s == 1 for s in stride):
        return x
    n, *places, _ = x.shape
    x = x.reshape(n, *places, groups, *met, -1)
    empty = [(0, s - p) for s, p in zip(stride, met, strict=True)]
    x = jnp.pad(x, (*((0, 0),) * (rank + 2), *empty, (0, 0)))
    pairs = [axis for r in range(rank) for axis in (1 + r, 2 + rank + r)]
    x = x.transpose(0, *pairs, 1 + rank, 2 + 2 * rank)
    return x.reshape(n, *(q * s for q, s in zip(places, stride, strict=True)), -1)
