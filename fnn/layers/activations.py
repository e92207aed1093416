"""Activation functions: what `jax.nn` does well is re-exported; what it lacks or fails is ours.

Ours keep their relative accuracy, in value and derivatives, where the textbook formula cancels: the
derivative of `sigmoid` is ``sigmoid(x) sigmoid(-x)`` and not ``y (1 - y)``, and what follows from
`sigmoid` follows that. In half precision nothing overflows inside. At a corner with a flat side the
derivative is 0, as ReLU'(0) = 0. `relu` and its kin are in `fnn.rectifiers`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.nn import hard_sigmoid as hard_sigmoid
from jax.nn import hard_swish as hard_swish
from jax.nn import identity as identity
from jax.numpy import sign as sign
from jaxtyping import Array, Float

from fnn.checks import describe, wrong

# Beyond it sigmoid and erfc are flat in every dtype; its cube is finite in float16.
FAR = 40.0
FLAT = 800.0  # exp(-FLAT) is 0 in every dtype


# The cores: derivatives that multiply where the textbook's subtract.


@jax.custom_jvp
def _sigmoid(x: jax.Array) -> jax.Array:
    return jax.lax.logistic(x)


_sigmoid.defjvps(lambda t, y, x: t * (y * _sigmoid(-x)))


@jax.custom_jvp
def _tanh(x: jax.Array) -> jax.Array:
    return jnp.tanh(x)


_tanh.defjvps(lambda t, y, x: t * (4 * _sigmoid(2 * x) * _sigmoid(-2 * x)))


@jax.custom_jvp
def _softplus(x: jax.Array) -> jax.Array:
    return jnp.logaddexp(x, 0)


_softplus.defjvps(lambda t, y, x: t * _sigmoid(x))


@jax.custom_jvp
def _softsign(x: jax.Array) -> jax.Array:
    return x / (1 + jnp.abs(x))


# |x| as x sign(x), whose derivative at 0 is 0; that of jnp.abs is 1.
_softsign.defjvps(lambda t, y, x: t * (1 / (1 + x * jnp.sign(x))) ** 2)


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, static_argnames=("approximate",), inline=True)
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


@functools.partial(jax.jit, inline=True)
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


@functools.partial(jax.jit, static_argnames=("axis",), inline=True)
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
