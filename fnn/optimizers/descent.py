"""Optimizers as pairs of pure functions: the contract, gradient descent, momentum, Adam.

``state = init(params)``, then ``updates, state = update(grads, state, params)``, as in optax; the
updates are added to the params. Each optimizer is one rule, the formula for one leaf, and
`leafwise` carries it over a pytree. Half-precision leaves are computed in float32 and stored in
their own dtype.

``learning_rate`` is a number or a schedule, a function of the step number (0 is the first step).
The state's leaf ``learning_rate`` holds the rate of the next step and is what the next step uses:
`learning_rate` reads it and `with_learning_rate` replaces it, which recompiles nothing.
"""

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


def rate_at(learning_rate: Rate, step: Any) -> jax.Array:
    """Return a learning rate as an array: the number, or the schedule's value at a step."""
    return jnp.asarray(learning_rate(step) if callable(learning_rate) else learning_rate, float)


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
        start = jnp.zeros((), jnp.int32)
        moments = {
            key: jax.tree.map(x0 if callable(x0) else lambda x, x0=x0: jnp.full_like(x, x0), params)
            for key, x0 in initial.items()
        }
        return State(start, rate_at(learning_rate, start), moments)

    def update(grads: Any, state: State, params: Any = None, **extra: Any) -> tuple[Any, State]:
        del extra
        moments = [
            state.moments[key] for key in initial
        ]  # after a jit, the dict is in another order
        like = [*moments, grads][0] if params is None else params
        check_like(name, "grads", grads, like)
        structure = jax.tree.structure(grads)
        step = state.step + 1
        columns: list[list[Any]] = [[] for _ in range(1 + len(initial))]
        for leaf in zip(*[jax.tree.leaves(x) for x in (grads, *moments)], strict=True):
            dtype = accumulator(leaf[0].dtype)
            now = Now(state.learning_rate.astype(dtype), step.astype(dtype))
            new = rule(now, *[x.astype(dtype) for x in leaf])
            for column, value, old in zip(columns, new, leaf, strict=True):
                column.append(value.astype(old.dtype))
        updates, *trees = [jax.tree.unflatten(structure, column) for column in columns]
        rate = rate_at(learning_rate, step) if callable(learning_rate) else state.learning_rate
        return updates, State(step, rate, dict(zip(initial, trees, strict=True)))

    return Optimizer(init, update)


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

    >>> import jax.numpy as jnp
    >>> float(learning_rate(sgd(0.5).init(jnp.zeros(3))))
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

    >>> import jax.numpy as jnp
    >>> opt = sgd(0.5)
    >>> state = with_learning_rate(opt.init(jnp.zeros(1)), 0.25)
    >>> opt.update(jnp.ones(1), state)[0].tolist()
    [-0.25]
    """
    dtype = learning_rate(state).dtype
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.asarray(rate, dtype) if _is_rate(path) else x, state
    )


def sgd(
    learning_rate: Rate,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    rate_inside: bool = False,
) -> Optimizer:
    """Gradient descent, with or without momentum.

    Plain: ``x <- x - rate g``. With momentum ``mu``: ``v <- mu v + g``, ``x <- x - rate v``, as
    PyTorch and optax write it; with ``rate_inside``: ``v <- mu v + rate g``, ``x <- x - v``, as
    textbooks do. The two agree while the rate is constant. Nesterov's step puts ``mu v + g``
    (``mu v + rate g``) in the place of ``v``.

    Args:
        learning_rate: a number, a scalar array, or a schedule of the step number.
        momentum: mu, in [0, 1).
        nesterov: whether to look one step of the velocity ahead.
        rate_inside: whether the velocity accumulates ``rate g`` instead of ``g``.

    Returns:
        An `Optimizer`.

    Source: B. Polyak, Some methods of speeding up the convergence of iteration methods (1964);
    I. Sutskever et al., On the importance of initialization and momentum in deep learning (2013).

    >>> import jax.numpy as jnp
    >>> opt = sgd(0.5, momentum=0.5)
    >>> state = opt.init(jnp.zeros(1))
    >>> for _ in range(3):
    ...     updates, state = opt.update(jnp.ones(1), state)
    >>> updates.tolist()
    [-0.875]
    """
    if not momentum:
        return leafwise("sgd", lambda now, g: (-now.rate * g,), learning_rate)

    def rule(now: Now, g: Any, v: Any) -> tuple[Any, ...]:
        g, rate = (now.rate * g, 1.0) if rate_inside else (g, now.rate)
        v = momentum * v + g
        return -rate * (momentum * v + g if nesterov else v), v

    return leafwise("sgd", rule, learning_rate, v=0.0)


def momentum(learning_rate: Rate, decay: float = 0.9, *, rate_inside: bool = False) -> Optimizer:
    """Momentum: `sgd` under the name that texts give it.

    Args:
        learning_rate: a number, a scalar array, or a schedule of the step number.
        decay: mu, the share of the velocity that survives a step.
        rate_inside: as in `sgd`.

    Returns:
        An `Optimizer`.

    >>> import jax.numpy as jnp
    >>> opt = momentum(0.5, 0.5)
    >>> opt.update(jnp.ones(1), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.5]
    """
    return sgd(learning_rate, momentum=decay, rate_inside=rate_inside)


def nesterov(learning_rate: Rate, decay: float = 0.9, *, rate_inside: bool = False) -> Optimizer:
    """Nesterov's accelerated gradient: `sgd` with momentum that looks one step ahead.

    Args:
        learning_rate: a number, a scalar array, or a schedule of the step number.
        decay: mu, the share of the velocity that survives a step.
        rate_inside: as in `sgd`.

    Returns:
        An `Optimizer`.

    Source: Y. Nesterov, A method of solving a convex programming problem with convergence rate
    O(1/k^2) (1983), in the form of I. Sutskever et al. (2013).

    >>> import jax.numpy as jnp
    >>> opt = nesterov(0.5, 0.5)
    >>> opt.update(jnp.ones(1), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.75]
    """
    return sgd(learning_rate, momentum=decay, nesterov=True, rate_inside=rate_inside)


def mean_hat(m: Any, g: Any, t: Any, b1: float, *, nesterov: bool = False) -> Any:
    """Return the mean without its bias to the zero it starts from; ``nesterov``: one step ahead."""
    if nesterov:
        return b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return m / (1 - b1**t)


def adam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    eps_before_correction: bool = False,
    nesterov: bool = False,
) -> Optimizer:
    """Adam: the gradient's mean over the root of its mean square, both corrected for their start.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``m^ = m / (1 - b1^t)``,
    ``v^ = v / (1 - b2^t)``, ``x <- x - rate m^ / (sqrt(v^ + eps_root) + eps)``.

    Args:
        learning_rate: a number, a scalar array, or a schedule of the step number.
        b1: decay of the mean.
        b2: decay of the mean square.
        eps: added outside the root; PyTorch and the texts do the same.
        eps_root: added inside the root.
        eps_before_correction: the paper's second form, of ONNX and TensorFlow:
            ``(sqrt(v + eps_root) + eps) / sqrt(1 - b2^t)`` for the denominator.
        nesterov: as `nadam`.

    Returns:
        An `Optimizer`.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization (2015).

    >>> import jax.numpy as jnp
    >>> opt = adam(0.25)
    >>> updates, state = opt.update(jnp.array([3.0, -5.0]), opt.init(jnp.zeros(2)))
    >>> updates.round(3).tolist()
    [-0.25, 0.25]
    """

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        if eps_before_correction:
            root = (jnp.sqrt(v + eps_root) + eps) / jnp.sqrt(1 - b2**now.t)
        else:
            root = jnp.sqrt(v / (1 - b2**now.t) + eps_root) + eps
        return -now.rate * mean_hat(m, g, now.t, b1, nesterov=nesterov) / root, m, v

    return leafwise("adam", rule, learning_rate, m=0.0, v=0.0)
