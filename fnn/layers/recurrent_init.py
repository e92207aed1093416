"""Where the arrays of recurrent layers start.

Each block of columns is drawn by itself: the input weights with Xavier's variance, the recurrent
weights orthogonal, so that a state passes many steps neither shrunk nor amplified.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from fnn.checks import check_size
from fnn.dtypes import Number, number_like
from fnn.functions import jitted
from fnn.layers.initializers import XAVIER, Initializer, draw, orthogonal

ORTHOGONAL = orthogonal()
SIZES = ("d_in", "units", "weights", "recurrent", "bias", "dtype")


def _draw(
    name: str,
    blocks: int,
    key: jax.Array,
    d_in: int,
    units: int,
    weights: Initializer,
    recurrent: Initializer,
    bias: bool,
    dtype: DTypeLike,
) -> dict[str, jax.Array]:
    """Draw wx and wh for public function ``name``, and a bias of zeros."""
    check_size(name, "d_in", d_in)
    check_size(name, "units", units)

    def columns(argument: str, by: Initializer, key: jax.Array, rows: int) -> jax.Array:
        parts = jax.vmap(lambda k: draw(name, by, k, (rows, units), dtype, argument))(
            jax.random.split(key, blocks)
        )
        return jnp.moveaxis(parts, 0, 1).reshape(rows, blocks * units)

    first, second = jax.random.split(key)
    params = {
        "wx": columns("weights", weights, first, d_in),
        "wh": columns("recurrent", recurrent, second, units),
    }
    if bias:
        params["b"] = jnp.zeros(blocks * units, dtype)
    return params


@jitted(static=SIZES)
def init_rnn(
    key: PRNGKeyArray,
    d_in: int,
    units: int,
    *,
    weights: Initializer = XAVIER,
    recurrent: Initializer = ORTHOGONAL,
    bias: bool = True,
    dtype: DTypeLike = float,
) -> dict[str, Any]:
    """Draw the arrays of `fnn.rnn`.

    Args:
        key: random key.
        d_in: features of a step.
        units: features of the state.
        weights: draws wx; Xavier normal, variance 2 / (d_in + units).
        recurrent: draws wh; orthogonal, whose spectral norm is 1.
        bias: whether to include a bias, of zeros.
        dtype: of the arrays; ``float`` is float32, or float64 with x64 on.

    Returns:
        ``{"wx": (d_in, units), "wh": (units, units), "b": (units,)}``, without "b" for
        ``bias=False``.

    Raises:
        ValueError: a size is below 1, or the weights do not have their shape.
        TypeError: dtype is not a floating-point one.

    Source: A. Saxe, J. McClelland, S. Ganguli, Exact solutions to the nonlinear dynamics of
    learning in deep linear neural networks (2014), for the orthogonal start.

    >>> params = init_rnn(jax.random.key(0), 3, 5)
    >>> float(jnp.linalg.norm(params["wh"], 2).round(4)), params["wx"].shape
    (1.0, (3, 5))
    """
    return _draw("init_rnn", 1, key, d_in, units, weights, recurrent, bias, dtype)


@jitted(static=(*SIZES, "peephole"))
def init_lstm(
    key: PRNGKeyArray,
    d_in: int,
    units: int,
    *,
    weights: Initializer = XAVIER,
    recurrent: Initializer = ORTHOGONAL,
    bias: bool = True,
    forget: Number = 1.0,
    peephole: bool = False,
    dtype: DTypeLike = float,
) -> dict[str, Any]:
    """Draw the arrays of `fnn.lstm`.

    Args:
        key, d_in, units, weights, recurrent, dtype: as in `init_rnn`, for each gate.
        bias: whether to include a bias: ``forget`` for the gate f, else zeros.
        forget: the bias of the gate f; 1 lets a new memory keep most of what it holds.
        peephole: whether to include peephole weights, of zeros.

    Returns:
        ``{"wx": (d_in, 4 units), "wh": (units, 4 units), "b": (4 units,)}``, without "b" for
        ``bias=False``, and with ``"peephole": (3, units)`` if asked for.

    Raises:
        ValueError, TypeError: as `init_rnn`.

    Source: R. Jozefowicz, W. Zaremba, I. Sutskever, An empirical exploration of recurrent network
    architectures (2015), for the bias of the gate f.

    >>> init_lstm(jax.random.key(0), 3, 2)["b"].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    params = _draw("init_lstm", 4, key, d_in, units, weights, recurrent, bias, dtype)
    if bias:
        b = params["b"]
        params["b"] = b.at[units : 2 * units].set(number_like(forget, b))
    if peephole:
        params["peephole"] = jnp.zeros((3, units), dtype)
    return params


@jitted(static=SIZES)
def init_gru(
    key: PRNGKeyArray,
    d_in: int,
    units: int,
    *,
    weights: Initializer = XAVIER,
    recurrent: Initializer = ORTHOGONAL,
    bias: bool = True,
    dtype: DTypeLike = float,
) -> dict[str, Any]:
    """Draw the arrays of `fnn.gru`.

    Args:
        key, d_in, units, weights, recurrent, dtype: as in `init_rnn`, for each gate.
        bias: whether to include both biases, of zeros.

    Returns:
        ``{"wx": (d_in, 3 units), "wh": (units, 3 units), "b": (3 units,), "bh": (units,)}``,
        without "b" and "bh" for ``bias=False``.

    Raises:
        ValueError, TypeError: as `init_rnn`.

    >>> params = init_gru(jax.random.key(0), 3, 2)
    >>> [params[name].shape for name in ("wx", "wh", "b", "bh")]
    [(3, 6), (2, 6), (6,), (2,)]
    """
    params = _draw("init_gru", 3, key, d_in, units, weights, recurrent, bias, dtype)
    if bias:
        params["bh"] = jnp.zeros(units, dtype)
    return params
