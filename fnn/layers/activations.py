"""Activation functions, from the simplest to the most curved.

Value and derivatives are right to rounding wherever they are normal numbers of the dtype, and at
the infinities: the textbook formula subtracts nearly equal numbers, multiplies 0 by infinity, or
loses a factor that is too small alone. At a corner the derivative is that of the flat or negative
side, as ReLU'(0) = 0, and of `hard_swish` that of its straight pieces. NaN gives NaN. Half
precision is computed in float32 and rounded once. On a CPU, XLA takes subnormal numbers for 0.

In a second derivative through `lax.scan`, and so through the recurrent layers, JAX before 0.12
forgets `jax.custom_jvp`: at a corner the slope is then one between those of the two sides, as 1/2
for ReLU at 0.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.checks import (
    POSITIVE,
    POSITIVE_FINITE,
    Range,
    check_axis,
    check_dtype_or_wider,
    check_number,
    describe,
    wrong,
)
from fnn.dtypes import Floats, Number, computed_wide, number_like, spread, widen
from fnn.functions import jitted
from fnn.placement import replicated

F = TypeVar("F", bound=Callable[..., Any])
FAR = 40.0  # the normal distribution function is 0 or 1 beyond it, in every dtype
FLAT = 800.0  # exp(-FLAT) is 0 in every dtype


@jitted()
def identity(x: Floats) -> Floats:
    """Return x.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        x; the derivative is 1.

    Raises:
        TypeError: x is no array of real numbers.

    Source: Introduction to Deep Learning (2020), activation functions.

    >>> identity(jnp.array([-2.0, 3.0])).tolist()
    [-2.0, 3.0]
    """
    return x


@jitted()
def sign(x: Floats) -> Floats:
    """Return -1 where x is negative, 1 where it is positive, and 0 at 0.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative is 0 everywhere.

    Raises:
        TypeError: x is no array of real numbers.

    Source: F. Rosenblatt, The perceptron (1958).

    >>> sign(jnp.array([-2.0, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return jnp.sign(x)


@jitted()
def unit_step(x: Floats) -> Floats:
    """Return 0 where x is negative, 1 where it is positive, and 1/2 at 0.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative is 0 everywhere.

    Raises:
        TypeError: x is no array of real numbers.

    Source: O. Heaviside's step, with the value that makes it odd about 1/2.

    >>> unit_step(jnp.array([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return (1 + jnp.sign(x)) / 2


@jitted()
def relu(x: Floats) -> Floats:
    """Return x where it is positive and 0 elsewhere, ``max(x, 0)``.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative at 0 is 0.

    Raises:
        TypeError: x is no array of real numbers.

    Source: V. Nair, G. Hinton, Rectified linear units improve restricted Boltzmann machines (2010).

    >>> relu(jnp.array([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 3.0]
    """
    return jax.nn.relu(x)


@jitted()
def leaky_relu(x: Floats, *, negative_slope: Number = 0.01) -> Floats:
    """Return x where it is positive and ``negative_slope x`` elsewhere.

    Args:
        x: any shape, float; integers and bools are read as floats.
        negative_slope: usually small; 0 gives `relu`, its derivative at 0 included (that of
            `jax.nn.leaky_relu` at 0 is 1).

    Returns:
        The shape and dtype of x; the derivative at 0 is ``negative_slope``.

    Raises:
        ValueError: negative_slope is NaN.
        TypeError: x is no array of real numbers, or negative_slope no number.

    Source: A. Maas, A. Hannun, A. Ng, Rectifier nonlinearities (2013).

    >>> leaky_relu(jnp.array([-200.0, 3.0])).tolist()
    [-2.0, 3.0]
    """
    return computed_wide(lambda x: _leaky(x, number_like(negative_slope, x)), x)


@jitted()
def prelu(x: Floats, slope: Float[Array, "*trailing"]) -> Floats:
    """Return x where it is positive and ``slope x`` elsewhere, with learned slopes.

    Args:
        x: any shape, float; integers and bools are read as floats.
        slope: the shape of the trailing axes of x, as (channels,) or (); of x's dtype, or float32
            for half-precision x.

    Returns:
        The shape and dtype of x; the derivative at 0 is the slope.

    Raises:
        ValueError: the shape of slope is not that of trailing axes of x.
        TypeError: x or slope is no array of real numbers; the dtype of slope does not fit.

    Source: K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers (2015).

    >>> prelu(jnp.array([[-2.0, -2.0], [3.0, 3.0]]), jnp.array([0.5, 0.0])).tolist()
    [[-1.0, -0.0], [3.0, 3.0]]
    """
    if slope.ndim > x.ndim or slope.shape != x.shape[x.ndim - slope.ndim :]:
        raise wrong("prelu", "slope", describe(slope), f"the trailing axes of x {describe(x)}")
    check_dtype_or_wider("prelu", "slope", slope, x)
    whole = replicated(slope)  # or the result would be sharded otherwise than x
    return computed_wide(lambda x: _leaky(x, spread(whole, x.ndim)), x)


def _leaky(x: jax.Array, slope: jax.Array) -> jax.Array:
    # Slope 0 is `relu`: 0 at -infinity. The slope's derivative is 0 at +infinity.
    low = jnp.where((x > 0) | (jnp.isinf(x) & (slope == 0)), 0, x)
    return jnp.where(x > 0, x, slope * low)


@jitted()
def relu6(x: Floats) -> Floats:
    """Return x clipped to [0, 6].

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative is 1 inside, 0 at the corners and beyond.

    Raises:
        TypeError: x is no array of real numbers.

    Source: A. Krizhevsky, Convolutional deep belief networks on CIFAR-10 (2010).

    >>> relu6(jnp.array([-2.0, 3.0, 8.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    return jax.nn.relu6(x)


def _ordered(function: F) -> F:
    """Refuse a low that is not below high, before compilation, where both are known."""

    @functools.wraps(function)
    def call(*args: Any, low: Any = -1.0, high: Any = 1.0, **others: Any) -> Any:
        name = function.__name__
        check_number(name, "high", high)
        if not isinstance(high, jax.core.Tracer):
            below = Range(-math.inf, float(high), high_closed=False)
            check_number(name, "low", low, below)
        return function(*args, low=low, high=high, **others)

    return cast(F, call)


@_ordered
@jitted()
def hard_tanh(x: Floats, *, low: Number = -1.0, high: Number = 1.0) -> Floats:
    """Return x clipped to [low, high].

    Args:
        x: any shape, float; integers and bools are read as floats.
        low, high: the values at the infinities, low < high.

    Returns:
        The shape and dtype of x; the derivative is 1 inside, 0 at the corners and beyond (that of
        `jax.nn.hard_tanh` is 1 at the corners).

    Raises:
        ValueError: low is not below high, where both are known.
        TypeError: x is no array of real numbers, or low or high no number.

    Source: R. Collobert, Large scale machine learning (2004).

    >>> hard_tanh(jnp.array([-2.0, 0.25, 3.0])).tolist()
    [-1.0, 0.25, 1.0]
    """

    def clipped(x: jax.Array) -> jax.Array:
        bottom, top = number_like(low, x), number_like(high, x)
        return jnp.where(x <= bottom, bottom, jnp.where(x >= top, top, x))

    return computed_wide(clipped, x)


@jitted()
def piecewise_linear(x: Floats) -> Floats:
    """Return x + 1/2 between -1/2 and 1/2, 0 below and 1 above.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative is 1 inside, 0 at the corners and beyond.

    Raises:
        TypeError: x is no array of real numbers.

    Source: Introduction to Deep Learning (2020), activation functions.

    >>> piecewise_linear(jnp.array([-2.0, 0.25, 3.0])).tolist()
    [0.0, 0.75, 1.0]
    """
    return jnp.where(jnp.abs(x) < 0.5, x + 0.5, unit_step(x))


@jitted()
def hard_sigmoid(x: Floats) -> Floats:
    """Return ``relu6(x + 3) / 6``, a sigmoid of three straight pieces.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x, in [0, 1]; the derivative is 1/6 inside, 0 at the corners, -3 and
        3, and beyond.

    Raises:
        TypeError: x is no array of real numbers.

    Source: A. Howard et al., Searching for MobileNetV3 (2019).

    >>> hard_sigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return computed_wide(jax.nn.hard_sigmoid, x)


@jitted()
def hard_swish(x: Floats) -> Floats:
    """Return ``x hard_sigmoid(x)``, a `silu` without exponentials.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative is ``x / 3 + 1/2`` inside, 0 from -3 down and 1
        from 3 up.

    Raises:
        TypeError: x is no array of real numbers.

    Source: A. Howard et al., Searching for MobileNetV3 (2019).

    >>> hard_swish(jnp.array([-4.0, -1.5, 4.0])).tolist()
    [0.0, -0.375, 4.0]
    """

    def formula(x: jax.Array) -> jax.Array:
        inside = jnp.abs(x) < 3
        near = jnp.where(inside, x, 0)
        return jnp.where(inside, near * (near + 3) / 6, jax.nn.relu(x))

    return computed_wide(formula, x)


Three = tuple[jax.Array, jax.Array, jax.Array]


def _smooth(formulas: Callable[[jax.Array], Three]) -> Callable[[jax.Array], jax.Array]:
    """Make a function of its value, its first and its second derivative, given as formulas.

    Differentiation then never meets what the formulas of the value would: a difference that
    cancels, or 0 times infinity.
    """

    def rounded(order: int) -> Callable[[jax.Array], jax.Array]:
        return lambda x: formulas(widen(x))[order].astype(x.dtype)

    value, slope = jax.custom_jvp(rounded(0)), jax.custom_jvp(rounded(1))
    value.defjvps(lambda t, y, x: t * slope(x))
    slope.defjvps(lambda t, y, x: t * rounded(2)(x))
    return value


def _negative(x: jax.Array) -> jax.Array:
    return jnp.where(x < 0, x, -x)  # -|x|, whose derivative at 0 is that of one side


@jitted()
def softsign(x: Floats) -> Floats:
    """Return ``x / (1 + |x|)``.

    Its derivative is ``1 / (1 + |x|)^2``; that of `jax.nn.soft_sign` is a difference of two nearly
    equal numbers, wrong by a factor of 300 at x = 300 in float16.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x, in [-1, 1]; the second derivative at 0 is 0.

    Raises:
        TypeError: x is no array of real numbers.

    Source: J. Bergstra et al., Quadratic polynomials learn better image features (2009).

    >>> softsign(jnp.array([-3.0, 0.0, 1.0])).tolist()
    [-0.75, 0.0, 0.5]
    """
    return _softsign(x)


@_smooth
def _softsign(x: jax.Array) -> Three:
    near = jnp.clip(x, -jnp.finfo(x.dtype).max, jnp.finfo(x.dtype).max)
    share = 1 / (1 + jnp.abs(near))
    return near / (1 + jnp.abs(near)), share**2, -2 * jnp.sign(x) * share**3


@jitted()
def sigmoid(x: Floats) -> Floats:
    """Return the logistic function, ``1 / (1 + exp(-x))``.

    Its derivative is ``sigmoid(x) sigmoid(-x)``; that of `jax.nn.sigmoid`, ``y (1 - y)``, is 0
    from x = 17 in float32 and from x = 37 in float64.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x, in [0, 1].

    Raises:
        TypeError: x is no array of real numbers.

    Source: D. R. Cox, The regression analysis of binary sequences (1958).

    >>> float(jax.grad(sigmoid)(20.0)) > 0
    True
    """
    return _sigmoid(x)


@_smooth
def _sigmoid(x: jax.Array) -> Three:
    e = jnp.exp(_negative(x))
    slope = e / (1 + e) ** 2
    return jax.lax.logistic(x), slope, -slope * jnp.tanh(x / 2)


@jitted()
def tanh(x: Floats) -> Floats:
    """Return the hyperbolic tangent, ``2 sigmoid(2 x) - 1``.

    Its derivative is ``1 / cosh(x)^2``; that of `jnp.tanh`, ``1 - y^2``, is 0 from
    |x| = 9 in float32 and from |x| = 19 in float64.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x, in [-1, 1].

    Raises:
        TypeError: x is no array of real numbers.

    Source: Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, Efficient BackProp (1998).

    >>> float(jax.grad(tanh)(10.0)) > 0
    True
    """
    return _tanh(x)


@_smooth
def _tanh(x: jax.Array) -> Three:
    e = jnp.exp(_negative(x))
    sech = 2 * e / (1 + e * e)
    y = jnp.tanh(x)
    return y, sech * sech, -2 * y * sech * sech


@jitted(ranges={"beta": POSITIVE_FINITE})
def softplus(x: Floats, *, beta: Number = 1.0) -> Floats:
    """Return ``log(1 + exp(beta x)) / beta``, a smooth ReLU.

    Its derivative is ``sigmoid(beta x)``, whose own does not vanish early, as the second derivative
    of `jax.nn.softplus` does from x = 15 in float32.

    Args:
        x: any shape, float; integers and bools are read as floats.
        beta: positive, the sharpness of the bend; the value at 0 is ``log(2) / beta``. A normal
            number of the dtype, as b of `squareplus`.

    Returns:
        The shape and dtype of x, not negative.

    Raises:
        ValueError: beta is not positive and finite.
        TypeError: x is no array of real numbers, or beta no number.

    Source: C. Dugas et al., Incorporating second-order functional knowledge (2000).

    >>> softplus(jnp.array([-1e4, 0.0, 1e4]))
    Array([0.000000e+00, 6.931472e-01, 1.000000e+04], dtype=float32)
    """
    return computed_wide(lambda x: _softplus(x, number_like(beta, x)), x)


def _softplus(x: jax.Array, beta: jax.Array) -> jax.Array:
    far = jnp.isinf(x)  # there beta's derivative is 0
    bend = jnp.log1p(jnp.exp(beta * jnp.where(far, 0, _negative(x)))) / beta
    return jnp.where(x < 0, 0, x) + jnp.where(far, 0, bend)


@jitted()
def log_sigmoid(x: Floats) -> Floats:
    """Return ``log(sigmoid(x)) = -softplus(-x)``.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x, not positive.

    Raises:
        TypeError: x is no array of real numbers.

    Source: as `softplus`.

    >>> log_sigmoid(jnp.array([-1e4, 0.0]))
    Array([-1.000000e+04, -6.931472e-01], dtype=float32)
    """
    return -softplus(-x)


@jitted(ranges={"b": POSITIVE})
def squareplus(x: Floats, *, b: Number = 4.0) -> Floats:
    """Return ``(x + sqrt(x^2 + b)) / 2``, a smooth ReLU without exponentials.

    `jax.nn.squareplus` subtracts nearly equal numbers where x is negative (0 from x = -80 in
    float16), and squares to infinity from |x| = 256 in float16.

    Args:
        x: any shape, float; integers and bools are read as floats.
        b: positive, and a normal number of the dtype (1e-50 is 0 in float32, and gives NaN at 0);
            the width of the bend: the value at 0 is sqrt(b) / 2.

    Returns:
        The shape and dtype of x, not negative.

    Raises:
        ValueError: b is not positive.
        TypeError: x is no array of real numbers, or b no number.

    Source: J. T. Barron, Squareplus: a softplus-like algebraic rectifier (2021).

    >>> squareplus(jnp.array([-1.5, 0.0, 1.5])).tolist()
    [0.5, 1.0, 2.0]
    """
    return computed_wide(lambda x: _squareplus(x, number_like(b, x)), x)


def _squareplus(x: jax.Array, b: jax.Array) -> jax.Array:
    far = jnp.abs(x) >= jnp.finfo(x.dtype).max * jnp.sqrt(b)  # there b's derivative is 0
    return jnp.where(far, jax.nn.relu(x), _near_squareplus(jnp.where(far, 0, x), b))


@jax.custom_jvp
def _hypotenuse(x: jax.Array, b: jax.Array) -> jax.Array:
    """``sqrt(x^2 + b)``."""
    root = jnp.sqrt(b)
    return root * _unit_root(x / root)


_hypotenuse.defjvps(lambda t, h, x, b: t * (x / h), lambda t, h, x, b: t * (0.5 / h))


@jax.custom_jvp
def _near_squareplus(x: jax.Array, b: jax.Array) -> jax.Array:
    root = jnp.sqrt(b)
    return root * _unit_squareplus(x / root)


_near_squareplus.defjvps(
    lambda t, y, x, b: jax.jvp(_unit_squareplus, (x / jnp.sqrt(b),), (t,))[1],
    lambda t, y, x, b: t * (0.25 / _hypotenuse(x, b)),
)


def _unit_root(z: jax.Array) -> jax.Array:
    """``sqrt(z^2 + 1)``."""
    far = jnp.abs(z) > 2 / math.sqrt(jnp.finfo(z.dtype).eps)  # the square is all of the sum
    near = jnp.where(far, 0, z)
    return jnp.where(far, jnp.abs(z), jnp.sqrt(near * near + 1))


@_smooth
def _unit_squareplus(z: jax.Array) -> Three:
    """``(z + sqrt(z^2 + 1)) / 2``, which is ``relu(z) + 1 / (2 |z| + 2 sqrt(z^2 + 1))``.

    Nothing cancels and no divisor is 0, in these formulas and in their derivatives, which
    `lax.scan` takes for the second one before JAX 0.12.
    """
    root, above = _unit_root(z), z > 0
    rest = 0.25 / (root / 2 + jnp.where(above, z, -z) / 2)
    share = rest / root
    return jnp.where(above, z, 0) + rest, jnp.where(above, 1 - share, share), 0.5 * (1 / root) ** 3


@jitted()
def elu(x: Floats, *, alpha: Number = 1.0) -> Floats:
    """Return x where it is positive and ``alpha (exp(x) - 1)`` elsewhere.

    Args:
        x: any shape, float; integers and bools are read as floats.
        alpha: the value at minus infinity, negated.

    Returns:
        The shape and dtype of x; the derivative at 0 is alpha.

    Raises:
        ValueError: alpha is NaN.
        TypeError: x is no array of real numbers, or alpha no number.

    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, Exponential linear units (2015).

    >>> elu(jnp.array([-1e4, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 3.0]
    """

    return computed_wide(lambda x: _elu(x, 1, number_like(alpha, x)), x)


def _elu(x: jax.Array, slope: Number, depth: jax.Array) -> jax.Array:
    """``slope x`` above 0, ``depth (exp(x) - 1)`` below."""
    return jnp.where(x > 0, slope * x, _times_expm1(depth, jnp.where(x > 0, 0, x)))


@jax.custom_jvp
def _times_expm1(a: jax.Array, x: jax.Array) -> jax.Array:
    return a * jnp.expm1(x)


def _times_exp(a: jax.Array, x: jax.Array) -> jax.Array:
    root = jnp.exp(x / 2)  # exp(x) may be 0 where a exp(x) is not
    return a * root * root


_times_expm1.defjvps(lambda t, y, a, x: t * jnp.expm1(x), lambda t, y, a, x: t * _times_exp(a, x))


@jitted(ranges={"alpha": POSITIVE_FINITE})
def celu(x: Floats, *, alpha: Number = 1.0) -> Floats:
    """Return x where it is positive and ``alpha (exp(x / alpha) - 1)`` elsewhere.

    Args:
        x: any shape, float; integers and bools are read as floats.
        alpha: positive, the value at minus infinity, negated; a normal number of the dtype, as b of
            `squareplus`.

    Returns:
        The shape and dtype of x; the derivative at 0 is 1 and the second ``1 / alpha``.

    Raises:
        ValueError: alpha is not positive and finite.
        TypeError: x is no array of real numbers, or alpha no number.

    Source: J. T. Barron, Continuously differentiable exponential linear units (2017).

    >>> celu(jnp.array([-1e4, 0.0, 3.0]), alpha=2.0).tolist()
    [-2.0, 0.0, 3.0]
    """

    def formula(x: jax.Array) -> jax.Array:
        a = number_like(alpha, x)
        far = x < jnp.maximum(-FLAT * a, -jnp.finfo(x.dtype).max)  # exp(x / alpha) is 0 there
        low = jnp.where((x > 0) | far, 0, x)
        return jnp.where(x > 0, x, jnp.where(far, -a, _scaled_expm1(a, low)))

    return computed_wide(formula, x)


@jax.custom_jvp
def _expm1_bend(z: jax.Array) -> jax.Array:
    """``exp(z) - 1 - z exp(z)`` of z <= 0: near 0, where that cancels, the series."""
    near, series = jnp.maximum(z, -1), jnp.zeros_like(z)
    for k in range(20, 1, -1):  # as many terms as float64 has use for
        series = series * near - (k - 1) / math.factorial(k)
    return jnp.where(z > -1, near * near * series, jnp.expm1(z) - _times_exp(z, z))


_expm1_bend.defjvps(lambda t, y, z: -_times_exp(t * z, z))


@jax.custom_jvp
def _scaled_expm1(a: jax.Array, x: jax.Array) -> jax.Array:
    return a * jnp.expm1(x / a)


_scaled_expm1.defjvps(
    lambda t, y, a, x: t * _expm1_bend(x / a), lambda t, y, a, x: _times_exp(t, x / a)
)


@jitted()
def selu(x: Floats) -> Floats:
    """Return ``1.0507 elu(x, alpha=1.6733)``, which keeps mean 0 and variance 1 through layers.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x; the derivative at 0 is 1.7581.

    Raises:
        TypeError: x is no array of real numbers.

    Source: G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, Self-normalizing networks (2017).

    >>> selu(jnp.array([-1e4, 0.0]))
    Array([-1.7580993,  0.       ], dtype=float32)
    """

    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return computed_wide(lambda x: _elu(x, scale, number_like(scale * alpha, x)), x)


@jitted()
def silu(x: Floats) -> Floats:
    """Return ``x sigmoid(x)``, also known as swish.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: x is no array of real numbers.

    Source: S. Elfwing, E. Uchibe, K. Doya, Sigmoid-weighted linear units (2017).

    >>> silu(jnp.array([-1e4, 0.0, 1e4])).tolist()
    [-0.0, 0.0, 10000.0]
    """
    return _silu(x)


@_smooth
def _silu(x: jax.Array) -> Three:
    return _gated(x, x, jnp.ones_like(x), jnp.zeros_like(x))


def _gated(x: jax.Array, z: jax.Array, slope: jax.Array, curve: jax.Array) -> Three:
    """``x sigmoid(z)`` and its derivatives, z being a function of x with this slope and curvature.

    exp(-|z|) may be 0 where its product with x is not: its root is multiplied twice.
    """
    root = jnp.exp(_negative(z) / 2)
    low, high = jnp.where(z < 0, root, 1), jnp.where(z < 0, 1, root)
    both = 1 + root * root
    a, b = low * low / both, high * high / both  # sigmoid(z) and sigmoid(-z)
    near = jnp.clip(x, -FLAT, FLAT)
    value = jnp.maximum(x, -FLAT) * low * low / both
    first = low * (low * (1 + near * slope * b)) / both
    inner = 2 * slope + near * curve + near * slope**2 * (b - a)
    return value, first, root * (root * inner) / both**2


@jitted(static=("approximate",))
def gelu(x: Floats, *, approximate: bool = True) -> Floats:
    """Return x times the normal distribution function at x, or its fast approximation.

    Exactly ``x (1 + erf(x / sqrt 2)) / 2``; approximately ``x (1 + tanh u) / 2 = x sigmoid(2 u)``
    with ``u = sqrt(2 / pi) (x + 0.044715 x^3)``. Written with tanh, as in `jax.nn.gelu`, the
    approximation is 0 from x = -5 in float32, and its float16 derivative is NaN from |x| = 100.

    Args:
        x: any shape, float; integers and bools are read as floats.
        approximate: whether to return the approximation.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: x is no array of real numbers, or approximate no bool.

    Source: D. Hendrycks, K. Gimpel, Gaussian error linear units (2016).

    >>> [round(float(gelu(1.0, approximate=a)), 4) for a in (True, False)]
    [0.8412, 0.8413]
    """
    return _gelu_tanh(x) if approximate else _gelu(x)


@_smooth
def _gelu_tanh(x: jax.Array) -> Three:
    near, c, k = jnp.clip(x, -FAR, FAR), math.sqrt(8 / math.pi), 0.044715
    z, slope, curve = near + k * near**3, 1 + 3 * k * near**2, 6 * k * near
    return _gated(x, c * z, c * slope, c * curve)


@_smooth
def _gelu(x: jax.Array) -> Three:
    near = jnp.clip(x, -FAR, FAR)
    root = jnp.exp(-(near**2) / 4) / (2 * math.pi) ** 0.25  # of the density, which may vanish
    below = jax.lax.erfc(-near * 0.5**0.5) / 2
    # Below this edge erfc may vanish: -density/x (1 - 1/x^2 + 3/x^4 - 15/x^6 ...) does not.
    edge = 1 - math.sqrt(-2 * math.log(jnp.finfo(x.dtype).tiny))
    far = near < edge
    q = 1 / jnp.square(jnp.minimum(near, edge))
    series = 1 - q * (1 - 3 * q * (1 - 5 * q * (1 - 7 * q * (1 - 9 * q * (1 - 11 * q)))))
    value = jnp.where(far, -root * (root * series), jnp.maximum(x, -FAR) * below)
    tail = root * (root * (near - series / jnp.minimum(near, edge)))
    first = jnp.where(far, tail, below + root * (root * near))
    return value, first, root * (root * (2 - near**2))


@jitted()
def mish(x: Floats) -> Floats:
    """Return ``x tanh(softplus(x))``.

    Args:
        x: any shape, float; integers and bools are read as floats.

    Returns:
        The shape and dtype of x.

    Raises:
        TypeError: x is no array of real numbers.

    Source: D. Misra, Mish: a self regularized non-monotonic activation function (2019).

    >>> mish(jnp.array([-1e4, 0.0, 1e4])).tolist()
    [-0.0, 0.0, 10000.0]
    """
    return _mish(x)


@_smooth
def _mish(x: jax.Array) -> Three:
    # With exp(x) = p / q: tanh(softplus(x)) = p (p + 2 q) / d, and p, q and d never overflow.
    root = jnp.exp(_negative(x) / 2)
    low, high = jnp.where(x < 0, root, 1), jnp.where(x < 0, 1, root)
    p, q = low * low, high * high
    d = p * p + 2 * p * q + 2 * q * q
    near = jnp.clip(x, -FLAT, FLAT)
    value = jnp.maximum(x, -FLAT) * low * low * (p + 2 * q) / d
    first = low * (low * (p + 2 * q + 4 * near * (p + q) * q * q / d)) / d
    inner = 2 * (p + q) + near * (2 * q**3 + 2 * p * q * q - 3 * p * p * q - 2 * p**3) / d
    return value, first, 4 * (low * q) * (low * q * inner) / d**2


@jitted(static=("axis",))
def glu(x: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Return the first half of x gated by the second: ``a sigmoid(b)`` for x = [a, b].

    Args:
        x: any shape, float; integers and bools are read as floats.
        axis: the axis to halve.

    Returns:
        The shape of x with half the axis, of x's dtype.

    Raises:
        ValueError: the axis is not one of x, or has an odd size.
        TypeError: x is no array of real numbers.

    Source: Y. Dauphin, A. Fan, M. Auli, D. Grangier, Gated convolutional networks (2016).

    >>> glu(jnp.array([3.0, 5.0, 1e4, 0.0])).tolist()
    [3.0, 2.5]
    """
    check_axis("glu", x, axis)
    if x.shape[axis] % 2:
        raise wrong("glu", "x", f"{describe(x)} with axis {axis}", "an axis of even size")
    return computed_wide(_times_sigmoid, *jnp.split(x, 2, axis))


def _times_sigmoid(a: jax.Array, b: jax.Array) -> jax.Array:
    root = jnp.exp(_negative(b) / 2)  # exp(-|b|) may be 0 where a exp(-|b|) is not
    low = jnp.where(b < 0, root, 1)
    return a * low * low / (1 + root * root)
