"""The loop over the steps between two reports, as one compiled program.

A feed gives it the batches: `fnn.training.arrays.Shuffled` or `fnn.training.stream.Stacked`. A last
batch that is smaller is a smaller step of the same program: no example is dropped, repeated or
padded.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.checks import check_array, describe, wrong
from fnn.dtypes import accumulator, is_floating, is_real
from fnn.training.report import Run
from fnn.training.sharding import gather
from fnn.training.step import Learner, Observer, Plan, Seen, take_step
from fnn.trees import all_finite, check_same

# jit keeps the trace: `_nothing`, which asks for shapes, and the loop trace the loss once.
once = functools.partial(jax.jit, static_argnums=0, inline=True)
one_step = once(take_step)


class Feed(Protocol):
    """What gives the loop its batches."""

    @property
    def whole(self) -> int:
        """How many batches have ``size`` examples."""

    @property
    def size(self) -> int:
        """How many examples these have."""

    @property
    def rest(self) -> int:
        """How many examples the batch after them has; 0 where there is none."""

    def batch(self, i: Any, size: int) -> Any:
        """Return batch i, of this size."""


class Place(NamedTuple):
    """Where a feed stands in its run.

    Attributes:
        noise: the key of the epoch's randomness.
        batch: batches of the epoch that come before the feed.
        step: steps of the run that come before the feed.
    """

    noise: Array
    batch: Any
    step: Any


class Call(NamedTuple):
    """One call of `advance`, as a part of a run.

    Attributes:
        feed, place, start, stop: its arguments.
        epoch: the epoch that it belongs to, from 0.
        examples: how many it goes through.
        ends_epoch: whether the epoch is over after it.
        reports: whether a report follows.
    """

    feed: Feed
    place: Place
    start: int
    stop: int
    epoch: int
    examples: int
    ends_epoch: bool
    reports: bool

    def run_after(self, learner: Learner, stop: int, key: Array) -> Run:
        """Return the run whose learner has taken the steps of this call up to ``stop``."""
        batch, step = self.place.batch + stop, self.place.step + stop
        learner = jax.tree.map(lambda x: x, learner)  # containers of its own, which may change
        if self.ends_epoch and stop == self.stop:
            return Run(*learner, self.epoch + 1, 0, step, key)
        return Run(*learner, self.epoch, batch, step, key)


@jax.jit
def epoch_keys(key: Array, epoch: Any) -> Array:
    """Return two keys: of the order of an epoch's examples, and of its steps' randomness."""
    return jax.random.split(jax.random.fold_in(key, epoch))


class Watch(NamedTuple):
    """What is observed: ``observe(params, grads, updates, batch)`` at every ``every``-th step.

    Attributes:
        observe: the function.
        every: steps from one observation to the next.
        most: observations that one call of `advance` may make.
    """

    observe: Observer
    every: int
    most: int


class Tally(NamedTuple):
    """What a call of `advance` counts.

    Attributes:
        loss: mean of the loss over the examples.
        aux: likewise, of what loss returns beside it.
        seen: how many observations there are.
        observed: the observations, stacked; the places after ``seen`` are empty.
        finite: whether the mean of the loss and all parameters are finite.
    """

    loss: Array
    aux: Any
    seen: Any = 0
    observed: Any = None
    finite: Any = True


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(
    plan: Plan,
    watch: Watch | None,
    learner: Learner,
    feed: Feed,
    place: Place,
    start: Any,
    stop: Any,
) -> tuple[Learner, Tally]:
    """Take the steps from start to stop, counted from the feed's first batch."""

    def step(i: Any, carry: tuple[Learner, Tally], size: int) -> tuple[Learner, Tally]:
        learner, tally = carry
        batch = feed.batch(i, size)
        after, seen = one_step(plan, learner, batch, _key(plan, place, i))
        share = size / jnp.maximum((i - start) * feed.size + size, 1)  # of the examples so far
        tally = _counted(tally, seen, share)
        if watch is not None:
            tally = _observed(watch, place.step + i, tally, learner.params, seen, batch)
        return after, tally

    body = functools.partial(step, size=feed.size)
    nothing = _nothing(plan, watch, learner, feed, place)
    carry = lax.fori_loop(start, jnp.minimum(stop, feed.whole), body, (learner, nothing))
    if feed.rest:  # the last batch of an epoch has a shape of its own
        last = functools.partial(step, feed.whole, size=feed.rest)
        carry = lax.cond(stop > feed.whole, last, lambda same: same, carry)
    learner, tally = carry
    return learner, tally._replace(finite=all_finite((tally.loss, learner.params)))


def run_call(
    plan: Plan, watch: Watch | None, learner: Learner, call: Call, stop: int
) -> tuple[Learner, Tally]:
    """Take the steps of a call up to this one, and wait for what was counted."""
    learner, tally = advance(plan, watch, learner, call.feed, call.place, call.start, stop)
    return learner, jax.device_get(tally)


@functools.partial(jax.jit, static_argnums=(0, 4))
def look(plan: Plan, learner: Learner, feed: Feed, place: Place, i: int) -> tuple[Learner, Seen]:
    """Take step i alone, counted from the feed's first batch, and return what it saw."""
    batch = feed.batch(i, feed.size if i < feed.whole else feed.rest)
    return take_step(plan, learner, batch, _key(plan, place, i))


def _key(plan: Plan, place: Place, i: Any) -> Array | None:
    return jax.random.fold_in(place.noise, place.batch + i) if plan.keyed else None


def _nothing(plan: Plan, watch: Watch | None, learner: Learner, feed: Feed, place: Place) -> Tally:
    """Return the tally of no step."""
    if not plan.has_aux and watch is None:
        return Tally(jnp.zeros(()), None)

    def first() -> tuple[Any, Any]:
        batch = feed.batch(0, feed.size)
        _, seen = one_step(plan, learner, batch, _key(plan, place, 0))
        return seen.aux, None if watch is None else _observe(watch, learner.params, seen, batch)

    aux, values = jax.eval_shape(first)
    means = jax.tree.map_with_path(lambda at, x: jnp.zeros(x.shape, _mean_dtype(at, x)), aux)
    if watch is None:
        return Tally(jnp.zeros(()), means)
    empty = jax.tree.map(lambda x: jnp.zeros((watch.most, *x.shape), x.dtype), values)
    return Tally(jnp.zeros(()), means, jnp.zeros((), jnp.int32), empty)


def _mean_dtype(path: Any, x: Any) -> Any:
    """Return the dtype in which means over batches are averaged, those of integers included."""
    if not is_real(x.dtype):
        place = "loss: aux" + jax.tree_util.keystr(path)
        raise wrong("train", place, describe(x), "real numbers", TypeError)
    return accumulator(x.dtype if is_floating(x.dtype) else jnp.result_type(float))


def check_aux(aux: Any, like: Any) -> None:
    """Raise unless what loss returns beside its value is shaped as for another batch."""
    needed = "means over the batch, of one shape for every batch"
    check_same("train", "loss: aux", aux, like, needed)


def check_observed(observed: Any, like: Any) -> None:
    """Raise unless an observation is shaped as that of another batch."""
    needed = "of one shape for every batch"
    check_same("train", "what observe returns", observed, like, needed)


def _counted(tally: Tally, seen: Seen, share: Array) -> Tally:
    """Average in a step over this share of the examples so far, so that no sum overflows."""

    def add(mean: Array, x: Any) -> Array:
        part = share.astype(mean.dtype)
        return (1 - part) * mean + part * jnp.asarray(x, mean.dtype)

    check_aux(seen.aux, tally.aux)
    aux = jax.tree.map(add, tally.aux, gather(seen.aux))
    return tally._replace(loss=add(tally.loss, seen.loss), aux=aux)


def _observed(watch: Watch, step: Any, tally: Tally, params: Any, seen: Seen, batch: Any) -> Tally:
    """Add an observation where the step is one to observe."""

    def add(tally: Tally) -> Tally:
        values = gather(_observe(watch, params, seen, batch))  # as rows, which are whole
        check_observed(values, jax.tree.map(lambda rows: rows[0], tally.observed))
        rows = jax.tree.map(lambda rows, x: rows.at[tally.seen].set(x), tally.observed, values)
        return tally._replace(observed=rows, seen=tally.seen + 1)

    due = step % watch.every == 0
    new: Tally = lax.cond(due, add, lambda same: same, tally)
    return new


@once
def _observe(watch: Watch, params: Any, seen: Seen, batch: Any) -> Any:
    values = watch.observe(params, seen.grads, seen.updates, batch)
    for path, x in jax.tree.leaves_with_path(values):
        check_array("train", "what observe returns" + jax.tree_util.keystr(path), x)
    return values
