"""Means and variances: of a batch, over batches, and of a training set.

The variance is taken around a first estimate of the mean and then corrected for the rounding of
that estimate: two passes over x, exact to a few ulp where ``mean(x^2) - mean(x)^2`` cancels. Sums
of half-precision inputs are formed in float32. Plain sums over the leading axes are also what XLA
does fastest on a CPU: a product with a vector of ones takes two to ten times as long.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.checks import FRACTION, Range, check_array, check_dtype_or_wider, describe, wrong
from fnn.dtypes import accumulator, is_floating, magnitude, number_like, spread, widen
from fnn.functions import jitted

Mean = Callable[[jax.Array], jax.Array]


class BatchStats(NamedTuple):
    """Mean and biased variance of every channel, float32 or wider.

    Attributes:
        mean: (c,).
        var: (c,), the mean square deviation from the mean.
    """

    mean: Float[Array, " c"]
    var: Float[Array, " c"]


def check_arrays(
    function: str, x: jax.Array, shape: tuple[int, ...], **arrays: jax.Array | None
) -> None:
    """Raise unless every array has this shape and x's dtype, or that of x's sums."""
    for argument, array in arrays.items():
        if array is None:
            continue
        if array.shape != shape:
            raise wrong(function, argument, describe(array), f"shape {shape} for x {describe(x)}")
        check_dtype_or_wider(function, argument, array, x)


def check_channels(function: str, x: jax.Array) -> None:
    """Raise unless x has examples in front and channels last."""
    if x.ndim < 2:
        raise wrong(function, "x", describe(x), "shape (n, *spatial, c)")


def centre(x: jax.Array, mean: Mean) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, deviation from the mean, and biased variance.

    ``mean`` averages over the right entries and gives an array that subtracts from x. The first
    estimate is a constant to the gradient, which flows through the exact rest.
    """
    about = lax.stop_gradient(mean(x))
    d = x - about
    rest = mean(d)
    # Beyond this the mean square is infinite, and less an infinite one it would be NaN.
    most = math.sqrt(jnp.finfo(x.dtype).max) * (1 - float(jnp.finfo(x.dtype).eps))
    fixed = lax.stop_gradient(rest)
    near = jnp.clip(fixed, -most, most) + (rest - fixed)  # a select would slow down the gradient
    var = mean(jnp.square(d)) - jnp.square(near)
    return about + rest, d - rest, var - lax.stop_gradient(jnp.minimum(var, 0.0))


def mean_over(axes: tuple[int, ...]) -> Mean:
    """The average over these axes, which are kept with size 1."""
    return lambda x: x.mean(axes, keepdims=True)


@jitted()
def batch_stats(x: Float[Array, "n *spatial c"]) -> BatchStats:
    """Return mean and biased variance of every channel, over examples and positions.

    ``mean = sum x / m``, ``var = sum (x - mean)^2 / m``, with m values per channel.

    Args:
        x: (n, *spatial, c).

    Returns:
        `BatchStats`: mean (c,) and var (c,), float32 for half-precision x, else of x's dtype; var
        is infinite where the sum of squares is too large for that, from deviations of
        ``2e19 / sqrt(m)`` in float32. Where the sum of a channel, or of its deviations, overflows,
        neither is finite.

    Raises:
        ValueError: x has fewer than two axes, or no examples or positions: the mean of nothing,
            NaN, would stay in a running average for ever.

    Source: S. Ioffe, C. Szegedy, Batch normalization (ICML 2015), algorithm 1.

    >>> mean, var = batch_stats(jnp.array([[1.0, 10000.0], [3.0, 10001.0]]))
    >>> mean.tolist(), var.tolist()
    ([2.0, 10000.5], [1.0, 0.25])
    """
    check_channels("batch_stats", x)
    _check_some("batch_stats", x)
    mean, _, var = centre(widen(x), mean_over(tuple(range(x.ndim - 1))))
    return BatchStats(mean.reshape(-1), var.reshape(-1))


def _check_some(function: str, x: jax.Array) -> None:
    if 0 in x.shape[:-1]:
        raise wrong(function, "x", describe(x), "at least one example and position")


@jitted(ranges={"decay": FRACTION, "count": Range(2, high_closed=False)})
def running_stats(
    running: BatchStats, batch: BatchStats, *, decay: float = 0.9, count: float | None = None
) -> BatchStats:
    """Return the running average of the statistics after one more batch.

    ``r <- decay r + (1 - decay) batch``. Start from zeros and ones, or from the first batch.
    PyTorch's momentum is ``1 - decay``, and it averages the unbiased variance, which ``count``
    gives: ``var count / (count - 1)``. Without it the average is of the biased variance.

    Args:
        running: the average so far, mean and var (c,), float32 or wider.
        batch: the statistics of the new batch, of the same shape and dtype.
        decay: in [0, 1], the weight of the past.
        count: values per channel behind ``batch``, ``x.size // c``, for the unbiased variance;
            at least 2, and finite.

    Returns:
        `BatchStats`, the new average.

    Raises:
        ValueError: decay outside [0, 1], count below 2, or shapes that differ.
        TypeError: no `BatchStats`; dtypes that differ, or are not float32 or wider.

    >>> old = BatchStats(jnp.array([0.0]), jnp.array([1.0]))
    >>> new = running_stats(old, BatchStats(jnp.array([1.0]), jnp.array([3.0])), decay=0.5, count=3)
    >>> new.mean.tolist(), new.var.tolist()
    ([0.5], [2.75])
    """
    _check_stats(running=running, batch=batch)
    past = number_like(decay, running.mean)
    count = widen(count) if isinstance(count, jax.Array) else count
    unbiased = 1.0 if count is None else number_like(count / (count - 1), batch.var)
    return BatchStats(
        past * running.mean + (1 - past) * batch.mean,
        past * running.var + (1 - past) * unbiased * batch.var,
    )


def _check_stats(**arguments: Any) -> None:
    """Raise unless these statistics are one like the other: a scan carries what comes out."""
    name, like = "running_stats", arguments["running"]
    for argument, stats in arguments.items():
        if not isinstance(stats, BatchStats):
            got = f"a {type(stats).__name__}"
            raise wrong(name, argument, got, "fnn.BatchStats of mean and var", TypeError)
        for field, a in stats._asdict().items():
            place = f"{argument}.{field}"
            check_array(name, place, a)
            if not is_floating(a.dtype) or accumulator(a.dtype) != a.dtype:
                raise wrong(name, place, describe(a), "float32 or wider", TypeError)
            if a.ndim != 1 or a.shape != like.mean.shape:
                raise wrong(name, place, describe(a), "shape (c,), the same of all four")
            if a.dtype != like.mean.dtype:
                needed = f"the dtype of running.mean, {like.mean.dtype}"
                raise wrong(name, place, describe(a), needed, TypeError)


@jitted()
def fit_standardize(x: Float[Array, "n *spatial c"]) -> dict[str, Float[Array, " c"]]:
    """Return the statistics of the training set that `standardize` takes.

    ``mean = sum x / m``, ``std = sqrt(sum (x - mean)^2 / m)`` of every channel over examples and
    positions; `fnn.flatten` first for statistics of every pixel. A channel that is constant has
    no scale: its std is 1, so that it standardises to 0.

    Args:
        x: (n, *spatial, c), the training inputs.

    Returns:
        ``{"mean": (c,), "std": (c,)}``, float32 for half-precision x, else of x's dtype.

    Raises:
        ValueError: x has fewer than two axes, or no examples or positions.

    Source: CSC413 (2020), input normalisation.

    >>> fitted = fit_standardize(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> fitted["mean"].tolist(), fitted["std"].tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    check_channels("fit_standardize", x)
    _check_some("fit_standardize", x)
    rows = widen(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    unit = magnitude(rows, 0)  # the variance may be too large, or small, where its root is not
    mean, var = batch_stats(rows / unit)
    constant, unit = rows.max(0) == rows.min(0), unit[0]
    std = jnp.where(constant, 1, unit * jnp.sqrt(jnp.where(constant, 1, var)))
    return {"mean": unit * mean, "std": std}


@jitted()
def standardize(
    x: Float[Array, "n *spatial c"], mean: Float[Array, " c"], std: Float[Array, " c"]
) -> Float[Array, "n *spatial c"]:
    """Return inputs of mean 0 and deviation 1, ``y = (x - mean) / std``.

    The statistics are those of the training set (`fit_standardize`), for test inputs too.

    Args:
        x: (n, *spatial, c).
        mean, std: (c,), of x's dtype, or float32 for half-precision x.

    Returns:
        (n, *spatial, c), of x's dtype.

    Raises:
        ValueError: a shape does not fit.
        TypeError: a dtype does not fit.

    Source: CSC413 (2020), input normalisation.

    >>> train, test = jnp.array([[1.0], [3.0]]), jnp.array([[5.0]])
    >>> standardize(test, **fit_standardize(train)).tolist()
    [[3.0]]
    """
    check_channels("standardize", x)
    check_arrays("standardize", x, x.shape[-1:], mean=mean, std=std)
    return ((widen(x) - spread(mean, x.ndim)) / spread(std, x.ndim)).astype(x.dtype)
