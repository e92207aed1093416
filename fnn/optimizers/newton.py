"""Second-order optimizers: Newton's method, whole and diagonal.

The quadratic model of the loss, ``loss(x + d) = loss(x) + g . d + d . H d / 2``, is least at
``d = -H^-1 g``. An optimizer sees gradients only, so these ask for the loss itself as the extra
argument ``value_fn``, a function of params, which `fnn.make_step` and `fnn.train` hand to every
optimizer that takes it; in an optax chain they stand as
``optax.GradientTransformationExtraArgs(*fnn.newton())``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from fnn.analysis.curvature import (
    Quadratic,
    diagonal,
    dot,
    quadratic,
    sampled_diagonal,
)
from fnn.checks import check_int, wrong
from fnn.optimizers.base import Optimizer, Rate, State, first_state, next_state
from fnn.trees import check_like


def newton(
    learning_rate: Rate = 1.0,
    *,
    damping: float = 0.0,
    dense_up_to: int = 256,
    iterations: int = 100,
) -> Optimizer:
    """Newton's method, damped, and downhill also where the loss is not convex.

    ``x <- x - rate (|H| + damping)^-1 g``, where |H| has the eigenvectors of the Hessian and the
    magnitudes of its eigenvalues: H itself where the loss is convex. Along directions without
    curvature, damping = 0 does not move. Where params hold more than ``dense_up_to`` numbers,
    conjugate gradients solve ``(H + damping) d = g`` on products with H instead; on a direction of
    negative curvature they stop with the descent direction found so far.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        damping: added to every eigenvalue; it limits the step to ``rate |g| / damping``.
        dense_up_to: numbers in params, n, that are solved exactly, from the n by n Hessian.
        iterations: of conjugate gradients at most, one product with H each; they end earlier where
            the residual falls below ``sqrt(eps) |g|``.

    Returns:
        An `Optimizer`; its update needs params and value_fn.

    Raises:
        ValueError: damping < 0, iterations < 1; from update, params or value_fn missing.

    Source: Y. Dauphin et al., Identifying and attacking the saddle point problem in
    high-dimensional non-convex optimization (2014); S. Nash, A survey of truncated-Newton methods
    (2000).

    >>> optimizer, x = newton(), jnp.array([5.0, -3.0])
    >>> step = fnn.make_step(lambda x, batch: ((x - batch) ** 2).sum() / 2, optimizer)
    >>> x, _, _ = step(x, optimizer.init(x), jnp.array([1.0, 2.0]))
    >>> x.tolist()
    [1.0, 2.0]
    """
    _check_damping("newton", damping)
    check_int("newton", "iterations", iterations, 1)

    def solve(q: Quadratic, step: Array) -> Array:
        if q.gradient.size <= dense_up_to:
            return _dense(q, damping)
        return _conjugate_gradients(q, damping, iterations)

    return _second_order("newton", solve, learning_rate)


def diagonal_newton(
    learning_rate: Rate = 1.0,
    *,
    damping: float = 0.0,
    samples: int | None = None,
    key: Array | None = None,
) -> Optimizer:
    """Newton's method with the Hessian's diagonal alone: every number has its own step size.

    ``x_i <- x_i - rate g_i / (|h_i| + damping)``, with ``h_i = H_ii``. Numbers without curvature
    stay, where damping = 0.

    Args:
        learning_rate: a number or a schedule, any `Rate`.
        damping: added to every magnitude.
        samples: None for the exact diagonal, at one product with H per number in params; or the
            draws of Hutchinson's estimate, one product each.
        key: draws the samples, others at every step.

    Returns:
        An `Optimizer`; its update needs params and value_fn.

    Raises:
        ValueError: damping < 0, samples < 1, samples without key; from update, params or value_fn
            missing.

    Source: EE628, lecture 6, preconditioning (2019); Z. Yao et al., ADAHESSIAN (2021).

    >>> optimizer, x = diagonal_newton(), jnp.array([-5.0, -2.0])
    >>> step = fnn.make_step(lambda x, batch: x[0] ** 2 + 2 * x[1] ** 2, optimizer)
    >>> x, _, _ = step(x, optimizer.init(x), None)
    >>> x.tolist()
    [0.0, 0.0]
    """
    _check_damping("diagonal_newton", damping)
    if samples is not None:
        check_int("diagonal_newton", "samples", samples, 1)
    if (samples is None) != (key is None):
        needed = "both, or neither for the exact diagonal"
        raise wrong("diagonal_newton", "samples, key", f"{samples}, {key}", needed)

    def solve(q: Quadratic, step: Array) -> Array:
        if samples is None or key is None:
            h = diagonal(q)
        else:
            h = sampled_diagonal(q, jax.random.fold_in(key, step), samples)
        return _divide(q.gradient, jnp.abs(h) + damping)

    return _second_order("diagonal_newton", solve, learning_rate)


def _second_order(
    name: str, solve: Callable[[Quadratic, Array], Array], learning_rate: Rate
) -> Optimizer:
    """Carry ``solve(quadratic model, step number) -> direction`` over a pytree."""

    def init(params: Any) -> State:
        return first_state(learning_rate, {})

    def update(
        grads: Any, state: State, params: Any = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, State]:
        for argument, given in (("params", params), ("value_fn", value_fn)):
            if given is None:
                needed = "update(grads, state, params, value_fn=<the loss of params>)"
                raise wrong(name, argument, "None", needed)
        check_like(name, "grads", grads, params)
        q = quadratic(name, value_fn, params)
        direction = solve(q._replace(gradient=q.pack(grads)), state.step)
        updates = q.unpack(-state.learning_rate.astype(direction.dtype) * direction)
        return updates, next_state(learning_rate, state, {})

    return Optimizer(init, update)


def _divide(g: Array, h: Array) -> Array:
    """Divide by curvatures h >= 0; those that are zero but for rounding give no step."""
    real = h > np.finfo(h.dtype).eps * h.size * h.max()
    return jnp.where(real, g / jnp.where(real, h, 1), 0)


def _dense(q: Quadratic, damping: float) -> Array:
    hessian = jax.vmap(q.product)(jnp.eye(q.gradient.size, dtype=q.gradient.dtype))
    values, vectors = jnp.linalg.eigh(hessian)
    return dot(vectors, _divide(dot(q.gradient, vectors), jnp.abs(values) + damping))


def _conjugate_gradients(q: Quadratic, damping: float, iterations: int) -> Array:
    g = q.gradient
    eps = np.finfo(g.dtype).eps

    def unfinished(carry: Any) -> Any:
        i, convex, _, r, _, _ = carry
        return (i < iterations) & convex & (r @ r > eps * (g @ g))

    def advance(carry: Any) -> Any:
        i, _, d, r, p, largest = carry
        a_p = q.product(p) + damping * p
        bend, square = p @ a_p, r @ r
        curvature = bend / (p @ p)
        largest = jnp.maximum(largest, jnp.abs(curvature))
        convex = curvature > eps * largest
        usable = (convex | (i == 0)) & (bend != 0)  # g itself goes downhill whatever its curvature
        size = jnp.where(usable, square / jnp.abs(jnp.where(usable, bend, 1)), 0)
        following = r - size * a_p
        d = d + size * p
        p = following + (following @ following) / square * p
        return i + 1, convex, d, following, p, largest

    start = jnp.zeros((), jnp.int32), jnp.array(True), jnp.zeros_like(g), g, g, jnp.zeros_like(g[0])
    d: Array = lax.while_loop(unfinished, advance, start)[2]
    return d


def _check_damping(name: str, damping: float) -> None:
    if not damping >= 0:
        raise wrong(name, "damping", damping, "a number >= 0")
