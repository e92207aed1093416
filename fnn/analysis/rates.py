"""The learning-rate range test: one short run in which the rate grows at every step.

While the rate is too small the loss hardly falls; then it falls the faster, the larger the rate;
above some rate it grows again. One run shows all three.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from fnn.analysis.curvature import Loss, scalar_loss
from fnn.analysis.noise import read
from fnn.checks import (
    BELOW_ONE,
    POSITIVE_FINITE,
    check_int,
    check_key,
    check_known,
    check_number,
    check_size,
    check_takes,
    count_examples,
    describe,
    wrong,
)
from fnn.functions import taken, takes_key
from fnn.static import frozen
from fnn.trees import FloatTree, check_params, or_fields

DIVERGED = 3.0  # times the size of the least loss so far, above that loss
MARGIN = 10.0  # below the rate of the least loss


class RateRange(NamedTuple):
    """A range test of the learning rate.

    Attributes:
        rates: (steps,), the rate of every step.
        losses: (steps,), the loss of every step's batch before the step.
        smoothed: (steps,), their moving average.
        stop: how many steps there are before the loss diverges.
        suggestion: a rate to train with, or NaN where the loss does not fall.
        how: how the suggestion was found.
    """

    rates: Any
    losses: Any
    smoothed: Any
    stop: int
    suggestion: float
    how: str

    @or_fields
    def __str__(self) -> str:
        """Return the suggestion, and how it was found."""
        return f"learning rate {self.suggestion:.2g}: {self.how}"


def rate_range(
    loss: Loss,
    params: FloatTree,
    optimizer: Callable[..., Any],
    data: PyTree[Shaped[Array, "n ..."]],
    *,
    batch_size: int,
    key: PRNGKeyArray,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 200,
    smoothing: float = 0.9,
) -> RateRange:
    """Train for a few steps with a rate that grows from low to high, and suggest one.

    Step t of T has the rate ``low (high / low)^(t / (T - 1))`` and a batch drawn at random. The run
    is one compiled program, and params stay as they are. The losses are smoothed, ``s <- a s +
    (1 - a) L``, and s corrected for its start. Suggested is a tenth of the rate at which s is
    least, before it first exceeds its least value so far by three times the size of that value.

    Args:
        loss: ``loss(params, batch)``, a scalar mean over the batch; one with a parameter named
            ``key`` receives another key at every step. What it reads in a dict, an array or
            an object that changes is fixed at the first call. One that `fnn.train` takes with
            ``stats`` or ``has_aux`` is wrapped: ``lambda params, batch: loss(params, stats,
            batch)[0]``, or ``loss(params, batch)[0]``.
        params: any pytree of floating-point arrays.
        optimizer: makes the optimizer from its learning rate, as `fnn.adam` does, or
            ``lambda rate: fnn.chain(fnn.clip_by_global_norm(1.0), fnn.adamw(rate))``; optax's do
            as well. An update that takes ``value``, ``grad`` or ``value_fn`` receives them, as from
            `fnn.make_step`.
        data: any pytree of arrays with one common leading axis, the examples.
        batch_size: examples in a step.
        key: draws the batches.
        low, high: the first and the last rate.
        steps: T.
        smoothing: a, in [0, 1).

    Returns:
        A `RateRange`.

    Raises:
        ValueError: a number out of its range; data of unequal lengths; loss is no scalar.
        TypeError: optimizer is no function of the rate; a leaf of params is no floating-point
            array; traced values.

    Source: L. Smith, Cyclical learning rates for training neural networks (2017); the suggestion
    is that of J. Howard, S. Gugger, fastai: a layered API for deep learning (2020).

    >>> data = jnp.linspace(-1, 1, 32)
    >>> def loss(w, x):
    ...     return ((w - x) ** 2).mean()
    >>> found = fnn.analysis.rate_range(
    ...     loss, jnp.full((), 5.0), fnn.sgd, data, batch_size=8, key=jax.random.key(0))
    >>> round(found.suggestion, 1), found.how.partition(",")[0]
    (0.1, 'a tenth of 1')
    """
    function = "analysis.rate_range"
    check_takes(function, "loss", loss, "params, batch", may_draw=True)
    numbers = {"low": low, "high": high, "smoothing": smoothing}
    check_known(function, params=params, data=data, key=key, **numbers)
    check_params(function, params)
    check_number(function, "low", low, POSITIVE_FINITE)
    check_number(function, "high", high, POSITIVE_FINITE)
    if not low < high:
        raise wrong(function, "low, high", f"{low}, {high}", "low < high")
    check_number(function, "smoothing", smoothing, BELOW_ONE)
    check_int(function, "batch_size", batch_size, 1)
    check_size(function, "steps", steps, 2)
    check_key(function, "key", key)
    if not callable(optimizer) or hasattr(optimizer, "update"):
        needed = "a function of the learning rate, such as fnn.adam, or a lambda of it"
        raise wrong(function, "optimizer", describe(optimizer), needed, TypeError)
    check_takes(function, "optimizer", optimizer, "rate")
    n = count_examples(function, data)
    static = frozen(loss), frozen(optimizer), batch_size, steps
    ends = math.log(low), math.log(high)
    rates, losses = map(np.asarray, _run(*static, params, data, key, *ends, n))
    return _suggest(rates, losses, smoothing)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 9))
def _run(
    loss: Loss,
    make: Callable[..., Any],
    batch_size: int,
    steps: int,
    params: Any,
    data: Any,
    key: Array,
    first: Any,
    last: Any,
    n: int,
) -> tuple[Array, Array]:
    """Return the rates, whose logarithms go from first to last, and the losses of the run."""
    function = "analysis.rate_range"
    keyed = takes_key(loss)

    def rate(step: Any) -> Array:
        return jnp.exp(first + (last - first) * (jnp.asarray(step, float) / (steps - 1)))

    optimizer = make(rate)
    if not hasattr(optimizer, "update"):
        raise wrong(function, "optimizer(rate)", describe(optimizer), "an optimizer", TypeError)

    def step(carry: Any, i: Array) -> Any:
        params, state = carry
        draw, noise = jax.random.split(jax.random.fold_in(key, i))
        rows = jax.random.randint(draw, (batch_size,), 0, n)
        own = functools.partial(loss, key=noise) if keyed else loss
        objective = scalar_loss(function, own, params, read(data, rows))
        value, grads = jax.value_and_grad(objective)(params)
        extra = {"value": value, "grad": grads, "value_fn": objective}
        extra = taken(optimizer.update, extra)
        updates, state = optimizer.update(grads, state, params, **extra)
        params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates)
        return (params, state), value

    _, losses = lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return jax.vmap(rate)(jnp.arange(steps)), losses


@np.errstate(over="ignore", invalid="ignore")  # a loss may overflow: there the run has diverged
def _suggest(rates: Any, losses: Any, smoothing: float) -> RateRange:
    """Smooth the losses, find where they diverge, and the least before."""
    smoothed = losses.astype(np.float64)
    for t in range(1, len(losses)):  # the average so far is of weight 1 - a^t
        share = (1 - smoothing) / (1 - smoothing ** (t + 1))
        smoothed[t] = smoothed[t - 1] + share * (smoothed[t] - smoothed[t - 1])
    best = np.minimum.accumulate(np.where(np.isfinite(smoothed), smoothed, np.inf))
    diverged = ~np.isfinite(smoothed) | (smoothed > best + DIVERGED * np.abs(best))
    stop = int(diverged.argmax()) if diverged.any() else len(losses)
    least = int(smoothed[:stop].argmin()) if stop else 0
    if least == 0:
        how = f"the loss does not fall at any rate from {rates[0]:.2g} to {rates[-1]:.2g}"
        return RateRange(rates, losses, smoothed, stop, float("nan"), how)
    end = f"diverges at {rates[stop]:.2g}" if diverged.any() else "never diverges"
    how = f"a tenth of {rates[least]:.2g}, where the smoothed loss is least; it {end}"
    return RateRange(rates, losses, smoothed, stop, float(rates[least]) / MARGIN, how)
