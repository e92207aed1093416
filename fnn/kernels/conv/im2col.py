"""im2col: copy the patches under the window side by side, then one matrix product.

``patches[m, (k, i)] = x[o(m) s + k d - lo, i]``, so ``y = patches @ w``, ``dw = patches^T @ y``,
and the input gradient is again a convolution (`fnn.kernels.conv.adjoint`). What keeps it fast:

- Blocks. Only `BUDGET` bytes of both factors exist at a time, so that a block is still in the cache
  when the product reads it: a loop goes over blocks of examples. Where one example alone would take
  more than `WHOLE` budgets, its rows are cut into stretches, which then count as examples.
- Folding. Without a stride, the last axis needs no patches: multiply with its taps side by side as
  columns, and add up what each tap gives, moved by its place. A window of 3x3 then copies three
  patches instead of nine, and the product is three times as wide.
- Transposed patches. XLA's CPU product reaches half its speed on ``a^T @ b``, so for ``dw`` the
  block is transposed first and ``patches^T`` is built as such, out of long contiguous rows.
- Joined groups. Groups of few channels share one product of at least `LANES` channels, whose matrix
  is zero between them: that wastes arithmetic, but a product of four columns wastes more.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import through_output
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, Kernel, by_device, divisor, varying

BUDGET = 8 * 2**20  # bytes; between the second-level cache of a core and the third-level's share
WHOLE = 4  # budgets that one example may take before its rows are cut, which costs a quarter more
LANES = 16
FOLD = {OUTPUT: 1.0, WINDOW: 0.5}  # folded, where that makes the factors narrower by this; measured


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
    win, last, taps = form.windows, form.windows.size[-1], math.prod(form.windows.size)
    joined = divisor(form.groups, -(-LANES * form.groups // c_in))
    if taps == 1:
        return Blocks(n, form.out[0], joined, False)  # patches are no larger than the input
    inputs, outputs = (c // form.groups * joined for c in (c_in, c_out))
    plain, folded = taps * inputs + outputs, taps // last * inputs + last * outputs  # columns
    if win.stride[-1] == 1 < last and folded <= FOLD[slot] * plain:
        cut = Blocks(*_fit(n, itemsize * folded, form, True), joined, True)
        # On one axis only, short stretches would compute what lies between them repeatedly.
        if len(win.size) > 1 or cut.rows == form.out[0] or cut.rows >= 4 * win.span[0]:
            return cut
    columns = plain if slot == WINDOW else taps * inputs
    return Blocks(*_fit(n, itemsize * columns, form, False), joined, False)


def _fit(n: int, width: int, form: Form, folded: bool) -> tuple[int, int]:
    """Examples and rows in a block; its products have rows of ``width`` bytes."""
    rows, *inner = _places(form, folded)
    row = width * math.prod(inner)
    if row * rows <= WHOLE * BUDGET:
        return divisor(n, BUDGET // (row * rows)), form.out[0]
    return 1, divisor(form.out[0], BUDGET // row)


def _places(form: Form, folded: bool) -> tuple[int, ...]:
    """Where one example has patches: where the window stops, but all along a folded axis."""
    return (*form.out[:-1], form.spatial[-1]) if folded else form.out


class _Walk(NamedTuple):
    """The loop over blocks.

    Attributes:
        form: of one example, or of a stretch of its rows.
        examples: in a block.
        steps: blocks of examples.
        chunks: products that each block takes, one per `joined` groups.
        joined, folded: as in `Blocks`.
    """

    form: Form
    examples: int
    steps: int
    chunks: int
    joined: int
    folded: bool

    @property
    def places(self) -> tuple[int, ...]:
        """Where one example has patches."""
        return _places(self.form, self.folded)

    @property
    def moves(self) -> list[int]:
        """By how many places what each tap of the folded axis gives moves up."""
        win = self.form.windows
        return [win.padding[-1][0] - k * win.dilation[-1] for k in range(win.size[-1])]

    def block(self, a: jax.Array, step: jax.Array) -> jax.Array:
        """Block ``step`` of the input or the cotangent: some examples, the channels of a chunk."""
        chunk, block = jnp.divmod(step, self.steps)
        width = a.shape[-1] // self.chunks
        starts = (block * self.examples, *(0,) * (a.ndim - 2), chunk * width)
        sizes = (self.examples, *a.shape[1:-1], width)
        return lax.dynamic_slice(a, [jnp.asarray(s, jnp.int32) for s in starts], sizes)


def _walk(x: jax.Array, c_out: int, form: Form, slot: str) -> tuple[jax.Array, _Walk]:
    """The input with its rows cut, and the loop over it."""
    cut = blocks(len(x), x.shape[-1], c_out, form, x.dtype.itemsize, slot)
    chunks = form.groups // cut.joined
    x, form = _stretches(x, form, cut.rows)
    steps = len(x) // cut.examples
    return x, _Walk(form, cut.examples, steps, chunks, cut.joined, cut.folded)


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


def _pad(x: jax.Array, padding: tuple[tuple[int, int], ...], first: int = 1) -> jax.Array:
    """Pad the axes from ``first`` on with zeros."""
    after = ((0, 0),) * (x.ndim - first - len(padding))
    return jnp.pad(x, (*((0, 0),) * first, *padding, *after))


# Both functions go from the last axis to the first: what an outer axis copies is then long and
# contiguous. Each axis is stacked before the ones that are, so that the taps come out in order.


def _patches(block: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(n * prod(places), taps * c)``."""
    rank = len(walk.places)
    axes = range(rank - walk.folded)
    x = _pad(block, walk.form.windows.padding[: len(axes)])
    for axis in reversed(axes):
        x = jnp.stack(_seen(x, axis + 1, axis, walk.form), rank + 1)
    return x.reshape(len(block) * math.prod(walk.places), -1)


def _transposed_patches(block: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(taps * c, n * prod(places))``."""
    rank = len(walk.places)
    axes = range(rank - walk.folded)
    x = _pad(jnp.moveaxis(block, -1, 0), walk.form.windows.padding[: len(axes)], 2)
    for axis in reversed(axes):
        x = jnp.stack(_seen(x, x.ndim - rank + axis, axis, walk.form), 0)
    return x.reshape(-1, len(block) * math.prod(walk.places))


def _seen(x: jax.Array, at: int, axis: int, form: Form) -> list[jax.Array]:
    """What each tap of a spatial axis sees: elements of x's axis ``at``, one per output."""
    k, s, d = form.windows.size[axis], form.windows.stride[axis], form.windows.dilation[axis]
    long = (form.out[axis] - 1) * s + 1
    return [lax.slice_in_dim(x, t * d, t * d + long, s, at) for t in range(k)]


def _shift(a: jax.Array, up: int, places: int) -> jax.Array:
    """Move the last spatial axis up, cut or filled with zeros to ``places``."""
    edges = [(0, 0, 0)] * a.ndim
    edges[-2] = (up, places - a.shape[-2] - up, 0)
    return lax.pad(a, jnp.zeros((), a.dtype), edges)


def _matrices(w: jax.Array, walk: _Walk) -> jax.Array:
    """``(*window, c, c_out)`` to the right factor of every chunk."""
    w = _joined(w, walk.form.groups, walk.joined)
    chunks, *_, last, _, o = w.shape
    if walk.folded:
        return jnp.swapaxes(w, -3, -2).reshape(chunks, -1, last * o)
    return w.reshape(chunks, -1, o)


def _joined(w: jax.Array, groups: int, joined: int) -> jax.Array:
    """``(*window, c, c_out)`` to ``(chunks, *window, joined c, joined c_out/g)``, else zero."""
    window, c, each = w.shape[:-2], w.shape[-2], w.shape[-1] // groups
    w = w.reshape(-1, c, groups // joined, joined, each)
    same = jnp.eye(joined, dtype=w.dtype)
    w = jnp.einsum("tcabo,bd->atdcbo", w, same)
    return w.reshape(groups // joined, *window, joined * c, joined * each)


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    n, total = len(x), accumulator(x.dtype)
    x, walk = _walk(x, w.shape[-1], form, OUTPUT)
    matrices = _matrices(w, walk)

    def block(step: jax.Array) -> jax.Array:
        rows = _patches(walk.block(x, step), walk)
        y = jnp.dot(rows, matrices[step // walk.steps], preferred_element_type=total)
        return (_unfolded(y, walk) if walk.folded else y).astype(x.dtype)

    count = walk.chunks * walk.steps
    y = lax.map(block, jnp.arange(count)) if count > 1 else block(jnp.int32(0))
    y = jnp.moveaxis(y.reshape(walk.chunks, n, *form.out, -1), 0, -2)
    return y.reshape(n, *form.out, -1)


def _unfolded(y: jax.Array, walk: _Walk) -> jax.Array:
    """``(n * prod(places), last * o)`` to ``(n, *out, o)``: the sum of what the last taps give."""
    y = y.reshape(walk.examples, *walk.places, len(walk.moves), -1)
    out = walk.form.out[-1]
    shares = [_shift(y[..., k, :], up, out) for k, up in enumerate(walk.moves)]
    return functools.reduce(jnp.add, shares)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    x, walk = _walk(x, y.shape[-1], form, WINDOW)
    y = y.reshape(len(x), *walk.form.out, y.shape[-1])

    def block(step: jax.Array) -> jax.Array:
        return _block_product(walk.block(x, step), walk.block(y, step), walk)

    return _window_of(_sum_by_chunk(block, walk, x, y), walk)


def _block_product(x: jax.Array, y: jax.Array, walk: _Walk) -> jax.Array:
    """``patches^T @ y`` of one block, or its transpose where there are groups."""
    total = accumulator(x.dtype)
    if walk.folded:
        y = jnp.stack([_shift(y, -up, walk.places[-1]) for up in walk.moves], -2)
    y = y.reshape(walk.examples * math.prod(walk.places), -1)
    if walk.form.groups == 1:
        return jnp.dot(_transposed_patches(x, walk), y, preferred_element_type=total)
    # Few columns: the product wants them on the left.
    across = (((0,), (0,)), ((), ()))
    return lax.dot_general(y, _patches(x, walk), across, preferred_element_type=total)


def _sum_by_chunk(
    block: Callable[[jax.Array], jax.Array], walk: _Walk, *arrays: jax.Array
) -> jax.Array:
    """Sum every chunk's blocks: ``(chunks, ...)``."""

    def add(step: jax.Array, sums: jax.Array) -> jax.Array:
        return sums.at[step // walk.steps].add(block(step))

    like, count = jax.eval_shape(block, jnp.int32(0)), walk.chunks * walk.steps
    sums, *_ = varying(jnp.zeros((walk.chunks, *like.shape), like.dtype), *arrays)
    return lax.fori_loop(0, count, add, sums) if count > 1 else add(jnp.int32(0), sums)


def _window_of(sums: jax.Array, walk: _Walk) -> jax.Array:
    """The chunks' products to ``(*window, c, c_out)``: their diagonal blocks of joined groups."""
    size, joined = walk.form.windows.size, walk.joined
    sums = sums if walk.form.groups == 1 else jnp.swapaxes(sums, 1, 2)
    last = size[-1] if walk.folded else 1
    taps = math.prod(size) // last
    channels = sums.shape[1] // (taps * joined)
    split = sums.reshape(walk.chunks, taps, joined, channels, last, joined, -1)
    w = jnp.einsum("atbclbo->tlcabo", split)
    return w.reshape(*size, channels, -1)


_outputs = by_device(_output, OUTPUT)
IM2COL = Kernel("im2col", _outputs, through_output(_outputs), by_device(_window, WINDOW))
