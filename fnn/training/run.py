"""A whole training run: `train`.

Python runs once per report, or once per few batches that are read; everything between is one call
of one compiled program.
"""

import functools
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from fnn.checks import (
    LAST,
    attribute,
    check_alive,
    check_int,
    check_key,
    check_known,
    check_one_of,
    check_outside,
    check_takes,
    describe,
    wrong,
)
from fnn.optimizers.base import Transform
from fnn.placement import are_together, beside, on_device
from fnn.static import frozen
from fnn.training.arrays import array_calls, check_examples, check_parts
from fnn.training.loop import Call, Tally, Watch, check_aux, check_observed, moved, run_call
from fnn.training.nonfinite import find
from fnn.training.report import NonFiniteError, Report, Run
from fnn.training.step import Learner, Loss, Observer, Plan, check_dtypes, make_plan
from fnn.training.stream import MOST, Batches, ahead, batch_calls, check_batches, kind_of
from fnn.trees import check_like, check_params, check_same


def train(
    loss: Loss,
    params: PyTree[Array],
    optimizer: Transform,
    data: PyTree[Array] | Batches,
    *,
    epochs: int,
    key: Array,
    batch_size: int | None = None,
    stats: PyTree[Array] | None = None,
    has_aux: bool = False,
    resume: Run | None = None,
    report_every: int | None = None,
    observe: Observer | None = None,
    observe_every: int = 1,
    on_nonfinite: str = "raise",
) -> Generator[Report]:
    """Train in one compiled program, reporting after every epoch.

    Over arrays, each epoch visits every example once, in a fresh order drawn from
    ``fold_in(key, epoch)``, in batches of batch_size and a last one of the rest. Over an iterable,
    each epoch takes its batches as they come; a thread with the caller's settings of numbers,
    devices and checks in JAX, and of NumPy, reads them ahead, up to the end of the epoch. The next
    epoch is begun when its first report is asked for. The same arguments give the same numbers, and
    a run that is interrupted and resumed the same as one that is not.

    On several devices each computes its own examples, if data or its batches are sharded over them;
    `fnn.sharding` shards params as well. Inside `jax.jit`, `jax.grad` or `jax.vmap`, as for a sweep
    of learning rates, a run is a scan of steps, which `make_step` shows.

    Args:
        loss: ``loss(params, batch)``, a scalar mean over the batch, as `make_step` takes it; a
            parameter named ``key`` receives another key at every step. A later run with the same
            function may run the program of this one: what loss reads in a dict, an array or an
            object that changes belongs in params or data.
        params: any pytree of floating-point arrays, where a new run starts, read at the call; not
            donated.
        optimizer: any (init, update) pair, as `make_step` takes it.
        data: any pytree of arrays with one common leading axis, the examples, of which a batch has
            the structure, and which are moved to the device once. To a CPU a NumPy array may move
            without a copy: do not write into it while the run lasts. Or, without batch_size, an
            iterable of batches such as a list, a PyTorch or grain loader, a generator for a single
            epoch, or a function that takes the epoch, from 0, and returns an iterable. Each shape
            of batch is a program, compiled once, when the first such batch comes. A smaller last
            one makes a second program: its size is not known in advance, and padding would change
            the mean that loss returns. Over arrays one program has both shapes and takes as long
            to compile. A batch counts as many examples as its first array is long.
        epochs: passes over data in all, those of a resumed run included.
        key: the source of all randomness.
        batch_size: examples in a step, at most all of them, a multiple of the number of devices
            that they are on; None where data are batches.
        stats: running statistics to start from, such as those of batch normalization. The loss is
            then ``loss(params, stats, batch)`` and returns ``(value, new stats)``.
        has_aux: whether loss returns one more thing, last, such as a dict of accuracies: a pytree
            of means over the batch, of one shape for every batch. Their means over the examples
            are the report's ``aux``.
        resume: the `Run` of an earlier report, to go on from; None starts a new one. In the middle
            of an epoch batch_size must stay the same: a run counts batches, whatever their size. A
            learning rate that is a number is in the state, and the optimizer's own does not count:
            ``run._replace(state=fnn.with_learning_rate(run.state, 1e-5))`` goes on with another.
        report_every: steps between two reports; by default one report an epoch. The last chunk of
            an epoch may be shorter.
        observe: ``observe(params, grads, updates, batch)``, a small pytree of arrays, computed in
            the program at every observe_every-th step, the first included, with the params before
            the step. The report has them in ``observed``, one row for each.
        observe_every: steps from one observation to the next.
        on_nonfinite: what to do about a loss or a parameter that is NaN or infinite: ``"raise"`` a
            `NonFiniteError`, which says where it began and holds the last good run; ``"stop"``,
            with that run in a last report and the error in its ``stopped``; ``"ignore"``. The
            check reads the parameters once in a call of the program, not at every step, which is
            0.03 % of the operations of one step of a small CNN. Within `fnn.accumulate` a bad
            gradient shows when its mean is used, up to k - 1 steps later: the state of the last
            good run may hold it already.

    Returns:
        A generator of `Report`; stopping early loses nothing that was yielded.

    Raises:
        ValueError: at the call, a size that does not fit, data of unequal lengths, or a run to
            resume of another model, optimizer or key; at the first report, as `make_step`,
            and arrays on several meshes that one program does not take; at a report, arrays that it
            needs and that were donated since the call or the report before; where they are read,
            integers of 64 bits that do not fit 32, without x64.
        TypeError: a leaf of params that is no floating-point array, or a key that is none; a call
            inside a program that JAX traces.
        NonFiniteError: as on_nonfinite says.

    Source: L. Bottou, Curiously fast convergence of some stochastic gradient descent algorithms
    (2009), on shuffled passes.

    >>> data = jnp.array([1.0, 2.0, 6.0])
    >>> def loss(w, batch):
    ...     return ((w - batch) ** 2).mean()
    >>> for report in train(loss, jnp.zeros(()), fnn.sgd(0.1), data,
    ...                     batch_size=3, epochs=20, key=jax.random.key(0)):
    ...     pass
    >>> round(float(report.params), 1), report.step
    (3.0, 20)
    """
    check_int("train", "epochs", epochs, 0)
    check_int("train", "report_every", 1 if report_every is None else report_every, 1)
    check_int("train", "observe_every", observe_every, 1)
    check_one_of("train", "on_nonfinite", on_nonfinite, ("raise", "stop", "ignore"))
    if observe is not None:
        check_takes("train", "observe", observe, "params, grads, updates, batch")
    check_key("train", "key", key)
    check_params("train", params)
    check_known("train", params=params, stats=stats, key=key, resume=resume, data=data)
    check_outside("train", "a run inside is a jax.lax.scan of the steps of fnn.make_step")
    check_alive("train", params=params, stats=stats, resume=resume)
    plan = functools.partial(
        make_plan, "train", loss, optimizer, has_stats=stats is not None, has_aux=has_aux
    )
    plan()  # for its errors
    with moved():
        params, stats, key = _own((params, stats, key))
        run = Run(params, _own(optimizer.init(params)), stats, 0, 0, 0, key)
    if resume is None:
        check_alive("train", **{"optimizer.init(params)": run.state})  # it may hold a used-up array
    else:
        _check_resume(resume, run)
        with moved():
            (params, state, stats), key = _own((resume[:3], resume.key))
        run = Run(params, state, stats, int(resume.epoch), int(resume.batch), int(resume.step), key)
    every = None if report_every is None else int(report_every)  # which may be NumPy's
    calls, most = _calls(data, batch_size, run, epochs, every)
    due = min(observe_every, LAST)  # steps are counted in an int32

    def watch() -> Watch | None:
        return None if observe is None else Watch(frozen(observe), due, -(-most // due))

    whose = "" if resume is None else "resume."
    return _reports(plan, watch, run, calls, on_nonfinite, whose)


def _calls(
    data: Any, batch_size: int | None, run: Run, epochs: int, every: int | None
) -> tuple[Generator[Call], int]:
    """Return the calls of the compiled program that make the run, and the most steps in one."""
    begin = run._replace(params=None, state=None, stats=None)  # which would be held to the end
    if batch_size is None:
        check_batches(data, run, epochs)
        left = threading.Event()
        calls = batch_calls(data, begin, epochs, every, left)
        return ahead(calls, left), min(MOST, every or MOST)
    n, batch_size = check_examples("train", data, batch_size), int(batch_size)
    check_alive("train", data=data)
    if batch_size > n:
        raise wrong("train", "batch_size", batch_size, f"an int >= 1 and at most the {n} examples")
    steps = -(-n // batch_size)
    if run.batch >= steps:
        needed = f"less than the {steps} batches of an epoch of this data"
        raise wrong("train", "resume.batch", run.batch, needed)
    with moved():
        data = on_device(data)
    check_parts("train", data, batch_size)
    every = min(every or steps, steps)
    return array_calls(data, batch_size, begin, epochs, every), every


def _reports(
    planned: Callable[[], Plan],
    watched: Callable[[], Watch | None],
    run: Run,
    calls: Generator[Call],
    on_nonfinite: str,
    whose: str,
) -> Generator[Report]:
    learner, key = Learner(run.params, run.state, run.stats), run.key
    del run  # at a report one learner is held, within a call two
    # By the kind of a batch. Each has the plan of when it was compiled, as later runs find its
    # program by that: what functions reach may have changed since the call or the program before.
    compiled: dict[Any, tuple[Plan, Watch | None]] = {}
    counted: list[tuple[int, Tally]] = []
    clock = 0.0
    with closing(calls):
        for call in calls:
            if not counted:  # since the call, or the last report, the caller had the arrays
                names = [("report." if compiled else whose) + name for name in learner._fields]
                check_alive("train", **dict(zip(names, learner, strict=True)))
            if (kind := kind_of(call.feed)) not in compiled:
                began = time.perf_counter()
                learner = beside(learner, call.feed)
                plan, watch = planned(), watched()
                _compile(plan, watch, learner, call)
                now = time.perf_counter()
                clock = clock + now - began if compiled else now
                compiled[kind] = plan, watch
            plan, watch = compiled[kind]
            after, tally = run_call(plan, watch, learner, call, call.stop)
            if not tally.finite and on_nonfinite != "ignore":
                error, examples, tally = find(plan, watch, learner, call, key)
                if on_nonfinite == "raise":
                    try:
                        raise error
                    finally:
                        del error  # whose traceback keeps this frame, and so would keep itself
                yield _report(error.run, call, [*counted, (examples, tally)], clock, error)
                return
            learner = after
            counted.append((call.examples, tally))
            if call.reports:
                yield _report(call.run_after(learner, call.stop, key), call, counted, clock)
                counted, clock = [], time.perf_counter()


def _report(
    run: Run,
    call: Call,
    counted: list[tuple[int, Tally]],
    clock: float,
    stopped: NonFiniteError | None = None,
) -> Report:
    """Join what the calls since the last report counted, each over some examples."""
    seconds = time.perf_counter() - clock
    numbers, tallies = zip(*counted, strict=True)
    examples = sum(numbers)

    def mean(*means: Any) -> Any:
        parts = [n * np.asarray(x, np.float64) for n, x in zip(numbers, means, strict=True)]
        total = np.sum(parts, axis=0) / (examples or np.nan)
        return total if np.ndim(total) else float(total)

    def join(*parts: Any) -> Any:
        return np.concatenate([x[: tally.seen] for x, tally in zip(parts, tallies, strict=True)])

    for tally in tallies:
        check_aux(tally.aux, tallies[0].aux)
        check_observed(tally.observed, tallies[0].observed)
    loss = mean(*[tally.loss for tally in tallies])
    aux = jax.tree.map(mean, *[tally.aux for tally in tallies])
    observed = jax.tree.map(join, *[tally.observed for tally in tallies])
    speed = examples / seconds
    return Report(call.epoch + 1, run.step, loss, speed, run, aux, observed, stopped)


def _check_resume(resume: Any, new: Run) -> None:
    """Raise unless a run can go on where another one of this kind stopped."""
    if not isinstance(resume, Run):
        needed = "a Run, such as report.run, or None"
        raise wrong("train", "resume", describe(resume), needed, TypeError)
    for name, least in (("epoch", 0), ("batch", 0), ("step", resume.batch)):
        x = getattr(resume, name)  # an array, if the run came through jax.tree.map
        check_int("train", f"resume.{name}", x.item() if attribute(x, "shape") == () else x, least)
    check_like("train", "resume.params", resume.params, new.params)
    whose = "as this optimizer's init returns it"
    check_same("train", "resume.state", resume.state, new.state, whose)
    check_same("train", "resume.stats", resume.stats, new.stats, "as in stats")
    for argument in ("params", "state", "stats"):
        got, needed = getattr(resume, argument), getattr(new, argument)
        check_dtypes("train", f"resume.{argument}", got, needed, "as a new run has it")
    if _bits(resume.key) != _bits(new.key):
        needed = "the key that the run began with; resume=run._replace(key=key) changes it"
        raise wrong("train", "key", "another key than that of resume", needed)


def _bits(key: Any) -> Any:
    """Return what tells keys apart."""
    return describe(key), jax.random.key_data(key).tobytes()


def _compile(plan: Plan, watch: Watch | None, learner: Learner, call: Call) -> None:
    """Compile the program of a call; what JAX refuses for several meshes is named."""
    try:
        run_call(plan, watch, learner, call, call.start)  # no step
    except ValueError as error:
        if are_together(learner, call.feed):
            raise
        got, place = "arrays on more than one mesh", "params, state, stats and data"
        needed = "one: fnn.sharding.place(params, mesh) or, of a run to resume, place(run, mesh)"
        raise wrong("train", place, got, needed) from error


def _own(tree: Any) -> Any:
    """Return a tree in containers of its own, of arrays of fixed dtype that nobody writes into.

    So does a compiled program. NumPy copies its own arrays: `jnp.array` may still be reading them
    when it returns.
    """

    def own(x: Any) -> Array:
        if isinstance(x, jax.Array) and not getattr(x, "weak_type", False):  # keys have none
            return x
        return jnp.asarray(x if isinstance(x, jax.Array) else np.array(x), jnp.result_type(x))

    return jax.tree.map(own, tree)
