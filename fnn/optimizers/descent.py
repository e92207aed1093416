"""Gradient descent, plain and with momentum."""

from typing import Any

from fnn.checks import check_flags
from fnn.dtypes import Number
from fnn.optimizers.base import Now, Optimizer, Rate, is_zero, leafwise, read_numbers


def sgd(
    learning_rate: Rate,
    *,
    momentum: Number = 0.0,
    nesterov: bool = False,
    rate_inside: bool = False,
    half_moments: bool = False,
) -> Optimizer:
    """Gradient descent, with or without momentum.

    Plain: ``x <- x - rate g``. With momentum ``mu``: ``v <- mu v + g``, ``x <- x - rate v``, as
    PyTorch and optax write it; with ``rate_inside``: ``v <- mu v + rate g``, ``x <- x - v``, as
    textbooks do. The two agree while the rate is constant. Nesterov's step puts ``mu v + g``
    (``mu v + rate g``) in the place of ``v``. The velocity v is the state's ``trace``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        momentum: mu, in [0, 1).
        nesterov: whether to look one step of the velocity ahead.
        rate_inside: whether the velocity accumulates ``rate g`` instead of ``g``.
        half_moments: whether half-precision params have half-precision moments, as in optax.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: B. Polyak, Some methods of speeding up the convergence of iteration methods (1964);
    I. Sutskever et al., On the importance of initialization and momentum in deep learning (2013).

    >>> opt = fnn.sgd(0.5, momentum=0.5)
    >>> state = opt.init(jnp.zeros(1))
    >>> for _ in range(3):
    ...     updates, state = opt.update(jnp.ones(1), state)
    >>> updates.tolist()
    [-0.875]
    """
    check_flags("sgd", nesterov=nesterov, rate_inside=rate_inside)
    if is_zero(read_numbers("sgd", momentum=momentum)["momentum"]):
        return leafwise("sgd", _plain, learning_rate, {}, half_moments=half_moments)
    return _velocity("sgd", learning_rate, momentum, nesterov, rate_inside, half_moments)


def _plain(now: Now, g: Any) -> tuple[Any, ...]:
    return (-now.rate * g,)


def momentum(
    learning_rate: Rate,
    momentum: Number = 0.9,
    *,
    rate_inside: bool = False,
    half_moments: bool = False,
) -> Optimizer:
    """Momentum: `sgd` under the name that texts give it.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        momentum: mu, the share of the velocity that survives a step, in [0, 1).
        rate_inside, half_moments: as in `sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    >>> opt = fnn.momentum(0.5, 0.5)
    >>> opt.update(jnp.ones(1), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.5]
    """
    check_flags("momentum", rate_inside=rate_inside)
    return _velocity("momentum", learning_rate, momentum, False, rate_inside, half_moments)


def nesterov(
    learning_rate: Rate,
    momentum: Number = 0.9,
    *,
    rate_inside: bool = False,
    half_moments: bool = False,
) -> Optimizer:
    """Nesterov's accelerated gradient: `sgd` with momentum that looks one step ahead.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        momentum: mu, the share of the velocity that survives a step, in [0, 1).
        rate_inside, half_moments: as in `sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: Y. Nesterov, A method of solving a convex programming problem with convergence rate
    O(1/k^2) (1983), in the form of I. Sutskever et al. (2013).

    >>> opt = fnn.nesterov(0.5, 0.5)
    >>> opt.update(jnp.ones(1), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.75]
    """
    check_flags("nesterov", rate_inside=rate_inside)
    return _velocity("nesterov", learning_rate, momentum, True, rate_inside, half_moments)


def _velocity(
    name: str,
    learning_rate: Rate,
    momentum: Number,
    nesterov: bool,
    rate_inside: bool,
    half_moments: bool,
) -> Optimizer:
    """Descend with a velocity."""

    def rule(now: Now, g: Any, v: Any) -> tuple[Any, ...]:
        g, rate = (now.rate * g, 1.0) if rate_inside else (g, now.rate)
        v = now.momentum * v + g
        return -rate * (now.momentum * v + g if nesterov else v), v

    numbers = {"momentum": momentum}
    return leafwise(name, rule, learning_rate, numbers, half_moments=half_moments, trace=0.0)
