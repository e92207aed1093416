"""Gradient descent, plain and with momentum."""

from typing import Any

from fnn.optimizers.base import Now, Optimizer, Rate, leafwise


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
        learning_rate: a number or a schedule, any `Rate`.
        momentum: mu, in [0, 1).
        nesterov: whether to look one step of the velocity ahead.
        rate_inside: whether the velocity accumulates ``rate g`` instead of ``g``.

    Returns:
        An `Optimizer`.

    Source: B. Polyak, Some methods of speeding up the convergence of iteration methods (1964);
    I. Sutskever et al., On the importance of initialization and momentum in deep learning (2013).

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
        learning_rate: a number or a schedule, any `Rate`.
        decay: mu, the share of the velocity that survives a step.
        rate_inside: as in `sgd`.

    Returns:
        An `Optimizer`.

    >>> opt = momentum(0.5, 0.5)
    >>> opt.update(jnp.ones(1), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.5]
    """
    return sgd(learning_rate, momentum=decay, rate_inside=rate_inside)


def nesterov(learning_rate: Rate, decay: float = 0.9, *, rate_inside: bool = False) -> Optimizer:
    """Nesterov's accelerated gradient: `sgd` with momentum that looks one step ahead.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        decay: mu, the share of the velocity that survives a step.
        rate_inside: as in `sgd`.

    Returns:
        An `Optimizer`.

    Source: Y. Nesterov, A method of solving a convex programming problem with convergence rate
    O(1/k^2) (1983), in the form of I. Sutskever et al. (2013).

    >>> opt = nesterov(0.5, 0.5)
    >>> opt.update(jnp.ones(1), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.75]
    """
    return sgd(learning_rate, momentum=decay, nesterov=True, rate_inside=rate_inside)
