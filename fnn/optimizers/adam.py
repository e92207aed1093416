"""Adam and its family: decoupled decay, other denominators, Nesterov's mean, signs.

Each is one rule, the formula for one leaf, in the notation of `adam`; the state calls m ``mu`` and
v ``nu``, as optax does. Defaults are optax's; what PyTorch and the papers write differently is an
argument.
"""

from typing import Any

import jax.numpy as jnp

from fnn.checks import check_flags, check_one_of
from fnn.dtypes import Number, accumulator
from fnn.optimizers.base import (
    Now,
    Numbers,
    Optimizer,
    Rate,
    bounded,
    leafwise,
    mean_hat,
    moving_mean,
    root,
    total_weight,
)
from fnn.optimizers.transforms import decayed
from fnn.trees import Mask


def adam(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    eps_before_correction: bool = False,
    nesterov: bool = False,
    half_moments: bool = False,
) -> Optimizer:
    """Adam: the gradient's mean over the root of its mean square, both corrected for their start.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, ``m^ = m / (1 - b1^t)``,
    ``v^ = v / (1 - b2^t)``, ``x <- x - rate m^ / (sqrt(v^ + eps_root) + eps)``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1: decay of the mean.
        b2: decay of the mean square.
        eps: added outside the root; PyTorch and the texts do the same.
        eps_root: added inside the root.
        eps_before_correction: the paper's second form, of ONNX and TensorFlow:
            ``(sqrt(v + eps_root) + eps) / sqrt(1 - b2^t)`` for the denominator.
        nesterov: as `nadam`.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization (2015).

    >>> opt = fnn.adam(0.25)
    >>> updates, state = opt.update(jnp.array([3.0, -5.0]), opt.init(jnp.zeros(2)))
    >>> updates.round(3).tolist()
    [-0.25, 0.25]
    """
    check_flags("adam", eps_before_correction=eps_before_correction, nesterov=nesterov)
    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    return _adam("adam", learning_rate, numbers, nesterov, half_moments, eps_before_correction)


def _adam(
    name: str,
    learning_rate: Rate,
    numbers: Numbers,
    nesterov: bool,
    half_moments: bool,
    eps_before_correction: bool = False,
) -> Optimizer:
    """Adam for public function ``name``, which errors name."""

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        g, m, v = moments(now, g, m, v)
        m_hat = mean_hat(m, g, now.t, now.b1, nesterov=nesterov)
        below = denominator(now, v, total_weight(now.b2, now.t), eps_before_correction)
        return -now.rate * m_hat / below, m, v

    return leafwise(name, rule, learning_rate, numbers, half_moments=half_moments, mu=0.0, nu=0.0)


def moments(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
    """Return the gradient within bounds, and the means of it and of its square."""
    g = bounded(g)
    return g, moving_mean(m, g, now.b1), moving_mean(v, g**2, now.b2)


def denominator(now: Now, v: Any, weight: Any, eps_before_correction: bool = False) -> Any:
    """Return the root of the mean square, corrected for its start by ``weight``."""
    if eps_before_correction:
        return (root(v + now.eps_root) + now.eps) / jnp.sqrt(weight)
    return root(v / weight + now.eps_root) + now.eps


def adamw(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    nesterov: bool = False,
    weight_decay: Number = 1e-4,
    mask: Mask | None = None,
    half_moments: bool = False,
) -> Optimizer:
    """AdamW: `fnn.adam` with decoupled weight decay.

    ``x <- x - rate (m^ / (sqrt(v^ + eps_root) + eps) + weight_decay x)``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1, b2, eps, eps_root, nesterov, half_moments: as in `fnn.adam`.
        weight_decay: the factor lambda; PyTorch sets 0.01.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.

    Returns:
        An `Optimizer`; its update needs params.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: I. Loshchilov, F. Hutter, Decoupled weight decay regularization (2019).

    >>> opt, params = fnn.adamw(0.5, eps=0.0, weight_decay=0.25), jnp.array([8.0])
    >>> round(opt.update(jnp.array([1.0]), opt.init(params), params)[0].item(), 3)
    -1.5
    """
    check_flags("adamw", nesterov=nesterov)
    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    base = _adam("adamw", learning_rate, numbers, nesterov, half_moments)
    return decayed("adamw", base, weight_decay, mask)


def amsgrad(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    correct_mean: bool = True,
    correct_square: str = "before",
    half_moments: bool = False,
) -> Optimizer:
    """AMSGrad: Adam whose denominator never shrinks.

    m, v, m^ and v^ as in `fnn.adam`, and ``w <- max(w, v^)``,
    ``x <- x - rate m^ / (sqrt(w + eps_root) + eps)``; the state calls w ``nu_max``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1, b2, eps, eps_root: as in `fnn.adam`.
        correct_mean: whether ``m^ = m / (1 - b1^t)``, or plain m, as in the paper.
        correct_square: when v is divided by ``1 - b2^t``: "before" the maximum is taken, "after"
            it, as in PyTorch, or "never", as in the paper.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: another word for correct_square.
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: S. Reddi, S. Kale, S. Kumar, On the convergence of Adam and beyond (2018).

    >>> opt = fnn.amsgrad(0.25)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.25
    """
    check_flags("amsgrad", correct_mean=correct_mean)
    check_one_of("amsgrad", "correct_square", correct_square, ("before", "after", "never"))

    def rule(now: Now, g: Any, m: Any, v: Any, w: Any) -> tuple[Any, ...]:
        g, m, v = moments(now, g, m, v)
        weight = total_weight(now.b2, now.t)
        w = jnp.maximum(w, v / weight if correct_square == "before" else v)
        below = denominator(now, w, weight if correct_square == "after" else 1.0)
        m_hat = mean_hat(m, g, now.t, now.b1) if correct_mean else m
        return -now.rate * m_hat / below, m, v, w

    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    initial = {"mu": 0.0, "nu": 0.0, "nu_max": 0.0}
    return leafwise("amsgrad", rule, learning_rate, numbers, half_moments=half_moments, **initial)


def adamax(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    half_moments: bool = False,
) -> Optimizer:
    """Adamax: Adam with the largest recent magnitude in the place of the root mean square.

    m as in `fnn.adam`; ``u <- max(b2 u, |g| + eps)``, ``x <- x - rate m^ / u``. The state calls u
    ``nu``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1: decay of the mean.
        b2: decay of the maximum.
        eps: added to the magnitude; PyTorch does the same.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization, section 7.1 (2015).

    >>> opt = fnn.adamax(0.25)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.25
    """

    def rule(now: Now, g: Any, m: Any, u: Any) -> tuple[Any, ...]:
        m = moving_mean(m, g, now.b1)
        u = jnp.maximum(now.b2 * u, jnp.abs(g) + now.eps)
        below = jnp.maximum(u, root(jnp.zeros_like(u)))  # as the roots of the others: never 0
        return -now.rate * mean_hat(m, g, now.t, now.b1) / below, m, u

    numbers = {"b1": b1, "b2": b2, "eps": eps}
    return leafwise(
        "adamax", rule, learning_rate, numbers, half_moments=half_moments, mu=0.0, nu=0.0
    )


def nadam(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    momentum_decay: Number | None = None,
    half_moments: bool = False,
) -> Optimizer:
    """NAdam: Adam with Nesterov's look one step ahead.

    m, v and v^ as in `fnn.adam`; ``m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)``. With
    momentum_decay psi, b1 warms up: ``mu_t = b1 (1 - 0.96^(psi t) / 2)``, ``q_t`` the product of
    the mu up to t, and ``m^ = mu_(t+1) m / (1 - q_(t+1)) + (1 - mu_t) g / (1 - q_t)``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1, b2, eps, eps_root: as in `fnn.adam`.
        momentum_decay: psi; PyTorch sets 0.004. None for the constant b1.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: T. Dozat, Incorporating Nesterov momentum into Adam (2016).

    >>> opt = fnn.nadam(0.5, b1=0.5)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.667
    """
    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root}
    if momentum_decay is None:
        return _adam("nadam", learning_rate, numbers, True, half_moments)

    def rule(now: Now, g: Any, m: Any, v: Any, q: Any) -> tuple[Any, ...]:
        def warm(t: Any) -> Any:
            return now.b1 * (1 - 0.5 * 0.96 ** (now.momentum_decay * t))

        g, m, v = moments(now, g, m, v)
        mu, following = warm(now.t), warm(now.t + 1)
        q = q * mu
        m_hat = following * m / (1 - q * following) + (1 - mu) * g / (1 - q)
        return -now.rate * m_hat / denominator(now, v, total_weight(now.b2, now.t)), m, v, q

    return leafwise(
        "nadam",
        rule,
        learning_rate,
        numbers | {"momentum_decay": momentum_decay},
        half_moments=half_moments,
        mu=0.0,
        nu=0.0,
        product=lambda zeros: jnp.ones((), accumulator(zeros.dtype)),
    )


def radam(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: Number = 5.0,
    eps_before_correction: bool = False,
    nesterov: bool = False,
    half_moments: bool = False,
) -> Optimizer:
    """RAdam: Adam that steps by the plain mean until its mean square can be trusted.

    m, v, m^ and v^ as in `fnn.adam`; ``p = p_inf - 2 t b2^t / (1 - b2^t)`` with
    ``p_inf = 2 / (1 - b2) - 1``. Where ``p >= threshold`` and ``p > 4``,
    ``x <- x - rate r m^ / (sqrt(v^ + eps_root) + eps)`` with
    ``r^2 = (p - 4)(p - 2) p_inf / ((p_inf - 4)(p_inf - 2) p)``; else ``x <- x - rate m^``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1, b2, eps, eps_root: as in `fnn.adam`.
        threshold: the length p, at least 4, from which the mean square is trusted.
        eps_before_correction: as in `fnn.adam`; PyTorch does so here.
        nesterov, half_moments: as in `fnn.adam`.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: L. Liu et al., On the variance of the adaptive learning rate and beyond (2020).

    >>> opt = fnn.radam(0.25)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.75
    """
    check_flags("radam", eps_before_correction=eps_before_correction, nesterov=nesterov)

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        g, m, v = moments(now, g, m, v)
        m_hat = mean_hat(m, g, now.t, now.b1, nesterov=nesterov)
        weight = total_weight(now.b2, now.t)
        trusted, r = _rectification(now, weight)
        below = denominator(now, v, weight, eps_before_correction)
        return -now.rate * jnp.where(trusted, r * m_hat / below, m_hat), m, v

    numbers = {"b1": b1, "b2": b2, "eps": eps, "eps_root": eps_root, "threshold": threshold}
    return leafwise(
        "radam", rule, learning_rate, numbers, half_moments=half_moments, mu=0.0, nu=0.0
    )


def _rectification(now: Now, weight: Any) -> tuple[Any, Any]:
    """Return whether the mean square is trusted, and the factor r of the step where it is."""
    p_inf = 2 / (1 - now.b2) - 1
    p = p_inf - 2 * now.t * (1 - weight) / weight
    trusted = (p >= now.threshold) & (p > 4)  # which makes all factors of r positive
    above = (p - 4) * (p - 2) * p_inf
    below = (p_inf - 4) * (p_inf - 2) * p
    return trusted, jnp.sqrt(jnp.where(trusted, above, 1) / jnp.where(trusted, below, 1))


def lion(
    learning_rate: Rate,
    *,
    b1: Number = 0.9,
    b2: Number = 0.99,
    weight_decay: Number = 1e-3,
    mask: Mask | None = None,
    half_moments: bool = False,
) -> Optimizer:
    """Lion: the sign of an interpolated mean, and decoupled weight decay.

    ``x <- x - rate (sign(b1 m + (1 - b1) g) + weight_decay x)``, ``m <- b2 m + (1 - b2) g``.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        b1: the mean's share in the step.
        b2: decay of the mean.
        weight_decay: the factor lambda.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`; its update needs params.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: X. Chen et al., Symbolic discovery of optimization algorithms (2023).

    >>> opt, params = fnn.lion(0.5, weight_decay=0.25), jnp.array([8.0])
    >>> opt.update(jnp.array([-3.0]), opt.init(params), params)[0].tolist()
    [-0.5]
    """

    def rule(now: Now, g: Any, m: Any) -> tuple[Any, ...]:
        return -now.rate * jnp.sign(moving_mean(m, g, now.b1)), moving_mean(m, g, now.b2)

    numbers = {"b1": b1, "b2": b2}
    base = leafwise("lion", rule, learning_rate, numbers, half_moments=half_moments, mu=0.0)
    return decayed("lion", base, weight_decay, mask)
