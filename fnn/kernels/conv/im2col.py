"""im2col: copy the patches under the window side by side, then one matrix product.

``patches[m, (k, i)] = x[o(m) s + k d - lo, i]``, so ``y = patches @ w``, ``dw = patches^T @ y``,
and the input gradient is again a convolution (`fnn.kernels.conv.adjoint`), or with a stride the
transpose of all this (`fnn.kernels.conv.col2im`). What keeps it fast:

- Blocks. Only `BUDGET` bytes of both factors exist at a time, so that a block is still in the cache
  when the product reads it: a loop goes over blocks of examples, or over stretches of the rows of
  one where one alone takes more.
- Folding. Without a stride, the last axis needs no patches: multiply with its taps side by side as
  columns, and add up what each tap gives, moved by its place. A window of 3x3 then copies three
  patches instead of nine, and the product is three times as wide. For ``dw`` it is y that is moved,
  once for each tap; its taps are put in order afterwards, which pays if ``dw`` is no larger than x
  and y.
- Transposed patches. XLA's CPU product reaches half its speed on ``a^T @ b``, so for ``dw`` the
  block is transposed first and ``patches^T`` is built as such, out of long contiguous rows. Only
  where ``dw`` fits the first cache, nothing is transposed: XLA forms ``a^T @ b`` on all cores, but
  ``a @ b`` of few rows and columns on one. The right factor is the one with more columns; with
  ``y`` on the left, the product is the transpose of ``dw``. With a stride along the last axis, y is
  smaller than the input, and is transposed instead of it; with few channels that takes longer, and
  is not done.
- Patches of the narrower one. ``dw`` is as well the product of x with patches of y: where y has far
  fewer channels, these are copied instead, or, if the window has one tap, y is transposed.
- Whole vectors. XLA multiplies by 13 or 30 columns more slowly than by 16 or 32. So the output's
  product gets columns of zeros, where few are enough.
- Half precision. XLA multiplies bfloat16 by the processor's own instructions, but ``a^T @ b``
  slowly, so patches are transposed for every ``dw``. The output's product is float32, twice the
  size of the rounded result. So it is not folded where folding would make it larger than the
  patches, and it is cut into blocks where it is too large to keep its memory.
- Joined groups. Groups of few inputs and few outputs share one product of at least `LANES` of
  either, whose matrix is zero between them: that wastes arithmetic, but a product of four columns
  wastes more. What is not finite in one group is kept from the others: the groups may be models of
  a `jax.vmap`.
- Groups at once. XLA forms a small product on one core, and gives the other one half of what is
  ready only if that is more than eight operations. So a turn of the loop over 16 groups or more
  takes eight, unless their products are tiny, or too large for the cache together. Each keeps its
  memory to itself, or one group would wait for another. Where there is one core, groups go one by
  one, and share their memory.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.compiler import as_bits, from_bits, kept_until
from fnn.dtypes import accumulator
from fnn.kernels.conv.adjoint import of_narrower, through_output
from fnn.kernels.conv.col2im import applies, col2im
from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel, by_device, cores
from fnn.kernels.conv.im2col_blocks import FULL, LANES, blocks, places
from fnn.kernels.conv.loops import beside, stacked, summed
from fnn.kernels.conv.stretches import Pieces, Stretches
from fnn.kernels.conv.views import by_itself, met_only, runs, taps

TIMES = 4  # with so many times more channels in x than in y, patches are of y
NEAR = 2**13  # entries of a sum that fits the first cache


class _Walk(NamedTuple):
    """The loop over blocks.

    Attributes:
        pieces: the blocks of one chunk.
        chunks: products that each block takes, one per `joined` groups.
        joined, folded: as in `Blocks`.
        turned: whether the product of the window gradient has the cotangent on the left.
        copied: whether what is on the left is transposed before the product.
        at_once: products in one turn of the loop over groups.
    """

    pieces: Pieces
    chunks: int
    joined: int
    folded: bool
    turned: bool
    copied: bool
    at_once: int

    @property
    def form(self) -> Form:
        """The form of one stretch of rows."""
        return self.pieces.stretches.form

    @property
    def rows(self) -> int:
        """The rows of a block's patches."""
        return self.pieces.examples.each * math.prod(self.places)

    @property
    def places(self) -> tuple[int, ...]:
        """Where one example has patches."""
        return places(self.form, self.folded)

    @property
    def moves(self) -> list[int]:
        """By how many places what each tap of the folded axis gives moves up."""
        win = self.form.windows
        return [win.padding[-1][0] - k * win.dilation[-1] for k in range(win.size[-1])]

    def by_itself(self, fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """Keep the making of a block apart, unless one block of one tap is all there is."""
        made = math.prod(self.form.windows.size) > 1 or self.pieces.steps > 1
        return by_itself(fn, self.form) if made else fn

    def inputs(self, x: jax.Array, step: jax.Array) -> jax.Array:
        """Block ``step`` of the input."""
        return self.pieces.inputs(*self._of_chunk(x, step))

    def outputs(self, y: jax.Array, step: jax.Array) -> jax.Array:
        """Block ``step`` of the cotangent."""
        return self.pieces.outputs(*self._of_chunk(y, step))

    def alone(self, fn: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """Keep fn apart: if a chunk begins with one operation, half of these is half the work."""
        return by_itself(fn, self.form) if self.at_once > 1 else fn

    def kept(self, y: jax.Array, *arrays: jax.Array) -> jax.Array:
        """Keep what y is made of until it is there, so that no chunk waits for another's memory."""
        return kept_until(y, *arrays) if self.at_once > 1 else y

    def _of_chunk(self, a: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The channels of the chunk that a step belongs to, and the step among those of it."""
        if self.chunks == 1:
            return a, step
        width, steps = a.shape[-1] // self.chunks, np.uint32(self.pieces.steps)
        first = lax.div(step, steps) * np.uint32(width)
        return lax.dynamic_slice_in_dim(a, first, width, a.ndim - 1), lax.rem(step, steps)


def _walk(x: jax.Array, c_out: int, form: Form, slot: str) -> _Walk:
    size = blocks(len(x), x.shape[-1], c_out, form, x.dtype.itemsize, slot)
    pieces = Pieces(size.examples, Stretches(form, size.rows))
    chunks = form.groups // size.joined
    last = form.windows.size[-1] if size.folded else 1
    channels, taps = x.shape[-1] // chunks, math.prod(form.windows.size) // last
    rows, columns = taps * channels, last * c_out // chunks
    # Few rows of patches are cheap to transpose, and slow to multiply as they are.
    few = taps > 1 and rows < min(LANES, columns)
    near = form.groups > 1 or (rows * columns <= NEAR and not few)
    across = near and x.dtype.itemsize >= FULL
    smaller = form.windows.stride[-1] > 1 < taps and channels > LANES  # y, than the input
    turned = columns <= rows if across else smaller
    at_once = size.at_once if cores() > 1 else 1
    return _Walk(pieces, chunks, size.joined, size.folded, turned, not across, at_once)


def _pad(x: jax.Array, padding: tuple[tuple[int, int], ...], first: int = 1) -> jax.Array:
    """Pad the axes from ``first`` on with zeros."""
    after = ((0, 0),) * (x.ndim - first - len(padding))
    return jnp.pad(x, (*((0, 0),) * first, *padding, *after))


# Both functions go from the last axis to the first: what an outer axis copies is then long and
# contiguous. Each axis' taps come before those that are there, so that they come out in order.


def _patches(x: jax.Array, step: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(examples * prod(places), taps * c)``, of one block."""
    return _seen(_padded(x, step, walk), walk)


def _padded(x: jax.Array, step: jax.Array, walk: _Walk) -> jax.Array:
    pads = walk.form.windows.padding[: len(walk.places) - walk.folded]
    return walk.by_itself(lambda x, step: _pad(walk.inputs(x, step), pads))(x, step)


def _seen(x: jax.Array, walk: _Walk) -> jax.Array:
    form, rank = walk.form, len(walk.places)
    axes = range(rank - walk.folded)

    def seen(x: jax.Array) -> jax.Array:
        for axis in reversed(axes):
            if axis == rank - 1 and form.windows.dilation[axis] == 1 < form.windows.size[axis]:
                x = runs(x, axis, form)
            else:
                x = taps(x, axis + 1, axis, form, rank + 1)
        return x.reshape(-1, *x.shape[2:])  # or the compiler leaves the taps outermost

    return walk.by_itself(seen)(x).reshape(walk.rows, -1)


def _transposed_patches(x: jax.Array, step: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *spatial, c)`` to ``(taps * c, examples * prod(places))``, of one block."""
    form, rank = walk.form, len(walk.places)
    axes, single = range(rank - walk.folded), math.prod(form.windows.size) == 1
    if single and max(form.windows.stride) > 1:
        # What a single tap sees is copied with its channels together, and transposed afterwards.
        return by_itself(functools.partial(_patches, walk=walk), form)(x, step).T

    def padded(x: jax.Array, step: jax.Array) -> jax.Array:
        block = jnp.moveaxis(walk.inputs(x, step), -1, 0)
        return _pad(block, form.windows.padding[: len(axes)], 2)

    def seen(x: jax.Array) -> jax.Array:
        for axis in reversed(axes):
            x = taps(x, x.ndim - rank + axis, axis, form, 0)
        return x

    def flat(x: jax.Array) -> jax.Array:
        return x.reshape(-1, walk.rows)

    if single:  # Merged with what gives x, a transpose takes up to seven times as long.
        return by_itself(lambda x, step: flat(seen(padded(x, step))), form)(x, step)
    return flat(by_itself(seen, form)(by_itself(padded, form)(x, step)))


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


def whole_vectors(columns: int, again: bool) -> int:
    """How many columns a product of so many gets, with zeros, to fill its vectors or half-vectors.

    To leave the zeros out is a copy, unless the product is read ``again`` anyway. Of many columns,
    which gain less, it costs more than it gains.

    >>> from fnn.kernels.conv.im2col import whole_vectors
    >>> [whole_vectors(columns, True) for columns in (3, 7, 13, 16, 17, 20, 30, 39, 50, 90)]
    [3, 8, 16, 16, 17, 24, 32, 40, 50, 96]
    >>> whole_vectors(13, False), whole_vectors(90, False)
    (16, 90)
    """
    whole = (-(-columns // lanes) * lanes for lanes in (LANES, LANES // 2))
    most = 4 / 3 if columns < 2 * LANES else 1.1 if again else 1
    return next((size for size in whole if size < most * columns), columns)


def _joined(w: jax.Array, groups: int, joined: int) -> jax.Array:
    """``(*window, c, c_out)`` to ``(chunks, *window, joined c, joined c_out/g)``, else zero."""
    window, c, each = w.shape[:-2], w.shape[-2], w.shape[-1] // groups
    w = jnp.moveaxis(w.reshape(-1, c, groups // joined, joined, each), 2, 0)
    same = np.eye(joined, dtype=bool)[:, None, :, None]  # and no factor: infinity times 0 is NaN
    w = jnp.where(same, w[:, :, None], 0)
    return w.reshape(groups // joined, *window, joined * c, joined * each)


def _output(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    total = accumulator(x.dtype)
    walk = _walk(x, w.shape[-1], form, OUTPUT)
    matrices, steps, stretches = _matrices(w, walk), walk.pieces.steps, walk.pieces.stretches
    columns = matrices.shape[-1]
    wide = whole_vectors(columns, walk.folded or walk.chunks * steps > 1)
    matrices = jnp.pad(matrices, ((0, 0), (0, 0), (0, wide - columns)))
    unfolded: Callable[..., jax.Array] = functools.partial(_unfolded, walk=walk)
    if steps > 1 == walk.at_once:  # XLA writes a block on one core, and all that it merges with it
        unfolded = by_itself(lambda y: _unfolded(y, walk).astype(x.dtype), form)

    def of_chunk(chunk: jax.Array) -> jax.Array:
        index = functools.partial(lax.dynamic_index_in_dim, keepdims=False)
        matrix = walk.alone(index)(matrices, chunk)

        def product(patches: jax.Array) -> jax.Array:
            return jnp.dot(patches, matrix, preferred_element_type=total)[:, :columns]

        def block(step: jax.Array) -> jax.Array:
            part = _padded(x, step + chunk * np.uint32(steps), walk)
            patches = _seen(part, walk)
            whole = _apart(product, part, patches, walk)
            y = unfolded(whole) if walk.folded else whole
            y = walk.kept(y, part, matrix, patches, whole)
            return y.astype(x.dtype).reshape(-1, *walk.form.out, w.shape[-1] // walk.chunks)

        return beside(block, steps, 0, x, w, total=len(x) * stretches.parts)

    y = stacked(of_chunk, walk.chunks, x, w, at_once=walk.at_once)
    return stretches.joined(jnp.moveaxis(y, 0, -2).reshape(-1, *walk.form.out, w.shape[-1]))


def _apart(
    product: Callable[[jax.Array], jax.Array], x: jax.Array, patches: jax.Array, walk: _Walk
) -> jax.Array:
    """The product of the patches of x, in which no group's NaN or infinity reaches another group.

    The matrix is zero between joined groups, but zero times NaN is NaN. So if x has such numbers,
    which zeros times it tell, each group takes the product with zeros for the others.
    """
    y, joined = product(patches), walk.joined
    if joined == 1:
        return y
    outputs = y.shape[-1] // (joined * (len(walk.moves) if walk.folded else 1))
    of = np.arange(patches.shape[-1]) // (x.shape[-1] // joined) % joined
    own = np.arange(y.shape[-1]) // outputs % joined

    def apart(patches: jax.Array, y: jax.Array) -> jax.Array:
        for group in range(joined):
            y = jnp.where(own == group, product(jnp.where(of == group, patches, 0)), y)
        return y

    x = x.reshape(-1, x.shape[-1])
    nought = jnp.zeros((1, len(x)), x.dtype) @ x
    whole: jax.Array = lax.cond((nought != 0).any(), apart, lambda patches, y: y, patches, y)
    return whole


def _unfolded(y: jax.Array, walk: _Walk) -> jax.Array:
    """``(n * prod(places), last * o)`` to ``(n, *out, o)``: the sum of what the last taps give."""
    y = y.reshape(-1, *walk.places, len(walk.moves), y.shape[-1] // len(walk.moves))
    out = walk.form.out[-1]
    shares = [_shift(y[..., k, :], up, out) for k, up in enumerate(walk.moves)]
    return functools.reduce(jnp.add, shares)


def _window(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    walk = _walk(x, y.shape[-1], form, WINDOW)

    def of_chunk(chunk: jax.Array) -> jax.Array:
        def block(step: jax.Array) -> jax.Array:
            step += chunk * np.uint32(walk.pieces.steps)
            # Or all of it, of half precision, would be changed before the loop.
            half = y.dtype.itemsize < FULL and walk.chunks * walk.pieces.steps > 1
            read = by_itself(walk.outputs, walk.form) if half else walk.alone(walk.outputs)
            return _block_product(x, read(y, step), step, walk)

        return summed(block, walk.pieces.steps, y, x)

    return _window_of(stacked(of_chunk, walk.chunks, y, x, at_once=walk.at_once), walk)


def _block_product(x: jax.Array, y: jax.Array, step: jax.Array, walk: _Walk) -> jax.Array:
    """``patches^T @ y`` of one block, or its transpose."""
    total = accumulator(x.dtype)
    y = (_moved(y, walk) if walk.folded else y).reshape(walk.rows, -1)
    if walk.copied and not walk.turned:
        return jnp.dot(_transposed_patches(x, step, walk), y, preferred_element_type=total)
    patches = _patches(x, step, walk)
    if walk.copied:
        return jnp.dot(walk.by_itself(jnp.transpose)(y), patches, preferred_element_type=total)
    left, right = (y, patches) if walk.turned else (patches, y)
    across = (((0,), (0,)), ((), ()))
    sums = lax.dot_general(left, right, across, preferred_element_type=total)
    return walk.kept(sums, y, patches)


def _moved(y: jax.Array, walk: _Walk) -> jax.Array:
    """``(n, *out, c_out)`` to ``(n, *places, last, c_out)``: what each last tap multiplies."""

    def moved(y: jax.Array) -> jax.Array:
        bits = as_bits(y)
        stack = jnp.stack([_shift(bits, -up, walk.places[-1]) for up in walk.moves], -2)
        return from_bits(stack, y.dtype)

    return by_itself(moved, walk.form)(y)


def _window_of(sums: jax.Array, walk: _Walk) -> jax.Array:
    """The chunks' products to ``(*window, c, c_out)``: their diagonal blocks of joined groups."""
    size, joined = walk.form.windows.size, walk.joined
    sums = jnp.swapaxes(sums, 1, 2) if walk.turned else sums
    last = size[-1] if walk.folded else 1
    taps = math.prod(size) // last
    channels = sums.shape[1] // (taps * joined)
    split = sums.reshape(walk.chunks, taps, joined, channels, last, joined, -1)
    w = jnp.einsum("atbclbo->tlcabo", split)
    return w.reshape(*size, channels, -1)


_of_narrower = of_narrower(_window, TIMES)


def _of_met(x: jax.Array, y: jax.Array, form: Form) -> jax.Array:
    x, form = met_only(x, form)
    return _of_narrower(x, y, form)


_outputs = by_device(_output, OUTPUT)
_collected = by_device(col2im, INPUT)
_through = through_output(_outputs)


def _input(y: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    return (_collected if applies(form, y, w) else _through)(y, w, form)


IM2COL = Kernel("im2col", _outputs, _input, by_device(_of_met, WINDOW))
