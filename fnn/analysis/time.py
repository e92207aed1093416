"""What reaches back through time: the gradient of a loss by the states that came before.

For a recurrence ``h_t = step(h_{t-1}, x_t)`` the chain rule multiplies one Jacobian per step,
``d loss / d h_{T-d} = d loss / d h_T  J_T J_{T-1} ... J_{T-d+1}``: in the linear case powers of one
matrix, which vanish for ``||W|| < 1`` and explode for a spectral radius above 1.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fnn.analysis.curvature import check_typed
from fnn.checks import check_array, check_scalar, check_takes, describe, wrong
from fnn.placement import varying
from fnn.static import frozen
from fnn.trees import FloatTree, check_same, global_norm

NAME = "analysis.gradient_by_time"


def gradient_by_time(
    step: Callable[[Any, Any], Any],
    loss: Callable[[Any], Any],
    state: FloatTree,
    x: Float[Array, "n time ..."],
) -> Float[Array, " distances"]:
    """Return the norm of d loss / d state at every distance back in time.

    ``norms[d] = || d loss(h_T) / d h_{T-d} ||`` for d = 0, ..., time, over all parts and examples
    of a state. One pass forward, which keeps every state, and one back.

    Args:
        step: ``(state, x_t) -> state``, x_t being (n, ...). The state that it returns is shaped and
            typed as the one that it is given. What it reads in a dict, an array or an object that
            changes is fixed at the first call.
        loss: ``state -> scalar``, of the last state.
        state: the first state.
        x: sequences (n, time, ...).

    Returns:
        (time + 1,), by distance: the last entry is that of the first state.

    Raises:
        ValueError: x has no axis of time; step does not return a state; loss is no scalar.
        TypeError: step or loss is no function; x is no array; step returns another dtype.

    Source: Y. Bengio, P. Simard, P. Frasconi, Learning long-term dependencies with gradient descent
    is difficult (1994).

    >>> w = 0.5 * jnp.eye(2)
    >>> norms = fnn.analysis.gradient_by_time(
    ...     lambda h, x: h @ w + x, lambda h: h[0, 0], jnp.zeros((1, 2)), jnp.ones((1, 3, 2)))
    >>> norms.tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    check_takes(NAME, "step", step, "state, x")
    check_takes(NAME, "loss", loss, "state")
    check_array(NAME, "x", x)
    if jnp.ndim(x) < 2:
        raise wrong(NAME, "x", describe(x), "shape (n, time, ...)")
    norms: Array = _norms(frozen(step), frozen(loss), state, x)
    return norms


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _norms(
    step: Callable[[Any, Any], Any], loss: Callable[[Any], Any], state: Any, x: Array
) -> Array:
    def forward(state: Any, x: Any) -> tuple[Any, Any]:
        new = step(state, x)
        check_same(NAME, "step", new, state, "as in state")
        check_typed(NAME, "step", new, state)
        return new, state

    def back(g: Any, here: tuple[Any, Any]) -> tuple[Any, Array]:
        state, x = here
        _, pull = jax.vjp(lambda s: step(s, x), state)
        (g,) = pull(g)
        return g, global_norm(g)

    xs = jnp.swapaxes(x, 0, 1)
    parts = jax.tree.leaves(state)
    state = jax.tree.map(lambda s: varying(s, *parts, x)[0], state)
    last, before = lax.scan(forward, state, xs)
    value, pull = jax.vjp(loss, last)
    check_scalar(NAME, value)
    (g,) = pull(jnp.ones_like(value))
    _, earlier = lax.scan(back, g, (before, xs), reverse=True)
    return jnp.concatenate([global_norm(g)[None], earlier[::-1]])
