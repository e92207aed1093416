"""First-order optimizers as pairs of pure functions, each written from its formula.

An optimizer is `Optimizer(init, update)` with optax's signature: ``state = init(params)``, then
``updates, state = update(grads, state, params)``, and the updates are added to the params. All of
this module are element-wise: one rule maps the gradient and the moments of one leaf to its update
and new moments, and `_elementwise` carries the rule over a pytree. Half-precision leaves are
computed in float32 and stored in their own dtype.

``learning_rate`` is a number or a schedule, a function of the step number (0 is the first step).
The state's leaf ``learning_rate`` holds the rate of the next step, and is what the next step uses:
read it there, or replace it there, which recompiles nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fnn.messages import describe, wrong

Schedule = Callable[[Int[Array, ""]], Float[Array, ""] | float]
Rate = float | Float[Array, ""] | Schedule


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
    """State of an element-wise optimizer.

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


def _rate_at(learning_rate: Rate, step: Any) -> jax.Array:
    return jnp.asarray(learning_rate(step) if callable(learning_rate) else learning_rate, float)


def _check_like(name: str, grads: Any, like: Any) -> None:
    """Raise an error that names the first path where ``grads`` is not shaped as ``like``."""
    got = dict(jax.tree_util.tree_flatten_with_path(grads)[0])
    needed = dict(jax.tree_util.tree_flatten_with_path(like)[0])
    for path in [*needed, *got]:
        a, b = got.get(path), needed.get(path)
        if a is None or b is None or jnp.shape(a) != jnp.shape(b):
            place = f"grads at {jax.tree_util.keystr(path) or 'the root'}"
            wanted = "no leaf there" if b is None else f"the shape of {describe(b)}"
            raise wrong(name, place, "nothing" if a is None else describe(a), wanted)
    got_tree: Any = jax.tree.structure(grads)
    if got_tree != jax.tree.structure(like):
        raise wrong(name, "grads", got_tree, f"{jax.tree.structure(like)}")


def _elementwise(
    name: str, rule: Callable[..., Any], learning_rate: Rate, **initial: float
) -> Optimizer:
    """Carry ``rule(now, g, *moments) -> (update, *moments)`` over a pytree.

    ``initial`` names the moments and gives the number that each starts from.
    """

    def init(params: Any) -> State:
        moments = {
            key: jax.tree.map(lambda x, value=value: jnp.full_like(x, value), params)
            for key, value in initial.items()
        }
        return State(
            jnp.zeros((), jnp.int32), _rate_at(learning_rate, jnp.zeros((), jnp.int32)), moments
        )

    def update(grads: Any, state: State, params: Any = None, **extra: Any) -> tuple[Any, State]:
        del extra
        for like in (params, *state.moments.values()):
            if like is not None:
                _check_like(name, grads, like)
        leaves = jax.tree.leaves(grads)
        moments = [jax.tree.leaves(m) for m in state.moments.values()]
        tree = jax.tree.structure(grads)
        step = state.step + 1
        columns: list[list[Any]] = [[] for _ in range(1 + len(moments))]
        for g, *own in zip(leaves, *moments, strict=True):
            wide = g.dtype if g.dtype.itemsize >= 4 else jnp.float32
            now = Now(state.learning_rate.astype(wide), step.astype(wide))
            new = rule(now, g.astype(wide), *[m.astype(wide) for m in own])
            for column, value, old in zip(columns, new, (g, *own), strict=True):
                column.append(value.astype(old.dtype))
        updates, *trees = [jax.tree.unflatten(tree, column) for column in columns]
        rate = _rate_at(learning_rate, step) if callable(learning_rate) else state.learning_rate
        return updates, State(step, rate, dict(zip(state.moments, trees, strict=True)))

    return Optimizer(init, update)


def sgd(
    learning_rate: Rate,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    rate_inside: bool = False,
) -> Optimizer:
    """Stochastic gradient descent, with or without momentum.

    Plain: ``x <- x - rate g``. With momentum ``mu``: ``v <- mu v + g``, ``x <- x - rate v``, as
    PyTorch and optax write it; with ``rate_inside``: ``v <- mu v + rate g``, ``x <- x - v``, as
    textbooks do. The two agree while the rate is constant. Nesterov replaces ``v`` in the step by
    ``mu v + g`` (``mu v + rate g``).

    Args:
        learning_rate: a number, a scalar array, or a schedule of the step number.
        momentum: mu, in [0, 1).
        nesterov: whether to look one step of the velocity ahead.
        rate_inside: whether the velocity accumulates ``rate g`` instead of ``g``.

    Returns:
        An `Optimizer`.

    Source: B. Polyak (1964); I. Sutskever et al., On the importance of initialization and momentum
    in deep learning (2013).

    >>> import jax.numpy as jnp
    >>> opt = sgd(0.5, momentum=0.9)
    >>> state = opt.init(jnp.array([1.0]))
    >>> updates, state = opt.update(jnp.array([2.0]), state)
    >>> float(updates[0]), float(state.learning_rate)
    (-1.0, 0.5)
    """
    if not momentum:
        return _elementwise("sgd", lambda now, g: (-now.rate * g,), learning_rate)

    def rule(now: Now, g: Any, v: Any) -> Any:
        g, rate = (now.rate * g, 1.0) if rate_inside else (g, now.rate)
        v = momentum * v + g
        return -rate * (momentum * v + g if nesterov else v), v

    return _elementwise("sgd", rule, learning_rate, v=0.0)


def adam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> Optimizer:
    """Adam: the gradient's mean over the root of its mean square, both corrected for their start.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``m^ = m / (1 - b1^t)``,
    ``v^ = v / (1 - b2^t)``, ``x <- x - rate m^ / (sqrt(v^ + eps_root) + eps)``.

    Args:
        learning_rate: a number, a scalar array, or a schedule of the step number.
        b1: decay of the mean.
        b2: decay of the mean square.
        eps: added outside the root.
        eps_root: added inside the root.

    Returns:
        An `Optimizer`.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization (2015).

    >>> import jax.numpy as jnp
    >>> opt = adam(0.25)
    >>> updates, state = opt.update(jnp.array([3.0, -5.0]), opt.init(jnp.zeros(2)))
    >>> updates.round(3).tolist()
    [-0.25, 0.25]
    """

    def rule(now: Now, g: Any, m: Any, v: Any) -> Any:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**now.t)
        v_hat = v / (1 - b2**now.t)
        return -now.rate * m_hat / (jnp.sqrt(v_hat + eps_root) + eps), m, v

    return _elementwise("adam", rule, learning_rate, m=0.0, v=0.0)
