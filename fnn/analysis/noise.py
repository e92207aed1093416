"""The noise of a gradient that is a mean over examples, against the gradient itself."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

from fnn.analysis.curvature import Loss, scalar_loss
from fnn.checks import check_int, check_takes, count_examples, wrong
from fnn.dtypes import magnitude, widen
from fnn.static import frozen
from fnn.trees import FloatTree, check_params, count


class NoiseScale(NamedTuple):
    """How noisy the gradient of one example is.

    Attributes:
        scale: float[], ``trace / square``, in examples; infinite where the square is not above 0.
        trace: float[], of the covariance of the gradients of single examples.
        square: float[], of the true gradient's norm, by an estimate without bias, so that noise may
            bring it below 0.
    """

    scale: Array
    trace: Array
    square: Array


def gradient_noise_scale(
    loss: Loss,
    params: FloatTree,
    data: PyTree[Shaped[Array, "n ..."]],
    *,
    batch_size: int = 1,
) -> NoiseScale:
    """Return the batch size at which noise and gradient are equally large.

    ``B = tr(S) / |G|^2``, with G the true gradient and S the covariance of the gradients of single
    examples. A batch of b has a gradient with the noise ``tr(S) / b``: below B, twice the batch
    allows for about twice the step; far above B, it gains little.

    From the gradients ``g_1..g_k`` of k batches of b examples and their mean g: ``tr(S) = b
    sum |g_i - g|^2 / (k - 1)`` and ``|G|^2 = |g|^2 - tr(S) / (k b)``, both without bias.

    Args:
        loss: ``loss(params, batch)``, a scalar mean over the batch. What it reads in a dict,
            an array or an object that changes is fixed at the first call.
        params: any pytree of floating-point arrays.
        data: any pytree of arrays with one common leading axis, the examples, in random order: a
            batch is b examples that follow each other, and sorted ones are no sample.
        batch_size: b, a divisor of the number of examples, of which there must be two batches.

    Returns:
        A `NoiseScale`.

    Raises:
        ValueError: loss is no scalar; params without a number; data of unequal lengths; a batch
            size that does not divide them into at least two batches.
        TypeError: a leaf of params is no floating-point array.

    Source: S. McCandlish, J. Kaplan, D. Amodei et al., An empirical model of large-batch training
    (2018), the "simple" noise scale.

    >>> data = jnp.array([1.0, 3.0, 1.0, 3.0])
    >>> noise = fnn.analysis.gradient_noise_scale(
    ...     lambda w, batch: ((w - batch) ** 2).mean() / 2, jnp.array(6.0), data)
    >>> round(float(noise.trace), 3), round(float(noise.square), 3), round(float(noise.scale), 3)
    (1.333, 15.667, 0.085)
    """
    function = "analysis.gradient_noise_scale"
    check_takes(function, "loss", loss, "params, batch")
    check_params(function, params)
    check_int(function, "batch_size", batch_size, 1)
    n = count_examples(function, data)
    if n % batch_size or n < 2 * batch_size:
        raise wrong(function, "batch_size", batch_size, f"a divisor of {n} examples, below {n}")
    scale: NoiseScale = _noise_scale(frozen(loss), params, data, batch_size)
    return scale


@functools.partial(jax.jit, static_argnums=(0, 3), inline=True)
def _noise_scale(loss: Loss, params: Any, data: Any, size: int) -> NoiseScale:
    function = "analysis.gradient_noise_scale"
    if not count(params):
        raise wrong(function, "params", "no number", "at least one")
    k = jax.tree.leaves(data)[0].shape[0] // size

    def add(carry: Any, i: Array) -> Any:
        """Welford's update of the mean, and of the sum of squares around it, by batch i.

        The sum is in units of the square of ``unit``, so that none overflows or vanishes.
        """
        mean, spread, unit = carry
        batch = read(data, i * size + jnp.arange(size))
        gradient = jax.grad(scalar_loss(function, loss, params, batch))(params)
        larger = jnp.maximum(unit, _unit(gradient))
        apart = jax.tree.map(lambda g, m: widen(g) - m, gradient, mean)
        mean = jax.tree.map(lambda m, d: m + d / (i + 1).astype(d.dtype), mean, apart)
        after = jax.tree.map(lambda g, m: widen(g) - m, gradient, mean)
        spread = spread * jnp.square(unit / larger) + _inner(apart, after, larger)
        return (mean, spread, larger), None

    zeros = jax.tree.map(lambda x: jnp.zeros_like(widen(x)), params)
    start = zeros, jnp.zeros_like(_unit(zeros)), _unit(zeros)
    (mean, spread, unit), _ = lax.scan(add, start, jnp.arange(k))
    trace = size * spread / (k - 1)
    square = _inner(mean, mean, unit) - trace / (k * size)
    scale = jnp.where(square <= 0, jnp.inf, trace / jnp.where(square <= 0, 1, square))
    return NoiseScale(scale, trace * unit * unit, square * unit * unit)


def _unit(tree: Any) -> Array:
    """Return the largest magnitude in a pytree, in the widest of its dtypes."""
    found = [magnitude(widen(x)).reshape(()) for x in jax.tree.leaves(tree)]
    widest = max(x.dtype for x in found)
    largest: Array = functools.reduce(jnp.maximum, [x.astype(widest) for x in found])
    return largest


def _inner(a: Any, b: Any, unit: Array) -> Array:
    """Return the inner product of two pytrees over the square of ``unit``, in its dtype."""
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    parts = [jnp.sum(x / unit.astype(x.dtype) * (y / unit.astype(y.dtype))) for x, y in pairs]
    total: Array = functools.reduce(jnp.add, [p.astype(unit.dtype) for p in parts])
    return total


def read(data: Any, rows: Array) -> Any:
    """Return these examples, a copy on each of the devices that all are spread over."""

    def one(x: Array) -> Array:
        x = jnp.asarray(x)  # without jit it may be NumPy's
        where = jax.typeof(x).sharding
        whole = None
        if where.mesh.explicit_axes:  # which say where a result is
            whole = NamedSharding(where.mesh, PartitionSpec(None, *where.spec[1:]))
        some: Array = x.at[rows].get(out_sharding=whole)
        return some

    return jax.tree.map(one, data)
