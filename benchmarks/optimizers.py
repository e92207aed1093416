"""Optimizers: time and compile time of one update, beside optax's and PyTorch's.

With thousands of leaves most of a step from Python is the call with thousands of arrays: the row
"parameters plus gradients" does nothing else. The case "in scan" is the same steps inside one
program, as `fnn.train` runs them, where nothing is handed over between them.
"""

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import fnn
from benchmarks import reference
from benchmarks.programs import compiled
from benchmarks.session import Job, Session
from benchmarks.timing import Contestant, Program, Row, race

RATE = 1e-3
STEPS = 3  # before the parameters are compared
SEEN = 512  # entries of each leaf whose change is compared: Adam is element-wise

MANY = "2,000 leaves of 100"
SMALL_CNN = [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (3136, 128), (128,), (128, 10), (10,)]
CASES = {
    "small CNN": SMALL_CNN,
    "20 leaves of 100,000": [(100_000,)] * 20,
    MANY: [(100,)] * 2000,
    "MLP of 100 M": [(4096, 4096)] * 6,
}
INSIDE = 20  # steps of one program
QUICK = ("small CNN",)


def step(optimizer: Any) -> Any:
    """Return one update and its application, as a training step does it."""

    def run(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    return run


def many_steps(optimizer: Any) -> Any:
    """Return `INSIDE` steps as one program, whose gradients are made anew at every step.

    ``nought`` is a zero that the compiler cannot know: else it would do once for all steps what
    depends on the gradients alone.
    """

    def run(params: Any, state: Any, grads: Any, nought: Any) -> tuple[Any, Any]:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            directions = jax.tree.map(lambda g, p: g + nought * p, grads, carry[0])
            return step(optimizer)(*carry, lax.optimization_barrier(directions)), None

        return lax.scan(body, (params, state), length=INSIDE)[0]

    return run


def contestant(name: str, optimizer: Any, values: Any, grads: Any, place: str) -> Contestant:
    """Return an optimizer as a contestant: params and state are donated, as in training."""
    inside = place == "scan"

    def prepare(units: int) -> Program:
        params = {i: jnp.array(v) for i, v in enumerate(values)}
        rest = [{i: jnp.array(g) for i, g in enumerate(grads)}] + [jnp.zeros(())] * inside
        held = [params, optimizer.init(params)]
        fn = many_steps(optimizer) if inside else step(optimizer)
        executable, program = compiled(fn, *held, *rest, units=units, donate=(0, 1))
        for _ in range(0 if inside else STEPS - 1):
            held[:] = executable(*held, *rest)

        def run() -> Any:
            held[:] = jax.block_until_ready(executable(*held, *rest))
            return held[0]

        def show(params: Any) -> list[np.ndarray]:
            return [
                np.asarray(params[i]).ravel()[:SEEN] - v.ravel()[:SEEN]
                for i, v in enumerate(values)
            ]

        return program._replace(run=run, show=show)

    units = INSIDE if inside else 1
    return Contestant(name, "step", place, prepare, (units, units))


def unchanged() -> optax.GradientTransformation:
    """Return the optimizer that hands the gradients on, for the least that any step costs."""
    return optax.stateless(lambda grads, params: grads)


def measure(case: str, session: Session, place: str = "jit") -> list[Row]:
    rng = session.rng(case)
    values = [rng.standard_normal(shape, np.float32) for shape in CASES[case]]
    grads = [rng.standard_normal(shape, np.float32) for shape in CASES[case]]
    ends = [(v.ravel()[:SEEN], g.ravel()[:SEEN]) for v, g in zip(values, grads, strict=True)]
    steps = INSIDE if place == "scan" else STEPS
    want = {"step": [reference.adam(v, g, steps, RATE) - v for v, g in ends]}
    entered = {"fnn.adam": fnn.adam(RATE), "optax.adam": optax.adam(RATE)}
    if case != "MLP of 100 M":  # few large leaves, and a flat copy is another gigabyte
        entered["fnn.flat(fnn.adam)"] = fnn.flat(fnn.adam(RATE))
        if place == "jit":  # in scan it takes a minute to compile
            entered["optax.flatten(optax.adam)"] = optax.flatten(optax.adam(RATE))
    found = [contestant(name, o, values, grads, place) for name, o in entered.items()]
    if case == MANY:
        least = contestant("parameters plus gradients", unchanged(), values, grads, place)
        found.append(least._replace(measure="least"))
        want["least"] = [steps * g.astype(np.float64) for _, g in ends]
    if session.peers and place == "jit":
        found += importlib.import_module("benchmarks.peers.pytorch").adam(
            values, grads, RATE, STEPS, SEEN
        )
    size = sum(v.size for v in values)
    work = {"flops": 12.0 * size, "bytes": 4.0 * 7 * size}  # p m v in and out, g in
    name = case if place == "jit" else f"{case}, in scan"
    rows = race(found, want, session.budget)
    return [{"case": name} | (work if row["measure"] == "step" else {}) | row for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    for case in CASES:
        if not session.quick or case in QUICK:
            yield case, functools.partial(measure, case, session)
    if not session.quick:
        yield f"{MANY}, in scan", functools.partial(measure, MANY, session, "scan")
