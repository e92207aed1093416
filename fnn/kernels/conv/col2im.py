"""col2im: the input gradient of a strided window as one matrix product, whose columns are summed.

Tap k of output o meets the input ``o s + k - lo``, and sends it the share ``w[k] y[o]``. The input
gradient is the sum of the shares that arrive: no patch is copied, and no product is with a zero.
With ``i + lo = q s + p`` and ``k = t s + p``, each place q is s inputs in a row, and each turn t is
s taps in a row, whose shares go to these inputs. So there is one term to add for each turn: a
window of 3 with stride 2 has two per axis.

The shares exist for a block at a time, and are still in the cache when they are summed: a block is
some examples, or a stretch of the rows of one. Groups go two at a time, since products of few
columns run on one core. With one channel per group the shares are never stored.
"""

import functools
import math
from collections.abc import Callable
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.compiler import kept_apart
from fnn.dtypes import accumulator
from fnn.kernels.conv.examples import Examples, cut
from fnn.kernels.conv.form import Form
from fnn.kernels.conv.loops import AT_ONCE, beside, by_group
from fnn.kernels.conv.views import by_itself

BUDGET = 4 * 2**20  # bytes of shares
ENOUGH = 2**19  # bytes: with so many, a block that divides the examples is not too small
WHOLE = 4  # budgets that one example may take before its rows are cut
TERMS, DEPTHWISE_TERMS = 32, 9  # added in one loop, which then still compiles and runs fast


def turns(form: Form) -> tuple[int, ...]:
    """How many turns each axis has: its taps over its stride, rounded up."""
    return tuple(-(-a.k // a.s) for a in form.axes)


def applies(form: Form, y: jax.Array, w: jax.Array) -> bool:
    """Whether there is a stride, or a single tap and a large window; and not too much to add."""
    win, most = form.windows, DEPTHWISE_TERMS if _is_depthwise(form, w) else TERMS
    single = math.prod(win.size) == 1 and _is_small(y, w)
    strided = max(win.stride) > 1 == max(win.dilation)
    return (strided or single) and math.prod(turns(form)) <= most


def _is_small(y: jax.Array, w: jax.Array) -> bool:
    """Whether y is smaller than w, so that to transpose w would take longer than their product."""
    return y.size < w.size


def col2im(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """The map ``y w -> x`` of a form to which it `applies`."""
    if _is_depthwise(form, w):
        # By itself: where several operations read the result, XLA would store the terms of its sum.
        return by_itself(functools.partial(_block_depthwise, form=form), form)(y, w)
    one = functools.partial(_of_group, form=form._replace(groups=1))
    return by_group(one, form.groups, y, w, at_once=AT_ONCE)


def _of_group(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    examples, rows = blocks(y, w, form)
    parts, part = _stretches(y, form, rows)
    examples, matrix = examples._replace(n=len(parts)), w.reshape(-1, w.shape[-1])
    if not _is_small(y, w):
        matrix = kept_apart(matrix.T)[0].T  # transposed once, and not again for every block

    def block(step: jax.Array) -> jax.Array:
        return _block(examples.of(parts, step), matrix, part)

    x = beside(block, examples.blocks, 0, parts, matrix, total=len(parts))
    x = x.reshape(len(y), -1, *form.spatial[1:], w.shape[-2])
    first = 0 if x.shape[1] == form.spatial[0] else _phases(form)[0]
    return lax.slice_in_dim(x, first, first + form.spatial[0], axis=1)


def blocks(y: jax.Array, w: jax.Array, form: Form) -> tuple[Examples, int]:
    """How the examples are cut, and the rows of places in a block; where rows are cut, of one."""
    shares = math.prod((*form.out, *w.shape[:-1]))
    one, rows = shares * jnp.dtype(accumulator(y.dtype)).itemsize, _places(form)[0]
    if _is_small(y, w) and shares <= math.prod(form.spatial) * w.shape[-2]:
        return Examples(len(y), len(y)), rows  # w is read once, and shares are no larger than x
    if one <= WHOLE * BUDGET:
        return cut(len(y), BUDGET // one, -(-ENOUGH // one)), rows
    return Examples(len(y), 1), -(-rows // -(-one // BUDGET))


def _is_depthwise(form: Form, w: jax.Array) -> bool:
    return w.shape[-2] == 1 and w.shape[-1] == form.groups


def _phases(form: Form) -> list[int]:
    """The phase of the first input, per axis."""
    return [a.lo % a.s for a in form.axes]


def _places(form: Form) -> list[int]:
    """How many places there are from that of the first input to that of the last, per axis."""
    return [-(-(a.lo % a.s + a.i) // a.s) for a in form.axes]


def _stretches(y: jax.Array, form: Form, rows: int) -> tuple[jax.Array, Form]:
    """Cut y into what each stretch of so many rows of places collects from: further examples."""
    if rows == _places(form)[0]:
        return y, form
    win, count, before = form.windows, -(-_places(form)[0] // rows), turns(form)[0] - 1
    low = before - win.padding[0][0] // win.stride[0]
    edges = [(0, 0, 0)] * y.ndim
    edges[1] = (low, count * rows + before - y.shape[1] - low, 0)
    y = lax.pad(y, jnp.zeros((), y.dtype), edges)
    y = y[:, np.arange(count)[:, None] * rows + np.arange(rows + before)]
    win = win._replace(padding=((before * win.stride[0], 0), *win.padding[1:]))
    spatial = (rows * win.stride[0], *form.spatial[1:])
    return y.reshape(-1, *y.shape[2:]), form._replace(spatial=spatial, windows=win)


def _block(y: jax.Array, matrix: jax.Array, form: Form) -> jax.Array:
    """The input gradient of a block, by the matrix ``(taps c, o)``."""
    shares = jnp.dot(y, matrix.T, preferred_element_type=accumulator(y.dtype))
    shares = shares.reshape(*y.shape[:-1], *form.windows.size, -1)
    outer = (slice(None),) * (y.ndim - 1)
    return _sum(lambda taps: shares[outer + taps], form).astype(y.dtype)


def _block_depthwise(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    total, ones = accumulator(y.dtype), (1,) * len(form.spatial)
    each = y.reshape(*y.shape[:-1], *ones, -1).astype(total)

    def shares(taps: tuple[slice, ...]) -> jax.Array:
        part = w[taps].astype(total)
        return each * part.reshape(1, *ones, *part.shape[:-2], -1)

    return _sum(shares, form).astype(y.dtype)


def _sum(shares: Callable[[tuple[slice, ...]], jax.Array], form: Form) -> jax.Array:
    """Sum what ``shares(taps)``, as ``(n, *out, *taps, c)``, sends to ``(n, *spatial, c)``."""
    win, rank = form.windows, len(form.spatial)
    axes = list(zip(_places(form), win.stride, win.padding, strict=True))
    pairs = [axis for r in range(1, rank + 1) for axis in (r, r + rank)]

    def term(turn: tuple[int, ...]) -> jax.Array:
        taps = (slice(t * s, (t + 1) * s) for t, s in zip(turn, win.stride, strict=True))
        part = shares(tuple(taps)).transpose(0, *pairs, 2 * rank + 1)
        edges = [(0, 0, 0)]
        for t, (places, s, (lo, _)), axis in zip(turn, axes, range(1, 2 * rank, 2), strict=True):
            up = t - lo // s
            edges += [(up, places - part.shape[axis] - up, 0), (0, s - part.shape[axis + 1], 0)]
        return lax.pad(part, jnp.zeros((), part.dtype), [*edges, (0, 0, 0)])

    x = functools.reduce(jnp.add, map(term, product(*map(range, turns(form)))))
    x = x.reshape(len(x), *(places * s for places, s, _ in axes), -1)
    phases = _phases(form)
    stops = [phase + i for phase, i in zip(phases, form.spatial, strict=True)]
    return lax.slice(x, (0, *phases, 0), (len(x), *stops, x.shape[-1]))
