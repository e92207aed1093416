"""Stretches: the rows of an example that is too large for a block are read a part at a time.

A stretch of outputs needs the inputs that its windows cover, so stretches of inputs overlap. The
blocks of a loop are some examples each, or a stretch of the rows of one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.kernels.conv.examples import Examples, cut
from fnn.kernels.conv.form import Form, divisor


def fitting(rows: int, nbytes: int, budget: int) -> int:
    """How many rows a stretch has, within a budget, of an example that takes so many bytes.

    As many in each as the budget has room for, spread evenly; fewer, down to half of that, if then
    nothing is left over.

    >>> from fnn.kernels.conv.stretches import fitting
    >>> fitting(150, 150, 60), fitting(151, 151, 60)  # 50 + 50 + 50, 51 + 51 + 49
    (50, 51)
    """
    most = max(1, budget * rows // nbytes)
    most = -(-rows // -(-rows // most))
    even = divisor(rows, most)
    return even if 2 * even >= most else most


def examples_and_rows(
    n: int, one: int, rows: int, budget: int, enough: int, whole: int
) -> tuple[Examples, int]:
    """How n examples of ``one`` bytes are cut within a budget, and the rows of outputs in a block.

    A block is of some whole examples, as many as `cut` says, or a stretch of the rows of one that
    takes more than ``whole`` bytes.

    >>> from fnn.kernels.conv.stretches import examples_and_rows
    >>> examples_and_rows(12, 10, 9, 40, 20, 40), examples_and_rows(12, 100, 9, 40, 20, 40)
    ((Examples(n=12, each=4), 9), (Examples(n=12, each=1), 3))
    """
    if one <= whole:
        return cut(n, budget // one, -(-enough // one)), rows
    return Examples(n, 1), fitting(rows, one, budget)


class Stretches(NamedTuple):
    """How the rows of every example are cut.

    Attributes:
        whole: the form that is cut.
        rows: of outputs in a stretch; where they do not divide all, the last one ends with zeros.
    """

    whole: Form
    rows: int

    @property
    def parts(self) -> int:
        """How many stretches an example has."""
        return -(-self.whole.out[0] // self.rows)

    @property
    def form(self) -> Form:
        """The form of one stretch."""
        if self.parts == 1:
            return self.whole
        win = self.whole.windows
        deep = (self.rows - 1) * win.stride[0] + win.span[0]
        win = win._replace(padding=((0, 0), *win.padding[1:]))
        return self.whole._replace(spatial=(deep, *self.whole.spatial[1:]), windows=win)

    def inputs(self, x: jax.Array, place: jax.Array) -> jax.Array:
        """What stretch ``place`` sees of every example of x ``(n, *spatial, c)``."""
        win = self.whole.windows
        step = self.rows * win.stride[0]
        return self._read(x, place, win.padding[0][0], step, self.form.spatial[0])

    def outputs(self, y: jax.Array, place: jax.Array) -> jax.Array:
        """The outputs of stretch ``place`` of every example of y ``(n, *out, c)``."""
        return self._read(y, place, 0, self.rows, self.rows)

    def joined(self, y: jax.Array) -> jax.Array:
        """``(n * parts, rows, ...)``, one stretch after the other, to ``(n, out, ...)``."""
        y = y.reshape(-1, self.parts * self.rows, *y.shape[2:])
        return lax.slice_in_dim(y, 0, self.whole.out[0], axis=1)

    def _read(self, x: jax.Array, place: jax.Array, low: int, step: int, size: int) -> jax.Array:
        if self.parts == 1:
            return x
        edges = [(0, 0, 0)] * x.ndim
        edges[1] = (low, (self.parts - 1) * step + size - low - x.shape[1], 0)
        x = lax.pad(x, jnp.zeros((), x.dtype), edges)
        return lax.dynamic_slice_in_dim(x, place * np.uint32(step), size, 1)


class Pieces(NamedTuple):
    """The blocks of a loop.

    Attributes:
        examples: how they are cut.
        stretches: how the rows of each are cut.
    """

    examples: Examples
    stretches: Stretches

    @property
    def steps(self) -> int:
        """How many blocks there are."""
        return self.examples.blocks * self.stretches.parts

    def inputs(self, x: jax.Array, step: jax.Array) -> jax.Array:
        """What block ``step`` sees of x."""
        block, stretch = self._place(step)
        return self.stretches.inputs(self.examples.of(x, block), stretch)

    def outputs(self, y: jax.Array, step: jax.Array) -> jax.Array:
        """Those of y that belong to block ``step``, to be summed: none comes twice."""
        block, stretch = self._place(step)
        return self.stretches.outputs(self.examples.new(y, block), stretch)

    def _place(self, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        parts = np.uint32(self.stretches.parts)
        return lax.div(step, parts), lax.rem(step, parts)
