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
from fnn.kernels.conv.form import Form, divisor, varying
from fnn.kernels.conv.loops import summed
from fnn.kernels.conv.stretches import Stretches, fitting
from fnn.kernels.conv.views import by_itself, padded, shifted

UNROLLED = 64  # taps; over those of the first axis of a larger window goes a loop
ROWS = 6  # of outputs, whose products are added as they are formed; more are slower again
PLACES = 20  # along the last axis, whose products are so added for groups of few channels
BUDGET = 8 * 2**20  # bytes of all arrays of a block of these groups


def _even(size: int, most: int) -> tuple[int, int]:
    """How many parts of at most so many places make this size, and the places of each."""
    count = -(-size // most)
    return count, -(-size // count)


def _longer(form: Form, more: int, axis: int) -> Form:
    """Return the form with this many outputs more along an axis."""
    win = form.windows
    padding = list(win.padding)
    lo, hi = padding[axis]
    padding[axis] = lo, hi + more * win.stride[axis]
    return form._replace(windows=win._replace(padding=tuple(padding)))


def _added(sums: jax.Array) -> jax.Array:
    """``(many, size)`` to ``(size,)``."""
    return jnp.dot(jnp.ones((1, len(sums)), sums.dtype), sums)[0]


def by_examples(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g o)`` from ``(n, *spatial, g c)`` and ``(n, *out, g o)``."""
    dtype = accumulator(x.dtype)
    c, o = (a.shape[-1] // form.groups for a in (x, y))
    # Rows of zeros fill the last block.
    more = math.prod(_even(form.out[0], ROWS)) - form.out[0] if c == 1 else 0
    form = _longer(form, more, 0)

    def add(turn: jax.Array, sums: jax.Array) -> jax.Array:
        example = on_all_cores(turn)
        one_x = lax.dynamic_slice_in_dim(x, example, 1, 0)
        one_y = lax.dynamic_index_in_dim(y, example, 0, keepdims=False).astype(dtype)
        one_y = jnp.pad(one_y, ((0, more), *((0, 0),) * (one_y.ndim - 1)))
        return sums + _window_of_one(padded(one_x, form), one_y, form)

    shape = (*form.windows.size, c, form.groups, o)
    start, *_ = varying(jnp.zeros(shape, dtype), x, y)
    sums: jax.Array = lax.fori_loop(0, x.shape[0], add, start)
    return sums.reshape(*shape[:-2], -1)


def _window_of_one(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g, o)`` of one example: ``(1, *padded, g c)`` and ``(*out, g o)``."""
    if math.prod(form.windows.size) <= UNROLLED:
        return _window_from(x, y, form, 0)
    return _by_first(lambda x: _window_from(x, y, form, 1), x, form)


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
    rows = len(y)
    x, y = (a.reshape(-1, groups, a.shape[-1] // groups) for a in (x, y))
    if x.shape[-1] > 1:
        return jnp.einsum("mgc,mgo->cgo", x, y)
    count, size = _even(rows, ROWS)
    terms = (x * y).reshape(count, size, len(y) // rows, -1)
    sums = functools.reduce(jnp.add, [terms[:, row] for row in range(size)])
    return _added(sums.reshape(-1, sums.shape[-1])).reshape(1, groups, -1)


def of_few_channels(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """`by_examples` for groups of few channels: by blocks of examples, or of the rows of one."""
    examples, rows = _cut(x, y, form)
    cut = Stretches(form, rows)
    parts = np.uint32(cut.parts)

    def block(step: jax.Array) -> jax.Array:
        first, stretch = lax.div(step, parts) * np.uint32(examples), lax.rem(step, parts)
        some_x, some_y = (lax.dynamic_slice_in_dim(a, first, examples, 0) for a in (x, y))
        return _of_block(cut.inputs(some_x, stretch), cut.outputs(some_y, stretch), cut.form)

    return summed(block, len(x) // examples * cut.parts, y, x)


def _cut(x: jax.Array, y: jax.Array, form: Form) -> tuple[int, int]:
    """How many examples, and how many of their rows, a block takes."""
    n, taps = len(x), math.prod(form.windows.size[1:])
    sums = x.shape[-1] // form.groups * y.size * taps // min(PLACES, form.out[-1])
    nbytes = accumulator(x.dtype).itemsize * (2 * x.size + y.size + sums) // n
    if nbytes <= BUDGET:
        return divisor(n, BUDGET // nbytes), form.out[0]
    return 1, fitting(form.out[0], nbytes, BUDGET)


def _of_block(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    """``(*window, c, g o)`` of some examples, in a loop over the first of several axes' taps."""
    first, *rest = form.windows.size
    count, places = _even(form.out[-1], PLACES)
    more = count * places - form.out[-1]  # zeros fill the last part
    form = _longer(form, more, -1)
    y = jnp.pad(y.astype(accumulator(y.dtype)), (*((0, 0),) * (y.ndim - 2), (0, more), (0, 0)))
    y = y.reshape(*y.shape[:-2], count, places, form.groups, -1)
    x = by_itself(functools.partial(padded, form=form), form)(x)
    x = x.reshape(*x.shape[:-1], form.groups, -1)

    def row(x: jax.Array) -> jax.Array:
        return jnp.stack([_sums(x, y, form, place) for place in product(*map(range, rest))])

    if rest:
        found = _by_first(row, x, form)
    else:
        found = jnp.stack([_sums(x, y, form, (tap,)) for tap in range(first)])
    sizes = (*form.windows.size, form.groups, x.shape[-1], y.shape[-1])
    return jnp.moveaxis(found.reshape(sizes), -3, -2).reshape(*sizes[:-3], x.shape[-1], -1)


def _sums(x: jax.Array, y: jax.Array, form: Form, place: tuple[int, ...]) -> jax.Array:
    """``(g c o,)`` of the tap at this place of the last axes; x is shifted by that of the others.

    ``x`` is ``(n, *sizes, g, c)``, and ``y`` ``(n, *out, places, g, o)``.
    """
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
