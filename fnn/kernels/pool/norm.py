"""The p-norm of arrays side by side, ``(sum_k |x_k|^p)^(1 / p)``, as both kernels form it.

A power soon overflows: in float32 ``|x|^100`` does from |x| = 2.5 on. So the arrays are divided by
the largest of them, place by place, and in the derivative, ``sign(x_k) |x_k / y|^(p - 1)``, by the
norm y itself.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def slope(x: jax.Array, y: jax.Array, p: int | float) -> jax.Array:
    """Return the derivative of the p-norm y by x, one of its arrays: 0 where x is 0.

    Of an infinite norm it is the sign of an infinite x, and 0 for a finite one, unless p is 1.
    """
    endless, infinite = y == jnp.inf, jnp.abs(x) == jnp.inf
    scale = jnp.where(y > 1, 0.25, 1)  # XLA multiplies by 1 / y, which of the largest would vanish
    quotient = (x * scale) / jnp.where((y == 0) | endless, 1, y * scale)
    quotient = jnp.where(endless, jnp.where(infinite, jnp.sign(x), 0), quotient)
    if p == 2:
        return jnp.where(y == 0, 0, quotient)  # with a derivative of 0 as well
    zero = quotient == 0
    power = jnp.where(zero, 1, jnp.abs(quotient)) ** (p - 1)  # with a derivative at 0 as well
    return jnp.sign(x) * (power if p == 1 else jnp.where(zero, 0, power))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def p_norm(xs: tuple[jax.Array, ...], p: int | float) -> jax.Array:
    """Return the p-norm over arrays of one shape, differentiable as `slope` says.

    >>> round(float(p_norm((jnp.array(3e30), jnp.array(4e30)), 2)) / 1e30, 3)
    5.0
    """
    # Before JAX 0.12, `lax.scan` differentiates this formula for the second derivative.
    largest = lax.stop_gradient(functools.reduce(jnp.maximum, map(jnp.abs, xs)))
    divisor = jnp.where(largest == 0, 1, largest)
    total = functools.reduce(jnp.add, [jnp.abs(x / divisor) ** p for x in xs])
    total = jnp.where(largest == 0, 1, total)  # no root of 0, which has no derivative
    root = jnp.sqrt(total) if p == 2 else total ** (1 / p)
    return jnp.where(largest == jnp.inf, jnp.inf, largest * root)


@p_norm.defjvp
def _p_norm_tangent(
    p: int | float,
    primals: tuple[tuple[jax.Array, ...]],
    tangents: tuple[tuple[jax.Array, ...]],
) -> tuple[jax.Array, jax.Array]:
    (xs,), (ts,) = primals, tangents
    y = p_norm(xs, p)
    return y, functools.reduce(jnp.add, [slope(x, y, p) * t for x, t in zip(xs, ts, strict=True)])
