"""Shift and add with few outputs: one product gives the terms of all taps, as planes.

``terms = w^T x^T`` has a row for every tap and output, and a column for every place of the input.
So the input is read once, and no patch of it is copied. The rows are then summed over the taps of
one axis after the other, the last one first: what moves by a tap is long and contiguous, however
few the outputs are. Terms exist for a block at a time, which is some examples, or a stretch of the
rows of one.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from fnn.kernels.conv.examples import Examples
from fnn.kernels.conv.form import Form, devices
from fnn.kernels.conv.loops import beside
from fnn.kernels.conv.stretches import Pieces, Stretches, examples_and_rows
from fnn.kernels.conv.views import by_itself

BUDGET = 4 << 20  # bytes of terms


def few_outputs(form: Form, c: int, o: int) -> bool:
    """Whether the terms of o outputs take half the memory that patches of c inputs would, or less.

    Patches without the taps of the last axis, as im2col copies them. There may be no stride.
    """
    win = form.windows
    plain = form.groups == max(win.stride) == 1 < math.prod(win.size)
    return plain and 2 * win.size[-1] * o <= c


def planes(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """``(n, *spatial, c)`` and ``(*window, c, o)`` to ``(n, *out, o)``, without a stride."""
    pieces = _pieces(x, w, form)

    def block(step: jax.Array) -> jax.Array:
        part = by_itself(pieces.inputs, form)(x, step)
        return _of_block(part, w, pieces.stretches.form)

    y = beside(block, pieces.steps, 0, x, w, total=len(x) * pieces.stretches.parts)
    return pieces.stretches.joined(y)


def _pieces(x: jax.Array, w: jax.Array, form: Form) -> Pieces:
    one = math.prod((*form.spatial, *form.windows.size, w.shape[-1])) * w.dtype.itemsize
    if form.platform != "cpu" or devices(x) > 1:
        return Pieces(Examples(len(x), len(x)), Stretches(form, form.out[0]))
    enough, whole = BUDGET // 2, 2 * BUDGET
    examples, rows = examples_and_rows(len(x), one, form.out[0], BUDGET, enough, whole)
    return Pieces(examples, Stretches(form, rows))


def _of_block(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    win, (n, *places, c) = form.windows, x.shape
    rows = jnp.swapaxes(w, -1, -2).reshape(-1, c)
    terms = lax.dot_general(rows, x.reshape(-1, c), (((1,), (1,)), ((), ())))
    terms = terms.reshape(*win.size, -1, n, *places)
    for axis in reversed(range(len(places))):
        terms = by_itself(functools.partial(_sum, axis=axis, form=form), form)(terms)
    return by_itself(lambda y: jnp.moveaxis(y, 0, -1), form)(terms)


def _sum(terms: jax.Array, axis: int, form: Form) -> jax.Array:
    """Sum over the taps of an axis: ``(.., taps, o, n, .., places, ..)`` to ``(.., out, ..)``."""
    (low, _), step = form.windows.padding[axis], form.windows.dilation[axis]
    place = terms.ndim - len(form.spatial) + axis
    zero = jnp.zeros((), terms.dtype)

    def term(tap: int) -> jax.Array:
        part = lax.index_in_dim(terms, tap, axis, keepdims=False)
        up = low - tap * step
        edges = [(0, 0, 0)] * part.ndim
        edges[place - 1] = (up, form.out[axis] - part.shape[place - 1] - up, 0)
        return lax.pad(part, zero, edges)

    return functools.reduce(jnp.add, map(term, range(form.windows.size[axis])))
