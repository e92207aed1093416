"""From many channels into few: planes of terms; window gradients that exchange their operands."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.kernels.conv import taps_planes
from fnn.kernels.conv.cells import cell
from fnn.kernels.conv.form import OUTPUT, Form
from fnn.kernels.conv.im2col import IM2COL
from fnn.kernels.conv.taps import TAPS
from fnn.kernels.conv.taps_planes import BUDGET, few_outputs
from fnn.kernels.conv.winograd import BY_ROWS, WINOGRAD4
from fnn.windows import resolve
from tests.check import close
from tests.kernels.conv.test_blocks import agree
from tests.layers.test_conv import normal
from tests.oracles import conv as oracle

CASES: list[tuple[Any, Any, dict[str, Any]]] = [
    ((9,), (3,), {"padding": ((3, 0),)}),
    ((9, 8), (3, 3), {"padding": 1}),
    ((9, 8), (2, 3), {"dilation": (3, 2), "padding": ((1, 4), (0, 0))}),
    ((2, 3), (3, 3), {"padding": ((5, 2), (2, 6))}),  # many places meet nothing
    ((4, 3, 6), (3, 2, 3), {"padding": 1}),
    ((9, 8), (3, 1), {}),
]


@pytest.mark.parametrize("budget", [BUDGET, 2**13, 2**10])
@pytest.mark.parametrize(("sizes", "window", "config"), CASES)
def test_values_and_gradients(
    sizes: Any, window: Any, config: dict[str, Any], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one block, in blocks of examples, in stretches of rows."""
    monkeypatch.setattr(taps_planes, "BUDGET", budget)
    x, w = normal((5, *sizes, 24), (*window, 24, 3))
    y = fnn.conv_taps(x, w, **config)
    (g,) = normal(y.shape, seed=1)
    wide = [t.astype(np.float64) for t in (x, w, g)]
    wants = [oracle.conv(*wide[:2], **config), *oracle.conv_gradients(*wide, **config)]
    for conv in (fnn.conv_taps, fnn.conv_im2col, fnn.conv):
        y, pull = jax.jit(lambda x, w, conv=conv: jax.vjp(partial(conv, **config), x, w))(x, w)
        for got, want in zip([y, *pull(g)], wants, strict=True):
            close(got, want, length=24 * w[..., 0, 0].size)


def form_of(config: dict[str, Any], groups: int = 1) -> Form:
    window, stride = config.get("window", (3, 3)), config.get("stride", 1)
    return Form((12, 12), resolve("", (12, 12), window, stride, "SAME", 1), groups, "cpu")


@pytest.mark.parametrize(
    ("c", "o", "config", "few"),
    [
        (18, 3, {}, True),
        (17, 3, {}, False),
        (10, 1, {"window": (3, 5)}, True),
        (6, 1, {"window": (5, 3)}, True),
        (64, 3, {"window": (1, 1)}, False),
        (64, 3, {"stride": 2}, False),
        (64, 2, {"groups": 2}, False),
    ],
)
def test_outputs_are_few_against_the_patches_that_are_copied(
    c: int, o: int, config: dict[str, Any], few: bool
) -> None:
    form = form_of(config, config.get("groups", 1))
    assert few_outputs(form, c, o) == few
    assert (cell(OUTPUT, form, 2, c, o) == "output few outputs") == few


def test_minimal_filtering_is_faster_into_more_outputs() -> None:
    form = form_of({})
    assert cell(OUTPUT, form, 2, 23 * 6, 23) == "output few outputs"
    assert cell(OUTPUT, form, 2, 24 * 6, 24) == "output plane, small window, few channels"


def test_one_product_gives_the_terms_of_all_taps() -> None:
    x, w = normal((2, 9, 8, 24), (3, 3, 24, 3))
    text = jax.jit(fnn.conv_taps).lower(x, w).as_text()
    assert re.findall(r"dot_general.*-> tensor<(\w+)xf32>", text) == [f"{3 * 3 * 3}x{2 * 9 * 8}"]


@pytest.mark.parametrize("n", [64, 1])
def test_memory_is_bounded(n: int) -> None:
    """The terms of all places would take as much as the input, 13 MB and more."""
    side = 512 if n == 1 else 64
    form = Form((side, side), resolve("", (side, side), (3, 3), 1, "SAME", 1), 1, "cpu")
    shapes = (n, side, side, 18), (3, 3, 18, 3)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    memory = jax.jit(lambda x, w: TAPS.output(x, w, form)).lower(*arrays).compile()
    assert memory.memory_analysis().temp_size_in_bytes < 2.5 * BUDGET


@pytest.mark.parametrize(
    ("c", "o", "n", "window", "factors"),
    [
        (24, 6, 2, (3, 3), {"288x24", "288x54"}),
        (24, 7, 2, (3, 3), {"288x72", "288x21"}),  # of the inputs, without the last axis' taps
        (24, 6, 1, (7, 7), {"144x168", "144x42"}),  # so too where dw is larger than the inputs
        (256, 64, 2, (1, 1), {"64x288", "288x256"}),  # transposed
        (256, 65, 2, (1, 1), {"256x288", "288x65"}),
    ],
)
def test_the_window_gradient_copies_patches_of_the_narrower_array(
    c: int, o: int, n: int, window: tuple[int, int], factors: set[str]
) -> None:
    form = form_of({"window": window})
    arrays = (jax.ShapeDtypeStruct((n, 12, 12, size), jnp.float32) for size in (c, o))
    text = jax.jit(lambda x, y: IM2COL.window(x, y, form)).lower(*arrays).as_text()
    found = re.findall(r"dot_general.*\(tensor<(\w+)xf32>, tensor<(\w+)xf32>\)", text)
    assert [set(pair) for pair in found] == [factors]


@pytest.mark.skipif(
    BY_ROWS, reason="nothing is exchanged: no product transposes the input's points"
)
@pytest.mark.parametrize(("o", "factors"), [(8, ("8", "16")), (9, ("16", "9"))])
def test_minimal_filtering_transposes_the_narrower_array(o: int, factors: tuple[str, str]) -> None:
    """The left factor, of 18 tiles."""
    form = form_of({})
    arrays = (jax.ShapeDtypeStruct((2, 12, 12, size), jnp.float32) for size in (16, o))
    text = jax.jit(lambda x, y: WINOGRAD4.window(x, y, form)).lower(*arrays).as_text()
    assert re.findall(r"\(tensor<36x18x(\d+)xf32>, tensor<36x18x(\d+)xf32>\)", text) == [factors]
    agree(WINOGRAD4, form, 16, 1e-4, c_out=o)
