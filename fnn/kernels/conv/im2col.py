"""im2col: copy the patches under the window side by side, then one matrix product.

``patches[m, (k, i)] = x[o(m) s + k d - lo, i]``, so ``y = patches @ w``, ``dw = patches^T @ y``,
and the input gradient is again a convolution (`fnn.kernels.adjoint`). What keeps it fast:

- Only `BUDGET` bytes of both factors exist at a time: the loop goes over blocks of examples, so
  that a block is still in the cache when the product reads it. Rows are cut where one example alone
  would take more than `WHOLE` budgets. A 1x1 window is never cut: its patches are the input, or for
  ``dw`` one transposed copy of it.
- Without a stride the taps of the last axis need no patches: the product with the windows of all
  of them side by side, summed with a shift each, is the same (`Blocks.folded`). A window of 3x3
  copies three patches instead of nine, and the product is three times as wide.
- XLA's CPU product reaches half its speed on ``a^T @ b``: so for ``dw`` the block is transposed
  first and ``patches^T`` is built as such, out of long contiguous rows.
- Groups of few channels are joined into products of at least `LANES` channels whose matrix is zero
  between groups: that wastes arithmetic, but a matrix product of four columns wastes more.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, Kernel, divisor, varying

BUDGET = 8 * 2**20  # bytes; between the second-level cache of a core and the third-level's share
WHOLE = 4  # budgets that one example may take before its rows are cut, which costs a quarter more
LANES = 16
FOLD = {OUTPUT: 1.0, WINDOW: 0.5}  # where it makes the factors narrower by this; measured


class Blocks(NamedTuple):
    """How one convolution is cut.

    Attributes:
        examples: in a block; where rows are cut, stretches of rows count as examples.
        rows: of output in a stretch.
        joined: groups in one product.
        folded: whether the last axis' taps are columns of the product, not patches.
    """

    examples: int
    rows: int
    joined: int
    folded: bool


def blocks(n: int, c_in: int, c_out: int, form: Form, itemsize: int, slot: str) -> Blocks:
    """Cut so that what a block reads more than once stays within `BUDGET`."""
    groups, win = form.groups, form.windows
    joined = divisor(groups, -(-LANES * groups // c_in))
    c_in, c_out = c_in // groups * joined, c_out // groups * joined
    last, taps = win.size[-1], math.prod(win.size)
    if taps == 1:
        return Blocks(n, form.out[0], joined, False)  # patches are no larger than the input
    plain, folded = taps * c_in + c_out, taps // last * c_in + last * c_out

    def cut(width: int, fold: bool) -> Blocks:
        whole, *inner = (*form.out[:-1], form.spatial[-1] if fold else form.out[-1])
        row = itemsize * width * math.prod(inner)
        if row * whole <= WHOLE * BUDGET:
            return Blocks(divisor(n, BUDGET // (row * whole)), form.out[0], joined, fold)
        return Blocks(1, divisor(form.out[0], BUDGET // row), joined, fold)

    if win.stride[-1] == 1 < last and folded <= FOLD[slot] * plain:
        found = cut(folded, True)
        # On one axis only, short stretches would compute what lies between them repeatedly.
        if len(win.size) > 1 or found.rows in (form.out[0], *range(4 * win.span[0], form.out[0])):
            return found
    return cut(plain if slot == WINDOW else taps * c_in, False)


def _stretches(x: jax.Array, form: Form, rows: int) -> tuple[jax.Array, Form]:
    """Cut the first axis into the inputs of ``rows`` outputs each, and call them examples."""
    if rows == form.out[0]:
        return x, form
    win = form.windows
    deep = (rows - 1) * win.stride[0] + win.span[0]
    starts = np.arange(0, form.out[0], rows) * win.stride[0]
    x = _pad(x, win.padding[:1])[:, starts[:, None] + np.arange(deep)]
    win = win._replace(padding=((0, 0), *win.padding[1:]))
    return x.reshape(-1, *x.shape[2:]), form._replace(spatial=x.shape[2:-1], windows=win)


class _Walk(NamedTuple):
    """The loop over blocks: how many, and what one is made of."""

    form: Form  # of a stretch
    examples: int  # in a block
    chunks: int  # of groups
    steps: int  # blocks of examples
    folded: bool

    @property
    def places(self) -> tuple[int, ...]:
        """Where one example has patches."""
        form = self.form
        return (*form.out[:-1], form.spatial[-1]) if self.folded else form.out

    @property
    def moves(self) -> list[int]:
        """Per tap of the folded axis, by how many places its share of a block moves up."""
        win = self.form.windows
        return [win.padding[-1][0] - k * win.dilation[-1] for k in range(win.size[-1])]

    def block(self, a: jax.Array, step: jax.Array) -> jax.Array:
        """Block ``step`` of the input, or of the cotangent."""
        chunk, block = jnp.divmod(step, self.steps)
        width = a.shape[-1] // self.chunks
        starts = (block * self.examples, *(0,) * (a.ndim - 2), chunk * width)
        sizes = (self.examples, *a.shape[1:-1], width)
        return lax.dynamic_slice(a, [jnp.asarray(s, jnp.int32) for s in starts], sizes)


def _walk(x: jax.Array, c_out: int, form: Form, slot: str) -> tuple[jax.Array, _Walk, int]:
    """The stretches of x, the walk over them, and how many groups are joined."""
    cut = blocks(len(x), x.shape[-1], c_out, form, x.dtype.itemsize, slot)
    chunks = form.groups // cut.joined
    x, form = _stretches(x, form, cut.rows)
    return x, _Walk(form, cut.examples, chunks, len(x) // cut.examples, cut.folded), cut.joined


def _pad(x: jax.Array, padding: tuple[tuple[int, int], ...], first: int = 1) -> jax.Array:
    after = ((0, 0),) * (x.ndim - first - len(padding))
    return jnp.pad(x, (*((0, 0),) * first, *padding, *after))


def _taps(x: jax.Array, walk: _Walk, first: int, place: int) -> jax.Array:
    """Stack what each tap sees, along new axes at ``place``; ``first`` is x's first spatial axis.

    Innermost axis first: what an outer axis copies is then long and contiguous.
    """
    win, places = walk.form.windows, walk.places
    rank = len(places)
    copied = rank - walk.folded
    x = _pad(x, win.padding[:copied], first)
    for axis in reversed(range(copied)):
        k, s, d, o = win.size[axis], win.stride[axis], win.dilation[axis], places[axis]
        at = x.ndim - rank + axis if first == 2 else axis + 1
        taps = [lax.slice_in_dim(x, t * d, t * d + (o - 1) * s + 1, s, at) for t in range(k)]
        x = jnp.stack(taps, place) if k > 1 else jnp.expand_dims(taps[0], place)
    return x


def _patches(block: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(n * prod(places), taps * c)``."""
    rank = len(walk.places)
    return _taps(block, walk, 1, rank + 1).reshape(len(block) * math.prod(walk.places), -1)


def _transposed_patches(block: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(taps * c, n * prod(places))``."""
    # The barrier keeps the compiler from folding the transpose into the product.
    turned = lax.optimization_barrier(jnp.moveaxis(block, -1, 0))
    return _taps(turned, walk, 2, 0).reshape(-1, len(block) * math.prod(walk.places))


def _shift(a: jax.Array, up: int, places: int) -> jax.Array:
    """Move the last spatial axis, cut or filled with zeros to ``places``."""
    edges = [(0, 0, 0)] * a.ndim
    edges[-2] = (up, places - a.shape[-2] - up, 0)
    return lax.pad(a, jnp.zeros((), a.dtype), edges)


def _joined(w: jax.Array, groups: int, joined: int) -> jax.Array:
    """``(*window, c, c_out)`` to ``(chunks, *window, joined c, joined c_out/g)``, else zero."""
    window, c, each = w.shape[:-2], w.shape[-2], w.shape[-1] // groups
    w = w.reshape(-1, c, groups // joined, joined, each)
    same = jnp.eye(joined, dtype=w.dtype)
    w = jnp.einsum("tcabo,bd->atdcbo", w, same)
    return w.reshape(groups // joined, *window, joined * c, joined * each)


def _matrices(w: jax.Array, walk: _Walk) -> jax.Array:
    """``(chunks, *window, c, o)`` to the right factors of the chunks."""
    chunks, *_, last, _, o = w.shape
    if walk.folded:
        return jnp.swapaxes(w, -3, -2).reshape(chunks, -1, last * o)
    return w.reshape(chunks, -1, o)


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    n, total = len(x), accumulator(x.dtype)
    x, walk, joined = _walk(x, w.shape[-1], form, OUTPUT)
    matrices = _matrices(_joined(w, form.groups, joined), walk)

    def block(step: jax.Array) -> jax.Array:
        rows = _patches(walk.block(x, step), walk)
        y = jnp.dot(rows, matrices[step // walk.steps], preferred_element_type=total)
        if walk.folded:
            y = y.reshape(walk.examples, *walk.places, len(walk.moves), -1)
            moved = enumerate(walk.moves)
            shares = [_shift(y[..., k, :], up, walk.form.out[-1]) for k, up in moved]
            y = functools.reduce(jnp.add, shares)
        return y.astype(x.dtype)

    count = walk.chunks * walk.steps
    y = lax.map(block, jnp.arange(count)) if count > 1 else block(jnp.int32(0))
    y = jnp.moveaxis(y.reshape(walk.chunks, n, *form.out, -1), 0, -2)
    return y.reshape(n, *form.out, -1)


def _part(y: jax.Array, walk: _Walk, step: jax.Array) -> jax.Array:
    """The cotangent of one block as a factor: ``(n * prod(places), columns)``."""
    y = walk.block(y, step)
    if walk.folded:
        y = jnp.stack([_shift(y, -up, walk.places[-1]) for up in walk.moves], -2)
    return y.reshape(walk.examples * math.prod(walk.places), -1)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    total = accumulator(x.dtype)
    x, walk, joined = _walk(x, y.shape[-1], form, WINDOW)
    y = y.reshape(len(x), *walk.form.out, y.shape[-1])

    def block(step: jax.Array) -> jax.Array:
        inputs, part = walk.block(x, step), _part(y, walk, step)
        if form.groups == 1:
            return jnp.dot(_transposed_patches(inputs, walk), part, preferred_element_type=total)
        # Few columns: the product wants them on the left.
        across = (((0,), (0,)), ((), ()))
        return lax.dot_general(part, _patches(inputs, walk), across, preferred_element_type=total)

    def add(step: jax.Array, sums: jax.Array) -> jax.Array:
        return sums.at[step // walk.steps].add(block(step))

    like, count = jax.eval_shape(block, jnp.int32(0)), walk.chunks * walk.steps
    sums, *_ = varying(jnp.zeros((walk.chunks, *like.shape), like.dtype), x, y)
    sums = lax.fori_loop(0, count, add, sums) if count > 1 else add(jnp.int32(0), sums)
    return _window_of(sums, form, joined, walk.folded)


def _window_of(sums: jax.Array, form: Form, joined: int, folded: bool) -> jax.Array:
    """The chunks' products to ``(*window, c, c_out)``: their diagonal blocks of joined groups."""
    size, chunks = form.windows.size, len(sums)
    sums = sums if form.groups == 1 else jnp.swapaxes(sums, 1, 2)
    last = size[-1] if folded else 1
    taps = math.prod(size) // last
    split = (chunks, taps, joined, sums.shape[1] // (taps * joined), last, joined, -1)
    w = jnp.einsum("atbclbo->tlcabo", sums.reshape(split))
    return w.reshape(*size, w.shape[2], -1)


IM2COL = Kernel("im2col", _output, through_output(_output), _window)
