"""Programs of JAX for the clock: one jitted call, or the same work inside one `lax.scan`.

Inside the scan nothing may be computed once for all iterations, and nothing left out. So the
arguments pass an optimization barrier in every iteration, together with a number of the carry: to
the compiler they are others each time. Nothing is added to the work. (A pass over the arguments,
or one number read from each output, cost up to a third of the time of a layer of few sums per
number: operations that XLA merges in jit it then stored apart.)
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
    """Return ``(nought, *args) -> fn(*args)``, computed this many times over in one scan.

    What nought is the compiler does not know, so that the number in the carry is one to it.
    """

    def run(nought: jax.Array, *args: jax.Array) -> Any:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            by, fresh = lax.optimization_barrier((carry[0], args))
            return (by + nought, fn(*fresh)), None

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
