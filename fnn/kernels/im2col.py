"""im2col: copy the patches under the window side by side, then one matrix product.

``patches[m, (k, i)] = x[o(m) s + k d - lo, i]``, so ``y = patches @ w``, ``dw = patches^T @ y``,
and the input gradient is again a convolution (`fnn.kernels.adjoint`). Only `BUDGET` bytes of
patches exist at a time: the loop goes over blocks of examples, or of rows of one example where it
alone is larger, so that a block is still in the cache when the product reads it. Groups of few
channels are joined into products of at least `LANES` channels whose matrix is zero between groups:
that wastes arithmetic, but a matrix product of four columns wastes more.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.adjoint import through_output
from fnn.kernels.form import Form, Kernel, varying

BUDGET = 8 * 2**20  # bytes; between the second-level cache of a core and the third-level's share
LANES = 16


class Blocks(NamedTuple):
    """How one convolution is cut: examples x rows of output x joined groups."""

    examples: int
    rows: int
    joined: int


def _divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most ``most``, at least 1."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def blocks(n: int, c_in: int, form: Form, itemsize: int) -> Blocks:
    """Cut so that a block's patches stay within `BUDGET`."""
    joined = _divisor(form.groups, -(-LANES * form.groups // c_in))
    row = itemsize * c_in // form.groups * joined
    row *= math.prod(form.windows.size) * math.prod(form.out[1:])
    rows = _divisor(form.out[0], BUDGET // row)
    whole = rows == form.out[0]
    return Blocks(_divisor(n, BUDGET // (row * rows)) if whole else 1, rows, joined)


def patches(x: jax.Array, form: Form, out: tuple[int, ...]) -> jax.Array:
    """``(n, *padded, c)`` to ``(n * prod(out), taps * c)``, one axis after the other.

    Innermost axis first: what an outer axis copies is then long and contiguous.
    """
    rank, win = len(out), form.windows
    for axis in reversed(range(rank)):
        k, s, d, o = win.size[axis], win.stride[axis], win.dilation[axis], out[axis]
        taps = [lax.slice_in_dim(x, t * d, t * d + (o - 1) * s + 1, s, axis + 1) for t in range(k)]
        x = jnp.stack(taps, rank + 1) if k > 1 else jnp.expand_dims(taps[0], rank + 1)
    return x.reshape(x.shape[0] * math.prod(out), -1)


def _pad(x: jax.Array, form: Form, axes: range) -> jax.Array:
    pads = [p if a in axes else (0, 0) for a, p in enumerate(form.windows.padding)]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


class _Walk(NamedTuple):
    """The loop over blocks: how many, and where each begins."""

    cut: Blocks
    steps: tuple[int, int, int]  # chunks of groups, blocks of examples, blocks of rows
    out: tuple[int, ...]

    def places(self, step: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        chunk, rest = jnp.divmod(step, self.steps[1] * self.steps[2])
        example, row = jnp.divmod(rest, self.steps[2])
        return chunk, example * self.cut.examples, row * self.cut.rows


def _walk(x: jax.Array, form: Form) -> _Walk:
    n, c_in = x.shape[0], x.shape[-1]
    cut = blocks(n, c_in, form, x.dtype.itemsize)
    steps = (form.groups // cut.joined, n // cut.examples, form.out[0] // cut.rows)
    return _Walk(cut, steps, (cut.rows, *form.out[1:]))


def _prepared(x: jax.Array, form: Form, walk: _Walk) -> jax.Array:
    """Pad here only the axis that is cut: padding a block while it is in the cache is cheaper."""
    return _pad(x, form, range(1)) if walk.steps[2] > 1 else x


def _block_patches(x: jax.Array, form: Form, walk: _Walk, step: jax.Array) -> jax.Array:
    chunk, example, row = walk.places(step)
    win, cut_rows, rank = form.windows, walk.steps[2] > 1, len(form.spatial)
    deep = (walk.cut.rows - 1) * win.stride[0] + win.span[0] if cut_rows else x.shape[1]
    width = x.shape[-1] // walk.steps[0]
    starts = (example, row * win.stride[0], *(0,) * (rank - 1), chunk * width)
    slab = _slice(x, starts, (walk.cut.examples, deep, *x.shape[2:-1], width))
    return patches(_pad(slab, form, range(1 if cut_rows else 0, rank)), form, walk.out)


def _slice(x: jax.Array, starts: tuple[Any, ...], sizes: tuple[int, ...]) -> jax.Array:
    return lax.dynamic_slice(x, [jnp.asarray(s, jnp.int32) for s in starts], sizes)


def _joined(w: jax.Array, groups: int, joined: int) -> jax.Array:
    """``(*window, c, c_out)`` to ``(chunks, taps * joined c, joined c_out/g)``, zero between."""
    c, each = w.shape[-2], w.shape[-1] // groups
    w = w.reshape(-1, c, groups // joined, joined, each)
    same = jnp.eye(joined, dtype=w.dtype)
    w = jnp.einsum("tcabo,bd->atdcbo", w, same)
    return w.reshape(groups // joined, -1, joined * each)


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    walk, total = _walk(x, form), accumulator(x.dtype)
    x, matrices = _prepared(x, form, walk), _joined(w, form.groups, walk.cut.joined)

    def block(step: jax.Array) -> jax.Array:
        rows = _block_patches(x, form, walk, step)
        matrix = matrices[walk.places(step)[0]]
        return jnp.dot(rows, matrix, preferred_element_type=total).astype(x.dtype)

    count = math.prod(walk.steps)
    y = lax.map(block, jnp.arange(count)) if count > 1 else block(jnp.int32(0))
    y = y.reshape(walk.steps[0], x.shape[0], *form.out, -1)
    return jnp.moveaxis(y, 0, -2).reshape(x.shape[0], *form.out, -1)


def _over_rows(a: jax.Array, b: jax.Array, total: Any) -> jax.Array:
    """``a^T b`` with the narrower factor on the left, the one that XLA's CPU product repacks."""
    if a.shape[1] > b.shape[1]:
        return _over_rows(b, a, total).T
    return lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=total)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    walk, total = _walk(x, form), accumulator(x.dtype)
    x = _prepared(x, form, walk)
    chunks, joined, each = walk.steps[0], walk.cut.joined, y.shape[-1] // form.groups
    c, width, rank = x.shape[-1] // form.groups, y.shape[-1] // walk.steps[0], len(form.spatial)

    def block(step: jax.Array, sums: jax.Array) -> jax.Array:
        chunk, example, row = walk.places(step)
        rows = _block_patches(x, form, walk, step)
        starts = (example, row, *(0,) * (rank - 1), chunk * width)
        part = _slice(y, starts, (walk.cut.examples, *walk.out, width))
        product = _over_rows(part.reshape(-1, width), rows, total)
        return sums.at[chunk].add(product)

    count = math.prod(walk.steps)
    sums = jnp.zeros((chunks, width, math.prod(form.windows.size) * joined * c), total)
    sums, *_ = varying(sums, x, y)
    sums = lax.fori_loop(0, count, block, sums) if count > 1 else block(jnp.int32(0), sums)
    sums = sums.reshape(chunks, joined, each, -1, joined, c)
    w = jnp.einsum("abotbc->tcabo", sums)
    return w.reshape(*form.windows.size, c, -1)


IM2COL = Kernel("im2col", _output, through_output(_output), _window)
