"""The sweep behind the rule of pooling: every kernel on a grid of windows, with the gradient.

`benchmarks.derive` turns the results into the numbers of the rule (`fnn.kernels.pool.rule`).
"""

import functools
import itertools
from collections.abc import Iterator

import jax

from benchmarks.pooling import drawn
from benchmarks.programs import contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.shapes import Pool
from benchmarks.timing import Budget, Contestant, Row, race
from fnn.kernels.pool.form import PoolKernel, maximum, mean
from fnn.kernels.pool.rule import KERNELS

WINDOWS = [(2, 2), (3, 3), (4, 4), (5, 5), (4,), (9,), (16,), (25,), (40,), (2, 2, 2), (3, 3, 3)]
# Sides of the input by rank, and channels: large arrays, and ones that stay in the cache.
INPUTS = (({1: 4096, 2: 56, 3: 16}, 32), ({1: 256, 2: 14, 3: 6}, 128))


def grid() -> Iterator[Pool]:
    """Yield every kind and window, overlapping and side by side."""
    for kind, window, (sides, channels) in itertools.product(("max", "avg"), WINDOWS, INPUTS):
        for stride in (1, window[0]):
            spatial = (sides[len(window)],) * len(window)
            sizes, window_sizes = ("x".join(map(str, s)) for s in (spatial, window))
            name = f"{kind} {window_sizes} stride {stride}, {sizes} x {channels}"
            yield Pool(name, kind, 16, spatial, channels, window, stride, "SAME")


def measure(pool: Pool, session: Session) -> list[Row]:
    x, g, y, dx = drawn(pool, session)
    call = pool.window, pool.stride, pool.padding, 1, False

    def pooling(x: jax.Array, kernel: PoolKernel) -> jax.Array:
        if pool.kind == "max":
            return maximum("max_pool", kernel, x, *call)
        return mean("avg_pool", kernel, x, *call, True)

    found = list[Contestant]()
    for name, kernel in KERNELS.items():
        fn = with_gradient(functools.partial(pooling, kernel=kernel))
        found += contestants(name, fn, (x, g), "gradient", ("jit",))
    rows = race(found, {"gradient": (y, dx)}, Budget(0.1, 7))
    kind = "max" if pool.kind == "max" else "sum"
    return [{"case": pool.name, **row, "kind": kind, "window": pool.window} for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    for pool in list(grid())[:: 20 if session.quick else 1]:
        yield pool.name, functools.partial(measure, pool, session)
