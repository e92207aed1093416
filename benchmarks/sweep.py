"""The sweep behind the rule of `fnn.conv`: every kernel on a grid of shapes, each of its three maps.

A layer of a network calls three maps: the output, the gradient to the input, the gradient to the
window. Each is timed alone, in jit, over a grid of static facts; `benchmarks.derive` reads the results.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax

import fnn
from benchmarks import conv
from benchmarks.programs import contestants
from benchmarks.session import Job, Session
from benchmarks.shapes import Layer
from benchmarks.timing import Budget, Contestant, Row, race

SLOTS = ("output", "input", "window")
BUSY = 1e8  # multiplications of one map: enough for a median, little enough for a grid

WINDOWS = [(1,), (3,), (9,), (25,), (1, 1), (3, 3), (5, 5), (7, 7), (15, 15), (31, 31)]
CHANNELS = [(1, 16), (3, 64), (16, 16), (64, 64), (256, 256)]
GROUPED = [(4, 16), (32, 1), (32, 8), (128, 1), (128, 4)]  # groups, channels of each


def kernels() -> list[str]:
    """Return who takes part: on a CPU not the library, whose loop inside scan no rule may choose."""
    names = ["conv_im2col", "conv_taps", "conv_winograd", "conv_fft"]
    if jax.default_backend() != "cpu":
        names = ["conv_lax", *names]
    return [name for name in names if hasattr(fnn, name)]


def grid() -> Iterator[Layer]:
    """Yield the layers of the grid: windows x channels x groups x stride, spatial size to fit."""
    for window, channels in itertools.product(WINDOWS, CHANNELS):
        if max(window) < 15 or max(channels) < 64:
            yield fit(window, *channels, 1, 1)
    for window, channels in itertools.product([(3,), (9,), (3, 3), (7, 7)], CHANNELS):
        yield fit(window, *channels, 1, 2)
    for window, (groups, channels) in itertools.product(WINDOWS, GROUPED):
        if max(window) > 1:
            yield fit(window, channels, channels, groups, 1)
    for groups, channels in GROUPED:
        yield fit((3, 3), channels, channels, groups, 2)
    for channels in (8, 32, 128):
        yield fit((3, 3, 3), channels, channels, 1, 1)
    for window in ((4, 4), (16, 16)):  # patches
        yield fit(window, 3, 128, 1, window[0])


def fit(window: tuple[int, ...], c_in: int, c_out: int, groups: int, stride: int) -> Layer:
    """Return the layer with the largest square input that keeps to `BUSY` multiplications."""
    taps = functools.reduce(lambda a, b: a * b, window)
    places = BUSY / (taps * c_in * c_out * groups)
    n, rank = 4, len(window)
    side = int((places / n) ** (1 / rank)) * stride
    side = max(2 * stride, min(side, {1: 8192, 2: 112, 3: 24}[rank]), window[0])
    text = f"{'x'.join(map(str, window))} {c_in}->{c_out} groups {groups} stride {stride}"
    padding = tuple((k - 1) // 2 if stride < k else 0 for k in window)
    spatial = (side,) * rank
    return Layer(text, "grid", n, spatial, c_in * groups, c_out * groups, window, stride, padding,
                 groups=groups)  # fmt: skip


def facts(layer: Layer) -> dict[str, Any]:
    """Return the static facts of a layer that a rule may look at; none names a shape."""
    return {
        "rank": len(layer.window),
        "taps": functools.reduce(lambda a, b: a * b, layer.window),
        "groups": layer.groups,
        "inputs": layer.inputs // layer.groups,
        "outputs": layer.outputs // layer.groups,
        "stride": layer.stride,
    }


def maps(fn: Callable[..., Any], x: jax.Array, w: jax.Array) -> dict[str, Callable[..., Any]]:
    """Return the three maps of a convolution, each a function of the two arrays that it needs."""
    return {
        "output": fn,
        "input": lambda w, g: jax.linear_transpose(lambda x: fn(x, w), x)(g)[0],
        "window": lambda x, g: jax.linear_transpose(lambda w: fn(x, w), w)(g)[0],
    }


def measure(layer: Layer, session: Session) -> list[Row]:
    x, w, g = conv.arrays(layer, session.rng(layer.name))
    y, dx, dw = conv.expected(layer, x, w, g)["gradient"]
    args = {"output": (x, w), "input": (w, g), "window": (x, g)}
    found: list[Contestant] = []
    config = {"stride": layer.stride, "padding": layer.pads, "groups": layer.groups}
    for name in kernels():
        three = maps(functools.partial(getattr(fnn, name), **config), x, w)
        for slot in SLOTS:
            found += contestants(name, three[slot], args[slot], slot, ("jit",))
    rows = race(found, {"output": y, "input": dx, "window": dw}, Budget(0.1, 7))
    return [{"case": layer.name, **row, "facts": facts(layer)} for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    layers = list(grid())
    for layer in layers[::20] if session.quick else layers:
        yield layer.name, functools.partial(measure, layer, session)
