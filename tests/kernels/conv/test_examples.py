"""Blocks of examples that need not divide them: nothing is left out, and nothing counts twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.kernels.conv import col2im, im2col_blocks, stretches, tiling
from fnn.kernels.conv.examples import Examples, cut
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, Kernel
from fnn.kernels.conv.im2col import IM2COL
from fnn.kernels.conv.loops import beside, summed
from fnn.kernels.conv.winograd import WINOGRAD2, WINOGRAD4
from fnn.windows import resolve
from tests.kernels.conv.test_blocks import agree


@pytest.mark.parametrize(
    ("n", "most", "enough", "at_once", "each"),
    [
        (12, 8, 8, 1, 6),
        (13, 8, 8, 1, 7),
        (15, 9, 9, 1, 5),
        (15, 14, 14, 1, 8),
        (13, 8, 1, 1, 1),
        (15, 14, 4, 1, 5),
        (15, 14, 6, 1, 8),
        (3, 8, 4, 1, 3),
        (13, 0, 1, 1, 1),
        (12, 5, 5, 1, 4),
        (12, 5, 5, 2, 3),
        (14, 5, 5, 2, 4),
        (53, 25, 25, 2, 14),
        (5, 8, 2, 2, 3),
        (3, 8, 1, 2, 1),
    ],
)
def test_blocks_divide_the_examples_unless_they_are_small(
    n: int, most: int, enough: int, at_once: int, each: int
) -> None:
    assert cut(n, most, enough, at_once) == Examples(n, each)


@pytest.mark.parametrize(("n", "each"), [(6, 6), (6, 3), (7, 4), (7, 3), (5, 4)])
def test_every_example_is_taken_once(n: int, each: int) -> None:
    """Those of the last block that the one before it has had are zeros, even if they are NaN."""
    examples = Examples(n, each)
    x = jnp.arange(2.0 * n).reshape(n, 2) + 1

    @jax.jit
    def taken(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        put = beside(lambda block: examples.of(x, block), examples.blocks, 0, x, total=n)
        new = lambda block: examples.new(x, block).sum(0)
        return put, summed(new, examples.blocks, x)

    put, total = taken(x)
    np.testing.assert_array_equal(put, x)
    np.testing.assert_array_equal(total, x.sum(0))
    again = each * examples.blocks - n
    last = examples.new(jnp.full((n, 2), jnp.nan), jnp.uint32(examples.blocks - 1))
    np.testing.assert_array_equal(jnp.isnan(last).sum(0), each - again)


@pytest.mark.parametrize(
    ("kernel", "spatial", "stride", "groups"),
    [
        (IM2COL, (6, 7), 1, 1),
        (IM2COL, (9,), 1, 2),
        (IM2COL, (7, 6), 2, 1),
        (IM2COL, (7, 6), 2, 3),
        (WINOGRAD2, (6, 7), 1, 1),
        (WINOGRAD4, (6, 7), 1, 1),
        (WINOGRAD4, (9,), 1, 2),
    ],
)
def test_a_last_block_that_begins_early_gives_the_same(
    kernel: Kernel,
    spatial: tuple[int, ...],
    stride: int,
    groups: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven examples in two blocks of four, in all three maps."""
    for module in (stretches, tiling, col2im):
        monkeypatch.setattr(module, "cut", lambda n, *limits: Examples(n, 4))
    size = (3,) * len(spatial)
    form = Form(spatial, resolve("test", spatial, size, stride, "SAME", 1), groups, "cpu")
    agree(kernel, form, 4 * groups, 1e-5, n=7)


def test_a_prime_number_of_examples_is_a_few_blocks() -> None:
    """Not one for each: its products would be small."""
    plane = (40, 40)
    form = Form(plane, resolve("test", plane, (3, 3), 1, "SAME", 1), 1, "cpu")
    for slot in (OUTPUT, WINDOW):
        assert 2 <= im2col_blocks.blocks(23, 20, 20, form, 4, slot).examples.blocks <= 4
    small = Form((12, 12), resolve("test", (12, 12), (3, 3), 1, "SAME", 1), 1, "cpu")
    for slot in (OUTPUT, WINDOW):
        found = tiling.blocks(tiling.filter_of(small, 6), slot, 48, 48, jnp.zeros((53, 12, 12, 48)))
        assert (found.examples.each, found.at_once) == (14, 2)
    strided = Form((12, 12), resolve("test", (12, 12), (3, 3), 2, "SAME", 1), 1, "cpu")
    y, w = jnp.zeros((53, 6, 6, 64)), jnp.zeros((3, 3, 64, 64))
    assert col2im.blocks(y, w, strided)[0] == Examples(53, 27)
