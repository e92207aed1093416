"""The contract of an optimizer, and what all optimizers share.

``state = init(params)``, then ``updates, state = update(grads, state, params)``, as in optax; the
updates are added to the params. An optimizer of fnn is one rule, the formula for one leaf, and
`leafwise` carries it over a pytree. Half-precision leaves are computed in float32 and stored in
their own dtype.

A learning rate is a `Rate`: a number, a scalar array, or a schedule, a function of the step number
(0 is the first step). The state's leaf ``learning_rate`` holds the rate of the next step and is
what the next step uses: `learning_rate` reads it and `with_learning_rate` replaces it, which
recompiles nothing.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from fnn.checks import wrong
from fnn.dtypes import accumulator
from fnn.trees import check_like

Schedule = Callable[[Int[Array, ""]], Float[Array, ""] | float]
Rate = float | Float[Array, ""] | Schedule


class Transform(Protocol):
    """What every function here needs of an optimizer or transform, fnn's, optax's or your own."""

    @property
    def init(self) -> Callable[[Any], Any]:
        """``init(params) -> state``."""

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]:
        """``update(grads, state, params=None) -> (updates, state)``, with any extra arguments."""


class Update(Protocol):
    """``update(grads, state, params=None, **extra) -> (updates, state)``."""

    def __call__(self, grads: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        """Return the updates, to be added to params, and the new state."""


class Optimizer(NamedTuple):
    """A pair of pure functions that any optax chain accepts.

    Attributes:
        init: ``init(params) -> state``.
        update: ``update(grads, state, params=None, **extra) -> (updates, state)``; the updates
            are to be added to the params.
    """

    init: Callable[[Any], Any]
    update: Update


class State(NamedTuple):
    """State of an optimizer that `leafwise` makes.

    Attributes:
        step: int32[], steps taken.
        learning_rate: float[], the rate of the next step.
        moments: by their name in the formula, pytrees like the params.
    """

    step: Int[Array, ""]
    learning_rate: Float[Array, ""]
    moments: dict[str, Any]


class Now(NamedTuple):
    """What a rule knows besides its leaf: the learning rate, and the step number from 1."""

    rate: Any
    t: Any


def leafwise(
    name: str,
    rule: Callable[..., tuple[Any, ...]],
    learning_rate: Rate,
    **initial: float | Callable[[Any], Any],
) -> Optimizer:
    """Carry ``rule(now, g, *moments) -> (update, *moments)`` over a pytree.

    ``initial`` names the moments; each starts from a number everywhere, or from a function of the
    leaf, where it has a shape of its own.
    """

    def init(params: Any) -> State:
        moments = {
            key: jax.tree.map(x0 if callable(x0) else lambda x, x0=x0: jnp.full_like(x, x0), params)
            for key, x0 in initial.items()
        }
        return first_state(learning_rate, moments)

    def update(grads: Any, state: State, params: Any = None, **extra: Any) -> tuple[Any, State]:
        del extra
        moments = [state.moments[key] for key in initial]  # a jit returns the dict sorted
        check_like(name, "grads", grads, [*moments, grads][0] if params is None else params)
        structure = jax.tree.structure(grads)
        columns: list[list[Any]] = [[] for _ in range(1 + len(initial))]
        for leaf in zip(*[jax.tree.leaves(x) for x in (grads, *moments)], strict=True):
            dtype = accumulator(leaf[0].dtype)
            now = Now(state.learning_rate.astype(dtype), (state.step + 1).astype(dtype))
            new = rule(now, *[x.astype(dtype) for x in leaf])
            for column, value, old in zip(columns, new, leaf, strict=True):
                column.append(value.astype(old.dtype))
        updates, *trees = [jax.tree.unflatten(structure, column) for column in columns]
        return updates, next_state(learning_rate, state, dict(zip(initial, trees, strict=True)))

    return Optimizer(init, update)


def first_state(rate: Rate, moments: dict[str, Any]) -> State:
    """Return the state before the first step."""
    start = jnp.zeros((), jnp.int32)
    return State(start, _rate_at(rate, start), moments)


def next_state(rate: Rate, state: State, moments: dict[str, Any]) -> State:
    """Return the state one step later."""
    step = state.step + 1
    return State(step, _rate_at(rate, step) if callable(rate) else state.learning_rate, moments)


def _rate_at(rate: Rate, step: Any) -> jax.Array:
    return jnp.asarray(rate(step) if callable(rate) else rate, float)


def moving_mean(mean: Any, x: Any, decay: float) -> Any:
    """Return the exponential moving mean with one more value."""
    return decay * mean + (1 - decay) * x


def total_weight(decay: float, t: Any) -> Any:
    """Return ``1 - decay^t``: what the weights of t values in a moving mean add up to."""
    return 1 - decay**t


def mean_hat(m: Any, g: Any, t: Any, decay: float, *, nesterov: bool = False) -> Any:
    """Return a moving mean without its bias to the zero it starts from.

    With ``nesterov``, what it will be after one more step with the same gradient.
    """
    if nesterov:
        ahead = decay * m / total_weight(decay, t + 1)
        return ahead + (1 - decay) * g / total_weight(decay, t)
    return m / total_weight(decay, t)


def run_update(
    transform: Transform, grads: Any, state: Any, params: Any, extra: dict[str, Any]
) -> tuple[Any, Any]:
    """Call any transform's update with those of the extra arguments that it takes."""
    takes = inspect.signature(transform.update).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        extra = {name: value for name, value in extra.items() if name in takes}
    return transform.update(grads, state, params, **extra)


def need_params(name: str, grads: Any, params: Any) -> None:
    """Raise the error of a transform that was called without params, or with others."""
    if params is None:
        raise wrong(name, "params", "None", "the parameters: update(grads, state, params)")
    check_like(name, "grads", grads, params)


def _is_rate(path: tuple[Any, ...]) -> bool:
    return getattr(path[-1] if path else None, "name", None) == "learning_rate"


def learning_rate(state: PyTree[Any]) -> Float[Array, ""]:
    """Return the learning rate of the next step.

    Args:
        state: of an fnn optimizer, however deep within chains and wrappers, fnn's or optax's.

    Returns:
        float[], the state's leaf ``learning_rate``.

    Raises:
        ValueError: the state holds no learning rate, or several that may differ.

    >>> float(fnn.learning_rate(fnn.sgd(0.5).init(jnp.zeros(3))))
    0.5
    """
    rates = [x for path, x in jax.tree_util.tree_leaves_with_path(state) if _is_rate(path)]
    if len(rates) != 1:
        needed = "exactly one; read the leaf `learning_rate` of the part that you mean"
        raise wrong("learning_rate", "state", f"{len(rates)} leaves `learning_rate`", needed)
    rate: Array = rates[0]
    return rate


def with_learning_rate(state: PyTree[Any], rate: float | Float[Array, ""]) -> PyTree[Any]:
    """Return the state with another learning rate for the next step and, without a schedule, all.

    The leaf keeps its dtype, so that a compiled step takes the new state as it took the old one.

    Args:
        state: as `learning_rate` takes it.
        rate: a number or a scalar array.

    Returns:
        The new state.

    Raises:
        ValueError: as `learning_rate`.

    >>> opt = fnn.sgd(0.5)
    >>> state = fnn.with_learning_rate(opt.init(jnp.zeros(1)), 0.25)
    >>> opt.update(jnp.ones(1), state)[0].tolist()
    [-0.25]
    """
    dtype = learning_rate(state).dtype
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(rate, dtype) if _is_rate(path) else x, state
    )
