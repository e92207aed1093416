"""Shift and add: one term ``x[o s + k d - lo] w[k]`` per tap of the window; no patch is copied.

With one input channel per group (depthwise, or an image of one channel) a term is an elementwise
product, and the compiler fuses all taps into one pass over the data; those of a small depthwise
window also find out where they meet padding, so that no padded copy is made. With few channels the
terms are the products of every channel, one group after the other. Otherwise a term is a matrix
product over the channels, of one group only at the places where its tap meets no padding: under a
wide dilation, as in DeepLab, these may be half of all. With few outputs one product gives the terms
of all taps, and has a file of its own, `taps_planes`, as the window gradient has, `taps_window`.
Windows of more than `UNROLLED` taps on several axes loop over the first, so that the program grows
with the others only.
"""

import functools
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fnn.compiler import on_all_cores
from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.examples import in_cache
from fnn.kernels.conv.form import WINDOW, Form, Kernel, by_device
from fnn.kernels.conv.loops import beside
from fnn.kernels.conv.taps_planes import few_outputs, planes
from fnn.kernels.conv.taps_window import by_examples, of_few_channels
from fnn.kernels.conv.views import (
    by_itself,
    filled,
    filling,
    met,
    met_only,
    met_or_zero,
    padded,
    shifted,
    unpadded,
)
from fnn.placement import varying
from fnn.windows import is_known

UNROLLED = 40  # taps; the values of more no longer fit the first cache, beside what they meet
FEW = 8  # the most channels of one of several groups whose products are elementwise
HELD = 6000  # the most entries of its window: of more, the first cache does not hold all
# Bytes of the input; a larger one is read in blocks. By whether a group has one channel.
WHOLE = {True: 16 << 20, False: 8 << 20}
SUMS = {8: 90, 24: 64, 256: 32}  # most products of a sum in one group, by the most outputs

Term = Callable[[jax.Array, Any], jax.Array]  # of the shifted input and the tap's index
Read = Callable[[jax.Array, Form, tuple[int, ...]], jax.Array]


def _at(x: jax.Array, form: Form, place: tuple[int, ...]) -> jax.Array:
    """The elements that the tap at this place of the window meets, as one slice."""
    starts = [t * a.d for t, a in zip(place, form.axes, strict=True)]
    ends = [t * a.d + (a.o - 1) * a.s + 1 for t, a in zip(place, form.axes, strict=True)]
    steps = (1, *form.windows.stride, 1)
    return lax.slice(x, (0, *starts, 0), (x.shape[0], *ends, x.shape[-1]), steps)


def _sum_over_taps(x: jax.Array, form: Form, term: Term, read: Read = _at) -> jax.Array:
    """Sum the terms, those of the last axis first. ``read`` gives what a tap meets of x."""
    *outer, last = form.windows.size
    if math.prod(form.windows.size) > UNROLLED and outer:
        return _looped(x, form, term)
    rows = [
        [term(read(x, form, (*place, tap)), (*place, tap)) for tap in range(last)]
        for place in product(*map(range, outer))
    ]
    return functools.reduce(jnp.add, [functools.reduce(jnp.add, row) for row in rows])


def _looped(x: jax.Array, form: Form, term: Term) -> jax.Array:
    """The same in a loop over the first axis. What it shifts is already summed over the last."""
    first, *rest, last = form.windows.size

    def row(place: tuple[Any, ...]) -> jax.Array:
        terms = [term(shifted(x, form, len(place), tap), (*place, tap)) for tap in range(last)]
        total = functools.reduce(jnp.add, terms)
        for axis, tap in enumerate(place):
            total = shifted(total, form, axis, tap)
        return total

    def step(turn: jax.Array, total: jax.Array) -> jax.Array:
        tap = on_all_cores(turn)
        for place in product(*map(range, rest)):
            total = total + row((tap, *place))
        return total

    like = jax.eval_shape(lambda: row((0,) * (1 + len(rest))))
    start, *_ = varying(jnp.zeros(like.shape, like.dtype), x)
    summed: jax.Array = lax.fori_loop(0, first, step, start)
    return summed


def elementwise(form: Form, c: int, o: int) -> bool:
    """Whether the products of c channels with o, in each group, are added one by one.

    In one group, that is the faster where the factors that meet one place stay in registers until
    all outputs are formed. Of fewer outputs there may be more.
    """
    if form.groups > 1:
        return c <= FEW and c * o * math.prod(form.windows.size) <= HELD
    most = next((terms for outputs, terms in SUMS.items() if o <= outputs), 0)
    return c == 1 or c * math.prod(form.windows.size) <= most


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    w = w.astype(accumulator(w.dtype))
    c, groups = w.shape[-2], form.groups
    if few_outputs(form, c, w.shape[-1]) and is_known(x):
        return planes(x.astype(w.dtype), w, form)
    few = elementwise(form, c, w.shape[-1] // groups)
    if groups == 1 < c and few:
        return by_itself(functools.partial(_products, form=form), form)(_whole(x, form), w)
    w = w.reshape(*w.shape[:-1], groups, -1)  # (*window, c, g, o)
    if groups == c == 1:
        return _of_one_channel(_whole(x, form), w, form)
    if c == 1:
        return _depthwise(x, w, form)
    if few:
        return _few_channels(x, w, form)
    if groups == 1 and is_known(x) and math.prod(form.windows.size) <= UNROLLED:
        return _matrix_products(x.astype(w.dtype), w[..., 0, :], form)

    def term(part: jax.Array, tap: Any) -> jax.Array:
        rows = part.reshape(*part.shape[:-1], groups, c)
        return jnp.einsum("...gc,cgo->...go", rows, w[tap]).reshape(*part.shape[:-1], -1)

    return _sum_over_taps(_whole(x, form), form, term)


def _whole(x: jax.Array, form: Form) -> jax.Array:
    """Padded x, kept apart: else the tap that meets no padding reads x, and all others a copy."""
    return by_itself(functools.partial(padded, form=form), form)(x)


def _in_blocks(
    x: jax.Array,
    w: jax.Array,
    form: Form,
    read: Callable[[jax.Array, Form], jax.Array],
    sums: Callable[[jax.Array, jax.Array, Form], jax.Array],
) -> jax.Array:
    """``sums(read(x), w)``. To read is to copy: of a large input, some examples at a time."""
    one = math.prod(x.shape[1:]) * w.dtype.itemsize
    examples = in_cache(x, form, one, WHOLE[x.shape[-1] == form.groups])
    if examples.blocks == 1:
        return sums(by_itself(lambda x: read(x, form), form)(x), w, form)
    part = by_itself(lambda x, step: read(examples.of(x, step), form), form)
    apart = by_itself(lambda x, w: sums(x, w, form), form)
    return beside(lambda step: apart(part(x, step), w), examples.blocks, 0, x, w, total=len(x))


def _depthwise(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(n, *spatial, g)`` and ``(*window, 1, g, o)`` to ``(n, *out, g o)``."""
    if w.shape[-1] == 1 and unpadded(x, form):
        one_loop = functools.partial(_of_one_channel, form=form, read=met_or_zero)
        return by_itself(one_loop, form)(x, w)
    channels = filling(form, w.shape[-1])

    def read(x: jax.Array, form: Form) -> jax.Array:
        return filled(padded(x, form), channels)

    def sums(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
        return _of_one_channel(x, filled(w, channels, -2), form)[..., : form.groups * w.shape[-1]]

    return _in_blocks(x, w, form, read, sums)


def _of_one_channel(x: jax.Array, w: jax.Array, form: Form, read: Read = _at) -> jax.Array:
    """``(n, *padded, g)`` and ``(*window, 1, g, o)`` to ``(n, *out, g o)``."""

    def term(part: jax.Array, tap: Any) -> jax.Array:
        y = part.astype(w.dtype)[..., None] * w[tap][0].reshape(
            (1,) * (part.ndim - 1) + w.shape[-2:]
        )
        return y.reshape(*part.shape[:-1], -1)

    return _sum_over_taps(x, form, term, read)


def _matrix_products(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(n, *spatial, c)`` and ``(*window, c, o)`` to ``(n, *out, o)``, for many channels."""

    def term(place: tuple[int, ...]) -> jax.Array:
        inputs, outputs = met(form, place)
        ends = [(at.start, size - at.stop) for at, size in zip(outputs, form.out, strict=True)]
        return jnp.pad(jnp.dot(x[:, *inputs], w[place]), ((0, 0), *ends, (0, 0)))

    return functools.reduce(jnp.add, map(term, product(*map(range, form.windows.size))))


def _products(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(n, *padded, c)`` and ``(*window, c, o)`` to ``(n, *out, o)``, channel by channel."""

    def term(part: jax.Array, tap: Any) -> jax.Array:
        rows = w[tap].reshape(part.shape[-1], *(1,) * (part.ndim - 1), -1)  # (c, .., o)
        shares = [part[..., i, None] * rows[i] for i in range(part.shape[-1])]
        return functools.reduce(jnp.add, shares)

    return _sum_over_taps(x, form, term)


def _few_channels(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(n, *spatial, g c)`` and ``(*window, c, g, o)`` to ``(n, *out, g o)``, for small c.

    One group after the other: the window of one fits the first cache, those of all together may
    not.
    """
    # Flat, or the compiler leaves the taps outermost.
    flat = by_itself(lambda w: jnp.moveaxis(w, -2, 0).reshape(form.groups, -1), form)(w)
    w = flat.reshape(form.groups, *w.shape[:-2], -1)
    return _in_blocks(x, w, form, _groups_first, _few_of_block)


def _groups_first(x: jax.Array, form: Form) -> jax.Array:
    """``(n, *spatial, g c)`` to ``(g, n, *padded, c)``."""
    x = padded(x, form)
    return jnp.moveaxis(x.reshape(*x.shape[:-1], form.groups, -1), -2, 0)


def _few_of_block(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(g, n, *padded, c)`` and ``(g, *window, c, o)`` to ``(n, *out, g o)``."""
    y = jax.vmap(functools.partial(_products, form=form))(x, w)
    y = by_itself(lambda y: jnp.moveaxis(y, 0, -2), form)(y)
    return y.reshape(*y.shape[:-2], -1)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    x, form = met_only(x, form)
    c = x.shape[-1] // form.groups
    few = c == 1 or (form.groups > 1 and c <= FEW)
    return (of_few_channels if few else by_examples)(x, y, form)


_windows = by_device(_window, WINDOW)
TAPS = Kernel("taps", _output, through_output(_output), _windows, symbols="examples")
