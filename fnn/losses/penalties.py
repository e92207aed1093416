"""Penalties on parameters: a scalar of a pytree, to be added to a loss.

``mask`` chooses the leaves by path: ``l2_penalty(params, mask=lambda path: path.endswith("w"))``.
Sums are formed in float32 or wider.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.checks import check_takes, several, wrong
from fnn.dtypes import widen
from fnn.functions import checked
from fnn.trees import FloatTree, Mask, check_params, paths, selected

Term = Callable[[jax.Array], jax.Array]


@checked
def l1_penalty(params: FloatTree, *, mask: Mask | None = None) -> Float[Array, ""]:
    """Return ``sum |w|`` over all entries of the chosen leaves.

    Args:
        params: pytree of float arrays.
        mask: says of a leaf's path, such as "conv1/w", whether it counts; None counts all.

    Returns:
        A scalar, float32 or wider; its derivative at w = 0 is 0.

    Raises:
        ValueError, TypeError: no leaf counts, or one that does is no float array; a mask that is no
            function, or returns no bool.

    Source: R. Tibshirani, Regression shrinkage and selection via the lasso (1996).

    >>> l1_penalty({"w": jnp.array([3.0, -4.0]), "b": jnp.array([9.0])}, mask=lambda p: p == "w")
    Array(7., dtype=float32)
    """
    return _sum("l1_penalty", _size, params, mask)


@checked
def l2_penalty(params: FloatTree, *, mask: Mask | None = None) -> Float[Array, ""]:
    """Return ``sum w^2 / 2``, half the sum of squares, over all entries of the chosen leaves.

    Half, so that the gradient of ``strength * l2_penalty(params)`` is ``strength * w``: what
    ``fnn.l2(strength)`` adds to the gradient, and what is called weight decay.

    Args:
        params: pytree of float arrays.
        mask: says of a leaf's path, such as "conv1/w", whether it counts; None counts all.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError, TypeError: no leaf counts, or one that does is no float array; a mask that is no
            function, or returns no bool.

    Source: A. Krogh, J. Hertz, A simple weight decay can improve generalization (1991).

    >>> l2_penalty({"w": jnp.array([3.0, -4.0]), "b": jnp.array([9.0])}, mask=lambda p: p == "w")
    Array(12.5, dtype=float32)
    """
    return _sum("l2_penalty", _half_square, params, mask)


def _sum(function: str, term: Term, params: Any, mask: Mask | None) -> jax.Array:
    """Sum over the leaves that count, chosen here, in Python: a new mask is no new program."""
    if mask is not None:
        check_takes(function, "mask", mask, "path")
    chosen = params if mask is None else selected(function, params, mask)
    leaves = jax.tree.leaves(chosen)
    if not leaves:
        names = jax.tree.leaves(paths(params))
        needed = f"one of {several(names)}" if names else "a leaf"
        raise wrong(function, "mask" if names else "params", "no leaf", needed)
    check_params(function, chosen)
    total: jax.Array = _total(term, leaves)
    return total


@functools.partial(jax.jit, static_argnames="term", inline=True)
def _total(term: Term, leaves: list[jax.Array]) -> jax.Array:
    sums = [jnp.sum(term(widen(leaf))) for leaf in leaves]
    wide = max((s.dtype for s in sums), key=lambda dtype: dtype.itemsize)
    return functools.reduce(jnp.add, [s.astype(wide) for s in sums])


def _size(w: jax.Array) -> jax.Array:
    return w * jnp.sign(w)  # the derivative of jnp.abs at 0 is 1


def _half_square(w: jax.Array) -> jax.Array:
    return w * (w / 2)  # the square may overflow where its half does not
