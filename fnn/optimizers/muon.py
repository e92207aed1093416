"""Muon: matrices step along the orthogonal matrix nearest to their momentum, the rest by AdamW."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.optimizers.base import Now, Optimizer, Rate, leafwise, mean_hat, moving_mean, total_weight
from fnn.optimizers.transforms import add_weight_decay
from fnn.trees import Mask

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at 0 among those that keep values near 1


def orthogonalise(
    m: Float[Array, "rows columns"], iterations: int, eps: float
) -> Float[Array, "rows columns"]:
    """Return nearly ``U V^T`` of ``m = U S V^T``: singular values in about [0.7, 1.2].

    From ``x = m / |m|``, Newton-Schulz: ``x <- a x + (b x x^T + c (x x^T)^2) x``.
    """
    a, b, c = COEFFICIENTS
    x = m.T if m.shape[0] > m.shape[1] else m  # the smaller of both products
    x = x / (jnp.sqrt(jnp.sum(x**2)) + eps)
    for _ in range(iterations):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if m.shape[0] > m.shape[1] else x


def muon(
    learning_rate: Rate,
    *,
    beta: float = 0.95,
    iterations: int = 5,
    eps: float = 1e-8,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    rest_rate: float = 1.0,
) -> Optimizer:
    """Muon for the matrices among the params, AdamW for the rest.

    Matrices ``(d_in, d_out)``: ``m <- beta m + (1 - beta) g``, m^ as in `fnn.adam`,
    ``x <- x - rate sqrt(max(1, d_out / d_in)) (U V^T)(m^)``, with ``U V^T`` by Newton-Schulz.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        beta: decay of the matrices' mean.
        iterations: of Newton-Schulz.
        eps: in the norm that starts it, and AdamW's outside the root.
        nesterov: whether m^ looks one step ahead, as in `nadam`, for matrices and rest.
        weight_decay: decoupled, of all leaves or those of the mask.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.
        b1, b2: AdamW's decays.
        rest_rate: AdamW's learning rate as a multiple of learning_rate.

    Returns:
        An `Optimizer`; its update needs params.

    Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).

    >>> opt, params = muon(0.5), jnp.eye(2)
    >>> updates, _ = opt.update(jnp.array([[0.0, 9.0], [1.0, 0.0]]), opt.init(params), params)
    >>> bool(abs(jnp.linalg.svd(updates)[1] - 0.5).max() < 0.5 * 0.3)
    True
    """

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        decay = beta if g.ndim == 2 else b1
        m = moving_mean(m, g, decay)
        m_hat = mean_hat(m, g, now.t, decay, nesterov=nesterov)
        if g.ndim == 2:
            scale = max(1.0, g.shape[1] / g.shape[0]) ** 0.5
            return -now.rate * scale * orthogonalise(m_hat, iterations, eps), m, v
        v = moving_mean(v, g**2, b2)
        root = jnp.sqrt(v / total_weight(b2, now.t)) + eps
        return -now.rate * rest_rate * m_hat / root, m, v

    def no_square(x: Any) -> Any:
        return jnp.zeros(() if x.ndim == 2 else x.shape, x.dtype)

    base = leafwise("muon", rule, learning_rate, m=0.0, v=no_square)
    return add_weight_decay(base, weight_decay, mask=mask)
