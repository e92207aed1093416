"""Second-order optimizers: Newton's method, whole and diagonal.

The quadratic model of the loss, ``loss(x + d) = loss(x) + g . d + d . H d / 2``, is least at
``d = -H^-1 g``. An optimizer sees gradients only, so these ask for the loss itself as the extra
argument ``value_fn``, a function of params, which `fnn.make_step` and `fnn.train` hand to every
optimizer that takes it.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from fnn.analysis.curvature import (
    ROUNDING,
    Quadratic,
    diagonal,
    dot,
    quadratic,
    sampled_diagonal,
)
from fnn.checks import LAST, check_int, check_int_or_array, check_key, check_size, describe, wrong
from fnn.dtypes import Number, number_like
from fnn.optimizers.base import (
    Optimizer,
    Rate,
    State,
    check_rate,
    check_state,
    first_state,
    in_dtype,
    next_state,
    rate_of_step,
    read_numbers,
)
from fnn.placement import varying
from fnn.trees import check_like, check_params, count


def newton(
    learning_rate: Rate = 1.0,
    *,
    damping: Number = 0.0,
    dense_up_to: int = 256,
    iterations: int | Int[Array, ""] = 100,
) -> Optimizer:
    """Newton's method, damped, and downhill also where the loss is not convex.

    ``x <- x - rate (|H| + damping)^-1 g``, where |H| has the eigenvectors of the Hessian and the
    magnitudes of its eigenvalues: H itself where the loss is convex. Along directions without
    curvature, damping = 0 does not move. A direction counts as such if its eigenvalue is at most
    ``max(n eps, 4 eps')`` times the largest, which is what rounding leaves of zero. Here params
    hold n numbers, eps is float32's (float64's for params of that), and eps' that of the narrowest
    dtype among params: in bfloat16 ``4 eps'`` is 3 %.

    Where params hold more than ``dense_up_to`` numbers, conjugate gradients solve
    ``(H + damping) d = g`` on products with H instead; on a direction without positive curvature,
    or with at most 4 eps' of the largest, they stop with the descent direction found so far, which
    may have moved along some without curvature.

    The exact step may be differentiated once: its second derivatives are NaN where two eigenvalues
    are equal. Those of conjugate gradients, ``dense_up_to=0``, are not.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        damping: added to every eigenvalue; it limits the step to ``rate |g| / damping``.
        dense_up_to: numbers in params, n, that are solved exactly, from the n by n Hessian.
        iterations: of conjugate gradients at most, one product with H each; they end earlier where
            the residual falls below ``sqrt(eps) |g|``. An int, or an integer array of shape ().

    Returns:
        An `Optimizer`; its update needs params and value_fn. In an optax chain it stands as
        ``optax.GradientTransformationExtraArgs(*fnn.newton())``.

    Raises:
        ValueError: damping < 0, dense_up_to < 0, iterations < 1; from update, params or value_fn
            missing.

    Source: Y. Dauphin et al., Identifying and attacking the saddle point problem in
    high-dimensional non-convex optimization (2014); S. Nash, A survey of truncated-Newton methods
    (2000).

    >>> optimizer, x = fnn.newton(), jnp.array([5.0, -3.0])
    >>> step = fnn.make_step(lambda x, batch: ((x - batch) ** 2).sum() / 2, optimizer)
    >>> x, _, _ = step(x, optimizer.init(x), jnp.array([1.0, 2.0]))
    >>> x.tolist()
    [1.0, 2.0]
    """
    if isinstance(dense_up_to, jax.Array):
        needed = "a Python int; to `optax.inject_hyperparams` name it among static_args"
        raise wrong("newton", "dense_up_to", describe(dense_up_to), needed, TypeError)
    check_int("newton", "dense_up_to", dense_up_to, 0)
    check_int_or_array("newton", "iterations", iterations, 1)
    if not isinstance(iterations, jax.Array):
        iterations = min(int(iterations), LAST)

    def solve(q: Quadratic, step: Array, damping: Any) -> Array:
        if q.gradient.size <= dense_up_to:
            hessian = jax.vmap(q.product)(jnp.eye(q.gradient.size, dtype=q.gradient.dtype))
            damping = number_like(damping, hessian)
            return _solve_by_magnitudes(q.eps, hessian, q.gradient, damping)
        return _conjugate_gradients(q, damping, iterations)

    return _second_order("newton", solve, learning_rate, damping)


def diagonal_newton(
    learning_rate: Rate = 1.0,
    *,
    damping: Number = 0.0,
    samples: int | None = None,
    key: Array | None = None,
) -> Optimizer:
    """Newton's method with the Hessian's diagonal alone: every number has its own step size.

    ``x_i <- x_i - rate g_i / (|h_i| + damping)``, with ``h_i = H_ii``. Numbers without curvature
    stay, where damping = 0.

    Args:
        learning_rate: a number, a scalar array or a schedule.
        damping: added to every magnitude.
        samples: None for the exact diagonal, at one product with H per number in params; or the
            draws of Hutchinson's estimate, one product each.
        key: draws the samples, others at every step.

    Returns:
        An `Optimizer`; its update needs params and value_fn. In an optax chain it stands as
        ``optax.GradientTransformationExtraArgs(*fnn.diagonal_newton())``.

    Raises:
        ValueError: damping < 0, samples < 1, samples without key; from update, params or value_fn
            missing.
        TypeError: a key that is none.

    Source: EE628, lecture 6, preconditioning (2019); Z. Yao et al., ADAHESSIAN (2021).

    >>> optimizer, x = fnn.diagonal_newton(), jnp.array([-5.0, -2.0])
    >>> step = fnn.make_step(lambda x, batch: x[0] ** 2 + 2 * x[1] ** 2, optimizer)
    >>> x, _, _ = step(x, optimizer.init(x), None)
    >>> x.tolist()
    [0.0, 0.0]
    """
    if samples is not None:
        check_size("diagonal_newton", "samples", samples)
    if (samples is None) != (key is None):
        needed = "both, or neither for the exact diagonal"
        raise wrong("diagonal_newton", "samples, key", f"{samples}, {key}", needed)
    if key is not None:
        check_key("diagonal_newton", "key", key)

    def solve(q: Quadratic, step: Array, damping: Any) -> Array:
        if samples is None or key is None:
            h = diagonal(q)
        else:
            h = sampled_diagonal(q, jax.random.fold_in(key, step), samples)
        return _divide(q.gradient, jnp.abs(h) + damping, 0)

    return _second_order("diagonal_newton", solve, learning_rate, damping)


def _second_order(
    name: str, solve: Callable[..., Array], learning_rate: Rate, damping: Number
) -> Optimizer:
    """Carry ``solve(quadratic model, steps taken, damping) -> direction`` over a pytree."""
    check_rate(name, learning_rate)
    numbers = read_numbers(name, damping=damping)

    def init(params: Any) -> State:
        check_params(name, params)
        return first_state(name, learning_rate, params, {})

    def update(
        grads: Any, state: State, params: Any = None, *, value_fn: Any = None, **extra: Any
    ) -> tuple[Any, State]:
        for argument, given in (("params", params), ("value_fn", value_fn)):
            if given is None:
                needed = "update(grads, state, params, value_fn=<the loss of params>)"
                raise wrong(name, argument, "None", needed)
        check_state(name, state, State)
        check_like(name, "grads", grads, params)
        rate = rate_of_step(learning_rate, state)
        following = next_state(name, learning_rate, rate, state, {})
        if not count(params):
            return grads, following
        q = quadratic(name, value_fn, params)
        known = in_dtype(q.gradient.dtype, {"rate": rate} | numbers)
        direction = solve(q._replace(gradient=q.pack(grads)), state.step, known["damping"])
        return q.unpack(-known["rate"] * direction), following

    return Optimizer(init, update)


def _divide(g: Array, h: Array, zero: Any) -> Array:
    """Divide by curvatures h >= 0; those up to ``zero`` give no step, and NaN gives NaN."""
    flat = h <= zero
    return jnp.where(flat, 0, g / jnp.where(flat, 1, h))


def _rounding(eps: Number, h: Array, damping: Array) -> Array:
    """Return how large a curvature may be that is zero but for the rounding of all of them.

    That is of products with H, to eps, and of the eigenvalues, in their own dtype. With damping
    none is zero: the step along such a direction is ``g / damping`` at most.
    """
    share = max(ROUNDING * eps, float(np.finfo(h.dtype).eps) * h.size)
    return jnp.where(damping > 0, 0, share * h.max())


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve_by_magnitudes(eps: Number, hessian: Array, g: Array, damping: Array) -> Array:
    """Return ``(|H| + damping)^-1 g``; eps is that of `Quadratic`."""
    values, vectors = jnp.linalg.eigh(hessian)
    size = jnp.abs(values) + damping
    return dot(vectors, _divide(dot(g, vectors), size, _rounding(eps, size, damping)))


@_solve_by_magnitudes.defjvp
def _derivative(eps: Number, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """Differentiate ``A x = g``: ``A x' = g' - A' x`` with ``A = |H| + damping``.

    In the basis of the eigenvectors of H, ``|H|'`` is H' with each entry times the quotient
    ``(|a| - |b|) / (a - b)`` of its two eigenvalues. That of `jnp.linalg.eigh` itself is NaN where
    two eigenvalues are equal.
    """
    (hessian, g, damping), (hessian_dot, g_dot, damping_dot) = primals, tangents
    values, vectors = jnp.linalg.eigh(hessian)
    size = jnp.abs(values) + damping
    zero = _rounding(eps, size, damping)
    x = _divide(dot(g, vectors), size, zero)
    a, b = values[:, None], values[None, :]
    apart = jnp.where(a == b, 1, a - b)
    quotient = jnp.where(a == b, jnp.sign(a), (jnp.abs(a) - jnp.abs(b)) / apart)
    change = quotient * dot(vectors.T, dot(hessian_dot, vectors))
    x_dot = _divide(dot(g_dot, vectors) - dot(change, x) - damping_dot * x, size, zero)
    return dot(vectors, x), dot(vectors, x_dot)


def _conjugate_gradients(q: Quadratic, damping: Any, iterations: Any) -> Array:
    """Return nearly ``(H + damping)^-1 g``; the derivative is that of the exact solution."""

    def product(v: Array) -> Any:
        return q.product(v) + damping * v

    def solve(product: Callable[[Array], Array], g: Array) -> Array:
        largest = jnp.max(jnp.abs(g))
        scale = jnp.where(largest == 0, 1, largest)  # no square overflows or vanishes; NaN stays
        return scale * _iterate(product, g / scale, iterations, q.eps)

    direction: Array = lax.custom_linear_solve(product, q.gradient, solve, symmetric=True)
    return direction


def _iterate(product: Callable[[Array], Array], g: Array, iterations: Any, eps: Number) -> Array:
    """Return the direction after conjugate gradients from zero on ``product(d) = g``.

    Products are rounded to eps, as in `Quadratic`.
    """
    enough = np.finfo(g.dtype).eps * (g @ g)

    def unfinished(carry: Any) -> Any:
        i, convex, _, r, _, _ = carry
        return (i < iterations) & convex & (r @ r > enough)

    def advance(carry: Any) -> Any:
        i, _, d, r, p, largest = carry
        a_p = product(p)
        bend, square = p @ a_p, r @ r
        curvature = bend / (p @ p)
        largest = jnp.maximum(largest, jnp.abs(curvature))
        convex = curvature > ROUNDING * eps * largest
        usable = (convex | (i == 0)) & (bend != 0)  # g itself goes downhill whatever its curvature
        size = jnp.where(usable, square / jnp.abs(jnp.where(usable, bend, 1)), 0)
        following = r - size * a_p
        d = d + size * p
        p = following + (following @ following) / square * p
        return i + 1, convex, d, following, p, largest

    convex, *_ = varying(jnp.array(True), g)
    start = jnp.zeros((), jnp.int32), convex, jnp.zeros_like(g), g, g, jnp.zeros_like(g[0])
    d: Array = lax.while_loop(unfinished, advance, start)[2]
    return d
