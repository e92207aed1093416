"""How im2col is cut: examples and rows into blocks, groups into products; and what is folded.

What the words mean is said in `fnn/kernels/conv/im2col.py`.
"""

import math
from typing import NamedTuple

from fnn.kernels.conv.examples import Examples
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, divisor
from fnn.kernels.conv.stretches import examples_and_rows

BUDGET = 8 * 2**20  # bytes; between the second-level cache of a core and the third-level's share
ENOUGH = 2 * 2**20  # bytes; a block that divides the examples, or eight groups, may be so small
LANES = 16
TOGETHER = 8  # products of groups; of fewer, XLA computes all on one core
ROOM = 12 * 2**20  # bytes that they read; with more it is faster to form one after the other
FOLDED = 64  # taps at most; each is an operation of the program
FULL = 4  # bytes of a number of float32; half precision has less
WIDE = 64  # columns, with which products of half precision are fast
FRESH = 32 * 2**20  # bytes; an array of so many gets fresh memory at every call


class Blocks(NamedTuple):
    """How one convolution is cut.

    Attributes:
        examples: how they are cut.
        rows: of output in a block.
        joined: groups in one product.
        folded: whether the last axis' taps are columns of the product, not patches.
        at_once: products in one turn of the loop over groups, where there are several cores.
    """

    examples: Examples
    rows: int
    joined: int
    folded: bool
    at_once: int = 1


def blocks(n: int, c_in: int, c_out: int, form: Form, itemsize: int, slot: str) -> Blocks:
    """Cut so that what a block reads more than once stays within `BUDGET`."""
    win, last, taps = form.windows, form.windows.size[-1], math.prod(form.windows.size)
    joined = divisor(form.groups, -(-LANES * form.groups // max(c_in, c_out)))
    inputs, outputs = (c // form.groups * joined for c in (c_in, c_out))
    plain, folded = taps * inputs + outputs, taps // last * inputs + last * outputs  # columns
    columns = plain if slot == WINDOW else taps * inputs
    product = FULL * outputs  # bytes of a row
    if taps > 1:
        cuts = _fit(n, itemsize * columns, form, False)
    elif slot == OUTPUT and itemsize < FULL and n * math.prod(form.out) * product >= FRESH:
        cuts = _fit(n, product, form, False)
    else:  # patches of one tap are no larger than the input
        cuts = Examples(n, n), form.out[0]
    size = Blocks(*cuts, joined, False)
    most = _most_folded(slot, form, n, inputs, outputs, itemsize)
    if win.stride[-1] == 1 < last <= FOLDED and folded <= most * plain:
        other = Blocks(*_fit(n, itemsize * folded, form, True), joined, True)
        # On one axis only, short stretches would compute what lies between them repeatedly.
        if len(win.size) > 1 or other.rows == form.out[0] or other.rows >= 4 * win.span[0]:
            size, columns = other, folded
    nbytes = TOGETHER * n * math.prod(places(form, size.folded)) * columns * itemsize
    several = form.groups >= 2 * TOGETHER * joined and ENOUGH <= nbytes <= ROOM
    return size._replace(at_once=TOGETHER) if several else size


def _most_folded(slot: str, form: Form, n: int, inputs: int, outputs: int, itemsize: int) -> float:
    """The most columns that both factors may have when folded, over those that they have plain."""
    if slot == OUTPUT:
        return 0.0 if itemsize < FULL and outputs >= max(inputs, WIDE) else 1.0
    entries = math.prod(form.windows.size) * inputs * outputs  # of dw
    small = entries <= n * math.prod(form.out) * (inputs + outputs)
    wide = form.groups > 1 or (len(form.out) > 1 and outputs >= LANES)
    return 1.0 if small and wide else 0.5  # measured


def _fit(n: int, width: int, form: Form, folded: bool) -> tuple[Examples, int]:
    """Examples and rows in a block; its products have rows of ``width`` bytes."""
    rows, *inner = places(form, folded)
    one = width * rows * math.prod(inner)
    return examples_and_rows(n, one, form.out[0], BUDGET, ENOUGH, BUDGET)


def places(form: Form, folded: bool) -> tuple[int, ...]:
    """Where one example has patches: where the window stops, but all along a folded axis."""
    return (*form.out[:-1], form.spatial[-1]) if folded else form.out
