"""Muon: matrices step along the orthogonal matrix nearest to their momentum, the rest by AdamW."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from fnn.checks import check_flags, check_int_or_array
from fnn.dtypes import Number
from fnn.optimizers.adam import denominator, moments
from fnn.optimizers.base import (
    Now,
    Optimizer,
    Rate,
    leafwise,
    mean_hat,
    moving_mean,
    root,
    total_weight,
)
from fnn.optimizers.transforms import decayed
from fnn.placement import placed_as, replicated
from fnn.trees import Mask

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # steepest at 0 among those that keep values near 1


def orthogonalise(
    m: Float[Array, "rows columns"], iterations: Any, eps: Any
) -> Float[Array, "rows columns"]:
    """Return nearly ``U V^T`` of ``m = U S V^T``: singular values in about [0.7, 1.2].

    From ``x = m / |m|``, Newton-Schulz: ``x <- a x + (b x x^T + c (x x^T)^2) x``.
    """
    a, b, c = COEFFICIENTS

    def iterate(_: Any, x: Any) -> Any:
        square = x @ x.T
        return a * x + (b * square + c * square @ square) @ x

    x = replicated(m)  # JAX refuses to sum over a sharded explicit axis
    largest = jnp.max(jnp.abs(x), initial=0)
    largest = jnp.where(largest > 0, largest, 1)
    scale = lax.stop_gradient(largest)  # so that no square overflows or vanishes
    x = x / scale
    x = x.T if m.shape[0] > m.shape[1] else x  # the smaller of both products
    x = x / (root(jnp.sum(x**2)) + eps * (largest / scale))
    known = not isinstance(iterations, jax.Array)
    u: Array = lax.fori_loop(0, iterations, iterate, x, unroll=known or None)
    return placed_as(u.T if m.shape[0] > m.shape[1] else u, m)


def muon(
    learning_rate: Rate,
    *,
    momentum: Number = 0.95,
    iterations: int | Int[Array, ""] = 5,
    eps: Number = 1e-8,
    nesterov: bool = True,
    weight_decay: Number = 0.0,
    mask: Mask | None = None,
    b1: Number = 0.9,
    b2: Number = 0.999,
    rest_rate: Number = 1.0,
    half_moments: bool = False,
) -> Optimizer:
    """Muon for the matrices among the params, AdamW for the rest.

    Matrices ``(d_in, d_out)``: ``m <- mu m + (1 - mu) g``, m^ as in `fnn.adam`,
    ``x <- x - rate sqrt(max(1, d_out / d_in)) (U V^T)(m^)``, with ``U V^T`` by Newton-Schulz.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        momentum: mu, decay of the matrices' mean, in [0, 1); optax calls it beta.
        iterations: of Newton-Schulz; an int, or an integer array of shape (), at least 1.
        eps: AdamW's outside the root; and beside the norm that starts Newton-Schulz, there relative
            to the largest number of m^, so that its size does not matter.
        nesterov: whether m^ looks one step ahead, as in `nadam`, for matrices and rest.
        weight_decay: decoupled, of all leaves or those of the mask.
        mask: a function of a leaf's path, true for the leaves to shrink; default all.
        b1, b2: AdamW's decays.
        rest_rate: AdamW's learning rate as a multiple of learning_rate.
        half_moments: as in `fnn.sgd`.

    Returns:
        An `Optimizer`; its update needs params.

    Raises:
        ValueError, TypeError: an argument that is no number, or out of its range; from init and
            update, arrays that are not of floats, or whose shapes do not fit.

    Source: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks (2024).

    >>> opt, params = fnn.muon(0.5), jnp.eye(2)
    >>> updates, _ = opt.update(jnp.array([[0.0, 9.0], [1.0, 0.0]]), opt.init(params), params)
    >>> bool(abs(jnp.linalg.svd(updates)[1] - 0.5).max() < 0.5 * 0.3)
    True
    """
    check_flags("muon", nesterov=nesterov)
    check_int_or_array("muon", "iterations", iterations, 1)
    iterations = iterations if isinstance(iterations, jax.Array) else int(iterations)

    def rule(now: Now, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        if g.ndim == 2:
            m = moving_mean(m, g, now.momentum)
            m_hat = mean_hat(m, g, now.t, now.momentum, nesterov=nesterov)
            scale = max(1.0, g.shape[1] / max(g.shape[0], 1)) ** 0.5
            return -now.rate * scale * orthogonalise(m_hat, iterations, now.eps), m, v
        g, m, v = moments(now, g, m, v)
        m_hat = mean_hat(m, g, now.t, now.b1, nesterov=nesterov)
        below = denominator(now, v, total_weight(now.b2, now.t))
        return -now.rate * now.rest_rate * m_hat / below, m, v

    def square(zeros: Any) -> Any:
        return jnp.zeros((), zeros.dtype) if zeros.ndim == 2 else zeros

    numbers = {"momentum": momentum, "b1": b1, "b2": b2, "eps": eps, "eps_root": 0.0}
    numbers["rest_rate"] = rest_rate
    base = leafwise(
        "muon", rule, learning_rate, numbers, half_moments=half_moments, mu=0.0, nu=square
    )
    return decayed("muon", base, weight_decay, mask)
