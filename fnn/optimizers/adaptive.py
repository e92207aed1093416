"""Optimizers that scale every number's step by the squares of the gradients it has seen.

Each is one rule, the formula for one leaf: ``g`` the gradient, ``s`` and ``v`` sums and means of
its squares. Defaults are optax's; what PyTorch and the texts write differently is an argument.
"""

from typing import Any

import jax.numpy as jnp

from fnn.checks import NOT_NEGATIVE, check_flags, check_number
from fnn.dtypes import Number
from fnn.optimizers.base import (
    Now,
    Optimizer,
    Rate,
    bounded,
    is_zero,
    leafwise,
    moving_mean,
    read_numbers,
    root,
    total_weight,
)


def adagrad(
    learning_rate: Rate,
    *,
    initial: Number = 0.1,
    eps: Number = 1e-7,
    eps_in_root: bool = True,
    half_moments: bool = False,
) -> Optimizer:
    """Adagrad: each number's rate falls with the root of the squares it has summed.

    ``s <- s + g^2``, ``x <- x - rate g / sqrt(s + eps)``. The sum s is the state's
    ``sum_of_squares``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        initial: s before the first step; PyTorch and the texts start from 0.
        eps: keeps the denominator from zero.
        eps_in_root: False for ``sqrt(s) + eps``, as in PyTorch and the texts.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: J. Duchi, E. Hazan, Y. Singer, Adaptive subgradient methods (2011).

    >>> opt = fnn.adagrad(0.5, initial=0.0, eps=0.0)
    >>> opt.update(jnp.array([4.0]), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.5]
    """
    check_flags("adagrad", eps_in_root=eps_in_root)
    check_number("adagrad", "initial", initial, NOT_NEGATIVE)

    def rule(now: Now, g: Any, s: Any) -> tuple[Any, ...]:
        g = bounded(g)
        total = s + g**2
        most = float(jnp.finfo(total.dtype).max)
        s = jnp.where(jnp.isfinite(s) & jnp.isfinite(g), jnp.minimum(total, most), total)
        return -now.rate * g / _denominator(now, s, eps_in_root), s

    return leafwise(
        "adagrad",
        rule,
        learning_rate,
        {"eps": eps},
        half_moments=half_moments,
        sum_of_squares=initial,
    )


def _denominator(now: Now, square: Any, eps_in_root: bool) -> Any:
    return root(square + now.eps) if eps_in_root else root(square) + now.eps


def rmsprop(
    learning_rate: Rate,
    *,
    decay: Number = 0.9,
    eps: Number = 1e-8,
    eps_in_root: bool = True,
    initial: Number = 0.0,
    centered: bool = False,
    bias_correction: bool = False,
    momentum: Number = 0.0,
    nesterov: bool = False,
    rate_inside: bool = True,
    half_moments: bool = False,
) -> Optimizer:
    """RMSProp: the gradient over the root of its recent mean square.

    ``v <- decay v + (1 - decay) g^2``, ``u = g / sqrt(v + eps)``, ``x <- x - rate u``. Centered:
    ``max(v - m^2, 0)`` in the place of v, with ``m <- decay m + (1 - decay) g``. With momentum mu:
    ``p <- mu p + rate u``, ``x <- x - p``. The state calls v ``nu``, m ``mu`` and p ``trace``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        decay: of the mean square; PyTorch calls it alpha and sets 0.99.
        eps: keeps the denominator from zero.
        eps_in_root: False for ``sqrt(v) + eps``, as in PyTorch.
        initial: v before the first step.
        centered: whether to divide by the deviation from the mean.
        bias_correction: whether to divide the means by ``1 - decay^t``.
        momentum: mu, in [0, 1).
        nesterov: whether to step by ``mu p + rate u``.
        rate_inside: False for ``p <- mu p + u``, ``x <- x - rate p``, as in PyTorch.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: T. Tieleman, G. Hinton, Lecture 6.5 (2012); A. Graves, Generating sequences with
    recurrent neural networks (2013).

    >>> opt = fnn.rmsprop(0.5, decay=0.75, eps=0.0)
    >>> opt.update(jnp.array([4.0]), opt.init(jnp.zeros(1)))[0].tolist()
    [-1.0]
    """
    check_flags(
        "rmsprop",
        eps_in_root=eps_in_root,
        centered=centered,
        bias_correction=bias_correction,
        nesterov=nesterov,
        rate_inside=rate_inside,
    )
    check_number("rmsprop", "initial", initial, NOT_NEGATIVE)
    numbers = read_numbers("rmsprop", decay=decay, eps=eps, momentum=momentum)
    moments = {"nu": initial} | ({"mu": 0.0} if centered else {})
    if not is_zero(numbers["momentum"]):
        moments["trace"] = 0.0

    def rule(now: Now, g: Any, *old: Any) -> tuple[Any, ...]:
        g = bounded(g)
        new = dict(zip(moments, old, strict=True))
        weight = total_weight(now.decay, now.t) if bias_correction else 1.0
        new["nu"] = moving_mean(new["nu"], g**2, now.decay)
        square = new["nu"] / weight
        if centered:
            new["mu"] = moving_mean(new["mu"], g, now.decay)
            square = jnp.maximum(square - (new["mu"] / weight) ** 2, 0)
        u = g / _denominator(now, square, eps_in_root)
        rate = now.rate
        if "trace" in moments:
            u, rate = (rate * u, 1.0) if rate_inside else (u, rate)
            new["trace"] = now.momentum * new["trace"] + u
            u = now.momentum * new["trace"] + u if nesterov else new["trace"]
        return -rate * u, *new.values()

    return leafwise("rmsprop", rule, learning_rate, numbers, half_moments=half_moments, **moments)


def adadelta(
    learning_rate: Rate = 1.0,
    *,
    decay: Number = 0.9,
    eps: Number = 1e-6,
    half_moments: bool = False,
) -> Optimizer:
    """Adadelta: steps measured by the steps before, so that no rate needs choosing.

    ``s <- decay s + (1 - decay) g^2``, ``g' = sqrt((d + eps) / (s + eps)) g``,
    ``d <- decay d + (1 - decay) g'^2``, ``x <- x - rate g'``. The state calls s ``e_g`` and d
    ``e_x``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        decay: of both mean squares.
        eps: inside both roots, as everywhere; it sets the size of the first steps.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: M. Zeiler, ADADELTA: an adaptive learning rate method (2012).

    >>> opt = fnn.adadelta(decay=0.75, eps=1.0)
    >>> round(opt.update(jnp.array([2.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -1.414
    """

    def rule(now: Now, g: Any, s: Any, d: Any) -> tuple[Any, ...]:
        g = bounded(g)
        s = moving_mean(s, g**2, now.decay)
        scaled = root(d + now.eps) / root(s + now.eps) * g
        d = moving_mean(d, scaled**2, now.decay)
        return -now.rate * scaled, s, d

    numbers = {"decay": decay, "eps": eps}
    return leafwise(
        "adadelta", rule, learning_rate, numbers, half_moments=half_moments, e_g=0.0, e_x=0.0
    )
