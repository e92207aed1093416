"""Scaling: how the time of a layer and of a step grows: the exponent of a fitted power."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fnn
from benchmarks import conv, training
from benchmarks.models import batches
from benchmarks.programs import contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.shapes import Layer
from benchmarks.timing import Row, race

BASE = Layer("3x3", "", 8, (28, 28), 64, 64, (3, 3))
SWEEPS: dict[str, tuple[Callable[[int], Layer], tuple[int, ...]]] = {
    "batch": (lambda n: BASE._replace(n=n), (1, 2, 4, 8, 16, 32)),
    "side": (lambda s: BASE._replace(spatial=(s, s)), (7, 14, 28, 56)),
    "channels": (lambda c: BASE._replace(inputs=c, outputs=c), (16, 32, 64, 128)),
}
STEP_BATCHES = (16, 32, 64, 128, 256)


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return p of the power ``seconds = a sizes^p`` that fits best, in logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def with_exponents(rows: list[Row]) -> list[Row]:
    """Add to every row the exponent of its contestant's times over all sizes."""
    for name in {row["contestant"] for row in rows}:
        line = [row for row in rows if row["contestant"] == name and "seconds" in row]
        if len(line) > 1:
            p = exponent([row["size"] for row in line], [row["seconds"] for row in line])
            for row in line:
                row["exponent"] = p
    return rows


def layers(what: str, session: Session) -> list[Row]:
    make, sizes = SWEEPS[what]
    rows = []
    for size in sizes[:3] if session.quick else sizes:
        layer = make(size)
        x, w, g = conv.arrays(layer, session.rng(f"{what} {size}"))
        found = []
        for fn in (fnn.conv, fnn.conv_lax):
            padded = functools.partial(fn, padding=layer.pads)
            args = (fn.__name__, with_gradient(padded), (x, w, g), "gradient", ("jit",))
            found += contestants(*args)
        if session.peers:
            pytorch = importlib.import_module("benchmarks.peers.pytorch")
            found += [c for c in pytorch.convolution(layer, x, w, g) if c.measure == "gradient"]
        timed = race(found, conv.expected(layer, x, w, g), session.budget)
        rows += [{"case": f"3x3 layer by {what}", **row, "size": size} for row in timed]
    return with_exponents(rows)


def steps(session: Session) -> list[Row]:
    rows = []
    for size in STEP_BATCHES[:3] if session.quick else STEP_BATCHES:
        whole = batches("cnn", 4, session.rng(f"steps {size}"))
        pooled = [np.concatenate(part) for part in zip(*whole, strict=True)]
        data: list[Any] = [(pooled[0][:size], pooled[1][:size])] * 2
        want = {"steps": training.reference("cnn", data)}
        entered = {"fnn.make_step": training.ours, "plain JAX + optax": training.peer("plain")}
        if session.peers:
            entered["PyTorch"] = training.peer("torch_models")
        found = [
            training.stepping("cnn", name, "jit", make, data) for name, make in entered.items()
        ]
        timed = race(found, want, session.budget)
        rows += [{"case": "small CNN step by batch", **row, "size": size} for row in timed]
    return with_exponents(rows)


def jobs(session: Session) -> Iterator[Job]:
    for what in SWEEPS:
        if not session.quick or what == "batch":
            yield what, functools.partial(layers, what, session)
    if not session.quick:
        yield "steps", functools.partial(steps, session)
