"""Large arrays as a few numbers each, computed inside a compiled step and small enough to keep.

`activity` says what the units of a layer do: how large they are, how many are dead or saturated.
`norms` says how large parameters, gradients and updates are. Both return pytrees of small arrays by
name, the same ones at every step, so that a loop can carry and stack them.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Real

from fnn.checks import (
    POSITIVE,
    attribute,
    check_array,
    check_int,
    check_known,
    check_number,
    check_size,
    describe,
    wrong,
)
from fnn.dtypes import (
    Number,
    accumulator,
    is_floating,
    is_real,
    magnitude,
    number_like,
    real,
    widen,
)
from fnn.layers.activations import identity
from fnn.static import frozen
from fnn.trees import FloatTree, check_like, check_params, global_norm, names

Activation = Callable[[Any], Any]


class Activity(NamedTuple):
    """What the units of one layer do over a batch.

    Attributes:
        mean, std: float[], over all units and examples.
        dead: float[], the fraction of units that are positive for no example.
        saturated: float[], the fraction of all units and examples where the activation is flat.
        histogram: float[bins], the fraction of all units and examples in every bin.
        edges: float[bins + 1], the bins' ends. The first and the last bin hold what lies beyond.
    """

    mean: Array
    std: Array
    dead: Array
    saturated: Array
    histogram: Array
    edges: Array


def activity(
    values: Mapping[str, Real[Array, "..."]],
    activation: Activation | Mapping[str, Activation] = identity,
    *,
    bound: Number = 0.01,
    bins: int = 20,
    limits: tuple[float, float] | None = None,
    axis: int | tuple[int, ...] = 0,
) -> dict[str, Activity]:
    """Return what the units of every layer do: their distribution, the dead, the saturated.

    For inputs z and outputs ``y = f(z)`` of the activation f: mean and standard deviation of y; the
    fraction of units with ``y <= 0`` for every example; the fraction of all z with ``|f'(z)| <
    bound``; the histogram of y.

    Args:
        values: by name, the arrays that go into the activations, as `watched` returns them,
            (n, *units) each.
        activation: f, a function of every entry by itself: one for all, or one by every name. Its
            default, the identity, describes the values as they are, none of them saturated. Of one
            that mixes entries, such as `fnn.softmax`, f' is the derivative along ``(1, ..., 1)``.
        bound: of |f'|, below which f counts as flat.
        bins: bars of the histogram, of equal width.
        limits: ends of the histogram, two finite numbers; by default the least and the largest
            finite y.
        axis: where the examples are; an array from `lax.scan` has its steps in front of them.

    Returns:
        An `Activity` by every name, in float32, or float64 for float64 values.

    Raises:
        ValueError: a value without real numbers or without the axis; an activation that gives
            another shape or no floating-point numbers; an axis that is no int or there twice;
            bins < 1; bound <= 0; limits that do not ascend.
        TypeError: values are no arrays by name; a name without an activation.

    Source: CSC413 notes (2020), saturated and dead units; X. Glorot, Y. Bengio, Understanding the
    difficulty of training deep feedforward neural networks (AISTATS 2010), activation histograms.

    >>> z = jnp.array([[-1.0, 2.0, 9.0], [-3.0, -1.0, 9.0]])
    >>> layer = fnn.analysis.activity({"hidden": z}, fnn.relu, bins=2)["hidden"]
    >>> round(float(layer.mean), 3), float(layer.saturated), layer.edges.tolist()
    (3.333, 0.5, [0.0, 4.5, 9.0])
    """
    function = "analysis.activity"
    check_number(function, "bound", bound, POSITIVE)
    check_size(function, "bins", bins)
    axes = frozen(axis)
    axes = axes if isinstance(axes, tuple) else (axes,)
    for one in axes:
        check_int(function, "axis", one)
    if not isinstance(values, Mapping):
        needed = "arrays by name, as fnn.analysis.watched returns them"
        raise wrong(function, "values", describe(values), needed, TypeError)
    result = {}
    for name, z in values.items():
        f = activation.get(name) if isinstance(activation, Mapping) else activation
        if not callable(f):
            raise wrong(function, "activation", describe(f), f"a function for {name!r}", TypeError)
        _check_values(function, name, z, axes)
        if limits is not None:
            _check_limits(function, limits, jnp.result_type(z))
        result[name] = _activity(z, frozen(f), bound, bins, limits, axes)
    return result


def _check_limits(function: str, limits: Any, dtype: Any) -> None:
    """Raise unless these are the ends of a histogram of values of this dtype."""
    wide = accumulator(dtype if is_floating(dtype) else jnp.result_type(float))
    most = float(jnp.finfo(wide).max)
    try:
        low, high = map(float, limits)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not (-most <= low and high <= most and wide.type(low) < wide.type(high)):
        needed = f"a pair (low, high) of finite numbers with low < high, in {wide}"
        raise wrong(function, "limits", limits, needed)


def _check_values(function: str, name: str, z: Any, axes: tuple[int, ...]) -> None:
    """Raise unless these are real numbers with the axes of the examples."""
    check_array(function, name, z)
    n = jnp.ndim(z)
    there = all(-n <= a < n for a in axes) and len({a % n for a in axes}) == len(axes)
    if not is_real(jnp.result_type(z)) or not there:
        needed = f"real numbers with the axes {axes}, of the examples, each of them once"
        raise wrong(function, name, describe(z), needed)


@functools.partial(jax.jit, static_argnames=("f", "bins", "axes"), inline=True)
def _activity(
    z: Array, f: Activation, bound: Any, bins: int, limits: Any, axes: tuple[int, ...]
) -> Activity:
    z = widen(real(z))
    out = jax.eval_shape(f, z)
    if attribute(out, "shape") != z.shape or not is_floating(out.dtype):
        needed = f"real floating-point numbers of the shape of {describe(z)}"
        raise wrong("analysis.activity", "activation", describe(out), needed)
    y, slope = jax.jvp(f, (z,), (jnp.ones_like(z),))
    scale = _scale(y)
    scaled = y / scale
    mean = scaled.mean()
    histogram, edges = _histogram(y, bins, limits)
    return Activity(
        scale * mean,
        scale * jnp.sqrt(jnp.square(scaled - mean).mean()),
        (y <= 0).all(axes).mean(dtype=y.dtype),
        (jnp.abs(slope) < number_like(bound, y)).mean(dtype=y.dtype),
        histogram,
        edges,
    )


def _scale(x: Array) -> Array:
    """Return `magnitude` of all of x as one number, or 1 where an entry is not finite."""
    scale = magnitude(x).reshape(())
    return jnp.where(scale < jnp.inf, scale, 1)


def _histogram(y: Array, bins: int, limits: Any) -> tuple[Array, Array]:
    """Return the fraction of y in every bin, NaNs in none, and the bins' ends."""
    if limits is None:
        finite = jnp.isfinite(y)
        limits = [f(y, where=finite, initial=s * jnp.inf) for f, s in ((jnp.min, 1), (jnp.max, -1))]
        limits = [jnp.where(jnp.isfinite(end), end, 0) for end in limits]
    low, high = (number_like(end, y) for end in limits)
    share = jnp.linspace(0, 1, bins + 1, dtype=y.dtype)
    scale = _scale(jnp.stack([low, high]))  # without it, high - low may overflow
    above, width = y / scale - low / scale, high / scale - low / scale
    place = jnp.where(high > low, above / jnp.where(high > low, width, 1), 0)
    place = jnp.clip(jnp.floor(place * bins), 0, bins - 1)
    which = jnp.where(jnp.isnan(y), bins, place).astype(jnp.int32)
    empty = jnp.zeros(bins, jnp.int32)
    every = jax.typeof(empty).sharding  # each device of a mesh gets the whole histogram
    count = empty.at[which].add(1, mode="drop", out_sharding=every)
    return count.astype(y.dtype) / y.size, low * (1 - share) + high * share


class Norms(NamedTuple):
    """How large one leaf of params is, and what a step does to it.

    Attributes:
        weight, gradient, update: float[], Euclidean norms.
        ratio: float[], update / weight: 0 where both are 0, infinity where the weights alone are.
    """

    weight: Array
    gradient: Array
    update: Array
    ratio: Array


def norms(
    params: FloatTree,
    grads: FloatTree,
    updates: FloatTree,
) -> dict[str, Norms]:
    """Return how large parameters, gradients and updates are, leaf by leaf.

    ``|w|``, ``|g|``, ``|u|`` and ``|u| / |w|``, Euclidean norms. A step of gradient descent that
    works well often has a ratio of about 1e-3.

    Args:
        params: any pytree of floating-point arrays.
        grads, updates: pytrees like params.

    Returns:
        `Norms` by the leaf's path ("params" for params that are one array), in float32, or float64
        for float64 leaves. A norm is finite where all numbers of its leaf are, unless it is itself
        too large for its dtype: see `first_nonfinite`.

    Raises:
        ValueError: grads or updates are not shaped as params; two leaves have one path.
        TypeError: a leaf that is no floating-point array.

    Source: A. Karpathy, CS231n notes, babysitting the learning process: the ratio of updates to
    weights.

    >>> w = {"conv1": jnp.array([3.0, 4.0])}
    >>> one = fnn.analysis.norms(w, {"conv1": jnp.ones(2)}, {"conv1": jnp.array([0.0, -0.5])})
    >>> {path: [round(float(x), 3) for x in n] for path, n in one.items()}
    {'conv1': [5.0, 1.414, 0.5, 0.1]}
    """
    check_params("analysis.norms", params)
    check_like("analysis.norms", "grads", grads, params)
    check_like("analysis.norms", "updates", updates, params)
    return dict(_norms(params, grads, updates))


@functools.partial(jax.jit, inline=True)
def _norms(params: Any, grads: Any, updates: Any) -> dict[str, Norms]:
    own = names("analysis.norms", params)
    lengths = map(_lengths, map(jax.tree.leaves, (params, grads, updates)))
    result = OrderedDict()
    for name, weight, gradient, update in zip(own, *lengths, strict=True):
        ratio = jnp.where(update == 0, 0, update / jnp.where(update == 0, 1, weight))
        result[name] = Norms(weight, gradient, update, ratio)
    return result


def _lengths(arrays: list[jax.Array]) -> list[jax.Array]:
    """Return the Euclidean norm of each array, by one pass where no square can have been lost.

    `global_norm` takes two. It is asked where a sum of squares is too small, infinite or NaN, for
    all arrays at once: a choice for each would cost more than it saves.
    """
    squares = [jnp.sum(jnp.square(widen(a))) for a in arrays]

    def plain(square: jax.Array) -> jax.Array:
        info = jnp.finfo(square.dtype)
        return (square > info.tiny / info.eps) & (square < jnp.inf)

    found: list[jax.Array] = lax.cond(
        jnp.array([*map(plain, squares)]).all(),
        lambda: [*map(jnp.sqrt, squares)],
        lambda: [*map(global_norm, arrays)],
    )
    return found


def first_nonfinite(report: Mapping[str, Norms]) -> str | None:
    """Return the first path with a NaN or an infinity in parameters, gradients or updates.

    One whose norm is too large for its dtype counts as infinite.

    Args:
        report: from `norms`, with values: not inside of a compiled function.

    Returns:
        The path, in the order of the report; None where all is finite.

    Raises:
        TypeError: the report is traced, or not from `norms`.

    >>> bad = {"a": jnp.ones(2), "b": jnp.array([1.0, jnp.nan])}
    >>> fnn.analysis.first_nonfinite(fnn.analysis.norms(bad, bad, bad))
    'b'
    """
    function = "analysis.first_nonfinite"
    check_known(function, report=report)
    if not isinstance(report, Mapping) or not all(isinstance(n, Norms) for n in report.values()):
        needed = "what fnn.analysis.norms returns"
        raise wrong(function, "report", describe(report), needed, TypeError)
    numbers = ((path, (n.weight, n.gradient, n.update)) for path, n in report.items())
    return next((path for path, n in numbers if not np.isfinite(n).all()), None)
