"""Training throughput end to end: fnn, the JAX libraries with optax, PyTorch eager and compiled.

The case "16 runs of the MLP" is a sweep of learning rates and momenta: whole runs, side by side as
one `jax.vmap`, or one after the other.
"""

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params

import fnn
from benchmarks.models import TASKS, batches, loss, start
from benchmarks.peers import plain
from benchmarks.peers.trainer import Batch, Trainer, held
from benchmarks.session import Job, Session
from benchmarks.shapes import RATE
from benchmarks.timing import Contestant, Program, Row, race

CHECKED = {"mlp": 8, "cnn": 4, "resnet": 2, "resnet50": 3}  # steps whose losses are compared
EPOCH = {"mlp": 64, "cnn": 8, "resnet": 2, "resnet50": 3}  # batches of an epoch of fnn.train
# How long each contestant has its turns.
SECONDS = {"mlp": 1.0, "cnn": 4.0, "resnet": 30.0, "resnet50": 15.0}
QUICK = ("mlp", "cnn")
WITHOUT_PEERS = ("resnet50",)  # but for plain JAX: it asks how compiling grows with depth
RUNS, SWEPT = 16, 32  # runs of a sweep, and steps of each
MOMENTUM = 20.0  # bytes read and written per parameter: gradient, parameter and one moment
ADAM = 28.0  # with two moments

Make = Callable[[str, Any], Trainer]


def ours(task: str, params: Any) -> Trainer:
    optimizer = fnn.adam(RATE)
    params = jax.tree.map(jnp.array, params)
    step = fnn.make_step(loss(TASKS[task].logits), optimizer)
    return held(step, params, optimizer.init(params))


def peer(module: str, **config: Any) -> Make:
    """Return a peer's `make`, importing it only when its turn comes."""

    def make(task: str, params: Any) -> Trainer:
        return importlib.import_module(f"benchmarks.peers.{module}").make(task, params, **config)

    return make


def stepping(task: str, name: str, place: str, make: Make, data: list[Batch]) -> Contestant:
    """Return a contestant that runs one step per batch and waits for the last."""

    def prepare(units: int) -> Program:
        trainer = make(task, start(task))
        placed = [trainer.put(batch) for batch in data]
        began = time.perf_counter()
        losses = trainer.floats([trainer.step(placed[0])])
        first = time.perf_counter() - began
        losses += trainer.floats([trainer.step(batch) for batch in placed[1:]])

        def run() -> Any:
            values = [trainer.step(batch) for batch in placed]
            return trainer.floats(values[-1:])

        memory = trainer.temporary(placed[0])
        return Program(run, len(placed), first, memory, show=lambda _: np.array(losses))

    return Contestant(name, "steps", place, prepare)


def chunked(task: str, data: list[Batch], steps: int) -> Contestant:
    """Return `fnn.train`: an epoch in one program. Its losses are compared on one batch."""
    fn = loss(TASKS[task].logits)

    def reports(data: Any) -> Any:
        config = {"batch_size": TASKS[task].batch, "epochs": 2**30, "key": jax.random.key(0)}
        return fnn.train(fn, start(task), fnn.adam(RATE), data, **config)

    def prepare(units: int) -> Program:
        began = time.perf_counter()
        run_one = reports(data[0])
        losses = [next(run_one).loss]
        first = time.perf_counter() - began
        losses += [next(run_one).loss for _ in range(steps - 1)]
        epoch = reports(tuple(np.concatenate(part) for part in zip(*data, strict=True)))
        next(epoch)
        return Program(lambda: next(epoch).loss, len(data), first, show=lambda _: np.array(losses))

    return Contestant("fnn.train", "epoch", "scan", prepare)


def reference(task: str, data: list[Batch]) -> np.ndarray:
    """Losses of plain JAX, in float64 where that is affordable."""
    wide = task in QUICK
    with jax.enable_x64(wide):
        params, data = start(task), list(data)
        if wide:
            params = jax.tree.map(lambda a: a.astype(np.float64), params)
            data = [(x.astype(np.float64), y) for x, y in data]
        trainer = plain.make(task, params)
        return np.array(trainer.floats([trainer.step(trainer.put(batch)) for batch in data]))


def products(jaxpr: Jaxpr) -> Iterator[int]:
    """Yield the arithmetic of every matrix product and convolution of a program, in order."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            out, w = equation.outvars[0].aval, equation.invars[1].aval
            yield 2 * out.size * w.size // w.shape[-1]
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


def work(task: str, per_parameter: float = ADAM) -> dict[str, float]:
    """Return the least arithmetic and traffic of a step: no gradient to the images is needed."""
    x = jnp.zeros((TASKS[task].batch, *TASKS[task].shape))
    first, *rest = products(jax.make_jaxpr(plain.MODELS[task])(start(task), x).jaxpr)
    traffic = per_parameter * fnn.count(start(task)) + 4.0 * x.size
    return {"flops": 2.0 * first + 3.0 * sum(rest), "bytes": traffic}


def measure(task: str, session: Session) -> list[Row]:
    data = batches(task, EPOCH[task], session.rng(task))
    checked = data[: CHECKED[task]]
    want = {"steps": reference(task, checked), "epoch": reference(task, checked[:1] * len(checked))}
    found = [
        stepping(task, "fnn.make_step", "jit", ours, checked),
        chunked(task, data, len(checked)),
    ]
    entered = {"plain JAX + optax": ("jit", peer("plain"))}
    if session.peers and task not in WITHOUT_PEERS:
        entered |= {
            "stax": ("jit", peer("stax")),
            "Flax NNX": ("jit", peer("flax")),
            "Haiku": ("jit", peer("haiku")),
            "Equinox": ("jit", peer("equinox")),
            "PyTorch": ("eager", peer("torch_models")),
        }
        if task != "mlp":
            entered["PyTorch channels last"] = ("eager", peer("torch_models", last=True))
        if not session.quick:
            last = task != "mlp"
            entered["PyTorch compiled"] = (
                "compiled",
                peer("torch_models", last=last, compiled=True),
            )
    for name, (place, make) in entered.items():
        found.append(stepping(task, name, place, make, checked))
    budget = session.budget if session.quick else session.budget._replace(seconds=SECONDS[task])
    rows = race(found, want, budget)
    facts = {"case": TASKS[task].name, "batch": TASKS[task].batch, **work(task)}
    return [facts | row for row in rows]


def run_of(fn: Any, params: Any, batches: Any) -> Callable[[Any, Any], jax.Array]:
    """Return a whole run of momentum as a function of its two numbers: its losses."""

    def run(rate: Any, momentum: Any) -> jax.Array:
        optimizer = fnn.sgd(rate, momentum=momentum)
        step = fnn.make_step(fn, optimizer)

        def body(carry: Any, batch: Any) -> Any:
            params, state, value = step(*carry, batch)
            return (params, state), value

        return jax.lax.scan(body, (params, optimizer.init(params)), batches)[1]

    return run


def reference_runs(fn: Any, params: Any, batches: Any, numbers: np.ndarray) -> np.ndarray:
    """Return the losses of every run by the formula, in float64."""
    with jax.enable_x64(True):
        wide, (x, y) = jax.tree.map(np.float64, params), batches
        slope = jax.jit(jax.value_and_grad(fn))
        losses = []
        for rate, momentum in numbers:
            p, v = wide, jax.tree.map(np.zeros_like, wide)
            for batch in zip(np.float64(x), y, strict=True):
                value, g = slope(p, batch)
                v = jax.tree.map(lambda v, g, momentum=momentum: momentum * v + g, v, g)
                p = jax.tree.map(lambda p, v, rate=rate: p - rate * v, p, v)
                losses.append(float(value))
        return np.reshape(losses, (len(numbers), -1))


def measure_sweep(session: Session) -> list[Row]:
    """Time a step of all runs of a sweep."""
    fn, params, data = (
        loss(TASKS["mlp"].logits),
        start("mlp"),
        batches("mlp", SWEPT, session.rng("mlp")),
    )
    stacked = tuple(map(np.stack, zip(*data, strict=True)))
    numbers = np.geomspace([1e-3, 0.1], [0.03, 0.9], RUNS, dtype=np.float32)
    run = run_of(fn, jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, stacked))

    def contestant(name: str, place: str, program: Callable[[], Any]) -> Contestant:
        def prepare(units: int) -> Program:
            began = time.perf_counter()
            np.asarray(program())
            return Program(lambda: np.asarray(program()), SWEPT, time.perf_counter() - began)

        return Contestant(name, "sweep", place, prepare)

    beside, alone = jax.jit(jax.vmap(run)), jax.jit(run)
    entered = [
        contestant("fnn, vmap of the runs", "vmap", lambda: beside(*numbers.T)),
        contestant(
            "fnn, one after the other", "scan", lambda: jnp.stack([alone(*n) for n in numbers])
        ),
    ]
    want = {"sweep": reference_runs(fn, params, stacked, numbers)}
    one = work("mlp", MOMENTUM)
    facts = {"case": f"{RUNS} runs of the MLP", "batch": TASKS["mlp"].batch}
    facts |= {"flops": RUNS * one["flops"], "bytes": RUNS * one["bytes"]}
    return [facts | row for row in race(entered, want, session.budget)]


def jobs(session: Session) -> Iterator[Job]:
    for task in TASKS:
        if not session.quick or task in QUICK:
            yield TASKS[task].name, functools.partial(measure, task, session)
    yield f"{RUNS} runs", functools.partial(measure_sweep, session)
