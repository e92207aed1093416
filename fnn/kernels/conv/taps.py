"""Shift and add: one term ``x[o s + k d - lo] w[k]`` per tap of the window; no patch is copied.

With one input channel per group (depthwise, or an image of one channel) a term is an elementwise
product, and the compiler fuses all taps into one pass over the data. With few channels in each of
several groups the terms are the products of every channel, one group after the other. Otherwise a
term is a matrix product over the channels. Windows of more than `UNROLLED` taps loop over their
outermost axis, so that the program does not grow with the window.
"""

import functools
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.form import (
    OUTPUT,
    WINDOW,
    Form,
    Kernel,
    by_device,
    divisor,
    is_known,
    varying,
)
from fnn.kernels.conv.loops import stacked
from fnn.kernels.conv.views import by_itself

UNROLLED = 64
FEW = 8  # the most channels of a group whose products are elementwise
WHOLE, BLOCK = 8 * 2**20, 2 * 2**20  # bytes: more of such an input is taken in blocks of so many
ROWS = 6  # of outputs, whose products are added as they are formed; more are slower again

Term = Callable[[jax.Array, Any], jax.Array]  # of the shifted input and the tap's index


def _pad(x: jax.Array, form: Form) -> jax.Array:
    x = x.astype(accumulator(x.dtype))
    return jnp.pad(x, ((0, 0), *form.windows.padding, (0, 0)))


def _shift(x: jax.Array, form: Form, axis: int, tap: Any) -> jax.Array:
    """The elements of one spatial axis that this tap meets, one per output; tap may be traced."""
    s, d, o = form.windows.stride[axis], form.windows.dilation[axis], form.out[axis]
    if isinstance(tap, int):
        return lax.slice_in_dim(x, tap * d, tap * d + (o - 1) * s + 1, s, axis + 1)
    long = lax.dynamic_slice_in_dim(x, tap * d, (o - 1) * s + 1, axis + 1)
    return lax.slice_in_dim(long, 0, None, s, axis + 1)


def _at(x: jax.Array, form: Form, place: tuple[int, ...]) -> jax.Array:
    """The elements that the tap at this place of the window meets, as one slice."""
    win = form.windows
    starts = [t * d for t, d in zip(place, win.dilation, strict=True)]
    axes = zip(starts, form.out, win.stride, strict=True)
    ends = [start + (o - 1) * s + 1 for start, o, s in axes]
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *ends, x.shape[-1]), (1, *win.stride, 1))


def _sum_over_taps(x: jax.Array, form: Form, term: Term) -> jax.Array:
    """Sum the terms, those of the last axis first."""
    *outer, last = form.windows.size
    if math.prod(form.windows.size) > UNROLLED and outer:
        return _looped(x, form, term)
    rows = [
        [term(_at(x, form, (*place, tap)), (*place, tap)) for tap in range(last)]
        for place in product(*map(range, outer))
    ]
    return functools.reduce(jnp.add, [functools.reduce(jnp.add, row) for row in rows])


def _looped(x: jax.Array, form: Form, term: Term) -> jax.Array:
    """The same in a loop over the first axis. What it shifts is already summed over the last."""
    first, *rest, last = form.windows.size

    def row(place: tuple[Any, ...]) -> jax.Array:
        terms = [term(_shift(x, form, len(place), tap), (*place, tap)) for tap in range(last)]
        total = functools.reduce(jnp.add, terms)
        for axis, tap in enumerate(place):
            total = _shift(total, form, axis, tap)
        return total

    def step(tap: jax.Array, total: jax.Array) -> jax.Array:
        for place in product(*map(range, rest)):
            total = total + row((tap, *place))
        return total

    like = jax.eval_shape(lambda: row((0,) * (1 + len(rest))))
    start, *_ = varying(jnp.zeros(like.shape, like.dtype), x)
    summed: jax.Array = lax.fori_loop(0, first, step, start)
    return summed


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    w = w.astype(accumulator(w.dtype))
    c, groups = w.shape[-2], form.groups
    w = w.reshape(*w.shape[:-1], groups, -1)  # (*window, c, g, o)
    if groups > 1 and 1 < c <= FEW:
        return by_device(_few_channels, OUTPUT)(x, w, form)

    def term(part: jax.Array, tap: Any) -> jax.Array:
        if c == 1:
            y = part[..., None] * w[tap][0].reshape((1,) * (part.ndim - 1) + w.shape[-2:])
            return y.reshape(*part.shape[:-1], -1)
        rows = part.reshape(*part.shape[:-1], groups, c)
        return jnp.einsum("...gc,cgo->...go", rows, w[tap]).reshape(*part.shape[:-1], -1)

    # Kept apart: otherwise the tap that meets no padding reads x, and all others the padded copy.
    padded = by_itself(functools.partial(_pad, form=form), form)
    return _sum_over_taps(padded(x), form, term)


def _few_channels(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(n, *spatial, g c)`` and ``(*window, c, g, o)`` to ``(n, *out, g o)``, for small c.

    One group after the other: the window of one fits the first cache, those of all together may
    not.
    """
    # Flat, or the compiler leaves the taps outermost.
    flat = by_itself(lambda w: jnp.moveaxis(w, -2, 0).reshape(form.groups, -1), form)(w)
    w = flat.reshape(form.groups, *w.shape[:-2], -1)
    nbytes = x.size * w.dtype.itemsize if is_known(x) else 0
    if nbytes <= WHOLE:
        return _few_of_block(x, w, form)
    n = len(x)
    examples = divisor(n, BLOCK * n // nbytes)

    def block(step: jax.Array) -> jax.Array:
        part = lax.dynamic_slice_in_dim(x, step * np.uint32(examples), examples, 0)
        return _few_of_block(part, w, form)

    return stacked(block, n // examples, x, w).reshape(n, *form.out, -1)


def _few_of_block(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """The same of some examples, with ``(g, *window, c, o)``."""

    def groups_first(x: jax.Array) -> jax.Array:
        x = _pad(x, form)
        return jnp.moveaxis(x.reshape(*x.shape[:-1], form.groups, -1), -2, 0)

    def one(x: jax.Array, w: jax.Array) -> jax.Array:
        def term(part: jax.Array, tap: Any) -> jax.Array:
            rows = w[tap].reshape(part.shape[-1], *(1,) * (part.ndim - 1), -1)  # (c, .., o)
            shares = [part[..., i, None] * rows[i] for i in range(part.shape[-1])]
            return functools.reduce(jnp.add, shares)

        return _sum_over_taps(x, form, term)

    y: jax.Array = jax.vmap(one)(by_itself(groups_first, form)(x), w)
    y = by_itself(lambda y: jnp.moveaxis(y, 0, -2), form)(y)
    return y.reshape(*y.shape[:-2], -1)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """Per tap, the shifted input times the cotangent, summed over places and then examples."""
    dtype = accumulator(x.dtype)
    c, o = (a.shape[-1] // form.groups for a in (x, y))
    # Rows of zeros fill the last block.
    more = math.prod(_blocks(form.out[0])) - form.out[0] if c == 1 else 0
    form = _longer(form, more)

    def add(sums: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        x, y = pair
        y = jnp.pad(y.astype(dtype), ((0, more), *((0, 0),) * (y.ndim - 1)))
        return sums + _window_of_one(_pad(x[None], form), y, form), None

    shape = (*form.windows.size, c, form.groups, o)
    start, *_ = varying(jnp.zeros(shape, dtype), x, y)
    sums, _ = lax.scan(add, start, (x, y))
    return sums.reshape(*shape[:-2], -1)


def _blocks(rows: int) -> tuple[int, int]:
    """How many blocks so many rows make, of at most `ROWS`, and the rows of each."""
    count = -(-rows // ROWS)
    return count, -(-rows // count)


def _longer(form: Form, more: int) -> Form:
    """Return the form with this many rows of outputs more."""
    win = form.windows
    (lo, hi), *rest = win.padding
    padding = ((lo, hi + more * win.stride[0]), *rest)
    return form._replace(windows=win._replace(padding=padding))


def _window_of_one(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g, o)`` of one example: ``(1, *padded, g c)`` and ``(*out, g o)``."""
    if math.prod(form.windows.size) <= UNROLLED:
        return _window_at(x, y, form, ())
    first = jnp.arange(form.windows.size[0], dtype=jnp.int32)
    rows: jax.Array = lax.map(lambda tap: _window_at(x, y, form, (tap,)), first)
    return rows


def _window_at(x: jax.Array, y: jax.Array, form: Form, first: tuple[Any, ...]) -> jax.Array:
    """The same for the taps whose first indices are these."""
    rest = form.windows.size[len(first) :]
    found = []
    for place in product(*map(range, rest)):
        part = x
        for axis, tap in enumerate((*first, *place)):
            part = _shift(part, form, axis, tap)
        found.append(_product(part[0], y, form.groups))
    return jnp.stack(found).reshape(*rest, *found[0].shape)


def _product(x: jax.Array, y: jax.Array, groups: int) -> jax.Array:
    """``(c, g, o)``: the products of ``(*out, g c)`` with ``(*out, g o)``, summed over places."""
    rows = len(y)
    x, y = (a.reshape(-1, groups, a.shape[-1] // groups) for a in (x, y))
    if x.shape[-1] > 1:
        return jnp.einsum("mgc,mgo->cgo", x, y)
    # XLA's CPU backend does not vectorise a fused column sum: the products of the rows of a block
    # are added one by one, and those of the blocks by a product with ones.
    count, size = _blocks(rows)
    terms = (x * y).reshape(count, size, len(y) // rows, -1)
    sums = functools.reduce(jnp.add, [terms[:, row] for row in range(size)])
    sums = sums.reshape(-1, sums.shape[-1])
    return jnp.dot(jnp.ones((1, len(sums)), y.dtype), sums).reshape(1, groups, -1)


_windows = by_device(_window, WINDOW)
TAPS = Kernel("taps", _output, through_output(_output), _windows, symbolic=True)
