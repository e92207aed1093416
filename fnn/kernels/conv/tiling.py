"""How minimal filtering is cut: outputs into tiles, tiles into blocks, channels into parts.

Only `BLOCK` bytes of points exist at a time: the loop goes over blocks of examples, or over
stretches of their rows where one example has more. The points of a large window are made in parts,
if all of the input is one block: with 32 MB or more in all, every call gets fresh memory.
"""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from jax import lax

from fnn.kernels.conv.form import WINDOW, Form, divisor
from fnn.kernels.conv.stretches import Stretches, fitting
from fnn.kernels.conv.transforms import transforms
from fnn.kernels.conv.views import by_itself

AXES = 2  # the last ones are filtered minimally; the taps of an axis before them count as channels
BLOCK = 12 * 2**20  # bytes of points
LARGE = 24 * 2**20  # bytes of a window's points: with more, they are made in parts
PART, COLUMNS = 10 * 2**20, 128  # the most bytes of a part, and the channels it has in any case
TILES = 128  # of the window gradient; with fewer, to lay parts side by side takes what they save
WHOLE = 16 * 2**20  # that the window gradient leaves whole: its sums over few tiles use one core


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
        steps: blocks.
        parts: of the outputs' channels, each made from all inputs; one, if there are more blocks.
        arrays: ``(n, ...)`` as ``(blocks of examples, examples, ...)``.
    """

    f: Filter
    steps: int
    parts: int
    arrays: list[jax.Array]


def blocks(f: Filter, slot: str, c_in: int, c_out: int, *arrays: jax.Array) -> Blocks:
    """Cut the work of a map so that a block has `BLOCK` bytes of points.

    The rows of an example with more are cut into stretches, which begin with a tile.
    """
    whole, fewest = (WHOLE, TILES) if slot == WINDOW else (BLOCK, 1)
    rows, tiled = f.form.out[0], len(f.form.out) <= AXES
    tiles = math.prod((*f.counts, *f.phases, *f.form.out[:-AXES]))
    c_in *= math.prod(f.form.windows.size[:-AXES])
    each = arrays[0].dtype.itemsize * len(f.a)
    large = each * c_in * c_out > LARGE and tiles * len(arrays[0]) >= fewest
    parts = c_out // divisor(c_out, max(COLUMNS, PART // (each * c_in)))
    if large and each * tiles * len(arrays[0]) * (c_in + c_out // parts) <= BLOCK:
        return Blocks(f, 1, parts, [a[None] for a in arrays])
    one = each * tiles * (c_in + c_out)
    arrays = tuple(a.reshape(-1, divisor(len(a), BLOCK // one), *a.shape[1:]) for a in arrays)
    if one > whole:
        m, count = (f.m[0] * f.phases[0], f.counts[0]) if tiled else (1, rows)
        rows = min(rows, m * fitting(count, one, BLOCK))
    cut = Stretches(f.form, rows)
    return Blocks(f._replace(cut=cut), len(arrays[0]) * cut.parts, 1, list(arrays))


def part_of(a: jax.Array, place: jax.Array, parts: int, axis: int, f: Filter) -> jax.Array:
    """Part ``place`` of an axis."""
    size = a.shape[axis] // parts

    def cut(a: jax.Array, place: jax.Array) -> jax.Array:
        part: jax.Array = lax.dynamic_slice_in_dim(a, place * np.uint32(size), size, axis)
        return part

    return by_itself(cut, f.form)(a, place)
