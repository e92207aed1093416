"""The sweep behind the rule of `fnn.conv`: every kernel on layers drawn at random.

The rule chooses for two maps, the output and the gradient to the window. Both are timed alone on
the layers of `drawn`; `benchmarks.derive` turns the results into the rule. It uses every second
layer of a kind and judges the rule by the others, which are kept from it.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from benchmarks import conv
from benchmarks.programs import contestants
from benchmarks.session import Job, Session
from benchmarks.shapes import Layer
from benchmarks.timing import Budget, Row, race
from fnn.kernels.conv.axes import merged, shaped
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, apply, trimmed
from fnn.kernels.conv.rule import KERNELS
from fnn.kernels.conv.tuning import hopeless
from fnn.windows import resolve

SEEDS = (19, 20)  # each draws a whole set of layers
WORK = (1e7, 6e8)  # multiplications of one map: enough for a clock, few enough for many layers
ELEMENTS = 1e7  # of input and output together, at most
Range = tuple[int, int]


class Kind(NamedTuple):
    """A kind of layer: every number lies between two bounds, evenly on a logarithmic scale.

    Attributes:
        name: of the kind.
        windows: sizes of the window, one of which is drawn for each layer; what stands twice is
            drawn twice as often.
        inputs, outputs: channels of one group.
        n, side: examples, and the sizes of the input.
        stride, dilation, groups: as in `fnn.conv`.
        layers: how many are drawn.
    """

    name: str
    windows: tuple[tuple[int, ...], ...]
    inputs: Range
    outputs: Range
    n: Range = (1, 32)
    side: Range = (7, 80)
    stride: Range = (1, 1)
    dilation: Range = (1, 1)
    groups: Range = (1, 1)
    layers: int = 4


ANY, ONE = (16, 512), (1, 1)
KINDS = [
    Kind("3x3", ((3, 3),), ANY, ANY, layers=8),
    Kind("1x1", ((1, 1),), ANY, ANY, layers=6),
    Kind("5x5", ((5, 5),), (16, 128), (16, 128)),
    Kind("5x5 into few", ((5, 5),), (16, 128), (2, 16)),
    Kind("large window", ((7, 7), (9, 9), (11, 11)), (4, 64), (4, 64)),
    Kind("large plane", ((3, 3), (5, 5)), (3, 64), (8, 64), (1, 2), (100, 256), layers=6),
    Kind("16 to 48 channels", ((3, 3),), (16, 48), (16, 48), layers=6),
    Kind("narrow to wide", ((3, 3), (5, 5)), (5, 24), (96, 512)),
    Kind("wide to narrow", ((3, 3), (5, 5)), (96, 512), (5, 24)),
    Kind("deep", ((3, 3), (4, 4), (5, 5)), (192, 512), (192, 512), (1, 16), (4, 16), layers=6),
    Kind("one channel", ((3, 3), (5, 5)), ONE, (8, 64)),
    Kind("colours", ((3, 3), (5, 5), (7, 7)), (2, 4), (16, 96), side=(16, 224)),
    Kind("to colours", ((3, 3), (5, 5), (9, 9)), (16, 96), (1, 4), side=(16, 128)),
    Kind("strided 3x3", ((3, 3),), (16, 256), (16, 256), stride=(2, 2), layers=6),
    Kind("strided 5, 7", ((5, 5), (7, 7)), (8, 128), (8, 128), stride=(2, 3)),
    Kind("strided colours", ((3, 3), (5, 5), (7, 7), (11, 11)), (1, 4), (16, 96), (1, 16),
         (32, 256), (2, 4)),
    Kind("strided 1x1", ((1, 1),), (64, 512), (64, 512), stride=(2, 2)),
    Kind("patches", ((2, 2), (4, 4), (8, 8)), (3, 96), (48, 384), side=(16, 224), stride=(4, 8)),
    Kind("dilated", ((3, 3),), (16, 256), (16, 256), dilation=(2, 4)),
    Kind("depthwise 3x3", ((3, 3),), ONE, ONE, stride=(1, 2), groups=(32, 768), layers=6),
    Kind("depthwise 5, 7", ((5, 5), (7, 7)), ONE, ONE, groups=(32, 512)),
    Kind("depthwise large", ((9, 9), (15, 15), (25, 25)), ONE, ONE, groups=(16, 256)),
    Kind("depthwise line", ((3,), (4,), (9,), (31,)), ONE, ONE, side=(200, 4000),
         groups=(32, 512)),
    Kind("grouped", ((3, 3),), (4, 64), (4, 64), stride=(1, 2), groups=(2, 32)),
    Kind("line", ((3,), (5,), (9,), (15,)), ANY, ANY, side=(64, 4000), stride=(1, 2), layers=6),
    Kind("narrow line", ((5,), (9,), (31,)), (1, 4), (16, 128), side=(400, 8000),
         stride=(1, 4)),
    Kind("volume", ((3, 3, 3), (1, 3, 3), (3, 1, 1)), (4, 128), (4, 128), (1, 8), (6, 24),
         layers=6),
    Kind("one channel to few", ((3, 3), (5, 5)), ONE, (4, 24)),
    Kind("few to few", ((3, 3), (5, 5)), (2, 8), (4, 31)),
    Kind("line to few", ((3,), (5,), (9,)), (9, 64), (9, 31), (1, 4), (200, 4000)),
    Kind("few places", ((3, 3), (5, 5)), (128, 512), (128, 512), (1, 3), (3, 7)),
    Kind("depthwise huge", ((25, 25), (31, 31)), ONE, ONE, side=(28, 56), groups=(16, 128)),
    Kind("deep line", ((3,), (5,)), (128, 512), (128, 512), side=(64, 2000)),
    Kind("deep volume", ((3, 3, 3), (1, 3, 3)), (32, 128), (32, 128), (1, 8), (6, 24)),
    Kind("large volume", ((3, 3, 3),), (32, 48), (32, 48), (1, 2), (20, 26)),
    Kind("large slices", ((1, 3, 3),), (32, 96), (32, 96), (1, 2), (20, 28)),
    Kind("deep dilated", ((3, 3),), (64, 256), (64, 256), side=(12, 80), dilation=(2, 4), layers=6),
    Kind("large window, wide", ((7, 7), (9, 9), (11, 11)), (16, 96), (16, 96), layers=6),
    Kind("32 to 64 channels", ((3, 3), (4, 4), (5, 5)), (32, 64), (32, 128), layers=6),
    Kind("wide dilated", ((3, 3),), (32, 64), (32, 128), side=(12, 80), dilation=(2, 4)),
    Kind("narrow groups", ((3, 3), (3, 3), (5, 5), (3, 3, 3)), (2, 8), (2, 8), side=(14, 64),
         stride=(1, 2), groups=(8, 64), layers=8),
    Kind("24 to 32 channels", ((3, 3), (3, 3), (4, 4)), (24, 31), (24, 96), side=(14, 80),
         layers=6),
    Kind("small planes", ((3, 3),), (32, 64), (32, 128), (16, 128), (6, 14), layers=6),
    Kind("few products", ((3, 3), (5, 5), (2, 2), (7,), (3, 3, 3)), (2, 8), (4, 48),
         side=(16, 200), stride=(1, 2), layers=10),
    Kind("colours, 3x3", ((3, 3),), (3, 3), (16, 96), (1, 16), (32, 224), (1, 2), layers=6),
    Kind("groups of 4", ((3, 3),), (4, 4), (4, 4), side=(14, 64), stride=(1, 2), groups=(8, 64)),
    Kind("groups of 8", ((3, 3),), (8, 8), (8, 8), side=(14, 64), stride=(1, 2), groups=(8, 64)),
    Kind("deep, few places", ((3, 3),), (256, 512), (256, 512), (1, 8), (5, 14), layers=6),
    Kind("one channel, 3x3", ((3, 3),), ONE, (32, 96), (8, 128), (14, 112)),
    Kind("wide groups", ((3, 3), (3, 3), (5, 5)), (32, 128), (32, 128), side=(14, 56),
         groups=(2, 16), layers=8),
    Kind("along one axis", ((3, 1), (1, 3), (7, 1), (1, 7), (3, 1, 1)), (16, 256), (16, 256),
         side=(8, 64), layers=10),
    Kind("dilated line", ((2,), (3,)), (16, 256), (16, 256), (1, 8), (200, 4000),
         dilation=(2, 64), layers=6),
    Kind("depthwise larger", ((9, 9), (13, 13), (15, 15), (19, 19)), ONE, ONE, side=(14, 64),
         groups=(16, 384), layers=8),
    Kind("wide dilation", ((3, 3), (3, 3), (5, 5)), (64, 512), (64, 512), (1, 16), (12, 65),
         dilation=(4, 36), layers=8),
    Kind("wide dilation, large plane", ((3, 3),), (64, 512), (64, 512), (1, 4), (24, 65),
         dilation=(8, 36), layers=8),
    Kind("line of one channel", ((3,), (5,), (9,), (16,), (24,)), ONE, (4, 128),
         side=(400, 8000), stride=(1, 4), layers=6),
    Kind("many outputs", ((3, 3), (5, 5)), (2, 8), (32, 128), groups=(2, 16)),
    Kind("many groups", ((3, 3), (3, 3), (5, 5)), (12, 64), (12, 64), (2, 16), (7, 28),
         stride=(1, 2), groups=(16, 40), layers=8),
    Kind("long line", ((9,), (15,), (25,), (31,)), (24, 128), (24, 128), (1, 16), (400, 16000),
         layers=8),
]  # fmt: skip


def drawn() -> Iterator[tuple[Layer, bool]]:
    """Yield the layers in turns of one of each kind, and whether each is kept for judging."""
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        made = [[draw(kind, rng) for _ in range(kind.layers)] for kind in KINDS]
        for turn in range(max(map(len, made))):
            yield from ((each[turn], turn % 2 == 1) for each in made if turn < len(each))


def draw(kind: Kind, rng: np.random.Generator) -> Layer:
    """Draw until the work and the memory of a layer are within bounds."""

    def one(bounds: Range) -> int:
        return round(math.exp(rng.uniform(*np.log(bounds))))

    def usual(channels: int) -> int:
        """In every second case a multiple of 16, as most networks have them."""
        return 16 * round(channels / 16) if channels > 16 and rng.integers(2) else channels

    while True:
        window = kind.windows[rng.integers(len(kind.windows))]
        sizes = (kind.n, kind.side, kind.stride, kind.dilation, kind.groups)
        n, side, stride, dilation, groups, *ends = map(one, (*sizes, kind.inputs, kind.outputs))
        inputs, outputs = (groups * usual(c) for c in ends)
        stride = 1 if stride > max(window) > 1 else stride
        pads = tuple((k - 1) * dilation // 2 if stride < k else 0 for k in window)
        name = f"{kind.name}: {n} x {side}, {inputs} to {outputs}"
        name += f", window {'x'.join(map(str, window))}"
        name += f", stride {stride}" * (stride > 1) + f", dilation {dilation}" * (dilation > 1)
        name += f", groups {groups}" * (groups > 1)
        spatial = (side,) * len(window)
        layer = Layer(
            name, "drawn", n, spatial, inputs, outputs, window, stride, pads, dilation, groups
        )
        if min(layer.out) < 1:
            continue
        work = conv.work(layer)["forward"]["flops"] / 2
        elements = n * (math.prod(spatial) * inputs + math.prod(layer.out) * outputs)
        if WORK[0] <= work <= WORK[1] and elements <= ELEMENTS:
            return layer


def form_of(layer: Layer, platform: str) -> tuple[Form, tuple[slice, ...]]:
    """The static facts of a layer, and the taps that do not only meet padding."""
    arguments = (layer.window, layer.strides, layer.pads, layer.dilations)
    windows = resolve("conv", layer.spatial, *arguments)
    return trimmed(Form(layer.spatial, windows, layer.groups, platform))


def measure(layer: Layer, kept: bool, session: Session) -> list[Row]:
    x, w, g = conv.arrays(layer, session.rng(layer.name))
    y, _, dw = conv.expected(layer, x, w, g)["gradient"]
    whole, met = form_of(layer, jax.default_backend())
    form, rows = merged(whole, OUTPUT), list[Row]()  # the same for the window
    x, w, g, y, dw = (
        shaped(role, a, whole, form)
        for role, a in zip("xwyyw", (x, w[met], g, y, dw[met]), strict=True)
    )
    for slot, args, want in ((OUTPUT, (x, w), y), (WINDOW, (x, g), dw)):
        found = [
            contestant
            for name, kernel in KERNELS.items()
            if not kernel.refuses(form, x.dtype)
            if not hopeless(name, slot, form, x.shape[-1], layer.outputs)
            for contestant in contestants(
                name,
                functools.partial(apply, slot=slot, form=form, kernel=kernel),
                args,
                slot,
                ("jit",),
            )
        ]
        rows += race(found, {slot: want}, Budget(0.15, 15), clock=session.clock)
    return [{"case": layer.name, **row, "kept": kept, "layer": layer._asdict()} for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    layers = list(drawn())
    for layer, kept in layers[::20] if session.quick else layers:
        yield layer.name, functools.partial(measure, layer, kept, session)
