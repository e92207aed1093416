"""The rule of `fnn.conv` on the layers that `benchmarks.sweep` keeps from it: whole layers."""

import functools
import importlib
from collections.abc import Iterator

from benchmarks import conv
from benchmarks.programs import contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.shapes import Layer
from benchmarks.sweep import drawn
from benchmarks.timing import Row, race


def measure(layer: Layer, session: Session) -> list[Row]:
    args = conv.arrays(layer, session.rng(layer.name))
    ours, library = with_gradient(conv.ours(layer)["conv"]), with_gradient(conv.library(layer))
    found = contestants("conv", ours, args, "gradient")
    found += contestants("lax", library, args, "gradient", ("jit",))
    if session.peers:
        pytorch = importlib.import_module("benchmarks.peers.pytorch")
        found += [c for c in pytorch.convolution(layer, *args) if c.measure == "gradient"]
    rows = race(found, conv.expected(layer, *args), session.budget, clock=session.clock)
    facts = {"case": layer.name, "target": False, **conv.work(layer)["gradient"]}
    return [row | facts for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    layers = [layer for layer, kept in drawn() if kept]
    for layer in layers[::20] if session.quick else layers:
        yield layer.name, functools.partial(measure, layer, session)
