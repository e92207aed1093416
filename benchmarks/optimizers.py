"""Optimizers: time and compile time of one update, beside optax's and PyTorch's."""

import functools
import importlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fnn
from benchmarks import reference
from benchmarks.programs import compiled
from benchmarks.session import Job, Session
from benchmarks.timing import Contestant, Program, Row, race

RATE = 1e-3
STEPS = 3  # before the parameters are compared
SEEN = 512  # entries of each leaf that are compared: Adam is element-wise

SMALL_CNN = [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (3136, 128), (128,), (128, 10), (10,)]
CASES = {
    "small CNN": SMALL_CNN,
    "20 leaves of 100,000": [(100_000,)] * 20,
    "2,000 leaves of 100": [(100,)] * 2000,
    "MLP of 100 M": [(4096, 4096)] * 6,
}
QUICK = ("small CNN",)


def step(optimizer: Any) -> Any:
    """Return one update and its application, as a training step does it."""

    def run(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state

    return run


def contestant(name: str, optimizer: Any, values: Any, grads: Any) -> Contestant:
    """Return an optimizer as a contestant: params and state are donated, as in training."""

    def prepare(units: int) -> Program:
        params = {i: jnp.array(v) for i, v in enumerate(values)}
        directions = {i: jnp.array(g) for i, g in enumerate(grads)}
        held = [params, optimizer.init(params)]
        executable, program = compiled(step(optimizer), *held, directions, donate=(0, 1))
        for _ in range(STEPS - 1):
            held[:] = executable(*held, directions)

        def run() -> Any:
            held[:] = jax.block_until_ready(executable(*held, directions))
            return held[0]

        def show(params: Any) -> list[np.ndarray]:
            return [np.asarray(params[i]).ravel()[:SEEN] for i in params]

        return program._replace(run=run, show=show)

    return Contestant(name, "step", "jit", prepare)


def measure(case: str, session: Session) -> list[Row]:
    rng = session.rng(case)
    values = [rng.standard_normal(shape, np.float32) for shape in CASES[case]]
    grads = [rng.standard_normal(shape, np.float32) for shape in CASES[case]]
    ends = [(v.ravel()[:SEEN], g.ravel()[:SEEN]) for v, g in zip(values, grads, strict=True)]
    want = [reference.adam(v, g, STEPS, RATE) for v, g in ends]
    entered = {"fnn.adam": fnn.adam(RATE), "optax.adam": optax.adam(RATE)}
    if case != "MLP of 100 M":  # few large leaves, and a flat copy is another gigabyte
        entered["fnn.flat(fnn.adam)"] = fnn.flat(fnn.adam(RATE))
        entered["optax.flatten(optax.adam)"] = optax.flatten(optax.adam(RATE))
    found = [contestant(name, optimizer, values, grads) for name, optimizer in entered.items()]
    if session.peers:
        found += importlib.import_module("benchmarks.peers.pytorch").adam(
            values, grads, RATE, STEPS, SEEN
        )
    size = sum(v.size for v in values)
    least = {"case": case, "flops": 12.0 * size, "bytes": 4.0 * 7 * size}  # p m v in and out, g in
    return [least | row for row in race(found, {"step": want}, session.budget)]


def jobs(session: Session) -> Iterator[Job]:
    for case in CASES:
        if not session.quick or case in QUICK:
            yield case, functools.partial(measure, case, session)
