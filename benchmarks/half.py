"""Convolution in bfloat16, for everybody: inputs, outputs and gradients; summed in float32."""

import functools
import importlib
from collections.abc import Iterator

import jax.numpy as jnp

import fnn
from benchmarks import conv
from benchmarks.programs import contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.shapes import RESNET, TARGETS, Layer
from benchmarks.timing import TOLERANCE, Row, race

LAYERS = [layer for layer in TARGETS if layer.network == RESNET and layer.stride == 1]
HALF = TOLERANCE + 2.0**-8  # the one rounding of an output to bfloat16, beyond those of its sum


def measure(layer: Layer, session: Session) -> list[Row]:
    args = [a.astype(jnp.bfloat16) for a in conv.arrays(layer, session.rng(layer.name))]
    found = []
    for fn in (fnn.conv, fnn.conv_lax):
        both = with_gradient(functools.partial(fn, padding=layer.pads))
        found += contestants(fn.__name__, both, args, "gradient")
    found += contestants("lax", with_gradient(conv.library(layer)), args, "gradient", ("jit",))
    if session.peers:
        pytorch = importlib.import_module("benchmarks.peers.pytorch")
        found += [c for c in pytorch.convolution(layer, *args) if c.measure == "gradient"]
    rows = race(found, conv.expected(layer, *args), session.budget, tolerance=HALF)
    least = conv.work(layer)["gradient"]
    least["bytes"] /= 2
    return [{"case": conv.name(layer), "target": False, **row, **least} for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    for layer in LAYERS[1:] if session.quick else LAYERS:
        yield conv.name(layer), functools.partial(measure, layer, session)
