"""Curvature of a loss over its params, without forming the Hessian.

The Hessian H of a loss acts on a direction v as ``H v = d/dt grad(params + t v)`` at t = 0: one
forward derivative of the gradient, at about the cost of two gradients however many params there
are. Everything here is built from that product. A loss is ``loss(params, *args)``, such as the
``loss(params, batch)`` that `fnn.train` takes. H couples all leaves of params, which are read as
one vector, in float32 where they are narrower.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from fnn.checks import (
    NOT_NEGATIVE,
    check_arrays,
    check_int,
    check_key,
    check_known,
    check_number,
    check_scalar,
    check_size,
    check_takes,
    describe,
    wrong,
)
from fnn.functions import jitted
from fnn.placement import placed_as, replicated, varying
from fnn.trees import FloatTree, check_like, check_params, global_norm

Loss = Callable[..., Any]

# What eigenvalues may be off by, in units of eps and of the largest: each entry of a product is
# rounded on its own, which moves those of networks by less than 1 however many params there are.
ROUNDING = 4


class Quadratic(NamedTuple):
    """A loss to second order around its params, all leaves in one vector.

    Attributes:
        gradient: (n,), the params' own dtype, float32 where that is narrower.
        product: ``v -> H v`` on such vectors.
        pack: from a pytree like params to a vector.
        unpack: from a vector to a pytree like params.
        eps: of the narrowest dtype among params, to which products with H are rounded.
    """

    gradient: Array
    product: Callable[[Array], Array]
    pack: Callable[[Any], Array]
    unpack: Callable[[Array], Any]
    eps: float


def scalar_loss(function: str, loss: Loss, params: Any, *args: Any) -> Loss:
    """Return loss as a function of params alone, after the checks that every function here makes.

    Raises:
        ValueError: when called, loss is no scalar.
        TypeError: loss cannot be called; a leaf of params is no floating-point array.
    """
    inputs = ["params", *(f"args[{i}]" for i in range(len(args)))]
    check_takes(function, "loss", loss, ", ".join(inputs))
    check_params(function, params)
    return lambda params: check_scalar(function, loss(params, *args))


def check_typed(function: str, argument: str, tree: Any, like: Any) -> None:
    """Raise as `check_like` does, and for the first leaf that has another dtype."""
    check_like(function, argument, tree, like)
    pairs = zip(jax.tree.leaves_with_path(tree), jax.tree.leaves(like), strict=True)
    for (path, x), wanted in pairs:
        if jnp.result_type(x) != jnp.result_type(wanted):
            place = argument + jax.tree_util.keystr(path)
            needed = f"the dtype of {describe(wanted)}"
            raise wrong(function, place, describe(x), needed, TypeError)


def quadratic(function: str, loss: Loss, params: Any, *args: Any) -> Quadratic:
    """Linearize the gradient of loss at params; ``function`` is named in messages."""
    scalar = scalar_loss(function, loss, params, *args)
    leaves, structure = jax.tree.flatten(params)
    if not any(x.size for x in leaves):
        raise wrong(function, "params", "no number", "at least one")
    dtype = max([jnp.dtype("float32"), *(x.dtype for x in leaves)], key=lambda d: d.itemsize)
    ends = [sum(x.size for x in leaves[: i + 1]) for i in range(len(leaves))]

    def pack(tree: Any) -> Array:
        whole = map(replicated, jax.tree.leaves(tree))
        return jnp.concatenate([x.astype(dtype).ravel() for x in whole])

    def unpack(vector: Array) -> Any:
        parts = jnp.split(vector, ends[:-1])
        like = zip(parts, leaves, strict=True)
        made = [v.reshape(x.shape).astype(x.dtype) for v, x in like]
        return jax.tree.unflatten(structure, list(map(placed_as, made, leaves)))

    gradient, product = jax.linearize(jax.grad(scalar), params)
    eps = max(float(jnp.finfo(x.dtype).eps) for x in leaves)
    return Quadratic(pack(gradient), lambda v: pack(product(unpack(v))), pack, unpack, eps)


@jitted(static=("loss",))
def hvp(loss: Loss, params: FloatTree, v: FloatTree, *args: Any) -> FloatTree:
    """Return the product of the Hessian with a vector.

    ``H v = d/dt grad loss(params + t v)`` at t = 0, one forward derivative of the gradient.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        v: the direction, structured, shaped and typed as params.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.

    Returns:
        A pytree like params.

    Raises:
        ValueError: loss is no scalar; v is not shaped as params.
        TypeError: a leaf of params is no floating-point array, one of args no array; v has
            another dtype.

    Source: B. Pearlmutter, Fast exact multiplication by the Hessian (1994).

    >>> fnn.hvp(lambda x: x[0] ** 2 * x[1], jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0])).tolist()
    [6.0, 2.0]
    """
    gradient = jax.grad(scalar_loss("hvp", loss, params, *args))
    check_typed("hvp", "v", v, params)
    product: Any = jax.jvp(gradient, (params,), (jax.tree.map(placed_as, v, params),))[1]
    return product


@jitted(static=("loss",))
def hessian_diagonal(loss: Loss, params: FloatTree, *args: Any) -> FloatTree:
    """Return the exact diagonal of the Hessian.

    ``h_i = e_i . H e_i``: one product with H per number in params, for small problems; for large
    ones there is `hutchinson_diagonal`.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.

    Returns:
        A pytree like params.

    Raises:
        ValueError: loss is no scalar.
        TypeError: a leaf of params is no floating-point array, one of args no array.

    >>> fnn.hessian_diagonal(lambda x: x[0] ** 2 * x[1] + x[1] ** 3, jnp.array([1.0, 3.0])).tolist()
    [6.0, 18.0]
    """
    q = quadratic("hessian_diagonal", loss, params, *args)
    return q.unpack(diagonal(q))


def diagonal(q: Quadratic) -> Array:
    """Diagonal of the Hessian of q, one product for each entry."""
    n = q.gradient.size

    def entry(i: Array) -> Array:
        return q.product(jnp.zeros_like(q.gradient).at[i].set(1))[i]

    h: Array = lax.map(entry, jnp.arange(n))
    return h


@jitted(static=("loss", "samples"))
def hutchinson_diagonal(
    loss: Loss,
    params: FloatTree,
    *args: Any,
    key: PRNGKeyArray,
    samples: int,
) -> FloatTree:
    """Return an unbiased estimate of the diagonal of the Hessian.

    ``h = mean over z of z * (H z)``, with entries of z of +1 or -1, equally likely. The variance of
    ``h_i`` is ``sum_{j != i} H_ij^2 / samples``: zero where H is diagonal.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.
        key: draws z.
        samples: draws to average, one product with H each.

    Returns:
        A pytree like params.

    Raises:
        ValueError: loss is no scalar; samples < 1.
        TypeError: a leaf of params is no floating-point array, one of args no array.

    Source: C. Bekas, E. Kokiopoulou, Y. Saad, An estimator for the diagonal of a matrix (2007).

    >>> x, key = jnp.array([1.0, 2.0]), jax.random.key(0)
    >>> fnn.hutchinson_diagonal(lambda x: (x**3).sum(), x, key=key, samples=1).tolist()
    [6.0, 12.0]
    """
    check_size("hutchinson_diagonal", "samples", samples)
    q = quadratic("hutchinson_diagonal", loss, params, *args)
    return q.unpack(sampled_diagonal(q, key, samples))


def sampled_diagonal(q: Quadratic, key: Array, samples: int) -> Array:
    """Hutchinson's estimate of the diagonal of the Hessian of q."""

    def add(i: Array, total: Array) -> Array:
        z = jax.random.rademacher(jax.random.fold_in(key, i), total.shape, total.dtype)
        return total + z * q.product(z)

    total: Array = lax.fori_loop(0, samples, add, jnp.zeros_like(q.gradient))
    return total / samples


# Orthogonality needs all digits, which GPUs and TPUs drop from products of float32 by default.
dot = functools.partial(jnp.dot, precision=lax.Precision.HIGHEST)


class Spectrum(NamedTuple):
    """The ends of a Hessian's spectrum, as far as `extreme_eigenvalues` resolved them.

    Attributes:
        smallest, largest: float[].
        error: float[]: H has eigenvalues within this distance of each of the two. It is never less
            than the rounding of products with H in the narrowest dtype among params.
    """

    smallest: Array
    largest: Array
    error: Array


@jitted(static=("loss", "iterations"))
def extreme_eigenvalues(
    loss: Loss,
    params: FloatTree,
    *args: Any,
    key: PRNGKeyArray,
    iterations: int = 64,
) -> Spectrum:
    """Return the smallest and the largest eigenvalue of the Hessian, by Lanczos' method.

    From a random unit ``v_1``: ``w = H v_j``, ``a_j = v_j . w``, w is made orthogonal to all
    ``v_1..v_j``, ``b_j = |w|``, ``v_{j+1} = w / b_j``. The extreme eigenvalues of the tridiagonal
    matrix of the a and b approach those of H from within, the fastest where they stand apart.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays, n numbers in all.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.
        key: draws ``v_1``.
        iterations: products with H, at most n; this many vectors of n are kept. With n of them the
            result is exact but for rounding.

    Returns:
        A `Spectrum`: smallest, largest, and how far from an eigenvalue of H these may be.

    Raises:
        ValueError: loss is no scalar; iterations < 1.
        TypeError: a leaf of params is no floating-point array, one of args no array.

    Source: C. Lanczos (1950); with full reorthogonalisation as in G. Golub, C. Van Loan, Matrix
    computations, section 10.3.

    >>> bowl = lambda x: x[0] ** 2 + 2 * x[1] ** 2
    >>> ends = fnn.extreme_eigenvalues(bowl, jnp.array([-5.0, -2.0]), key=jax.random.key(0))
    >>> round(float(ends.smallest), 4), round(float(ends.largest), 4)
    (2.0, 4.0)
    """
    check_int("extreme_eigenvalues", "iterations", iterations, 1)
    return lanczos(quadratic("extreme_eigenvalues", loss, params, *args), key, iterations)


def lanczos(q: Quadratic, key: Array, iterations: int) -> Spectrum:
    """Extreme eigenvalues of the Hessian of q; see `extreme_eigenvalues`."""
    first = jax.random.normal(key, q.gradient.shape, q.gradient.dtype)
    values, vectors, rest = ritz(q, first, iterations)
    residual = jnp.abs(rest * vectors[-1])
    rounding = ROUNDING * q.eps * jnp.max(jnp.abs(values))
    error = jnp.maximum(rounding, jnp.maximum(residual[0], residual[-1]))
    return Spectrum(values[0], values[-1], error)


def ritz(q: Quadratic, first: Array, iterations: int) -> tuple[Array, Array, Array]:
    """Eigenvalues and eigenvectors of Lanczos' tridiagonal matrix, and the b that follows it.

    The chain starts from the direction of ``first`` and ends early where H maps its vectors into
    their own span. What stands for the missing steps has no part in the first vector.
    """
    n, dtype = q.gradient.size, q.gradient.dtype
    k = min(iterations, n)
    first, zeros, *_ = varying(first, jnp.zeros(k, dtype), q.gradient)

    def grow(j: Array, carry: Any) -> Any:
        basis, a, b, size = carry
        w = q.product(basis[j])
        a_j = dot(basis[j], w)
        for _ in range(2):  # once leaves errors of the size of the rounding of w, twice does not
            w = w - dot(dot(basis, w), basis)
        b_j = global_norm(w)
        size = jnp.maximum(size, jnp.abs(a_j) + b_j)
        b_j = jnp.where(b_j > q.eps * size, b_j, 0)  # 0 where the chain ends
        following = jnp.where(b_j > 0, w / jnp.where(b_j > 0, b_j, 1), 0)
        return basis.at[j + 1].set(following), a.at[j].set(a_j), b.at[j].set(b_j), size

    basis = jnp.zeros((k + 1, n), dtype).at[0].set(first / global_norm(first))
    basis, a, b, _ = lax.fori_loop(0, k, grow, (basis, zeros, zeros, zeros[0]))
    # Rows after the end would add an eigenvalue 0; the first a lies inside the spectrum.
    ended = jnp.cumsum(jnp.pad(b == 0, (1, 0))[:k]) > 0
    a = jnp.where(ended, a[0], a)
    values, vectors = _eigh(jnp.diag(a) + jnp.diag(b[:-1], 1) + jnp.diag(b[:-1], -1))
    return values, vectors, b[-1]


@jax.custom_jvp
def _eigh(t: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of a tridiagonal matrix, with derivatives where it falls apart.

    Equal eigenvalues are of parts that nothing joins, neither the matrix nor its derivative, and
    their vectors do not turn into each other.
    """
    values, vectors = jnp.linalg.eigh(t)
    return values, vectors


@_eigh.defjvp
def _eigh_jvp(primals: Any, tangents: Any) -> Any:
    values, vectors = _eigh(*primals)
    turn = dot(dot(vectors.T, tangents[0]), vectors)
    gaps = values[None, :] - values[:, None]
    turned = jnp.where(gaps == 0, 0, turn / jnp.where(gaps == 0, 1, gaps))
    return (values, vectors), (jnp.diag(turn), dot(vectors, turned))


@jitted(static=("loss", "iterations"))
def max_stable_step(
    loss: Loss,
    params: FloatTree,
    *args: Any,
    key: PRNGKeyArray,
    iterations: int = 64,
) -> Float[Array, ""]:
    """Return the learning rate above which gradient descent diverges.

    ``2 / lambda_max``: on a quadratic, every step multiplies the error along the eigenvector of
    lambda by ``1 - rate lambda``, which decays below this rate and grows above. Infinity where
    lambda_max <= 0.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.
        key, iterations: as in `extreme_eigenvalues`; lambda_max comes from below, so the rate
            comes from above.

    Returns:
        float[].

    Raises:
        ValueError: loss is no scalar; iterations < 1.
        TypeError: a leaf of params is no floating-point array, one of args no array.

    Source: CSC413 notes, optimization (2020).

    >>> bowl = lambda x: 0.5 * (x[0] ** 2 + 8 * x[1] ** 2)
    >>> round(float(fnn.max_stable_step(bowl, jnp.ones(2), key=jax.random.key(0))), 4)
    0.25
    """
    check_int("max_stable_step", "iterations", iterations, 1)
    largest = lanczos(quadratic("max_stable_step", loss, params, *args), key, iterations).largest
    return jnp.where(largest <= 0, jnp.inf, 2 / jnp.where(largest <= 0, 1, largest))


class CriticalPoint(NamedTuple):
    """What a point of a loss is, and the numbers that say so.

    Attributes:
        kind: "minimum", "maximum", "saddle", "degenerate" or "not critical".
        gradient_norm: Euclidean norm of the gradient.
        smallest, largest: the ends of the Hessian's spectrum.
    """

    kind: str
    gradient_norm: float
    smallest: float
    largest: float


def critical_point(
    loss: Loss,
    params: FloatTree,
    *args: Any,
    key: PRNGKeyArray,
    tolerance: float = 1e-4,
    iterations: int = 64,
) -> CriticalPoint:
    """Say whether params are a minimum, a maximum or a saddle of the loss.

    A point is critical where ``|gradient| <= tolerance``. There the Hessian's extreme eigenvalues
    decide: both positive, a minimum; both negative, a maximum; of two signs, a saddle. Anything
    else is degenerate, as a plateau is: an eigenvalue within ``tolerance * max |eigenvalue|`` of
    zero, or within Lanczos' own error, has no sign.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.
        key, iterations: as in `extreme_eigenvalues`.
        tolerance: of the gradient's norm, absolute, and of the eigenvalues, relative.

    Returns:
        A `CriticalPoint`, of Python numbers.

    Raises:
        ValueError: loss is no scalar; iterations < 1; tolerance < 0.
        TypeError: a leaf of params is no floating-point array, one of args no array; traced
            values, as the answer is known only after the computation.

    Source: CSC413 notes, optimization (2020).

    >>> loss, key = lambda x: x[0] ** 2 - x[1] ** 2, jax.random.key(0)
    >>> fnn.critical_point(loss, jnp.zeros(2), key=key).kind
    'saddle'
    """
    check_known("critical_point", params=params, args=args, key=key, tolerance=tolerance)
    scalar_loss("critical_point", loss, params, *args)
    check_int("critical_point", "iterations", iterations, 1)
    check_number("critical_point", "tolerance", tolerance, NOT_NEGATIVE)
    check_key("critical_point", "key", key)
    check_arrays("critical_point", "args", args)
    norm, spectrum = _critical(loss, params, *args, key=key, iterations=iterations)
    slope, smallest, largest, error = map(float, (norm, *spectrum))
    zero = max(tolerance * max(abs(smallest), abs(largest)), error)
    if not slope <= tolerance:
        kind = "not critical"
    elif smallest < -zero and largest > zero:
        kind = "saddle"
    elif smallest > zero:
        kind = "minimum"
    elif largest < -zero:
        kind = "maximum"
    else:
        kind = "degenerate"
    return CriticalPoint(kind, slope, smallest, largest)


@jitted(static=("loss", "iterations"))
def _critical(
    loss: Loss, params: Any, *args: Any, key: Array, iterations: int
) -> tuple[Array, Spectrum]:
    q = quadratic("critical_point", loss, params, *args)
    return global_norm(q.gradient), lanczos(q, key, iterations)
