"""How minimal filtering is cut: outputs into tiles, tiles into blocks, channels into parts.

Only so many bytes of points exist at a time: the loop goes over blocks of examples, or over
stretches of their rows where one example has more, or is the only one. With JAX 0.10, XLA computes
a batch of small products on one core, so two blocks with such products are made at once. The points
of a large window are made in parts, if all of the input is one block: with 32 MB or more in all,
every call gets fresh memory.
"""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from jax import lax

from fnn.compiler import kept_until
from fnn.kernels.conv.examples import Examples, cut
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, cores, divisor
from fnn.kernels.conv.loops import AT_ONCE
from fnn.kernels.conv.stretches import Pieces, Stretches, fitting
from fnn.kernels.conv.transforms import transforms
from fnn.kernels.conv.views import by_itself

AXES = 2  # the last ones are filtered minimally; the taps of an axis before them count as channels
BLOCK = {OUTPUT: 12 * 2**20, WINDOW: 16 * 2**20}  # bytes of points; sums over few tiles are slow
SHARE = 3 * 2**20  # bytes of points of each block, where several are made at once
ENOUGH = 2**19  # bytes of points: with so many, a block that divides the examples is not too small
WORTH = 2**20  # bytes of points of all blocks: with fewer, XLA computes nothing at once
NARROW = 256  # channels: products that read fewer are small
ENTRIES = 2**13  # of a window: the products whose sum has at most so many are small
PART, COLUMNS = 10 * 2**20, 128  # the most bytes of a part, and the channels it has in any case
ALL_CORES = 160  # channels of a part, with which XLA computes its products on all cores
# Bytes of a window's points: with more, they are made in parts. By whether those use all cores.
LARGE = {True: 8 * 2**20, False: 24 * 2**20}
# Bytes of a gradient's points: with more, the two gradients are kept from being in memory together.
MANY = 4 * 2**20
TILES = 128  # of the window gradient; with fewer, laying parts side by side costs what it saves


class Filter(NamedTuple):
    """How one form is filtered.

    Attributes:
        cut: how the rows of the form of one group are cut.
        m: outputs of a tile, per minimally filtered axis.
        a, g, bt: the transforms of these axes, all at once.
    """

    cut: Stretches
    m: tuple[int, ...]
    a: np.ndarray
    g: np.ndarray
    bt: np.ndarray

    @property
    def form(self) -> Form:
        """The form of one stretch."""
        return self.cut.form

    @property
    def counts(self) -> tuple[int, ...]:
        """Tiles, per minimally filtered axis."""
        axes = zip(self.form.out[-AXES:], self.m, self.phases, strict=True)
        return tuple(-(-o // (m * d)) for o, m, d in axes)

    @property
    def phases(self) -> tuple[int, ...]:
        """The dilation d of these axes. Every d-th place is of one phase, with its own tiles."""
        return self.form.windows.dilation[-AXES:]

    @property
    def split(self) -> int:
        """The axes of an array that such an axis becomes: places of a phase, and phases if any."""
        return 2 if max(self.phases) > 1 else 1

    @property
    def tiles(self) -> int:
        """Tiles of an example."""
        return math.prod((*self.counts, *self.phases, *self.form.out[:-AXES]))


def filter_of(form: Form, points: int) -> Filter:
    """How a form is filtered with this many points per axis."""
    taps = form.windows.size[-AXES:]
    m = tuple(points - k + 1 for k in taps)
    axes = zip(*(transforms(points, k) for k in taps), strict=True)
    both = (functools.reduce(np.kron, axis) for axis in axes)
    return Filter(Stretches(form, form.out[0]), m, *both)


class Blocks(NamedTuple):
    """How the work is cut.

    Attributes:
        f: the filter of one stretch of rows.
        examples: how they are cut.
        at_once: how many blocks are made at once.
        parts: of the outputs' channels, each made from all inputs; one, if there are more blocks.
    """

    f: Filter
    examples: Examples
    at_once: int
    parts: int

    @property
    def pieces(self) -> Pieces:
        """The blocks."""
        return Pieces(self.examples, self.f.cut)

    def apart(self, y: jax.Array, *arrays: jax.Array) -> jax.Array:
        """What a block gives, apart from the arrays of a block that is made at the same time."""
        return kept_until(y, *arrays) if self.at_once > 1 else y


def blocks(f: Filter, slot: str, c_in: int, c_out: int, x: jax.Array) -> Blocks:
    """Cut the work of a map, so that a block has at most so many bytes of points.

    The rows of an example with more, or of the only one, are cut into stretches, which begin with a
    tile.
    """
    rows, n, tiled = f.form.out[0], len(x), len(f.form.out) <= AXES
    tiles, point = f.tiles, x.dtype.itemsize * len(f.a)
    c_in *= math.prod(f.form.windows.size[:-AXES])
    if parts := _parts(slot, tiles * n, point, c_in, c_out):
        return Blocks(f, Examples(n, n), 1, parts)
    one = point * tiles * (c_in + c_out)
    small = c_in * c_out <= ENTRIES if slot == WINDOW else c_in < NARROW
    several = tiled and small and one * n >= WORTH
    most, at_once = (SHARE, AT_ONCE) if several else (BLOCK[slot], 1)
    examples = cut(n, most // one, -(-ENOUGH // one), at_once)
    alone = n < at_once and cores() > 1 and f.form.platform == "cpu"  # cut in two, for two cores
    if one > most or alone:
        m, count = (f.m[0] * f.phases[0], f.counts[0]) if tiled else (1, rows)
        rows = min(rows, m * fitting(count, one, min(most, -(-one // at_once))))
    pieces = Pieces(examples, Stretches(f.form, rows))
    return Blocks(f._replace(cut=pieces.stretches), examples, min(at_once, pieces.steps), 1)


def has_many(f: Filter, slot: str, c_out: int, x: jax.Array) -> bool:
    """Whether a gradient has many points in memory at a time, more of tiles than of the window.

    A gradient to the input that takes a loop has few; so has one to the window that makes two
    blocks at once.
    """
    c_in, itemsize = x.shape[-1], x.dtype.itemsize
    cut = blocks(f, WINDOW if slot == WINDOW else OUTPUT, c_in, c_out, x)
    large = cut.at_once == 1 if slot == WINDOW else cut.pieces.steps < 2 * cut.at_once
    entries = len(x) * f.tiles * (c_in + c_out)
    return large and entries >= max(c_in * c_out, MANY // (itemsize * len(f.a)))


def _parts(slot: str, tiles: int, point: int, c_in: int, c_out: int) -> int | None:
    """How many parts the points of a large window are made in; None if all are made together."""
    columns = divisor(c_out, max(COLUMNS, PART // (point * c_in)))
    large = point * c_in * c_out > LARGE[columns >= ALL_CORES]
    enough = tiles >= (TILES if slot == WINDOW else 1)
    fits = point * tiles * (c_in + columns) <= BLOCK[OUTPUT]
    return c_out // columns if large and enough and fits else None


def part_of(a: jax.Array, place: jax.Array, parts: int, axis: int, f: Filter) -> jax.Array:
    """Part ``place`` of an axis."""
    size = a.shape[axis] // parts

    def cut(a: jax.Array, place: jax.Array) -> jax.Array:
        part: jax.Array = lax.dynamic_slice_in_dim(a, place * np.uint32(size), size, axis)
        return part

    return by_itself(cut, f.form)(a, place)
