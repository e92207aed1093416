"""Means and variances: of a batch, over batches, and of a training set.

The variance is taken around a first estimate of the mean and then corrected for the rounding of
that estimate: two passes over x, exact to a few ulp where ``mean(x^2) - mean(x)^2`` cancels. Sums
of half-precision inputs are formed in float32. Plain sums over the leading axes are also what XLA
does fastest on a CPU: a product with a vector of ones takes two to ten times as long.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.checks import FRACTION, Range, check_array, check_dtype_or_wider, describe, wrong
from fnn.dtypes import Number, accumulator, is_floating, magnitude, number_like, spread, widen
from fnn.functions import jitted
from fnn.trees import check_same, exported

Mean = Callable[[jax.Array], jax.Array]
Stats = TypeVar("Stats")  # a pytree of `BatchStats`


@exported
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
    running: Stats, batch: Stats, *, decay: Number = 0.9, count: Number | None = None
) -> Stats:
    """Return the running average of the statistics after one more batch.

    ``r <- decay r + (1 - decay) batch``. Start from zeros and ones, or from the first batch.
    PyTorch's momentum is ``1 - decay``, and it averages the unbiased variance, which ``count``
    gives: ``var count / (count - 1)``. Without it the average is of the biased variance.

    Args:
        running: the average so far: `BatchStats` of mean and var (c,), float32 or wider, or a
            pytree of them, such as a dict by layer.
        batch: the statistics of the new batch, of the same structure, shapes and dtypes.
        decay: in [0, 1], the weight of the past.
        count: values per channel behind ``batch``, ``x.size // c``, for the unbiased variance;
            at least 2, and finite; the same in all layers of one call.

    Returns:
        The new average, as ``running``.

    Raises:
        ValueError: decay outside [0, 1], count below 2, or structures or shapes that differ.
        TypeError: no `BatchStats`; dtypes that differ, or are not float32 or wider.

    >>> ones = BatchStats(jnp.ones(1), jnp.ones(1))
    >>> old = {"norm1": BatchStats(jnp.array([0.0]), jnp.array([1.0])), "norm2": ones}
    >>> new = {"norm1": BatchStats(jnp.array([1.0]), jnp.array([3.0])), "norm2": ones}
    >>> both = running_stats(old, new, decay=0.5)
    >>> both["norm1"].mean.tolist(), both["norm1"].var.tolist(), both["norm2"].mean.tolist()
    ([0.5], [2.0], [1.0])
    """
    _check_stats(running, batch)
    count = widen(count) if isinstance(count, jax.Array) else count

    def one(old: BatchStats, new: BatchStats) -> BatchStats:
        past = number_like(decay, old.mean)
        unbiased = 1.0 if count is None else number_like(count / (count - 1), new.var)
        return BatchStats(
            past * old.mean + (1 - past) * new.mean,
            past * old.var + (1 - past) * unbiased * new.var,
        )

    averaged: Stats = jax.tree.map(one, running, batch, is_leaf=_is_leaf)
    return averaged


def _is_leaf(x: Any) -> bool:
    """Whether this is the `BatchStats` of a layer, or None, which is refused and not skipped."""
    return x is None or isinstance(x, BatchStats)


def _check_stats(running: Any, batch: Any) -> None:
    """Raise unless these statistics are one like the other: a scan carries what comes out."""
    for argument, tree in (("running", running), ("batch", batch)):
        for path, stats in jax.tree.leaves_with_path(tree, is_leaf=_is_leaf):
            _check_layer(argument + jax.tree_util.keystr(path), stats)
    check_same("running_stats", "batch", batch, running, "as in running")
    pairs = zip(*map(jax.tree.leaves_with_path, (running, batch)), strict=True)
    for (path, old), (_, new) in pairs:
        if new.dtype != old.dtype:
            place = jax.tree_util.keystr(path)
            needed = f"{old.dtype}, the dtype of running{place}"
            raise wrong("running_stats", f"batch{place}", describe(new), needed, TypeError)


def _check_layer(place: str, stats: Any) -> None:
    """Raise unless these are the statistics of one layer, of one shape and dtype."""
    name = "running_stats"
    if not isinstance(stats, BatchStats):
        needed = "fnn.BatchStats of mean and var"
        raise wrong(name, place, describe(stats), needed, TypeError)
    for field, a in stats._asdict().items():
        own = f"{place}.{field}"
        check_array(name, own, a)
        if not is_floating(a.dtype) or accumulator(a.dtype) != a.dtype:
            raise wrong(name, own, describe(a), "float32 or wider", TypeError)
        if a.ndim != 1 or a.shape != stats.mean.shape:
            raise wrong(name, own, describe(a), "shape (c,), the same of mean and var")
        if a.dtype != stats.mean.dtype:
            needed = f"{stats.mean.dtype}, the dtype of {place}.mean"
            raise wrong(name, own, describe(a), needed, TypeError)


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
