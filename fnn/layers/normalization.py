"""Normalization: subtract a mean, divide by a deviation, scale and shift.

``y = (x - mean) / sqrt(var + eps) * scale + bias``; the layers differ in the axes that mean and
variance are taken over: all but the channels (batch), the features of one position (layer, rms),
the positions of one example and one channel (instance) or group of channels (group). There is no
train flag: `batch_norm` takes the statistics it is given, those of the batch (`batch_stats`) or
those collected over batches (`running_stats`).

Statistics of half-precision inputs, and everything up to the result, are in float32.

The sum of the squares of m deviations must be a number of the dtype: in float32 and bfloat16 the
layers end at deviations of ``1e19 / sqrt(m)``, where the result becomes 0, and with ``eps = 0`` at
1e-19 too; in float64 at ``1e154 / sqrt(m)`` and 1e-154. Where a sum of inputs or of deviations
overflows, it is NaN. Gradients are exact up to a hundredth of these. To scale the inputs first
would add a pass over them. An entry that is not finite makes all that it is normalized with NaN; in
`rms_norm` an infinite one makes them 0, and is NaN itself.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fnn.checks import NOT_NEGATIVE, check_int, check_size, describe, wrong
from fnn.dtypes import Number, magnitude, nan_where, number_like, spread, widen
from fnn.functions import jitted
from fnn.layers.initializers import check_dtype
from fnn.layers.statistics import Mean, centre, check_arrays, check_channels, mean_over
from fnn.placement import along, by_examples, placed_as, replicated, varying

Images = Float[Array, "n *spatial c"]
Channels = Float[Array, " c"]


@jax.custom_jvp
def _inverse_root(x: jax.Array) -> jax.Array:
    return lax.rsqrt(x)


# x^(-3/2) alone vanishes from x = 1e25 in float32.
_inverse_root.defjvps(lambda t, y, x: t * y * (-0.5 / x))


def _rescale(
    d: jax.Array, square: jax.Array, eps: Number, scale: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """``d / sqrt(square + eps) * scale + bias``, scale and bias along d's last axes."""
    y = d * (_inverse_root(square + number_like(eps, square)) * spread(scale, d))
    return y if bias is None else y + spread(bias, d)


@jitted(ranges={"eps": NOT_NEGATIVE})
def batch_norm(
    x: Images,
    scale: Channels,
    bias: Channels,
    mean: Channels,
    var: Channels,
    *,
    eps: Number = 1e-5,
) -> Images:
    """Normalize every channel with the given statistics.

    ``y = (x - mean) / sqrt(var + eps) * scale + bias``. In training pass
    ``**batch_stats(x)._asdict()``, and the gradient flows through the statistics; afterwards the
    running average takes their place.

    Args:
        x: (n, *spatial, c).
        scale, bias, mean, var: (c,), of x's dtype, or float32 for half-precision x.
        eps: added to the variance.

    Returns:
        (n, *spatial, c), of x's dtype.

    Raises:
        ValueError: a shape does not fit, or eps is negative.
        TypeError: a dtype does not fit.

    Source: S. Ioffe, C. Szegedy, Batch normalization (ICML 2015).

    >>> x, params = jnp.array([[1.0], [3.0]]), init_norm(1)
    >>> batch_norm(x, **params, **fnn.batch_stats(x)._asdict(), eps=0.0).tolist()
    [[-1.0], [1.0]]
    """
    check_channels("batch_norm", x)
    check_arrays("batch_norm", x, x.shape[-1:], scale=scale, bias=bias, mean=mean, var=var)
    scale, bias, mean, var = (widen(along(a, x)) for a in (scale, bias, mean, var))
    slope = scale * _inverse_root(var + number_like(eps, var))
    # The mean's gradient flows through the offset, where it needs no third sum over all of x; the
    # value is subtracted from x, where it does not cancel.
    about = lax.stop_gradient(mean)
    offset = bias + (about - mean) * slope
    y: jax.Array = _line(x, about, slope, offset)
    return y


# The gradient subtracts again: XLA would do it as soon as x is known, and keep the result beside x.
# Test: `tests/layers/test_normalization.py`.
@jax.checkpoint
def _line(x: jax.Array, about: jax.Array, slope: jax.Array, offset: jax.Array) -> jax.Array:
    about, slope, offset = (spread(a, x) for a in (about, slope, offset))
    return ((widen(x) - about) * slope + offset).astype(x.dtype)


@jitted(ranges={"eps": NOT_NEGATIVE})
def layer_norm(
    x: Float[Array, "*n"],
    scale: Float[Array, "*features"],
    bias: Float[Array, "*features"] | None = None,
    *,
    eps: Number = 1e-5,
) -> Float[Array, "*n"]:
    """Normalize over the trailing axes that scale has, each position by itself.

    ``y = (x - mean) / sqrt(var + eps) * scale + bias``, mean and biased var over those axes.

    Args:
        x: (..., *features).
        scale: (*features), usually one axis; of x's dtype, or float32 for half-precision x.
        bias: (*features), likewise.
        eps: added to the variance.

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: a shape does not fit, or eps is negative.
        TypeError: a dtype does not fit.

    Source: J. Ba, J. Kiros, G. Hinton, Layer normalization (2016).

    >>> layer_norm(jnp.array([[1.0, 3.0], [5.0, 1.0]]), jnp.ones(2), eps=0.0).tolist()
    [[-1.0, 1.0], [1.0, -1.0]]
    """
    axes = _trailing("layer_norm", x, scale, bias=bias)
    return _normalize(x, mean_over(axes), eps, scale, bias)


def _normalize(
    x: jax.Array, mean: Mean, eps: Number, scale: jax.Array, bias: jax.Array | None
) -> jax.Array:
    _, d, var = centre(widen(x), mean)
    return _rescale(d, var, eps, scale, bias).astype(x.dtype)


@jitted(ranges={"eps": NOT_NEGATIVE})
def rms_norm(
    x: Float[Array, "*n"], scale: Float[Array, "*features"], *, eps: Number = 1e-5
) -> Float[Array, "*n"]:
    """Divide by the root mean square over the trailing axes that scale has.

    ``y = x / sqrt(mean(x^2) + eps) * scale``: layer normalization without the mean.

    Args:
        x: (..., *features).
        scale: (*features), usually one axis; of x's dtype, or float32 for half-precision x.
        eps: added to the mean square.

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: a shape does not fit, or eps is negative.
        TypeError: a dtype does not fit.

    Source: B. Zhang, R. Sennrich, Root mean square layer normalization (NeurIPS 2019).

    >>> rms_norm(jnp.array([3.0, 4.0, 0.0, 0.0]), jnp.ones(4), eps=0.0).tolist()
    [1.2000000476837158, 1.600000023841858, 0.0, 0.0]
    """
    axes = _trailing("rms_norm", x, scale)
    wide = widen(x)
    square = mean_over(axes)(jnp.square(wide))
    return _rescale(wide, square, eps, scale, None).astype(x.dtype)


def _trailing(
    function: str, x: jax.Array, scale: jax.Array, **arrays: jax.Array | None
) -> tuple[int, ...]:
    """Check arrays over the trailing axes that scale has, and return those axes of x."""
    if not 1 <= scale.ndim <= x.ndim:
        raise wrong(function, "scale", describe(scale), f"the last axes of x {describe(x)}")
    axes = tuple(range(x.ndim - scale.ndim, x.ndim))
    check_arrays(function, x, x.shape[axes[0] :], scale=scale, **arrays)
    return axes


@jitted(static=("groups",), ranges={"eps": NOT_NEGATIVE})
def group_norm(
    x: Images,
    scale: Channels,
    bias: Channels | None = None,
    *,
    groups: int,
    eps: Number = 1e-5,
) -> Images:
    """Normalize every group of channels of every example, over its channels and positions.

    ``y = (x - mean) / sqrt(var + eps) * scale + bias``, group g being channels
    ``g c / groups ... (g + 1) c / groups - 1``.

    Args:
        x: (n, *spatial, c).
        scale, bias: (c,), of x's dtype, or float32 for half-precision x.
        groups: a divisor of c.
        eps: added to the variance.

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: a shape does not fit, groups does not divide c, or eps is negative.
        TypeError: a dtype does not fit.

    Source: Y. Wu, K. He, Group normalization (ECCV 2018).

    >>> x = jnp.array([[1.0, 3.0, 10.0, 20.0]])
    >>> group_norm(x, jnp.ones(4), groups=2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    check_channels("group_norm", x)
    check_arrays("group_norm", x, x.shape[-1:], scale=scale, bias=bias)
    check_int("group_norm", "groups", groups, 1)
    if x.shape[-1] % groups:
        raise wrong("group_norm", "groups", groups, f"a divisor of the {x.shape[-1]} channels")
    n, c = x.shape[0], x.shape[-1]

    def mean(rows: jax.Array) -> jax.Array:
        # Over the positions, then over the channels of a group: the same mean as over both axes at
        # once, which takes XLA five times as long on a CPU.
        (means,) = by_examples(rows.mean(1))  # a group may be cut over devices
        blocks = means.reshape(n, 1, groups, c // groups)
        return jnp.broadcast_to(blocks.mean(3, keepdims=True), blocks.shape).reshape(n, 1, c)

    return _normalize_rows(x, mean, eps, scale, bias)


def _normalize_rows(
    x: jax.Array, mean: Mean, eps: Number, scale: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """Normalize x with its positions along one axis."""
    if x.size == 0:
        return x  # the mean over no positions is NaN, and so would be the gradient of scale
    rows = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    return _normalize(rows, mean, eps, scale, bias).reshape(x.shape)


@jitted(ranges={"eps": NOT_NEGATIVE})
def instance_norm(
    x: Images,
    scale: Channels,
    bias: Channels | None = None,
    *,
    eps: Number = 1e-5,
) -> Images:
    """Normalize every channel of every example, over its positions.

    ``y = (x - mean) / sqrt(var + eps) * scale + bias``: a group of one channel.

    Args:
        x: (n, *spatial, c), at least one spatial axis.
        scale, bias: (c,), of x's dtype, or float32 for half-precision x.
        eps: added to the variance.

    Returns:
        x's shape and dtype.

    Raises:
        ValueError: a shape does not fit, or eps is negative.
        TypeError: a dtype does not fit.

    Source: D. Ulyanov, A. Vedaldi, V. Lempitsky, Instance normalization (2016).

    >>> instance_norm(jnp.array([[[1.0], [3.0]]]), jnp.ones(1), eps=0.0).tolist()
    [[[-1.0], [1.0]]]
    """
    if x.ndim < 3:
        raise wrong("instance_norm", "x", describe(x), "shape (n, *spatial, c), a spatial axis")
    check_arrays("instance_norm", x, x.shape[-1:], scale=scale, bias=bias)
    return _normalize_rows(x, mean_over((1,)), eps, scale, bias)


@jitted(static=("shape", "bias", "dtype"))
def init_norm(
    shape: int | tuple[int, ...], *, bias: bool = True, dtype: DTypeLike = float
) -> dict[str, Any]:
    """Return the arrays that every normalization starts from: scale one and bias zero.

    For `batch_norm`, `layer_norm`, `group_norm` and `instance_norm`; ``bias=False`` for `rms_norm`.
    Nothing is random, so there is no key.

    Args:
        shape: channels, or the sizes of the trailing axes of `layer_norm` and `rms_norm`.
        bias: whether to include a bias.
        dtype: of the arrays; ``float`` is float32, or float64 with x64 on.

    Returns:
        ``{"scale": shape, "bias": shape}``, without "bias" for ``bias=False``.

    Raises:
        ValueError: a size is below 1, or there is none.
        TypeError: dtype is not a floating-point one.

    >>> {name: array.tolist() for name, array in init_norm(2).items()}
    {'bias': [0.0, 0.0], 'scale': [1.0, 1.0]}
    """
    if shape == ():
        raise wrong("init_norm", "shape", shape, "at least one size")
    for size in shape if isinstance(shape, tuple) else (shape,):
        check_size("init_norm", "shape", size)
    check_dtype("init_norm", dtype)
    params = {"scale": jnp.ones(shape, dtype)}
    if bias:
        params["bias"] = jnp.zeros(shape, dtype)
    return params


@jitted(static=("iterations",))
def spectral_norm(
    w: Float[Array, "*d_in d_out"], u: Float[Array, " d_out"], *, iterations: int = 1
) -> tuple[Float[Array, "*d_in d_out"], Float[Array, " d_out"]]:
    """Divide weights by their largest singular value, found by power iteration.

    With w as a matrix of d_out columns, ``v = w u / |w u|``, ``u = w^T v / |w^T v|`` is repeated;
    then ``sigma = v^T w u`` and the result is ``w / sigma``. The vectors count as constants in
    the gradient, which is then exact at convergence: sigma is stationary in both.

    Args:
        w: (*d_in, d_out), the weights of a dense layer or the window of a convolution.
        u: (d_out,), the right singular vector so far, any length; start from random normals, and
            keep what is returned for the next call.
        iterations: power iterations before the division; 0 to use u as it is.

    Returns:
        The weights divided by sigma, and the new u of length 1. Where ``w u`` is zero, nothing is
        learned of sigma: zero weights stay zero with gradient 0, others give NaN, and u keeps its
        direction.

    Raises:
        ValueError: the shapes do not fit, or iterations is negative.
        TypeError: the dtypes differ.

    Source: T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, Spectral normalization for generative
    adversarial networks (ICLR 2018), algorithm 1.

    >>> w, u = spectral_norm(jnp.diag(jnp.array([4.0, 2.0])), jnp.ones(2), iterations=20)
    >>> [round(float(a), 4) for a in jnp.diag(w)]
    [1.0, 0.5]
    """
    check_size("spectral_norm", "iterations", iterations, 0)
    if w.ndim < 2:
        raise wrong("spectral_norm", "w", describe(w), "shape (*d_in, d_out)")
    if u.shape != w.shape[-1:]:
        raise wrong("spectral_norm", "u", describe(u), f"shape {w.shape[-1:]} for w {describe(w)}")
    if u.dtype != w.dtype:
        raise wrong("spectral_norm", "u", describe(u), f"the dtype of w, {w.dtype}", TypeError)
    matrix = replicated(widen(w)).reshape(math.prod(w.shape[:-1]), w.shape[-1])
    matrix = matrix / magnitude(matrix)
    fixed = lax.stop_gradient(matrix)
    start, *_ = varying(_unit(lax.stop_gradient(replicated(widen(u)))), fixed)
    right = lax.fori_loop(0, iterations, lambda _, u: _unit(_unit(fixed @ u) @ fixed), start)
    left = _unit(fixed @ right)
    sigma = left @ matrix @ right
    none, some = sigma == 0, jnp.any(fixed != 0)
    scaled = jnp.where(some, matrix / jnp.where(none, 1.0, sigma), 0.0)
    scaled = nan_where(none & some, scaled)
    right = jnp.where(none, start, right)
    scaled = scaled.reshape(w.shape).astype(w.dtype)
    return placed_as(scaled, w), placed_as(right.astype(u.dtype), u)


def _unit(v: jax.Array) -> jax.Array:
    """The vector at length 1; the zero vector stays zero."""
    v = v / magnitude(v)
    length = jnp.sqrt(jnp.square(v).sum())
    return v / jnp.where(length > 0, length, 1.0)
