"""Convolution: every algorithm of fnn, the library's, PyTorch's; in jit and inside scan."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import fnn
from benchmarks import reference
from benchmarks.programs import contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.shapes import LAYERS, TARGETS, Layer
from benchmarks.timing import Contestant, Row, race

DEFAULTS = ("conv", "conv_transpose")
ALGORITHMS = (
    "conv_lax",
    "conv_im2col",
    "conv_taps",
    "conv_winograd",
    "conv_winograd2",
    "conv_fft",
)
QUICK = ("4x4 stride 4", "1-D k3 dilated (8)", "second layer")


def arrays(layer: Layer, rng: np.random.Generator) -> tuple[jax.Array, ...]:
    """Fresh random x, w, and a cotangent g of the output, as float32."""
    ends = (layer.inputs // layer.groups, layer.outputs)
    if layer.transposed:
        ends = (layer.outputs // layer.groups, layer.inputs)
    shapes = [
        (layer.n, *layer.spatial, layer.inputs),
        (*layer.window, *ends),
        (layer.n, *layer.out, layer.outputs),
    ]
    return tuple(jnp.asarray(rng.standard_normal(s, np.float32)) for s in shapes)


def expected(layer: Layer, x: Any, w: Any, g: Any) -> dict[str, Any]:
    """Return the reference outputs of the layer by measure."""
    facts = (layer.strides, layer.pads, layer.dilations, layer.groups)
    if layer.transposed:  # the adjoint: x and g change places in one trilinear form
        dx, y, dw = reference.convolution(g, w, x, *facts)
    else:
        y, dx, dw = reference.convolution(x, w, g, *facts)
    return {"forward": y, "gradient": (y, dx, dw)}


def work(layer: Layer) -> dict[str, dict[str, float]]:
    """Return the least arithmetic and traffic that the layer needs, by measure."""
    here = layer.spatial if layer.transposed else layer.out
    ends = layer.inputs * layer.outputs // layer.groups
    flops = 2.0 * layer.n * np.prod(here) * np.prod(layer.window) * ends
    x = layer.n * np.prod(layer.spatial) * layer.inputs
    y = layer.n * np.prod(layer.out) * layer.outputs
    w = np.prod(layer.window) * ends
    return {
        "forward": {"flops": flops, "bytes": 4.0 * (x + w + y)},
        "gradient": {"flops": 3 * flops, "bytes": 4.0 * (2 * x + 2 * w + 2 * y)},
    }


def library(layer: Layer) -> Callable[..., Any]:
    """Return the library's call: `lax.conv_general_dilated` as a user of JAX writes it."""
    rank = len(layer.window)
    axes = "DHW"[-rank:]
    numbers = (f"N{axes}C", f"{axes}OI" if layer.transposed else f"{axes}IO", f"N{axes}C")
    if layer.transposed:
        pads = [(k - 1 - p, k - 1 - p) for k, p in zip(layer.window, layer.padding, strict=True)]
        return lambda x, w: lax.conv_general_dilated(
            x, jnp.flip(w, range(rank)), (1,) * rank, pads, layer.strides, dimension_numbers=numbers
        )
    return functools.partial(
        lax.conv_general_dilated,
        window_strides=layer.strides,
        padding=layer.pads,
        rhs_dilation=layer.dilations,
        dimension_numbers=numbers,
        feature_group_count=layer.groups,
    )


def ours(layer: Layer) -> dict[str, Callable[..., Any]]:
    """Return every function of fnn that this layer may call, by name; the default first."""
    config = {"stride": layer.stride, "padding": layer.pads, "dilation": layer.dilation}
    names = ("conv_transpose",) if layer.transposed else ("conv", *ALGORITHMS)
    return {
        name: functools.partial(getattr(fnn, name), groups=layer.groups, **config) for name in names
    }


def take_part(layer: Layer, args: tuple[jax.Array, ...], session: Session) -> list[Contestant]:
    """Return all contestants of a layer; the algorithms behind the default only in jit."""
    x, w, g = args
    everywhere, jit = ("jit", "scan"), ("jit",)
    in_scan = (*DEFAULTS, "lax" if layer.transposed else "conv_lax")
    found: list[Contestant] = []
    for name, fn in (ours(layer) | {"lax": library(layer)}).items():
        where = everywhere if name in in_scan else jit
        found += contestants(name, with_gradient(fn), (x, w, g), "gradient", where)
        if not session.quick:
            found += contestants(name, fn, (x, w), "forward", jit)
    if session.peers:
        pytorch = importlib.import_module("benchmarks.peers.pytorch")
        found += pytorch.convolution(layer, x, w, g)
    return found


def name(layer: Layer) -> str:
    return f"{layer.name} ({layer.network})"


def measure(layer: Layer, session: Session) -> list[Row]:
    args = arrays(layer, session.rng(layer.name))
    rows = race(take_part(layer, args, session), expected(layer, *args), session.budget)
    least, facts = work(layer), {"case": name(layer), "target": layer in TARGETS}
    return [facts | row | least[row["measure"]] for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    for layer in LAYERS:
        if not session.quick or layer.name in QUICK:
            yield name(layer), functools.partial(measure, layer, session)
