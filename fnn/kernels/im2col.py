"""im2col: copy the patches under the window side by side, then one matrix product.

``patches[m, (k, i)] = x[o(m) s + k d - lo, i]``, so ``y = patches @ w``, ``dw = patches^T @ y``,
and the input gradient is again a convolution (`fnn.kernels.adjoint`). What keeps it fast:

- Only `BUDGET` bytes of both factors exist at a time: the loop goes over blocks of examples, or of
  rows of one example where it alone is larger, so that a block is still in the cache when the
  product reads it.
- Without a stride the taps of the first axis need no patches: the product with the windows of all
  of them side by side, summed with a shift each, is the same (`Blocks.folded`). A window of 3x3
  copies three patches instead of nine, and the product is three times as wide.
- XLA's CPU product reaches half its speed on ``a^T @ b``: so for ``dw`` the block is transposed
  first and ``patches^T`` is built as such, out of long contiguous rows.
- Groups of few channels are joined into products of at least `LANES` channels whose matrix is zero
  between groups: that wastes arithmetic, but a matrix product of four columns wastes more.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.adjoint import through_output
from fnn.kernels.form import OUTPUT, WINDOW, Form, Kernel, varying

BUDGET = 8 * 2**20  # bytes; between the second-level cache of a core and the third-level's share
LANES = 16
FOLD = {OUTPUT: 1.0, WINDOW: 0.5}  # where it makes the factors narrower by this; measured


class Blocks(NamedTuple):
    """How one convolution is cut.

    Attributes:
        examples: in a block.
        rows: of output in a block.
        joined: groups in one product.
        folded: whether the first axis' taps are columns of the product, not patches.
    """

    examples: int
    rows: int
    joined: int
    folded: bool


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most ``most``, at least 1."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def blocks(n: int, c_in: int, c_out: int, form: Form, itemsize: int, slot: str) -> Blocks:
    """Cut so that what a block reads more than once stays within `BUDGET`."""
    groups, win = form.groups, form.windows
    joined = _divisor(groups, -(-LANES * groups // c_in))
    c_in, c_out = c_in // groups * joined, c_out // groups * joined
    first, taps = win.size[0], math.prod(win.size)
    plain, folded = taps * c_in + c_out, taps // first * c_in + first * c_out

    def cut(width: int, fold: bool) -> Blocks:
        row = itemsize * width * math.prod(form.out[1:])
        whole = form.spatial[0] if fold else form.out[0]
        if row * whole <= BUDGET:
            return Blocks(_divisor(n, BUDGET // (row * whole)), form.out[0], joined, fold)
        return Blocks(1, _divisor(form.out[0], BUDGET // row), joined, fold)

    if win.stride[0] == 1 < first and folded <= FOLD[slot] * plain:
        found = cut(folded, True)
        # Blocks of few rows would compute the rows between them over and over.
        if found.rows == form.out[0] or found.rows >= 4 * (win.span[0] - 1):
            return found
    return cut(plain if slot == WINDOW else taps * c_in, False)


class _Walk(NamedTuple):
    """The loop over blocks: how many, and what one is made of."""

    cut: Blocks
    steps: tuple[int, int, int]  # chunks of groups, blocks of examples, blocks of rows
    form: Form  # of the patches: without the first axis' taps if they are folded
    out: tuple[int, ...]  # places of one example's patches
    low: int  # padding before the first axis that the folded sum has to make up

    @property
    def rows_cut(self) -> bool:
        return self.steps[2] > 1

    @property
    def blocks(self) -> int:
        return math.prod(self.steps)

    def places(self, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        chunk, rest = jnp.divmod(step, self.steps[1] * self.steps[2])
        example, row = jnp.divmod(rest, self.steps[2])
        return chunk, example * self.cut.examples, row * self.cut.rows


def _walk(x: jax.Array, c_out: int, form: Form, slot: str) -> _Walk:
    n, win = x.shape[0], form.windows
    cut = blocks(n, x.shape[-1], c_out, form, x.dtype.itemsize, slot)
    steps = (form.groups // cut.joined, n // cut.examples, form.out[0] // cut.rows)
    if not cut.folded:
        return _Walk(cut, steps, form, (cut.rows, *form.out[1:]), 0)
    cut_rows = steps[2] > 1
    deep = cut.rows + win.span[0] - 1 if cut_rows else form.spatial[0]
    inner = form._replace(windows=win._replace(size=(1, *win.size[1:])))
    return _Walk(cut, steps, inner, (deep, *form.out[1:]), 0 if cut_rows else win.padding[0][0])


def _pad(x: jax.Array, form: Form, axes: range, first: int = 1) -> jax.Array:
    pads = [p if a in axes else (0, 0) for a, p in enumerate(form.windows.padding)]
    before, after = ((0, 0),) * first, ((0, 0),) * (x.ndim - first - len(pads))
    return jnp.pad(x, (*before, *pads, *after))


def _prepared(x: jax.Array, form: Form, walk: _Walk) -> jax.Array:
    """Pad here only the axis that is cut: padding a block while it is in the cache is cheaper."""
    return _pad(x, form, range(1)) if walk.rows_cut else x


def _slice(x: jax.Array, starts: tuple[Any, ...], sizes: tuple[int, ...]) -> jax.Array:
    return lax.dynamic_slice(x, [jnp.asarray(s, jnp.int32) for s in starts], sizes)


def _slab(x: jax.Array, form: Form, walk: _Walk, step: jax.Array) -> jax.Array:
    """The input of one block, as it lies in x."""
    chunk, example, row = walk.places(step)
    win = form.windows
    deep = (walk.cut.rows - 1) * win.stride[0] + win.span[0] if walk.rows_cut else x.shape[1]
    width = x.shape[-1] // walk.steps[0]
    starts = (example, row * win.stride[0], *(0,) * (len(win.size) - 1), chunk * width)
    return _slice(x, starts, (walk.cut.examples, deep, *x.shape[2:-1], width))


def _taps(x: jax.Array, walk: _Walk, first: int, place: int) -> jax.Array:
    """Stack what each tap sees, along new axes at ``place``; ``first`` is x's first spatial axis.

    Innermost axis first: what an outer axis copies is then long and contiguous.
    """
    rank, win = len(walk.out), walk.form.windows
    padded_before = walk.rows_cut or walk.cut.folded
    x = _pad(x, walk.form, range(1 if padded_before else 0, rank), first)
    for axis in reversed(range(rank)):
        k, s, d, o = win.size[axis], win.stride[axis], win.dilation[axis], walk.out[axis]
        at = x.ndim - rank + axis if first == 2 else axis + 1
        taps = [lax.slice_in_dim(x, t * d, t * d + (o - 1) * s + 1, s, at) for t in range(k)]
        x = jnp.stack(taps, place) if k > 1 else jnp.expand_dims(taps[0], place)
    return x


def _patches(slab: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(n * prod(out), taps * c)``."""
    rank = len(walk.out)
    return _taps(slab, walk, 1, rank + 1).reshape(len(slab) * math.prod(walk.out), -1)


def _transposed_patches(slab: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(taps * c, n * prod(out))``."""
    # The barrier keeps the compiler from folding the transpose into the product.
    turned = lax.optimization_barrier(jnp.moveaxis(slab, -1, 0))
    return _taps(turned, walk, 2, 0).reshape(-1, len(slab) * math.prod(walk.out))


def _moves(form: Form, walk: _Walk) -> list[int]:
    """Per tap of the first axis, by how many rows its share of a block moves down."""
    win = form.windows
    return [walk.low - k * win.dilation[0] for k in range(win.size[0])]


def _shift(a: jax.Array, down: int, rows: int) -> jax.Array:
    """Move the first spatial axis, cut or filled with zeros to ``rows``."""
    edges = [(0, 0, 0)] * a.ndim
    edges[1] = (down, rows - a.shape[1] - down, 0)
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
    chunks, first, *_, o = w.shape
    if walk.cut.folded:
        return jnp.moveaxis(w, 1, -2).reshape(chunks, -1, first * o)
    return w.reshape(chunks, -1, o)


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    walk, total = _walk(x, w.shape[-1], form, OUTPUT), accumulator(x.dtype)
    x = _prepared(x, form, walk)
    matrices = _matrices(_joined(w, form.groups, walk.cut.joined), walk)

    def block(step: jax.Array) -> jax.Array:
        rows = _patches(_slab(x, form, walk, step), walk)
        y = jnp.dot(rows, matrices[walk.places(step)[0]], preferred_element_type=total)
        if walk.cut.folded:
            y = y.reshape(walk.cut.examples, *walk.out, form.windows.size[0], -1)
            moved = enumerate(_moves(form, walk))
            shares = [_shift(y[..., k, :], down, walk.cut.rows) for k, down in moved]
            y = functools.reduce(jnp.add, shares)
        return y.astype(x.dtype)

    y = lax.map(block, jnp.arange(walk.blocks)) if walk.blocks > 1 else block(jnp.int32(0))
    y = y.reshape(walk.steps[0], x.shape[0], *form.out, -1)
    return jnp.moveaxis(y, 0, -2).reshape(x.shape[0], *form.out, -1)


def _part(y: jax.Array, form: Form, walk: _Walk, step: jax.Array) -> jax.Array:
    """The cotangent of one block as a factor: ``(n * prod(out), columns)``."""
    chunk, example, row = walk.places(step)
    width = y.shape[-1] // walk.steps[0]
    starts = (example, row, *(0,) * (len(form.spatial) - 1), chunk * width)
    y = _slice(y, starts, (walk.cut.examples, walk.cut.rows, *form.out[1:], width))
    if walk.cut.folded:
        y = jnp.stack([_shift(y, -down, walk.out[0]) for down in _moves(form, walk)], -2)
    return y.reshape(walk.cut.examples * math.prod(walk.out), -1)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    walk, total = _walk(x, y.shape[-1], form, WINDOW), accumulator(x.dtype)
    x = _prepared(x, form, walk)

    def block(step: jax.Array) -> jax.Array:
        slab, part = _slab(x, form, walk, step), _part(y, form, walk, step)
        if form.groups == 1:
            return jnp.dot(_transposed_patches(slab, walk), part, preferred_element_type=total)
        # Few columns: the product wants them on the left.
        across = (((0,), (0,)), ((), ()))
        return lax.dot_general(part, _patches(slab, walk), across, preferred_element_type=total)

    def add(step: jax.Array, sums: jax.Array) -> jax.Array:
        return sums.at[walk.places(step)[0]].add(block(step))

    like = jax.eval_shape(block, jnp.int32(0))
    sums, *_ = varying(jnp.zeros((walk.steps[0], *like.shape), like.dtype), x, y)
    sums = lax.fori_loop(0, walk.blocks, add, sums) if walk.blocks > 1 else add(jnp.int32(0), sums)
    return _window_of(sums, form, walk)


def _window_of(sums: jax.Array, form: Form, walk: _Walk) -> jax.Array:
    """The chunks' products to ``(*window, c, c_out)``: their diagonal blocks of joined groups."""
    size, (chunks, *_) = form.windows.size, walk.steps
    sums = sums if form.groups == 1 else jnp.swapaxes(sums, 1, 2)
    first = size[0] if walk.cut.folded else 1
    taps, joined = math.prod(size) // first, walk.cut.joined
    split = (chunks, taps, joined, sums.shape[1] // (taps * joined), first, joined, -1)
    w = jnp.einsum("atbcfbo->ftcabo", sums.reshape(split))
    return w.reshape(*size, w.shape[2], -1)


IM2COL = Kernel("im2col", _output, through_output(_output), _window)
