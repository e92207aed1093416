"""The density of a Hessian's eigenvalues, by Lanczos' method and random starts.

From a unit vector v, Lanczos' tridiagonal matrix has eigenvalues theta_j and, as the first entries
of its eigenvectors, weights w_j: a Gauss quadrature, exact for polynomials of degree below twice
the iterations, of the spectrum as v sees it, ``v' p(H) v = sum_j w_j p(theta_j)``. The mean over
random v is ``trace(p(H)) / n``: every eigenvalue counts 1 / n.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from fnn.analysis.curvature import Loss, quadratic, ritz, scalar_loss
from fnn.checks import (
    POSITIVE,
    check_array,
    check_arrays,
    check_int,
    check_key,
    check_number,
    check_size,
)
from fnn.dtypes import Number, number_like
from fnn.static import frozen
from fnn.trees import FloatTree


class Density(NamedTuple):
    """A distribution of eigenvalues, as points with weights.

    Attributes:
        eigenvalues: (samples, min(iterations, n)), in ascending order for every sample, of n
            parameters.
        weights: of the same shape, with a sum of 1 over all of them.
    """

    eigenvalues: Array
    weights: Array

    def at(self, points: Float[Array, "*shape"], width: Number) -> Float[Array, "*shape"]:
        """Return the density at some points, each eigenvalue a Gaussian of this deviation.

        Args:
            points: eigenvalues, of any shape.
            width: standard deviation of the Gaussians, in units of an eigenvalue.

        Returns:
            The density at every point; its integral is 1.

        Raises:
            ValueError: width <= 0.
            TypeError: points are no array; width is no number.
        """
        check_array("analysis.spectral_density", "points", points)
        check_number("analysis.spectral_density", "width", width, POSITIVE)
        deviation = number_like(width, self.weights)
        lead = (1,) * jnp.ndim(points)
        centres, weights = (x.reshape(lead + x.shape) for x in self)
        z = (jnp.expand_dims(points, (-1, -2)) - centres) / deviation
        heights = weights * jnp.exp(-jnp.square(z) / 2)
        return heights.sum((-1, -2)) / (deviation * math.sqrt(2 * math.pi))


def spectral_density(
    loss: Loss,
    params: FloatTree,
    *args: Any,
    key: PRNGKeyArray,
    iterations: int = 64,
    samples: int = 8,
) -> Density:
    """Return the distribution of the eigenvalues of the Hessian, without forming it.

    Args:
        loss: ``loss(params, *args)``, a scalar. What it reads in a dict, an array or an object
            that changes is fixed at the first call.
        params: any pytree of floating-point arrays, n numbers in all.
        args: arrays, or pytrees of them, passed to loss; what loss holds itself stays in memory.
        key: draws the starts, standard normal vectors brought to length 1.
        iterations: products with H from every start, at most n.
        samples: starts. The mean of any function of the eigenvalues errs by about its deviation
            over ``sqrt(n samples / 2)``.

    Returns:
        A `Density`: points and weights, and ``.at(points, width)``, its smooth form.

    Raises:
        ValueError: loss is no scalar; iterations or samples < 1.
        TypeError: a leaf of params is no floating-point array, one of args no array; a key that
            is none.

    Source: L. Lin, Y. Saad, C. Yang, Approximating spectral densities of large matrices (2016); B.
    Ghorbani, S. Krishnan, Y. Xiao, An investigation into neural net optimization via Hessian
    eigenvalue density (2019).

    >>> bowl = lambda x: (jnp.array([1.0, 1.0, 1.0, 1.0, 5.0]) * x**2).sum() / 2
    >>> key = jax.random.key(0)
    >>> density = fnn.analysis.spectral_density(bowl, jnp.ones(5), key=key, samples=400)
    >>> round(float(density.weights[density.eigenvalues > 3].sum()), 1)
    0.2
    """
    function = "analysis.spectral_density"
    check_int(function, "iterations", iterations, 1)
    check_size(function, "samples", samples)
    check_key(function, "key", key)
    scalar_loss(function, loss, params, *args)
    check_arrays(function, "args", args)
    density: Density = _density(frozen(loss), params, args, key, iterations, samples)
    return density


@functools.partial(jax.jit, static_argnums=(0, 4, 5), inline=True)
def _density(
    loss: Loss, params: Any, args: Any, key: Array, iterations: int, samples: int
) -> Density:
    q = quadratic("analysis.spectral_density", loss, params, *args)

    def sample(i: Array) -> tuple[Array, Array]:
        start = jax.random.fold_in(key, i)
        first = jax.random.normal(start, q.gradient.shape, q.gradient.dtype)
        values, vectors, _ = ritz(q, first, iterations)
        return values, jnp.square(vectors[0]) / samples

    return Density(*lax.map(sample, jnp.arange(samples)))
