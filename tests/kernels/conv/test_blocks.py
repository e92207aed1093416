"""Kernels that go block by block: bounded memory, and the same numbers however they are cut."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.kernels.conv import examples, fft, im2col, im2col_blocks, taps, taps_window, tiling
from fnn.kernels.conv.examples import BLOCK, Examples
from fnn.kernels.conv.fft import FFT
from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form, Kernel, apply
from fnn.kernels.conv.im2col import IM2COL
from fnn.kernels.conv.im2col_blocks import BUDGET, TOGETHER, blocks
from fnn.kernels.conv.library import LIBRARY
from fnn.kernels.conv.taps import TAPS, WHOLE
from fnn.kernels.conv.tiling import SHARE
from fnn.kernels.conv.winograd import WINOGRAD2, WINOGRAD4
from fnn.windows import resolve


def agree(
    kernel: Kernel, form: Form, c: int, tolerance: float, n: int = 2, c_out: int | None = None
) -> None:
    """The three maps of n examples with c channels, to as many unless said, equal the library's."""
    rng, o = np.random.default_rng(0), c if c_out is None else c_out
    shapes = (n, *form.spatial, c), (*form.windows.size, c // form.groups, o), (n, *form.out, o)
    x, w, y = (rng.standard_normal(s).astype(np.float32) for s in shapes)

    @jax.jit
    def maps(x: Any, w: Any, y: Any) -> Any:
        slots = ((OUTPUT, x, w), (WINDOW, x, y), (INPUT, y, w))
        return [[getattr(k, slot)(a, b, form) for k in (kernel, LIBRARY)] for slot, a, b in slots]

    for got, want in maps(x, w, y):
        largest = float(np.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize(("n", "size"), [(64, 32), (1, 300)])
def test_im2col_memory_is_bounded(n: int, size: int) -> None:
    """Blocks of examples, or of rows of one: the patches of all would take 9 times the input."""
    c = 16
    form = Form((size, size), resolve("test", (size, size), (3, 3), 1, "SAME"), 1)

    def window_gradient(x: jax.Array, y: jax.Array) -> jax.Array:
        return apply(x, y, slot=WINDOW, form=form, kernel=IM2COL)

    cut = blocks(n, c, c, form, 4, OUTPUT)
    assert cut.folded
    assert 6 * c * 4 * cut.examples.each * cut.rows * size <= BUDGET
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, size, size, c), (3, 3, c, c)))
    for fn, arguments in ((fnn.conv_im2col, (x, w)), (window_gradient, (x, x))):
        memory = jax.jit(fn).lower(*arguments).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 2 * BUDGET < 9 * 4 * x.size


# Spatial sizes, window, stride, dilation, groups; the budget that cuts them.
CUT: dict[str, tuple[Any, ...]] = {
    "a folded line": ((96,), (3,), 1, 2, 1, 2**12),
    "a line of strides": ((41,), (5,), 3, 1, 2, 2**11),
    "a folded plane": ((12, 7), (3, 3), 1, 1, 1, 2**12),
    "a strided plane": ((13, 6), (3, 2), 2, 1, 2, 2**11),  # 3, 3 and 1 rows
    "a folded volume": ((6, 5, 4), (2, 3, 3), (2, 1, 1), (1, 2, 1), 1, 2**11),
}


@pytest.mark.parametrize("case", CUT)
def test_cut_rows_give_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows cut into stretches, that divide them all or do not, in all three maps."""
    spatial, window, stride, dilation, groups, budget = CUT[case]
    monkeypatch.setattr(im2col_blocks, "BUDGET", budget)
    form = Form(spatial, resolve("test", spatial, window, stride, "SAME", dilation), groups, "cpu")
    output, gradient = (blocks(2, 8, 8, form, 4, slot) for slot in (OUTPUT, WINDOW))
    assert output.rows < form.out[0] > gradient.rows
    assert output.folded == ("folded" in case)
    agree(IM2COL, form, 8, 1e-5)


@pytest.mark.parametrize(
    ("slot", "n", "c_in", "c_out", "groups", "folded"),
    [
        (OUTPUT, 2, 16, 16, 1, True),
        (WINDOW, 2, 16, 16, 1, True),
        (WINDOW, 1, 16, 16, 1, False),  # more entries than x and y: to put taps in order costs more
        (WINDOW, 2, 12, 12, 1, False),  # fewer outputs than a vector has
        (WINDOW, 2, 48, 48, 4, True),  # but so in groups
        (WINDOW, 2, 40, 10, 1, True),  # half as many columns
    ],
)
def test_what_is_folded(
    slot: str, n: int, c_in: int, c_out: int, groups: int, folded: bool
) -> None:
    form = Form((8, 8), resolve("test", (8, 8), (3, 3), 1, "SAME"), groups, "cpu")
    assert blocks(n, c_in, c_out, form, 4, slot).folded == folded
    agree(IM2COL, form, c_in, 1e-5, n=n, c_out=c_out)


@pytest.mark.parametrize(
    ("c_in", "c_out", "folded"), [(64, 63, True), (64, 64, False), (65, 64, True), (64, 65, False)]
)
def test_half_precision_is_folded_into_few_outputs(c_in: int, c_out: int, folded: bool) -> None:
    """What a product gives is of float32, and so twice as large as what it reads."""
    form = Form((8, 8), resolve("test", (8, 8), (3, 3), 1, "SAME"), 1, "cpu")
    assert blocks(2, c_in, c_out, form, 2, OUTPUT).folded == folded
    assert blocks(2, c_in, c_out, form, 4, OUTPUT).folded


@pytest.mark.parametrize(("n", "itemsize", "cut"), [(64, 2, True), (63, 2, False), (64, 4, False)])
def test_large_products_of_half_precision_are_cut(n: int, itemsize: int, cut: bool) -> None:
    """Of one tap, which copies nothing: in float32, what it gives takes 32 MB."""
    form = Form((32, 32), resolve("test", (32, 32), (1, 1), 1, "SAME"), 1, "cpu")
    assert (blocks(n, 16, 128, form, itemsize, OUTPUT).examples.blocks > 1) == cut


@pytest.mark.parametrize("budget", [BUDGET, 2**13])
@pytest.mark.parametrize(
    ("spatial", "window", "stride", "dilation"),
    [((41,), (5,), 3, 1), ((23, 12), (3, 3), 2, 2), ((9, 6, 5), (2, 3, 3), (1, 2, 2), 1)],
)
def test_a_stride_over_many_channels_gives_the_same(
    spatial: Any, window: Any, stride: Any, dilation: int, budget: int, monkeypatch: Any
) -> None:
    """The window gradient then transposes the cotangent, of all rows or of a stretch of them."""
    monkeypatch.setattr(im2col_blocks, "BUDGET", budget)
    form = Form(spatial, resolve("test", spatial, window, stride, "SAME", dilation), 1, "cpu")
    assert (blocks(2, 64, 64, form, 4, WINDOW).rows < form.out[0]) == (budget < BUDGET)
    agree(IM2COL, form, 64, 1e-5)


@pytest.mark.parametrize(
    ("stride", "groups", "c", "product"),
    [
        (2, 1, 13, "24x16"),
        (1, 1, 13, "84x40"),
        (2, 3, 45, "24x16"),
        (2, 1, 45, "24x45"),
        (2, 3, 3 * 45, "24x48"),
    ],
)
def test_the_output_is_a_product_of_whole_vectors(
    stride: int, groups: int, c: int, product: str
) -> None:
    """Of 13, 15 or folded 39 columns, and some of zeros, which the output leaves out.

    Of 45 columns only if that needs no copy of its own, as where groups are joined in a loop.
    """
    form = Form((6, 7), resolve("test", (6, 7), (3, 3), stride, "SAME", 1), groups, "cpu")
    shapes = (2, 6, 7, c), (3, 3, c // groups, c)
    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    program = jax.jit(lambda x, w: IM2COL.output(x, w, form)).lower(*arrays).as_text()
    assert f"-> tensor<{product}xf32>" in program
    agree(IM2COL, form, c, 1e-5)


@pytest.mark.parametrize(("c_out", "joined"), [(16, 16), (32, 8), (256, 1)])
def test_groups_are_joined_until_inputs_or_outputs_fill_a_vector(c_out: int, joined: int) -> None:
    form = Form((6, 7), resolve("test", (6, 7), (3, 3), 1, "SAME", 1), 16, "cpu")
    for slot in (OUTPUT, WINDOW):
        assert blocks(2, 16, c_out, form, 4, slot).joined == joined
    agree(IM2COL, form, 16, 1e-5, c_out=c_out)


@pytest.mark.parametrize(
    ("each", "outputs", "size", "stride"),
    [(16, 16, (3, 3), 1), (8, 8, (3, 3), 1), (16, 8, (2, 3), 2), (16, 24, (1, 1), 1)],
)
def test_products_of_several_groups_at_once_give_the_same(
    each: int, outputs: int, size: tuple[int, ...], stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 17 groups, or of 17 times two that share a product: one goes before the others."""
    monkeypatch.setattr(im2col_blocks, "ENOUGH", 0)
    monkeypatch.setattr(im2col, "cores", lambda: 2)
    groups = 17 * (16 // max(each, outputs) or 1)
    form = Form((6, 7), resolve("test", (6, 7), size, stride, "SAME", 1), groups, "cpu")
    for slot in (OUTPUT, WINDOW):
        cut = blocks(2, groups * each, groups * outputs, form, 4, slot)
        assert (groups // cut.joined, cut.at_once) == (17, TOGETHER)
    agree(IM2COL, form, groups * each, 1e-5, c_out=groups * outputs)


@pytest.mark.parametrize(
    ("n", "groups", "at_once"),
    [(8, 16, TOGETHER), (8, 15, 1), (1, 16, 1), (32, 16, 1)],
    ids=["together", "few groups", "small products", "large products"],
)
def test_groups_are_taken_together_where_it_pays(n: int, groups: int, at_once: int) -> None:
    form = Form((14, 14), resolve("test", (14, 14), (3, 3), 1, "SAME", 1), groups, "cpu")
    for slot in (OUTPUT, WINDOW):
        assert blocks(n, 16 * groups, 16 * groups, form, 4, slot).at_once == at_once


@pytest.mark.parametrize("worth", [0, 2**30], ids=["two at once", "one by one"])
@pytest.mark.parametrize("kernel", [WINOGRAD2, WINOGRAD4])
@pytest.mark.parametrize(
    ("spatial", "size", "dilation"),
    [
        ((9,), (3,), 1),
        ((6, 7), (2, 3), 1),
        ((5, 5, 6), (4, 3, 1), 1),
        ((15, 9), (2, 3), (3, 2)),
        ((6, 5, 6), (3, 3, 1), 2),
        ((3, 6, 7), (1, 3, 2), (2, 1, 1)),
    ],
)
def test_winograd_in_blocks_gives_the_same(
    kernel: Kernel,
    worth: int,
    spatial: tuple[int, ...],
    size: tuple[int, ...],
    dilation: int | tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One row of tiles of an example in a block; several groups, too."""
    for name, value in {"BLOCK": {OUTPUT: 1, WINDOW: 1}, "SHARE": 1, "WORTH": worth}.items():
        monkeypatch.setattr(tiling, name, value)
    for groups in (1, 2):
        windows = resolve("test", spatial, size, 1, "SAME", dilation)
        form = Form(spatial, windows, groups, "cpu")
        loops = jax.make_jaxpr(lambda x, w, form=form: kernel.output(x, w, form))
        shapes = (2, *spatial, 4), (*size, 4 // groups, 4)
        program = str(loops(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))
        assert program.count("scan[") == (1 if groups == 1 else 2)  # one goes over the groups
        agree(kernel, form, 4, 1e-5)


@pytest.mark.parametrize(
    ("n", "side", "c", "slot", "steps", "at_once"),
    [
        (2, 28, 64, OUTPUT, 2, 2),  # both would fit one block
        (6, 56, 64, WINDOW, 12, 2),  # two stretches of each
        (1, 56, 32, OUTPUT, 2, 2),  # two stretches of the only one
        (1, 28, 64, OUTPUT, 1, 1),  # too little to do
        (2, 8, 64, OUTPUT, 1, 1),
        (4, 28, 128, WINDOW, 1, 1),  # large products use all cores
        (4, 28, 256, OUTPUT, 2, 1),
    ],
)
def test_two_blocks_of_small_products_are_made_at_once(
    n: int, side: int, c: int, slot: str, steps: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An even number of blocks where there can be; large products are made one by one."""
    monkeypatch.setattr(tiling, "cores", lambda: 2)
    form = Form((side, side), resolve("test", (side, side), (3, 3), 1, "SAME", 1), 1, "cpu")
    cut = tiling.blocks(tiling.filter_of(form, 6), slot, c, c, jnp.zeros((n, side, side, c)))
    assert (cut.pieces.steps, cut.at_once) == (steps, at_once)


def test_winograd_takes_slices_as_examples() -> None:
    """If the window has one slice and nothing is padded there: it then is a plane's."""
    x, w = jnp.zeros((2, 3, 6, 7, 4)), jnp.zeros((1, 3, 3, 4, 4))
    for ends, planes in ((0, True), (1, False)):
        padding = ((ends, ends), (1, 1), (1, 1))
        lowered = jax.jit(lambda x, w, p=padding: fnn.conv_winograd(x, w, padding=p)).lower(x, w)
        program = lowered.as_text()
        assert ("tensor<6x6x7x4xf32>" in program) == planes


@pytest.mark.parametrize("spatial", [(9,), (6, 7), (4, 5, 6)])
def test_winograd_with_a_window_in_parts_gives_the_same(
    spatial: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three parts of the outputs, of one group and of two."""
    for name, value in {"LARGE": {True: 0, False: 0}, "PART": 1, "COLUMNS": 2, "TILES": 0}.items():
        monkeypatch.setattr(tiling, name, value)
    size = (3,) * len(spatial)
    for groups in (1, 2):
        form = Form(spatial, resolve("test", spatial, size, 1, "SAME", 1), groups, "cpu")
        loops = jax.make_jaxpr(lambda x, w, form=form: WINOGRAD4.output(x, w, form))
        c = 6 * groups
        shapes = (2, *spatial, c), (*size, 6, c)
        program = str(loops(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))
        assert program.count("scan[") == (1 if groups == 1 else 2)  # one goes over the groups
        agree(WINOGRAD4, form, c, 1e-5)


@pytest.mark.parametrize(("side", "slots"), [(4, (OUTPUT, INPUT)), (8, (OUTPUT, INPUT, WINDOW))])
def test_winograd_memory_of_many_channels_is_bounded(side: int, slots: tuple[str, ...]) -> None:
    """The points of a window alone, of 512 channels, would take 38 MB."""
    form = Form((side, side), resolve("test", (side, side), (3, 3), 1, "SAME", 1), 1)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((32, side, side, 512), (3, 3, 512, 512)))
    for slot in slots:
        fn = jax.jit(functools.partial(apply, slot=slot, form=form, kernel=WINOGRAD4))
        memory = fn.lower(x, x if slot == WINDOW else w).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 24e6 < 4 * 36 * 512 * 512


@pytest.mark.parametrize("dilation", [1, 4])
def test_winograd_memory_is_bounded(dilation: int) -> None:
    """Of 64 examples the points, of input and output, would take 4.5 times the input."""
    form = Form((32, 32), resolve("test", (32, 32), (3, 3), 1, "SAME", dilation), 1)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((64, 32, 32, 64), (3, 3, 64, 64)))
    for slot, b in ((OUTPUT, w), (WINDOW, x)):
        fn = jax.jit(lambda x, b, slot=slot: apply(x, b, slot=slot, form=form, kernel=WINOGRAD4))
        memory = fn.lower(x, b).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 5 * SHARE < 4.5 * 4 * x.size


def test_winograd_memory_of_groups_is_that_of_one() -> None:
    """And a copy of its channels, and its result: the points of all would take 14 MB."""
    form = Form((28, 28), resolve("test", (28, 28), (3, 3), 1, "SAME", 1), 8)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 28, 28, 256), (3, 3, 32, 256)))
    for slot, b in ((OUTPUT, w), (INPUT, w), (WINDOW, x)):
        fn = jax.jit(functools.partial(apply, slot=slot, form=form, kernel=WINOGRAD4))
        memory = fn.lower(x, b).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 4e6 < 4 * 36 * 49 * 4 * 2 * 256


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_spectra_in_blocks_give_the_same(
    groups: int, stride: int, dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seven examples, three at a time: the last block begins early."""
    form = Form((6, 5), resolve("test", (6, 5), (3, 4), stride, "SAME", dilation), groups, "cpu")
    places = math.prod(fft._lengths(form))
    monkeypatch.setattr(fft, "WHOLE", 0)
    monkeypatch.setattr(examples, "BLOCK", 3 * 4 * 8 * places)
    x = jax.ShapeDtypeStruct((7, 6, 5, 4), jnp.float32)
    assert fft._examples(x, 4, form) == Examples(7, 3)
    agree(FFT, form, 4, 1e-5, n=7)


def test_memory_of_spectra_is_bounded() -> None:
    """Those of all examples, of input and output, would take 33 MB."""
    form = Form((56, 56), resolve("test", (56, 56), (31, 31), 1, "SAME", 1), 32, "cpu")
    x = jax.ShapeDtypeStruct((16, 56, 56, 32), jnp.float32)
    w = jax.ShapeDtypeStruct((31, 31, 1, 32), jnp.float32)
    for slot, b in ((OUTPUT, w), (INPUT, w), (WINDOW, x)):
        fn = jax.jit(functools.partial(apply, slot=slot, form=form, kernel=FFT))
        memory = fn.lower(x, b).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 5 * BLOCK < 4 * 90 * 90 * 16 * 32


@pytest.mark.parametrize(
    ("whole", "block", "budget", "places"),
    [
        (WHOLE, BLOCK, taps_window.BUDGET, taps_window.PLACES),
        ({True: 0, False: 0}, 1, 1, {True: 2, False: 2}),
    ],
)
@pytest.mark.parametrize(
    ("spatial", "window", "stride", "dilation", "groups", "c"),
    [
        ((6, 5), (3, 3), 1, 2, 2, 8),
        ((7, 5), (2, 3), (2, 1), 1, 3, 6),
        ((9,), (4,), 3, 1, 2, 16),
        ((3, 4, 3), (2, 1, 3), 1, 1, 2, 6),
        ((3, 4, 5), (2, 1, 3), (1, 1, 2), 1, 2, 8),
        ((9, 10), (9, 8), 1, 1, 2, 8),  # a loop over the taps of the first axis
        ((9, 10), (9, 8), 1, 1, 2, 4),
        ((5, 12), (3, 2), 1, (1, 2), 4, 4),  # depthwise
        ((4, 19), (2, 3), (1, 2), 1, 4, 4),
        ((26,), (3,), 2, 1, 4, 4),
        ((3, 2, 9), (2, 1, 3), 1, 1, 4, 4),
        ((9, 10), (9, 8), (2, 1), 1, 4, 4),
    ],
)
def test_groups_of_few_channels_give_the_same(
    spatial: tuple[int, ...],
    window: tuple[int, ...],
    stride: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
    c: int,
    whole: dict[bool, int],
    block: int,
    budget: int,
    places: dict[bool, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All examples together; one at a time, by single rows and few places; in all three maps."""
    monkeypatch.setattr(taps, "WHOLE", whole)
    monkeypatch.setattr(examples, "BLOCK", block)
    monkeypatch.setattr(taps_window, "BUDGET", budget)
    monkeypatch.setattr(taps_window, "PLACES", places)
    form = Form(spatial, resolve("test", spatial, window, stride, "SAME", dilation), groups, "cpu")
    agree(TAPS, form, c, 1e-5)


def test_blocks_of_several_examples_of_few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window gradient of six examples, two at a time."""
    form = Form((6, 5), resolve("test", (6, 5), (3, 3), 1, "SAME"), 2, "cpu")
    monkeypatch.setattr(taps_window, "BUDGET", 4 * 2 * (3 * 30 * 8 + 3 * 6 * 8 * 4))
    x = jax.ShapeDtypeStruct((6, 6, 5, 8), jnp.float32)
    assert taps_window._cut(x, x, form) == (2, 6)
    agree(TAPS, form, 8, 1e-5, n=6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 7])
def test_memory_of_a_large_depthwise_layer_is_bounded(size: int, stride: int) -> None:
    """A block of examples is padded, or none, where the taps of a small window need no padding."""
    shapes = (32, 28, 28, 192), (size, size, 1, 192)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    conv = functools.partial(fnn.conv_taps, stride=stride, groups=192)
    y = jax.eval_shape(conv, x, w)

    def gradient(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: conv(x, w), x)[1](y)[0]

    for program in (jax.jit(conv).lower(x, w), jax.jit(gradient).lower(x, w, y)):
        temporary = program.compile().memory_analysis().temp_size_in_bytes
        assert temporary <= 4 * BLOCK < 4 * x.size


@pytest.mark.parametrize(("n", "size"), [(32, 28), (2, 112)])
def test_memory_of_many_groups_is_bounded(n: int, size: int) -> None:
    """A block of examples is padded and has its groups apart, not all of them.

    The window gradient's blocks hold what its places add up to as well, and rows of one example.
    """
    shapes = (n, size, size, 256), (3, 3, 8, 256)
    x, w = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
    conv = functools.partial(fnn.conv_taps, groups=32)

    def gradient(x: jax.Array, w: jax.Array, y: jax.Array) -> jax.Array:
        return jax.vjp(functools.partial(conv, x), w)[1](y)[0]

    memory = jax.jit(gradient).lower(x, w, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes <= 1.5 * taps_window.BUDGET < 3 * x.size
    if n > 2:
        memory = jax.jit(conv).lower(x, w).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= 3 * BLOCK < 4 * x.size


def test_a_single_tap_with_a_stride_into_many_columns() -> None:
    """The patches of its window gradient are transposed after they were copied."""
    agree(IM2COL, Form((6, 7), resolve("", (6, 7), (1, 1), 2, "SAME"), 1), 64, 2e-6, c_out=256)


def test_a_long_filter_is_not_one_operation_per_tap() -> None:
    """As it would be with its last axis folded."""
    x, w = jnp.zeros((1, 4000, 1)), jnp.zeros((512, 1, 1))
    for fn in (fnn.conv_im2col, lambda x, w: jax.vjp(fnn.conv_im2col, x, w)[1](x)[1]):
        assert jax.jit(fn).lower(x, w).as_text().count("stablehlo.pad") < 10
