"""Activation functions, from the simplest to the most curved.

At a corner the derivative is that of the flat or negative side, as ReLU'(0) = 0. Value and
derivatives keep their relative accuracy where the textbook formula cancels: the derivative of
`sigmoid` is ``sigmoid(x) sigmoid(-x)`` and not ``y (1 - y)``, and that of ``exp(x) - 1`` is
``exp(x)`` and not the value plus 1.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fnn.checks import POSITIVE, describe, wrong
from fnn.dtypes import number_like
from fnn.functions import jitted

# Beyond it sigmoid and erfc are flat in every dtype; its cube is finite in float16.
FAR = 40.0
FLAT = 800.0  # exp(-FLAT) is 0 in every dtype


@jitted()
def identity(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x.

    Args:
        x: any shape, float.

    Returns:
        x; the derivative is 1.

    Source: Introduction to Deep Learning (2020), activation functions.

    >>> identity(jnp.array([-2.0, 3.0])).tolist()
    [-2.0, 3.0]
    """
    return x


@jitted()
def sign(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return -1 where x is negative, 1 where it is positive, and 0 at 0.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative is 0 everywhere.

    Source: F. Rosenblatt, The perceptron (1958).

    >>> sign(jnp.array([-2.0, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 1.0]
    """
    return jnp.sign(x)


@jitted()
def unit_step(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return 0 where x is negative, 1 where it is positive, and 1/2 at 0.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative is 0 everywhere.

    Source: O. Heaviside's step, with the value that makes it odd about 1/2.

    >>> unit_step(jnp.array([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return (1 + jnp.sign(x)) / 2


@jitted()
def relu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x where it is positive and 0 elsewhere, ``max(x, 0)``.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative at 0 is 0.

    Source: V. Nair, G. Hinton, Rectified linear units improve restricted Boltzmann machines (2010).

    >>> relu(jnp.array([-2.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 3.0]
    """
    return jax.nn.relu(x)


@jitted()
def leaky_relu(
    x: Float[Array, "*shape"], *, negative_slope: float = 0.01
) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``negative_slope x`` elsewhere.

    Args:
        x: any shape, float.
        negative_slope: usually small; 0 gives `relu`, its derivative at 0 included (that of
            `jax.nn.leaky_relu` at 0 is 1).

    Returns:
        The shape and dtype of x; the derivative at 0 is ``negative_slope``.

    Source: A. Maas, A. Hannun, A. Ng, Rectifier nonlinearities (2013).

    >>> leaky_relu(jnp.array([-200.0, 3.0])).tolist()
    [-2.0, 3.0]
    """
    return jnp.where(x > 0, x, number_like(negative_slope, x) * x)


@jitted()
def prelu(x: Float[Array, "*shape"], slope: Float[Array, "*trailing"]) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``slope x`` elsewhere, with learned slopes.

    Args:
        x: any shape, float.
        slope: the shape of the trailing axes of x, as (channels,) or (), of x's dtype.

    Returns:
        The shape and dtype of x; the derivative at 0 is the slope.

    Raises:
        ValueError: the shape of slope is not that of trailing axes of x.

    Source: K. He, X. Zhang, S. Ren, J. Sun, Delving deep into rectifiers (2015).

    >>> prelu(jnp.array([[-2.0, -2.0], [3.0, 3.0]]), jnp.array([0.5, 0.0])).tolist()
    [[-1.0, -0.0], [3.0, 3.0]]
    """
    lead = x.ndim - slope.ndim
    if lead < 0 or slope.shape != x.shape[lead:]:
        raise wrong("prelu", "slope", describe(slope), f"the trailing axes of x {describe(x)}")
    return jnp.where(x > 0, x, slope.reshape((1,) * lead + slope.shape) * x)


@jitted()
def relu6(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x clipped to [0, 6].

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative is 1 inside, 0 at the corners and beyond.

    Source: A. Krizhevsky, Convolutional deep belief networks on CIFAR-10 (2010).

    >>> relu6(jnp.array([-2.0, 3.0, 8.0])).tolist()
    [0.0, 3.0, 6.0]
    """
    return jax.nn.relu6(x)


@jitted()
def hard_tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x clipped to [-1, 1].

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative is 1 inside, 0 at the corners and beyond (that of
        `jax.nn.hard_tanh` is 1 at the corners).

    Source: R. Collobert, Large scale machine learning (2004).

    >>> hard_tanh(jnp.array([-2.0, 0.25, 3.0])).tolist()
    [-1.0, 0.25, 1.0]
    """
    return jnp.where(jnp.abs(x) < 1, x, jnp.sign(x))


@jitted()
def piecewise_linear(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return x + 1/2 between -1/2 and 1/2, 0 below and 1 above.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative is 1 inside, 0 at the corners and beyond.

    Source: Introduction to Deep Learning (2020), activation functions.

    >>> piecewise_linear(jnp.array([-2.0, 0.25, 3.0])).tolist()
    [0.0, 0.75, 1.0]
    """
    return jnp.where(jnp.abs(x) < 0.5, x + 0.5, unit_step(x))


@jitted()
def hard_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``relu6(x + 3) / 6``, a sigmoid of three straight pieces.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x, in [0, 1]; the derivative is 1/6 inside, 0 at the corners, -3 and
        3, and beyond.

    Source: A. Howard et al., Searching for MobileNetV3 (2019).

    >>> hard_sigmoid(jnp.array([-4.0, 0.0, 4.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return jax.nn.hard_sigmoid(x)


@jitted()
def hard_swish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``x hard_sigmoid(x)``, a `silu` without exponentials.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative is ``x / 3 + 1/2`` inside, 0 from -3 down and 1
        from 3 up.

    Source: A. Howard et al., Searching for MobileNetV3 (2019).

    >>> hard_swish(jnp.array([-4.0, -1.5, 4.0])).tolist()
    [-0.0, -0.375, 4.0]
    """
    return jax.nn.hard_swish(x)


@jax.custom_jvp
def _softsign(x: jax.Array) -> jax.Array:
    return x / (1 + jnp.abs(x))


# |x| as x sign(x), whose derivative at 0 is 0; that of jnp.abs is 1.
_softsign.defjvps(lambda t, y, x: t * (1 / (1 + x * jnp.sign(x))) ** 2)


@jitted()
def softsign(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``x / (1 + |x|)``.

    Its derivative is ``1 / (1 + |x|)^2``; that of `jax.nn.soft_sign` is a difference of two nearly
    equal numbers, wrong by a factor of 300 at x = 300 in float16.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x, in [-1, 1]; the second derivative at 0 is 0.

    Source: J. Bergstra et al., Quadratic polynomials learn better image features (2009).

    >>> softsign(jnp.array([-3.0, 0.0, 1.0])).tolist()
    [-0.75, 0.0, 0.5]
    """
    return _softsign(x)


@jax.custom_jvp
def _sigmoid(x: jax.Array) -> jax.Array:
    return jax.lax.logistic(x)


_sigmoid.defjvps(lambda t, y, x: t * (y * _sigmoid(-x)))


@jitted()
def sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the logistic function, ``1 / (1 + exp(-x))``.

    Its derivative is ``sigmoid(x) sigmoid(-x)``; that of `jax.nn.sigmoid`, ``y (1 - y)``, is 0
    from x = 17 in float32 and from x = 37 in float64.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x, in [0, 1].

    Source: D. R. Cox, The regression analysis of binary sequences (1958).

    >>> float(jax.grad(sigmoid)(20.0)) > 0
    True
    """
    return _sigmoid(x)


@jax.custom_jvp
def _tanh(x: jax.Array) -> jax.Array:
    return jnp.tanh(x)


_tanh.defjvps(lambda t, y, x: t * (4 * _sigmoid(2 * x) * _sigmoid(-2 * x)))


@jitted()
def tanh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the hyperbolic tangent, ``2 sigmoid(2 x) - 1``.

    Its derivative is ``4 sigmoid(2 x) sigmoid(-2 x)``; that of `jnp.tanh`, ``1 - y^2``, is 0 from
    |x| = 9 in float32 and from |x| = 19 in float64.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x, in [-1, 1].

    Source: Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, Efficient BackProp (1998).

    >>> float(jax.grad(tanh)(10.0)) > 0
    True
    """
    return _tanh(x)


@jax.custom_jvp
def _softplus(x: jax.Array) -> jax.Array:
    return jnp.logaddexp(x, 0)


_softplus.defjvps(lambda t, y, x: t * _sigmoid(x))


@jitted()
def softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``log(1 + exp(x))``, a smooth ReLU.

    Its derivative is `sigmoid`, whose own does not vanish early, as the second derivative of
    `jax.nn.softplus` does from x = 15 in float32.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x, not negative.

    Source: C. Dugas et al., Incorporating second-order functional knowledge (2000).

    >>> softplus(jnp.array([-1e4, 0.0, 1e4]))
    Array([0.000000e+00, 6.931472e-01, 1.000000e+04], dtype=float32)
    """
    return _softplus(x)


@jitted()
def log_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``log(sigmoid(x)) = -softplus(-x)``.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x, not positive.

    Source: as `softplus`.

    >>> log_sigmoid(jnp.array([-1e4, 0.0]))
    Array([-1.000000e+04, -6.931472e-01], dtype=float32)
    """
    return -_softplus(-x)


@jax.custom_jvp
def _squareplus(z: jax.Array) -> jax.Array:
    root = jnp.hypot(z, jnp.ones_like(z))
    return jnp.where(z > 0, z / 2 + root / 2, 0.5 / (root - z))


# (1 + z / sqrt(z^2 + 1)) / 2 = sigmoid(2 asinh z), which does not cancel.
_squareplus.defjvps(lambda t, y, z: t * sigmoid(2 * jnp.arcsinh(z)))


@jitted(ranges={"b": POSITIVE})
def squareplus(x: Float[Array, "*shape"], *, b: float = 4.0) -> Float[Array, "*shape"]:
    """Return ``(x + sqrt(x^2 + b)) / 2``, a smooth ReLU without exponentials.

    `jax.nn.squareplus` subtracts nearly equal numbers where x is negative (0 from x = -80 in
    float16), and squares to infinity from |x| = 256 in float16.

    Args:
        x: any shape, float.
        b: positive, the width of the bend; the value at 0 is sqrt(b) / 2.

    Returns:
        The shape and dtype of x, not negative.

    Raises:
        ValueError: b is not positive.

    Source: J. T. Barron, Squareplus: a softplus-like algebraic rectifier (2021).

    >>> squareplus(jnp.array([-1.5, 0.0, 1.5])).tolist()
    [0.5, 1.0, 2.0]
    """
    root = jnp.sqrt(number_like(b, x))
    return root * _squareplus(x / root)


@jax.custom_jvp
def _expm1(x: jax.Array) -> jax.Array:
    return jnp.expm1(x)


_expm1.defjvps(lambda t, y, x: t * jnp.exp(x))


@jitted()
def elu(x: Float[Array, "*shape"], *, alpha: float = 1.0) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``alpha (exp(x) - 1)`` elsewhere.

    Args:
        x: any shape, float.
        alpha: the value at minus infinity, negated.

    Returns:
        The shape and dtype of x; the derivative at 0 is alpha.

    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, Exponential linear units (2015).

    >>> elu(jnp.array([-1e4, 0.0, 3.0])).tolist()
    [-1.0, 0.0, 3.0]
    """
    low = jnp.where(x > 0, 0, x)
    return jnp.where(x > 0, x, number_like(alpha, x) * _expm1(low))


@jitted(ranges={"alpha": POSITIVE})
def celu(x: Float[Array, "*shape"], *, alpha: float = 1.0) -> Float[Array, "*shape"]:
    """Return x where it is positive and ``alpha (exp(x / alpha) - 1)`` elsewhere.

    Args:
        x: any shape, float.
        alpha: positive, the value at minus infinity, negated.

    Returns:
        The shape and dtype of x; the derivative at 0 is 1 and the second ``1 / alpha``.

    Raises:
        ValueError: alpha is not positive.

    Source: J. T. Barron, Continuously differentiable exponential linear units (2017).

    >>> celu(jnp.array([-1e4, 0.0, 3.0]), alpha=2.0).tolist()
    [-2.0, 0.0, 3.0]
    """
    width = number_like(alpha, x)
    return jnp.where(x > 0, x, width * _expm1(jnp.where(x > 0, 0, x) / width))


@jitted()
def selu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``1.0507 elu(x, alpha=1.6733)``, which keeps mean 0 and variance 1 through layers.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x; the derivative at 0 is 1.7581.

    Source: G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, Self-normalizing networks (2017).

    >>> selu(jnp.array([-1e4, 0.0]))
    Array([-1.7580993,  0.       ], dtype=float32)
    """
    negative = 1.6732632423543772 * _expm1(jnp.where(x > 0, 0, x))
    return 1.0507009873554805 * jnp.where(x > 0, x, negative)


@jitted()
def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``x sigmoid(x)``, also known as swish.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x.

    Source: S. Elfwing, E. Uchibe, K. Doya, Sigmoid-weighted linear units (2017).

    >>> silu(jnp.array([-1e4, 0.0, 1e4])).tolist()
    [-0.0, 0.0, 10000.0]
    """
    return x * _sigmoid(x)


@jitted(static=("approximate",))
def gelu(x: Float[Array, "*shape"], *, approximate: bool = True) -> Float[Array, "*shape"]:
    """Return x times the normal distribution function at x, or its fast approximation.

    Exactly ``x (1 + erf(x / sqrt 2)) / 2``; approximately ``x (1 + tanh u) / 2 = x sigmoid(2 u)``
    with ``u = sqrt(2 / pi) (x + 0.044715 x^3)``. Written with tanh, as in `jax.nn.gelu`, the
    approximation is 0 from x = -5 in float32, and its float16 derivative is NaN from |x| = 100.

    Args:
        x: any shape, float.
        approximate: whether to return the approximation.

    Returns:
        The shape and dtype of x.

    Source: D. Hendrycks, K. Gimpel, Gaussian error linear units (2016).

    >>> [round(float(gelu(1.0, approximate=a)), 4) for a in (True, False)]
    [0.8412, 0.8413]
    """
    near = jnp.clip(x, -FAR, FAR)
    if approximate:
        return x * _sigmoid((8 / jnp.pi) ** 0.5 * (near + 0.044715 * near**3))
    return x * (jax.lax.erfc(-near * 0.5**0.5) / 2)


@jitted()
def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return ``x tanh(softplus(x))``.

    Args:
        x: any shape, float.

    Returns:
        The shape and dtype of x.

    Source: D. Misra, Mish: a self regularized non-monotonic activation function (2019).

    >>> mish(jnp.array([-1e4, 0.0, 1e4])).tolist()
    [-0.0, 0.0, 10000.0]
    """
    near = jnp.clip(x, -FLAT, FLAT)
    return jnp.where(x > FLAT, x, near * _tanh(_softplus(near)))


@jitted(static=("axis",))
def glu(x: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Return the first half of x gated by the second: ``a sigmoid(b)`` for x = [a, b].

    Args:
        x: any shape, float.
        axis: the axis to halve.

    Returns:
        The shape of x with half the axis, of x's dtype.

    Raises:
        ValueError: the axis is not one of x, or has an odd size.

    Source: Y. Dauphin, A. Fan, M. Auli, D. Grangier, Gated convolutional networks (2016).

    >>> glu(jnp.array([3.0, 5.0, 1e4, 0.0])).tolist()
    [3.0, 2.5]
    """
    if not -x.ndim <= axis < x.ndim or x.shape[axis] % 2:
        raise wrong("glu", "x", f"{describe(x)} with axis {axis}", "an axis of even size")
    a, b = jnp.split(x, 2, axis)
    return a * _sigmoid(b)
