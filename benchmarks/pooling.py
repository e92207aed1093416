"""Pooling: fnn's, the library's `reduce_window`, PyTorch's; and how long a deep stack compiles."""

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
from benchmarks.programs import compiled, contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.shapes import POOLS, Pool
from benchmarks.timing import Row, race

QUICK = ("small CNN's first", "max 3x3 stride 1")
STACK = 128  # poolings on top of each other, for the compile time


def library(pool: Pool) -> Callable[[jax.Array], jax.Array]:
    """Return the library's call: `lax.reduce_window` as a user of JAX writes it."""
    window, stride = (1, *pool.window, 1), (1, *(pool.stride,) * len(pool.window), 1)
    pads = ((0, 0), *pool.pads, (0, 0))
    if pool.kind == "max":
        return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, stride, pads)
    scale = 1 / np.prod(pool.window)
    return lambda x: lax.reduce_window(x, 0.0, lax.add, window, stride, pads) * scale


def ours(pool: Pool) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """Return every function of fnn that this layer may call, the default first."""
    config = {"window": pool.window, "stride": pool.stride, "padding": pool.padding}
    names = [f"{pool.kind}_pool{kind}" for kind in ("", "_slices", "_lax")]
    return {name: functools.partial(getattr(fnn, name), **config) for name in names}


def drawn(pool: Pool, session: Session) -> tuple[Any, Any, Any, Any]:
    """Return x and g, drawn, and y and the gradient to x of the reference."""
    rng = session.rng(pool.name)
    x, g = (
        jnp.asarray(rng.standard_normal((pool.n, *sizes, pool.channels), np.float32))
        for sizes in (pool.spatial, pool.out)
    )
    strides = (pool.stride,) * len(pool.window)
    return x, g, *reference.pooling(pool.kind, x, g, pool.window, strides, pool.pads)


def measure(pool: Pool, session: Session) -> list[Row]:
    x, g, y, dx = drawn(pool, session)
    found = []
    for name, fn in (ours(pool) | {"lax": library(pool)}).items():
        found += contestants(name, with_gradient(fn), (x, g), "gradient")
        found += contestants(
            name, fn, (x,), "forward", ("jit",) if session.quick else ("jit", "scan")
        )
    if session.peers:
        found += importlib.import_module("benchmarks.peers.pytorch").pooling(pool, x, g)
    rows = race(found, {"forward": y, "gradient": (y, dx)}, session.budget)
    least = {"forward": 4.0 * (x.size + g.size), "gradient": 8.0 * (x.size + g.size)}
    return [
        {"case": pool.name, **row, "flops": 0.0, "bytes": least[row["measure"]]} for row in rows
    ]


def stack(session: Session) -> list[Row]:
    """Compile the gradient of many stacked poolings, each 2x2 with stride 1."""
    depth = 16 if session.quick else STACK
    x = jnp.asarray(session.rng("stack").standard_normal((1, 16, 16, 4), np.float32))
    layer = Pool("", "max", 1, (16, 16), 4, (2, 2), 1, "SAME")
    rows = []
    for name, fn in (ours(layer) | {"lax": library(layer)}).items():

        def loss(x: jax.Array, fn: Callable[[jax.Array], jax.Array] = fn) -> jax.Array:
            for _ in range(depth):
                x = fn(x)
            return x.sum()

        program = compiled(jax.grad(loss), x)[1]
        facts: dict[str, Any] = {
            "case": f"{depth} stacked max 2x2",
            "contestant": name,
            "status": "ok",
        }
        facts |= {"measure": "compile", "place": "jit", "seconds": program.compile_seconds}
        rows.append(facts | {"temporary_bytes": program.temporary_bytes})
    return rows


def jobs(session: Session) -> Iterator[Job]:
    for pool in POOLS:
        if not session.quick or pool.name in QUICK:
            yield pool.name, functools.partial(measure, pool, session)
    yield "stack", functools.partial(stack, session)
