"""The window gradient of shift and add: per tap, the shifted input times the cotangent.

The products are summed over places and then examples. XLA's CPU backend does not vectorise a fused
sum over places. So the products of a few places are added one by one, in one loop over all others,
and the sums that this leaves by a product with ones.
"""

import functools
import math
from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.compiler import on_all_cores
from fnn.dtypes import accumulator
from fnn.kernels.conv.examples import Examples
from fnn.kernels.conv.form import Form, divisor
from fnn.kernels.conv.loops import summed
from fnn.kernels.conv.stretches import Pieces, Stretches, fitting
from fnn.kernels.conv.views import (
    by_itself,
    filled,
    filling,
    gathered,
    met,
    padded,
    share_met,
    shifted,
    unpadded,
    views,
)
from fnn.windows import is_known

UNROLLED = 64  # taps; a larger window on several axes loops over its first one
APART = 3  # the most inputs of a group that are taken one after the other
# The most places of the last axis in one sum: by whether inputs are taken one after the other.
PLACES = {True: 8, False: 20}
MET = 0.8  # taps are cut to where they meet no padding if at most this share of them does
BUDGET = 8 * 2**20  # bytes of all arrays of a block of groups of few channels


def _even(size: int, most: int) -> tuple[int, int]:
    """How many parts of at most so many places make this size, and the places of each."""
    count = -(-size // most)
    return count, -(-size // count)


def _longer(form: Form, more: int) -> Form:
    """Return the form with this many outputs more along the last axis."""
    win = form.windows
    *outer, (low, high) = win.padding
    padding = (*outer, (low, high + more * win.stride[-1]))
    return form._replace(windows=win._replace(padding=padding))


def _added(sums: jax.Array) -> jax.Array:
    """``(many, size)`` to ``(size,)``."""
    return jnp.dot(jnp.ones((1, len(sums)), sums.dtype), sums)[0]


def by_examples(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g o)`` from ``(n, *spatial, g c)`` and ``(n, *out, g o)``."""

    def block(step: jax.Array) -> jax.Array:
        one_x, one_y = (lax.dynamic_slice_in_dim(a, step, 1, 0) for a in (x, y))
        return _window_of_one(one_x, one_y[0].astype(accumulator(y.dtype)), form)

    sums = summed(block, x.shape[0], y, x)
    return sums.reshape(*sums.shape[:-2], -1)


def _window_of_one(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g, o)`` of one example: ``(1, *spatial, g c)`` and ``(*out, g o)``."""
    size = form.windows.size
    if math.prod(size) > UNROLLED:
        return _by_first(lambda x: _window_from(x, y, form, 1), padded(x, form), form)
    if not is_known(x) or share_met(form) > MET:
        return _window_from(padded(x, form), y, form, 0)
    x, found = x[0].astype(y.dtype), []
    for place in product(*map(range, size)):
        inputs, outputs = met(form, place)
        found.append(_product(x[inputs], y[outputs], form.groups))
    return jnp.stack(found).reshape(*size, *found[0].shape)


def _by_first(fn: Callable[[jax.Array], jax.Array], x: jax.Array, form: Form) -> jax.Array:
    """What fn gives for x as each tap of the first axis sees it, in a loop."""
    seen = by_itself(lambda x, tap: shifted(x, form, 0, tap), form)
    taps = jnp.arange(form.windows.size[0], dtype=jnp.int32)
    found: jax.Array = lax.map(lambda tap: fn(seen(x, on_all_cores(tap))), taps)
    return found


def _window_from(x: jax.Array, y: jax.Array, form: Form, first: int) -> jax.Array:
    """The same for the taps of the axes from ``first`` on, of an x that is shifted before them."""
    rest = form.windows.size[first:]
    found = []
    for place in product(*map(range, rest)):
        part = x
        for axis, tap in enumerate(place, first):
            part = shifted(part, form, axis, tap)
        found.append(_product(part[0], y, form.groups))
    return jnp.stack(found).reshape(*rest, *found[0].shape)


def _product(x: jax.Array, y: jax.Array, groups: int) -> jax.Array:
    """``(c, g, o)``: the products of ``(*out, g c)`` with ``(*out, g o)``, summed over places."""
    x, y = (a.reshape(-1, groups, a.shape[-1] // groups) for a in (x, y))
    return jnp.einsum("mgc,mgo->cgo", x, y)


def of_few_channels(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """`by_examples` for groups of few channels: by blocks of examples, or of the rows of one."""
    examples, rows = _cut(x, y, form)
    pieces = Pieces(Examples(x.shape[0], examples), Stretches(form, rows))

    def block(step: jax.Array) -> jax.Array:
        return _of_block(pieces.inputs(x, step), pieces.outputs(y, step), pieces.stretches.form)

    return summed(block, pieces.steps, y, x)


def _cut(x: jax.Array, y: jax.Array, form: Form) -> tuple[int, int]:
    """How many examples, and how many of their rows, a block takes."""
    places, c = math.prod(form.out), x.shape[-1] // form.groups
    apart, size = c <= APART, form.windows.size
    sums = (1 if apart else c) * math.prod(size if _at_once(form, c) else size[1:])
    values = 2 * math.prod(form.spatial) * x.shape[-1] + places * y.shape[-1]
    values += sums * places * y.shape[-1] // min(PLACES[apart], form.out[-1])
    nbytes = accumulator(x.dtype).itemsize * values
    if nbytes <= BUDGET:
        return divisor(x.shape[0], BUDGET // nbytes) if is_known(x) else 1, form.out[0]
    return 1, fitting(form.out[0], nbytes, BUDGET)


def _at_once(form: Form, c: int) -> bool:
    """Whether the taps of all axes are taken together, and not those of the first in a loop."""
    size = form.windows.size
    return len(size) == 1 or (c <= APART and math.prod(size) <= UNROLLED)


def _of_block(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g o)`` of some examples."""
    c, o = (a.shape[-1] // form.groups for a in (x, y))
    count, places = _even(form.out[-1], PLACES[c <= APART])
    more = count * places - form.out[-1]  # zeros fill the last part
    form = _longer(form, more)
    size, channels = y.shape[-1], filling(form, o) if c == 1 else 0
    ends = (*((0, 0),) * (y.ndim - 2), (0, more), (0, channels))
    y = jnp.pad(y.astype(accumulator(y.dtype)), ends)
    y = y.reshape(*y.shape[:-2], count, places, -1)
    if c == o == 1 < max(form.windows.stride) and unpadded(x, form):
        return _of_strided(x, y, form).reshape(*form.windows.size, 1, -1)
    x = by_itself(lambda x: filled(padded(x, form), channels), form)(x)
    if c <= APART:
        found = jnp.stack([_by_channel(_repeated(x, i, c, o, form), y, form) for i in range(c)])
        return jnp.moveaxis(found.reshape(c, *form.windows.size, -1)[..., :size], 0, -2)
    x = x.reshape(*x.shape[:-1], form.groups, c)
    found = _by_group(x, y.reshape(*y.shape[:-1], form.groups, o), form)
    found = found.reshape(*form.windows.size, form.groups, c, o)
    return jnp.moveaxis(found, -3, -2).reshape(*form.windows.size, c, -1)


def _repeated(x: jax.Array, place: int, c: int, o: int, form: Form) -> jax.Array:
    """``(..., g c)`` to ``(..., g o)``: one input of every group, for each output of the group."""
    if c == o == 1:
        return x
    return by_itself(lambda x: jnp.repeat(x[..., place::c], o, -1), form)(x)


def _by_channel(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """Sums of ``(n, *sizes, c)`` times ``(n, *out, places, c)``: for every tap and channel."""
    if _at_once(form, 1):
        return _of_taps(x, y, form, 0)
    return _by_first(lambda x: _of_taps(x, y, form, 1), x, form)


def _of_taps(x: jax.Array, y: jax.Array, form: Form, first: int) -> jax.Array:
    """The same of all taps of the axes from ``first`` on, of an x that is shifted before them.

    The taps come right before the channels: what they read next is then still in the first cache.
    """
    win, rank = form.windows, len(form.out)
    starts = np.array([*product(*map(range, win.size[first:]))]) * win.dilation[first:]
    count, places = y.shape[-3:-1]
    strides = [*win.stride[:-1], win.stride[-1] * places][first:]
    longs = [(o - 1) * s + 1 for o, s in zip([*form.out[:-1], count][first:], strides, strict=True)]

    def products(x: jax.Array, y: jax.Array) -> jax.Array:
        axes, at = range(1 + first, 1 + rank), 1 + rank
        parts = [lax.slice_in_dim(x, k * win.stride[-1], None, axis=rank) for k in range(places)]
        seen = [views(part, axes, starts, longs, strides, at) for part in parts]
        shares = [part * y[..., k, None, :] for k, part in enumerate(seen)]
        return functools.reduce(jnp.add, shares)

    sums = by_itself(products, form)(x, y)
    return _added(sums.reshape(-1, math.prod(sums.shape[-2:])))


def _of_strided(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """Like `_of_taps`, of an x that is not padded: with a stride a padded copy is large beside y.

    ``x`` is ``(n, *spatial, c)``, and ``y`` ``(n, *out, places, c)``.
    """
    win, (*stops, places) = form.windows, y.shape[1:-1]
    taps = np.array([*product(*map(range, win.size))])
    starts = (taps * win.dilation - np.array(win.padding)[:, 0]).T.astype(np.int32)
    starts = starts.reshape(len(stops), *(1 for _ in stops), -1)  # of each axis, the taps last
    steps = (*win.stride[:-1], win.stride[-1] * places)

    def products(x: jax.Array, y: jax.Array) -> jax.Array:
        shape = (*stops, len(taps))
        firsts = [
            lax.broadcasted_iota(jnp.int32, shape, axis) * step + start
            for axis, (step, start) in enumerate(zip(steps, starts, strict=True))
        ]
        shares = []
        for k in range(places):
            seen = gathered(x, [*firsts[:-1], firsts[-1] + k * win.stride[-1]])
            shares.append(seen.astype(y.dtype) * y[..., k, None, :])
        return functools.reduce(jnp.add, shares)

    sums = by_itself(products, form)(x, y)
    return _added(sums.reshape(-1, len(taps) * sums.shape[-1]))


def _by_group(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """The sums for every tap, group, input and output, in a loop over the first of several axes.

    ``x`` is ``(n, *sizes, g, c)``, and ``y`` ``(n, *out, places, g, o)``.
    """
    first, *rest = form.windows.size
    if not rest:
        return jnp.stack([_sums(x, y, form, (tap,)) for tap in range(first)])

    def row(x: jax.Array) -> jax.Array:
        return jnp.stack([_sums(x, y, form, place) for place in product(*map(range, rest))])

    return _by_first(row, x, form)


def _sums(x: jax.Array, y: jax.Array, form: Form, place: tuple[int, ...]) -> jax.Array:
    """``(g c o,)`` of the tap at this place of the last axes; x is shifted in the first."""
    *middle, last = place
    step, dilation, places = form.windows.stride[-1], form.windows.dilation[-1], y.shape[-3]

    def products(x: jax.Array, y: jax.Array) -> jax.Array:
        for axis, tap in enumerate(middle, 1):
            x = shifted(x, form, axis, tap)
        starts = [last * dilation + k * step for k in range(places)]
        long = (y.shape[-4] - 1) * places * step + 1
        seen = [lax.slice_in_dim(x, at, at + long, places * step, x.ndim - 3) for at in starts]
        shares = [part[..., None] * y[..., k, :, None, :] for k, part in enumerate(seen)]
        return functools.reduce(jnp.add, shares)

    sums = by_itself(products, form)(x, y)
    return _added(sums.reshape(-1, math.prod(sums.shape[-3:])))
