"""The sweep behind the rule of `fnn.conv`: every kernel on a grid of shapes, in jit and in scan.

The rule chooses for two maps, the output and the gradient to the window. Both are timed alone over
a grid of static facts; `benchmarks.derive` turns the results into the rule.
"""

import functools
import itertools
import math
from collections.abc import Iterator

import jax

from benchmarks import conv
from benchmarks.programs import contestants
from benchmarks.session import Job, Session
from benchmarks.shapes import Layer
from benchmarks.timing import Budget, Contestant, Row, race
from fnn.kernels.conv.form import OUTPUT, WINDOW, Form, apply
from fnn.kernels.conv.rule import KERNELS
from fnn.windows import resolve

BUSY = 3e8  # multiplications of one map: enough for a median, little enough for a grid
WINDOWS = [(1, 1), (3, 3), (5, 5), (7, 7), (15, 15), (3,), (9,)]
CHANNELS = [(3, 64), (16, 16), (64, 64), (256, 256), (64, 3)]
STRIDED = [(1, 1), (3, 3), (7, 7), (9,)]
DEPTHWISE = [(3,), (3, 3), (5, 5), (7, 7), (15, 15), (31, 31)]
DEEP = [  # window, side, channels
    (3, 56, 64, 64),
    (3, 56, 64, 128),
    (3, 28, 128, 128),
    (3, 14, 256, 256),
    (3, 8, 512, 512),
    (4, 14, 128, 128),
    (5, 14, 256, 256),
]
GROUPED = [(32, 8), (4, 64), (32, 1), (256, 1)]  # groups, channels of each


def grid() -> Iterator[Layer]:
    """Yield layers: windows x channels x groups x stride, the spatial size to fit."""
    for window, channels in itertools.product(WINDOWS, CHANNELS):
        yield fit(window, *channels, 1, 1)
    for window, channels in itertools.product(STRIDED, CHANNELS[:3]):
        yield fit(window, *channels, 1, 2)
    for window, (groups, each) in itertools.product(DEPTHWISE, GROUPED):
        if each == 1 or max(window) in (3, 7):
            yield fit(window, each, each, groups, 1)
    for groups, each in GROUPED:
        yield fit((3, 3), each, each, groups, 2)
    for each in (8, 32, 128):
        yield fit((3, 3, 3), each, each, 1, 1)
    for k, side, *channels in DEEP:
        name = f"{k}x{k} {channels[0]}->{channels[1]}, {side}x{side}"
        yield Layer(name, "grid", 8, (side, side), *channels, (k, k), padding=(k // 2, k // 2))
    for window in ((3, 3), (5, 5), (7, 7)):
        yield fit(window, 1, 32, 1, 1)
    for inputs, outputs in [(3, 64), (64, 64), (64, 3)]:
        name = f"3x3 {inputs}->{outputs} large image"
        yield Layer(name, "grid", 1, (224, 224), inputs, outputs, (3, 3), padding=(1, 1))
    for window in ((4, 4), (16, 16)):  # patches
        yield fit(window, 3, 128, 1, window[0])


def fit(window: tuple[int, ...], c_in: int, c_out: int, groups: int, stride: int) -> Layer:
    """Return the layer with the largest square input that keeps to `BUSY` multiplications."""
    n, rank = 8, len(window)
    places = BUSY / (math.prod(window) * c_in * c_out * groups)
    side = int((places / n) ** (1 / rank)) * stride
    side = max(2 * stride, min(side, {1: 8192, 2: 112, 3: 24}[rank]), window[0])
    padding = tuple((k - 1) // 2 if stride < k else 0 for k in window)
    name = f"{'x'.join(map(str, window))} {c_in}->{c_out} groups {groups} stride {stride}"
    channels = (c_in * groups, c_out * groups)
    return Layer(name, "grid", n, (side,) * rank, *channels, window, stride, padding, 1, groups)


def form_of(layer: Layer) -> Form:
    """Return the static facts of a layer as the kernels and the rule see them."""
    arguments = (layer.window, layer.strides, layer.pads, layer.dilations)
    return Form(layer.spatial, resolve("conv", layer.spatial, *arguments), layer.groups)


def hopeless(name: str, layer: Layer) -> bool:
    """Whether the library would take minutes: groups on a CPU, inside scan most of all."""
    return name == "lax" and jax.default_backend() == "cpu" and layer.groups > 1


def measure(layer: Layer, session: Session) -> list[Row]:
    x, w, g = conv.arrays(layer, session.rng(layer.name))
    y, _, dw = conv.expected(layer, x, w, g)["gradient"]
    form, found = form_of(layer), list[Contestant]()
    for name, kernel in KERNELS.items():
        if not (kernel.refuses(form, x.dtype) or hopeless(name, layer)):
            for slot, args in ((OUTPUT, (x, w)), (WINDOW, (x, g))):
                fn = functools.partial(apply, slot=slot, form=form, kernel=kernel)
                found += contestants(name, fn, args, slot)
    rows = race(found, {OUTPUT: y, WINDOW: dw}, Budget(0.1, 7))
    return [{"case": layer.name, **row, "layer": layer._asdict()} for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    layers = list(grid())
    for layer in layers[::20] if session.quick else layers:
        yield layer.name, functools.partial(measure, layer, session)
