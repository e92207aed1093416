"""Adam and its family: decoupled decay, other denominators, Nesterov's mean, signs.

Each is one rule, the formula for one leaf, in the notation of `adam`. Defaults are optax's; what
PyTorch and the papers write differently is an argument.
"""

from typing import Any

import jax.numpy as jnp

from fnn.checks import wrong
from fnn.optimizers.base import Now, Optimizer, Rate, leafwise, mean_hat, moving_mean, total_weight
from fnn.optimizers.transforms import add_weight_decay
from fnn.trees import Mask


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
        learning_rate: a number or a schedule, any `Rate`.
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

    >>> opt = adam(0.25)
    >>> updates, state = opt.update(jnp.array([3.0, -5.0]), opt.init(jnp.zeros(2)))
    >>> updates.round(3).tolist()
    [-0.25, 0.25]
    """

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = moving_mean(m, g, b1)
        v = moving_mean(v, g**2, b2)
        if eps_before_correction:
            root = (jnp.sqrt(v + eps_root) + eps) / jnp.sqrt(total_weight(b2, now.t))
        else:
            root = jnp.sqrt(v / total_weight(b2, now.t) + eps_root) + eps
        return -now.rate * mean_hat(m, g, now.t, b1, nesterov=nesterov) / root, m, v

    return leafwise("adam", rule, learning_rate, m=0.0, v=0.0)


def adamw(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 1e-4,
    mask: Mask | None = None,
) -> Optimizer:
    """AdamW: `fnn.adam` with decoupled weight decay.

    ``x <- x - rate (m^ / (sqrt(v^ + eps_root) + eps) + weight_decay x)``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        b1, b2, eps, eps_root, nesterov: as in `fnn.adam`.
        weight_decay: the factor lambda; PyTorch sets 0.01.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.

    Returns:
        An `Optimizer`; its update needs params.

    Source: I. Loshchilov, F. Hutter, Decoupled weight decay regularization (2019).

    >>> opt, params = adamw(0.5, eps=0.0, weight_decay=0.25), jnp.array([8.0])
    >>> round(opt.update(jnp.array([1.0]), opt.init(params), params)[0].item(), 3)
    -1.5
    """
    base = adam(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov)
    return add_weight_decay(base, weight_decay, mask=mask)


def amsgrad(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    correct_mean: bool = True,
    correct_square: str = "before",
) -> Optimizer:
    """AMSGrad: Adam whose denominator never shrinks.

    m, v, m^ and v^ as in `fnn.adam`, and ``w <- max(w, v^)``,
    ``x <- x - rate m^ / (sqrt(w + eps_root) + eps)``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        b1, b2, eps, eps_root: as in `fnn.adam`.
        correct_mean: whether ``m^ = m / (1 - b1^t)``, or plain m, as in the paper.
        correct_square: when v is divided by ``1 - b2^t``: "before" the maximum is taken, "after"
            it, as in PyTorch, or "never", as in the paper.

    Returns:
        An `Optimizer`.

    Raises:
        ValueError: another word for correct_square.

    Source: S. Reddi, S. Kale, S. Kumar, On the convergence of Adam and beyond (2018).

    >>> opt = amsgrad(0.25)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.25
    """
    words = ("before", "after", "never")
    if correct_square not in words:
        raise wrong("amsgrad", "correct_square", repr(correct_square), f"one of {words}")

    def rule(now: Now, g: Any, m: Any, v: Any, w: Any) -> tuple[Any, ...]:
        m = moving_mean(m, g, b1)
        v = moving_mean(v, g**2, b2)
        correction = total_weight(b2, now.t)
        w = jnp.maximum(w, v / correction if correct_square == "before" else v)
        square = w / correction if correct_square == "after" else w
        m_hat = mean_hat(m, g, now.t, b1) if correct_mean else m
        return -now.rate * m_hat / (jnp.sqrt(square + eps_root) + eps), m, v, w

    return leafwise("amsgrad", rule, learning_rate, m=0.0, v=0.0, w=0.0)


def adamax(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Optimizer:
    """Adamax: Adam with the largest recent magnitude in the place of the root mean square.

    m as in `fnn.adam`; ``u <- max(b2 u, |g| + eps)``, ``x <- x - rate m^ / u``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        b1: decay of the mean.
        b2: decay of the maximum.
        eps: added to the magnitude; PyTorch does the same.

    Returns:
        An `Optimizer`.

    Source: D. Kingma, J. Ba, Adam: a method for stochastic optimization, section 7.1 (2015).

    >>> opt = adamax(0.25)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.25
    """

    def rule(now: Now, g: Any, m: Any, u: Any) -> tuple[Any, ...]:
        m = moving_mean(m, g, b1)
        u = jnp.maximum(b2 * u, jnp.abs(g) + eps)
        return -now.rate * mean_hat(m, g, now.t, b1) / u, m, u

    return leafwise("adamax", rule, learning_rate, m=0.0, u=0.0)


def nadam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    momentum_decay: float | None = None,
) -> Optimizer:
    """NAdam: Adam with Nesterov's look one step ahead.

    m, v and v^ as in `fnn.adam`; ``m^ = b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)``. With
    momentum_decay psi, b1 warms up: ``mu_t = b1 (1 - 0.96^(psi t) / 2)``, ``q_t`` the product of
    the mu up to t, and ``m^ = mu_(t+1) m / (1 - q_(t+1)) + (1 - mu_t) g / (1 - q_t)``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        b1, b2, eps, eps_root: as in `fnn.adam`.
        momentum_decay: psi; PyTorch sets 0.004. None for the constant b1.

    Returns:
        An `Optimizer`.

    Source: T. Dozat, Incorporating Nesterov momentum into Adam (2016).

    >>> opt = nadam(0.5, b1=0.5)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.667
    """
    if momentum_decay is None:
        return adam(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=True)

    def warm(t: Any) -> Any:
        return b1 * (1 - 0.5 * 0.96 ** (momentum_decay * t))

    def rule(now: Now, g: Any, m: Any, v: Any, q: Any) -> tuple[Any, ...]:
        m = moving_mean(m, g, b1)
        v = moving_mean(v, g**2, b2)
        mu, following = warm(now.t), warm(now.t + 1)
        q = q * mu
        m_hat = following * m / (1 - q * following) + (1 - mu) * g / (1 - q)
        return -now.rate * m_hat / (jnp.sqrt(v / total_weight(b2, now.t) + eps_root) + eps), m, v, q

    return leafwise("nadam", rule, learning_rate, m=0.0, v=0.0, q=lambda x: jnp.ones((), x.dtype))


def radam(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    eps_before_correction: bool = False,
    nesterov: bool = False,
) -> Optimizer:
    """RAdam: Adam that steps by the plain mean until its mean square can be trusted.

    m, v, m^ and v^ as in `fnn.adam`; ``p = p_inf - 2 t b2^t / (1 - b2^t)`` with
    ``p_inf = 2 / (1 - b2) - 1``. Where ``p >= threshold``,
    ``x <- x - rate r m^ / (sqrt(v^ + eps_root) + eps)`` with
    ``r^2 = (p - 4)(p - 2) p_inf / ((p_inf - 4)(p_inf - 2) p)``; else ``x <- x - rate m^``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        b1, b2, eps, eps_root: as in `fnn.adam`.
        threshold: the length p from which the mean square is trusted.
        eps_before_correction: as in `fnn.adam`; PyTorch does so here.
        nesterov: as in `fnn.adam`.

    Returns:
        An `Optimizer`.

    Source: L. Liu et al., On the variance of the adaptive learning rate and beyond (2020).

    >>> opt = radam(0.25)
    >>> round(opt.update(jnp.array([3.0]), opt.init(jnp.zeros(1)))[0].item(), 3)
    -0.75
    """
    p_inf = 2 / (1 - b2) - 1

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m = moving_mean(m, g, b1)
        v = moving_mean(v, g**2, b2)
        m_hat = mean_hat(m, g, now.t, b1, nesterov=nesterov)
        correction = total_weight(b2, now.t)
        if eps_before_correction:
            root = (jnp.sqrt(v + eps_root) + eps) / jnp.sqrt(correction)
        else:
            root = jnp.sqrt(v / correction + eps_root) + eps
        p = p_inf - 2 * now.t * b2**now.t / correction
        trusted = p >= threshold
        safe = jnp.where(trusted, p, threshold)
        r = jnp.sqrt((safe - 4) * (safe - 2) * p_inf / ((p_inf - 4) * (p_inf - 2) * safe))
        return -now.rate * jnp.where(trusted, r * m_hat / root, m_hat), m, v

    return leafwise("radam", rule, learning_rate, m=0.0, v=0.0)


def lion(
    learning_rate: Rate,
    *,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
    mask: Mask | None = None,
) -> Optimizer:
    """Lion: the sign of an interpolated mean, and decoupled weight decay.

    ``x <- x - rate (sign(b1 m + (1 - b1) g) + weight_decay x)``, ``m <- b2 m + (1 - b2) g``.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        b1: the mean's share in the step.
        b2: decay of the mean.
        weight_decay: the factor lambda.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.

    Returns:
        An `Optimizer`; its update needs params.

    Source: X. Chen et al., Symbolic discovery of optimization algorithms (2023).

    >>> opt, params = lion(0.5, weight_decay=0.25), jnp.array([8.0])
    >>> opt.update(jnp.array([-3.0]), opt.init(params), params)[0].tolist()
    [-0.5]
    """

    def rule(now: Now, g: Any, m: Any) -> tuple[Any, ...]:
        u = jnp.sign(b1 * m + (1 - b1) * g)
        return -now.rate * u, b2 * m + (1 - b2) * g

    return add_weight_decay(leafwise("lion", rule, learning_rate, m=0.0), weight_decay, mask=mask)
