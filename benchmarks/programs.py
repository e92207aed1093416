"""Programs of JAX for the clock: one jitted call, or the same work inside one `lax.scan`.

Inside the scan nothing may be computed once for all iterations, and nothing left out. So each
iteration adds ``nought`` times numbers of the last outputs to every argument, and nought is an
argument that is zero, which the compiler cannot know; and the carry holds all outputs. The outputs
are exactly those of one call, and the time grows in proportion to the number of iterations. That
addition is one pass over the arguments, as whatever comes before a layer is in a training step. (A
carry that held the arguments too was copied by one core in every iteration: up to 6 ms a layer.)
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.timing import Contestant, Program

UNITS = (2, 10)  # iterations of a scan: those of a slow one, and of a quick one


def compiled(
    fn: Callable[..., Any], *args: Any, units: int = 1, donate: Sequence[int] = ()
) -> tuple[Callable[..., Any], Program]:
    """Compile fn for these arguments, timed apart: the executable, and a program calling it."""
    start = time.perf_counter()
    executable = jax.jit(fn, donate_argnums=donate).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = executable.memory_analysis()
    return executable, Program(
        run=lambda: jax.block_until_ready(executable(*args)),
        units=units,
        compile_seconds=seconds,
        temporary_bytes=None if memory is None else int(memory.temp_size_in_bytes),
    )


def looped(fn: Callable[..., Any], length: int) -> Callable[..., Any]:
    """Return ``(nought, *args) -> fn(*args)``, computed this many times over in one scan."""

    def run(nought: jax.Array, *args: jax.Array) -> Any:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            by, _ = carry
            outputs = fn(*(a + by.astype(a.dtype) for a in args))
            leaves = jax.tree.leaves(outputs)
            by = nought * sum(t[(0,) * t.ndim].astype(nought.dtype) for t in leaves)
            return (by, outputs), None

        empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(fn, *args))
        return lax.scan(body, (nought, empty), None, length=length)[0][1]

    return run


def contestants(
    name: str,
    fn: Callable[..., Any],
    args: Sequence[jax.Array],
    measure: str,
    places: Sequence[str] = ("jit", "scan"),
) -> list[Contestant]:
    """Return fn as a contestant in each of these places."""
    nought = jnp.zeros((), jnp.float32)

    def jit(units: int) -> Program:
        return compiled(fn, *args)[1]

    def scan(units: int) -> Program:
        return compiled(looped(fn, units), nought, *args, units=units)[1]

    made = {
        "jit": Contestant(name, measure, "jit", jit),
        "scan": Contestant(name, measure, "scan", scan, UNITS),
    }
    return [made[place] for place in places]


def with_gradient(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``(*args, g) -> (fn(*args), *gradients of <fn(*args), g>)``."""

    def both(*args: Any) -> Any:
        y, pullback = jax.vjp(fn, *args[:-1])
        return (y, *pullback(args[-1]))

    return both
