"""Optimizers that scale every number's step by the squares of the gradients it has seen.

Each is one rule, the formula for one leaf: ``g`` the gradient, ``s`` and ``v`` sums and means of
its squares. Defaults are optax's; what PyTorch and the texts write differently is an argument.
"""

from typing import Any

import jax.numpy as jnp

from fnn.optimizers.base import Now, Optimizer, Rate, leafwise, moving_mean, total_weight


def adagrad(
    learning_rate: Rate,
    *,
    initial: float = 0.1,
    eps: float = 1e-7,
    eps_in_root: bool = True,
) -> Optimizer:
    """Adagrad: each number's rate falls with the root of the squares it has summed.

    ``s <- s + g^2``, ``x <- x - rate g / sqrt(s + eps)``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        initial: s before the first step; PyTorch and the texts start from 0.
        eps: keeps the denominator from zero.
        eps_in_root: False for ``sqrt(s) + eps``, as in PyTorch and the texts.

    Returns:
        An `Optimizer`.

    Source: J. Duchi, E. Hazan, Y. Singer, Adaptive subgradient methods (2011).

    >>> opt = adagrad(0.5, initial=0.0, eps=0.0)
    >>> opt.update(jnp.array([4.0]), opt.init(jnp.zeros(1)))[0].tolist()
    [-0.5]
    """

    def rule(now: Now, g: Any, s: Any) -> tuple[Any, ...]:
        s = s + g**2
        root = jnp.sqrt(s + eps) if eps_in_root else jnp.sqrt(s) + eps
        return -now.rate * jnp.where(s > 0, g / jnp.where(s > 0, root, 1), 0), s

    return leafwise("adagrad", rule, learning_rate, s=initial)


def rmsprop(
    learning_rate: Rate,
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    eps_in_root: bool = True,
    initial: float = 0.0,
    centered: bool = False,
    bias_correction: bool = False,
    momentum: float = 0.0,
    nesterov: bool = False,
    rate_inside: bool = True,
) -> Optimizer:
    """RMSProp: the gradient over the root of its recent mean square.

    ``v <- decay v + (1 - decay) g^2``, ``u = g / sqrt(v + eps)``, ``x <- x - rate u``. Centered:
    ``v - m^2`` in the place of v, with ``m <- decay m + (1 - decay) g``. With momentum mu:
    ``p <- mu p + rate u``, ``x <- x - p``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        decay: of the mean square; PyTorch calls it alpha and sets 0.99.
        eps: keeps the denominator from zero.
        eps_in_root: False for ``sqrt(v) + eps``, as in PyTorch.
        initial: v before the first step.
        centered: whether to divide by the deviation from the mean.
        bias_correction: whether to divide the means by ``1 - decay^t``.
        momentum: mu, in [0, 1).
        nesterov: whether to step by ``mu p + rate u``.
        rate_inside: False for ``p <- mu p + u``, ``x <- x - rate p``, as in PyTorch.

    Returns:
        An `Optimizer`.

    Source: T. Tieleman, G. Hinton, Lecture 6.5 (2012); A. Graves, Generating sequences with
    recurrent neural networks (2013).

    >>> opt = rmsprop(0.5, decay=0.75, eps=0.0)
    >>> opt.update(jnp.array([4.0]), opt.init(jnp.zeros(1)))[0].tolist()
    [-1.0]
    """

    def direction(now: Now, g: Any, v: Any, m: Any) -> Any:
        correction = total_weight(decay, now.t) if bias_correction else 1.0
        square = v / correction - (m / correction) ** 2
        return g / (jnp.sqrt(square + eps) if eps_in_root else jnp.sqrt(square) + eps)

    def rule(now: Now, g: Any, v: Any, *more: Any) -> tuple[Any, ...]:
        own = dict(zip(moments, more, strict=True))
        v = moving_mean(v, g**2, decay)
        if centered:
            own["m"] = moving_mean(own["m"], g, decay)
        u = direction(now, g, v, own.get("m", 0.0))
        if not momentum:
            return (-now.rate * u, v, *own.values())
        u, rate = (now.rate * u, 1.0) if rate_inside else (u, now.rate)
        own["p"] = momentum * own["p"] + u
        return -rate * (momentum * own["p"] + u if nesterov else own["p"]), v, *own.values()

    moments = {name: 0.0 for name, used in (("m", centered), ("p", momentum)) if used}
    return leafwise("rmsprop", rule, learning_rate, v=initial, **moments)


def adadelta(learning_rate: Rate = 1.0, *, decay: float = 0.9, eps: float = 1e-6) -> Optimizer:
    """Adadelta: steps measured by the steps before, so that no rate needs choosing.

    ``s <- decay s + (1 - decay) g^2``, ``g' = sqrt((d + eps) / (s + eps)) g``,
    ``d <- decay d + (1 - decay) g'^2``, ``x <- x - rate g'``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        decay: of both mean squares.
        eps: inside both roots, as everywhere; it sets the size of the first steps.

    Returns:
        An `Optimizer`.

    Source: M. Zeiler, ADADELTA: an adaptive learning rate method (2012).

    >>> opt = adadelta(decay=0.75, eps=1.0)
    >>> round(opt.update(jnp.array([2.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -1.414
    """

    def rule(now: Now, g: Any, s: Any, d: Any) -> tuple[Any, ...]:
        s = moving_mean(s, g**2, decay)
        scaled = jnp.sqrt(d + eps) / jnp.sqrt(s + eps) * g
        d = moving_mean(d, scaled**2, decay)
        return -now.rate * scaled, s, d

    return leafwise("adadelta", rule, learning_rate, s=0.0, d=0.0)
