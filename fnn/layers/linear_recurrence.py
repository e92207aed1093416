"""A recurrence without a nonlinearity, ``h_t = a_t h_{t-1} + x_t``, all steps at once.

Two steps after each other are one step of the same form, ``(a' a, a' x + x')``, and composing steps
is associative: halves of a sequence can be composed apart, in about 2 log2(time) passes.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.checks import check_dtype_or_wider, describe, wrong
from fnn.dtypes import spread, widen
from fnn.functions import jitted
from fnn.placement import alike

Pair = tuple[jax.Array, jax.Array]


@jitted(static=("reverse",))
def linear_recurrence(
    x: Float[Array, "n time d"],
    a: Float[Array, "n time d"] | Float[Array, " d"],
    *,
    state: Float[Array, "n d"] | None = None,
    reverse: bool = False,
) -> Float[Array, "n time d"]:
    """Return every step of ``h_t = a_t h_{t-1} + x_t``, each feature by itself.

    By an associative scan: for a GPU or TPU far fewer passes than steps. Beside arguments and
    results it needs about 2.5 times the memory of a float32 x, and 5.4 times with the gradient;
    with factors (d,) 1.25 and 6.5 times. That holds for any number of steps, as compiled for a CPU.

    Steps are composed before h is known, so the products of a feature's factors over the whole
    sequence must be numbers of the dtype: where one overflows, as 1.5^600 in float32, h is NaN,
    whatever its true value.

    Args:
        x: inputs (n, time, d). Half precision is computed in float32.
        a: factors (n, time, d), or the same ones for all steps (d,), of the dtype of x.
        state: h before the first step (n, d), zeros by default; of the dtype of x, or float32.
        reverse: whether to run from the last step to the first, ``h_t = a_t h_{t+1} + x_t``.

    Returns:
        h (n, time, d), of the dtype of x; the last step is the state to go on from.

    Raises:
        ValueError: shapes that do not fit; a time that is a symbol, as in an export.
        TypeError: dtypes that differ.

    Source: G. Blelloch, Prefix sums and their applications (1990); E. Martin, C. Cundy,
    Parallelizing linear recurrent neural nets over sequence length (2018).

    >>> linear_recurrence(jnp.ones((1, 4, 1)), jnp.array([0.5])).ravel().tolist()
    [1.0, 1.5, 1.75, 1.875]
    """
    name = "linear_recurrence"
    if x.ndim != 3:
        raise wrong(name, "x", describe(x), "shape (n, time, d)")
    if not isinstance(x.shape[1], int):
        raise wrong(name, "x", describe(x), "a number, not a symbol, for the time")
    if a.shape not in (x.shape, x.shape[2:]):
        raise wrong(name, "a", describe(a), f"shape {x.shape} or {x.shape[2:]} for x {describe(x)}")
    if a.dtype != x.dtype:
        raise wrong(name, "a", describe(a), f"the dtype of x, {x.dtype}", TypeError)
    if state is not None:
        if state.shape != (x.shape[0], x.shape[2]):
            raise wrong(name, "state", describe(state), f"shape {(x.shape[0], x.shape[2])}")
        check_dtype_or_wider(name, "state", state, x)
    if not x.shape[1]:
        return x
    each = [] if a.ndim == 1 else [widen(a)]
    before = [] if state is None else [widen(state)[:, None]]
    inputs, *others = alike(widen(x), *each, *before, whole=1)
    # One factor for all steps is broadcast wide, for its gradient to be a wide sum.
    factors = others[0] if each else spread(a, inputs) * jnp.ones_like(inputs)
    if before:
        first = -1 if reverse else 0
        inputs = inputs.at[:, first].add(factors[:, first] * others[-1][:, 0])

    def compose(one: Pair, other: Pair) -> Pair:
        return other[0] * one[0], other[0] * one[1] + other[1]

    h: jax.Array
    _, h = lax.associative_scan(compose, (factors, inputs), reverse=reverse, axis=1)
    return h.astype(x.dtype)
