"""A loss or a parameter that is NaN or infinite: at which step of a run, and where it began."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fnn.training.loop import Call, Tally, Watch, look, moved, run_call
from fnn.training.report import NonFiniteError
from fnn.training.step import Learner, Plan


def find(
    plan: Plan, watch: Watch | None, learner: Learner, call: Call, key: Array
) -> tuple[NonFiniteError, int, Tally]:
    """Find the first step of a call, begun with this learner, that makes something not finite.

    A parameter that is not finite stays so, and so does a mean: bisection finds the step, and takes
    no more than twice the time of the call.

    Returns:
        The error, with the run before the step; how many examples the call went through until then,
        and what it counted.
    """
    good, bad, now = call.start, call.stop, learner
    while bad - good > 1:
        middle = (good + bad) // 2
        after, tally = run_call(plan, watch, now, call._replace(start=good), middle)
        if tally.finite:
            good, now = middle, after
        else:
            bad = middle
    with moved():
        after, seen = look(plan, now, call.feed, call.place, good)
    run = call.run_after(now, good, key)
    error = NonFiniteError(float(seen.loss), _first(seen.grads), _first(after.params), run)
    _, tally = run_call(plan, watch, learner, call, good)
    return error, (good - call.start) * call.feed.size, tally


def _first(tree: Any) -> str | None:
    """Return the path of the first leaf that is not finite."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if not jnp.isfinite(leaf).all():
            return jax.tree_util.keystr(path, simple=True, separator="/") or "params"
    return None
