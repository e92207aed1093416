"""Penalties on parameters: a scalar of a pytree, to be added to a loss.

The leaves are chosen by path: ``where`` is given each leaf's path, ``"conv1/w"``, and says whether
it counts, as in ``l2_penalty(params, where=lambda path: path.endswith("w"))``. Sums are in float32
or wider.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from fnn.checks import wrong
from fnn.dtypes import accumulator
from fnn.trees import paths

Where = Callable[[str], bool] | None


def _total(
    function: str, term: Callable[[jax.Array], jax.Array], params: Any, where: Where
) -> jax.Array:
    """Sum of the terms of all entries of the leaves that count."""
    named = zip(jax.tree.leaves(paths(params)), jax.tree.leaves(params), strict=True)
    leaves = [leaf for path, leaf in named if where is None or where(path)]
    if not leaves:
        raise wrong(function, "where", "no leaf", f"one of {jax.tree.leaves(paths(params))}")
    sums = [jnp.sum(term(leaf.astype(accumulator(leaf.dtype)))) for leaf in leaves]
    wide = functools.reduce(jnp.promote_types, [s.dtype for s in sums])
    return functools.reduce(jnp.add, [s.astype(wide) for s in sums])


@functools.partial(jax.jit, static_argnames=("where",), inline=True)
def l1_penalty(params: PyTree[Float[Array, "..."]], *, where: Where = None) -> Float[Array, ""]:
    """Return ``sum |w|`` over all entries of the leaves that count.

    Args:
        params: pytree of float arrays.
        where: says of a leaf's path, as "conv1/w", whether it counts; None counts all.

    Returns:
        A scalar, float32 or wider; its derivative at w = 0 is 0.

    Raises:
        ValueError: no leaf counts.

    Source: R. Tibshirani, Regression shrinkage and selection via the lasso (1996).

    >>> l1_penalty({"w": jnp.array([3.0, -4.0]), "b": jnp.array([9.0])}, where=lambda p: p == "w")
    Array(7., dtype=float32)
    """
    # Not jnp.abs, whose derivative at 0 is 1.
    return _total("l1_penalty", lambda w: w * jnp.sign(w), params, where)


@functools.partial(jax.jit, static_argnames=("where",), inline=True)
def l2_penalty(params: PyTree[Float[Array, "..."]], *, where: Where = None) -> Float[Array, ""]:
    """Return ``sum w^2`` over all entries of the leaves that count, without a factor 1/2.

    Args:
        params: pytree of float arrays.
        where: says of a leaf's path, as "conv1/w", whether it counts; None counts all.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: no leaf counts.

    Source: A. Krogh, J. Hertz, A simple weight decay can improve generalization (1991).

    >>> l2_penalty({"w": jnp.array([3.0, -4.0]), "b": jnp.array([9.0])}, where=lambda p: p == "w")
    Array(25., dtype=float32)
    """
    return _total("l2_penalty", jnp.square, params, where)
