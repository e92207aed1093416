"""A whole training run: `train` and its `Report`.

Python runs once per report; everything between two reports is one call of one compiled program.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from fnn.checks import check_int, check_key
from fnn.optimizers.descent import Optimizer
from fnn.training.arrays import check_data, shuffled
from fnn.training.loop import advance
from fnn.training.step import Learner, Loss, Plan, make_plan
from fnn.trees import check_params


class Report(NamedTuple):
    """Where a run stands: what `train` yields after every chunk of steps.

    Attributes:
        epoch: the epoch that the chunk belongs to, from 1.
        step: optimizer steps since the start of the run.
        loss: mean over the chunk's examples, each as its own step saw it; NaN and infinity stay.
        examples_per_second: speed of the chunk; compilation is not counted.
        params: the parameters after the chunk; they stay valid as the run goes on.
        state: the optimizer's state after the chunk; pass both to `train` to continue.
    """

    epoch: int
    step: int
    loss: float
    examples_per_second: float
    params: Any
    state: Any

    def __str__(self) -> str:
        """Return the report on one line, without the arrays."""
        return (
            f"epoch {self.epoch:3d}  step {self.step:6d}  loss {self.loss:<9.4g}"
            f"  {self.examples_per_second:,.0f} examples/s"
        )


def train(
    loss: Loss,
    params: PyTree[Array],
    optimizer: Optimizer,
    data: PyTree[Array],
    *,
    batch_size: int,
    epochs: int,
    key: Array,
    state: PyTree[Array] | None = None,
    report_every: int | None = None,
) -> Iterator[Report]:
    """Train in one compiled program, reporting after every epoch.

    Each epoch visits every example once, in a fresh order drawn from ``fold_in(key, epoch)``, in
    batches of batch_size and a last one of the rest. The same arguments give the same numbers.

    Args:
        loss: ``loss(params, batch)``, a scalar mean over the batch, as `make_step` takes it; a
            parameter named ``key`` receives another key at every step.
        params: any pytree of floating-point arrays; not donated.
        optimizer: any (init, update) pair, as `make_step` takes it.
        data: any pytree of arrays with one common leading axis, the examples; a batch has the same
            structure. It is moved to the device once.
        batch_size: examples in a step, at most all of them.
        epochs: passes over data.
        key: the source of all randomness.
        state: the optimizer's state to continue from; by default ``optimizer.init(params)``.
        report_every: steps between two reports; by default one report an epoch. The last chunk of
            an epoch may be shorter.

    Returns:
        An iterator of `Report`; stopping early loses nothing that was yielded.

    Raises:
        ValueError: at the call, a size that does not fit, or data of unequal lengths; at the first
            report, as `make_step`.
        TypeError: a leaf of params that is no floating-point array, or a key that is none.

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
    n = check_data(data, batch_size)
    check_int("train", "epochs", epochs, 0)
    check_int("train", "report_every", 1 if report_every is None else report_every, 1)
    check_key("train", "key", key)
    check_params("train", params)
    plan = make_plan("train", loss, optimizer)
    params, data = jax.tree.map(jnp.asarray, (params, data))
    learner = Learner(params, optimizer.init(params) if state is None else state)
    return _reports(plan, learner, data, n, batch_size, epochs, key, report_every)


def _reports(
    plan: Plan,
    learner: Learner,
    data: Any,
    n: int,
    batch_size: int,
    epochs: int,
    key: Array,
    report_every: int | None,
) -> Iterator[Report]:
    steps = -(-n // batch_size)  # of an epoch
    stride = report_every or steps
    learner = jax.tree.map(_strong, learner)
    for epoch in range(epochs):
        for start in range(0, steps, stride):
            stop = min(start + stride, steps)
            clock = time.perf_counter()
            if start == 0:
                feed = shuffled(data, batch_size, key, epoch)
            if epoch == start == 0:
                advance(plan, learner, feed, 0, 0)  # no step: compiles
                clock = time.perf_counter()
            learner, total = advance(plan, learner, feed, start, stop)
            examples = min(stop * batch_size, n) - start * batch_size
            mean = float(total) / examples  # waits for the device
            speed = examples / (time.perf_counter() - clock)
            yield Report(epoch + 1, epoch * steps + stop, mean, speed, *learner)


def _strong(x: Any) -> Array:
    """Return an array of fixed dtype, as a compiled program returns it."""
    return jnp.asarray(x, jnp.result_type(x))
