"""The loop over the steps between two reports, as one compiled program.

A feed gives it the batches: `fnn.training.arrays.Shuffled`. A last batch that is smaller is a
smaller step of the same program: no example is dropped, repeated or padded.
"""

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from fnn.training.step import Learner, Plan, take_step


class Feed(Protocol):
    """The batches of an epoch: ``whole`` ones of ``size`` examples, then one of ``rest``, if any."""

    noise: Array
    whole: int
    size: int
    rest: int

    def batch(self, i: Any, size: int) -> Any:
        """Return batch i, of this size."""


@functools.partial(jax.jit, static_argnums=0)
def advance(
    plan: Plan, learner: Learner, feed: Feed, start: Array, stop: Array
) -> tuple[Learner, Array]:
    """Return the learner after steps start to stop, and the sum of the loss over their examples."""

    def step(i: Array, carry: Any, size: int) -> Any:
        learner, total = carry
        key = jax.random.fold_in(feed.noise, i) if plan.keyed else None
        learner, value, _ = take_step(plan, learner, feed.batch(i, size), key)
        return learner, total + size * value.astype(total.dtype)

    body = functools.partial(step, size=feed.size)
    carry = lax.fori_loop(start, jnp.minimum(stop, feed.whole), body, (learner, jnp.zeros(())))
    if feed.rest:  # the last batch of the epoch has a shape of its own
        last = functools.partial(step, feed.whole, size=feed.rest)
        carry = lax.cond(stop > feed.whole, last, lambda same: same, carry)
    return carry
