"""The cells: simple recurrence (Elman), LSTM and GRU, and their derivatives written out.

Blocks of columns, as in PyTorch: LSTM i, f, g, o; GRU r, z, n. With sigmoid s and inputs x::

    simple  h' = act(x wx + h wh + b)
    LSTM    i, f, o = s(.), g = tanh(.);  c' = f c + i g;  h' = o tanh(c')
    GRU     r, z = s(.), n = tanh(x wx_n + b_n + r (h wh_n + bh));  h' = (1 - z) n + z h

``s(z) = (1 + tanh(z / 2)) / 2`` lets all gates of a step be one pass of one function: taken apart
by gate, XLA on a CPU computes them one number at a time. Such a gate is right to the rounding of 1,
not of itself: shut below about z = -16, it is 0 in float32.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnn.dtypes import add_bias
from fnn.kernels.recurrent.form import Cell, Slopes, State, Weights, added

Split = Sequence[jax.Array]


def split(z: jax.Array, blocks: int) -> Split:
    """Return the blocks of columns."""
    return lax.split(z, [z.shape[1] // blocks] * blocks, axis=1)


def stacked(weights: Weights) -> tuple[jax.Array, jax.Array | None]:
    """Return the joint weights of a cell that adds both products block by block."""
    return jnp.concatenate([weights.wx, weights.wh]), weights.b


def simple(activation: Callable[[jax.Array], jax.Array]) -> Cell:
    """Return the cell ``h' = activation(x wx + h wh + b)``."""

    def step(z: jax.Array, state: State, weights: Weights) -> State:
        return (activation(z),)

    def slopes(z: jax.Array, state: State, weights: Weights) -> tuple[State, State]:
        h, pull = jax.vjp(activation, z)
        return (h,), pull(jnp.ones_like(h))

    def along(slopes: State, dz: jax.Array, back: jax.Array, state: State) -> State:
        return (slopes[0] * (dz + back),)

    return Cell(added, step, Slopes(stacked, slopes, along))


def lstm_gates(z: jax.Array) -> Split:
    """Return i, f, g, o."""
    halves = np.repeat([0.5, 0.5, 1, 0.5], z.shape[1] // 4)[None]
    i, f, g, o = split(jnp.tanh(z * jnp.asarray(halves, z.dtype)), 4)
    return [0.5 + 0.5 * i, 0.5 + 0.5 * f, g, 0.5 + 0.5 * o]


def lstm_step(z: jax.Array, state: State, weights: Weights) -> State:
    """Advance h and c."""
    i, f, g, o = lstm_gates(z)
    c = f * state[1] + i * g
    return o * jnp.tanh(c), c


def lstm_slopes(z: jax.Array, state: State, weights: Weights) -> tuple[State, State]:
    """Advance; the slopes are of c by z_i, z_f, z_g and c, and of h by z_o and the new c."""
    c = state[1]
    i, f, g, o = lstm_gates(z)
    new = f * c + i * g
    t = jnp.tanh(new)
    by_gates = g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), t * o * (1 - o)
    return (o * t, new), (*by_gates, f, o * (1 - t * t))


def lstm_along(slopes: State, dz: jax.Array, back: jax.Array, state: State) -> State:
    """The derivative of one step."""
    ci, cf, cg, ho, cc, hc = slopes
    i, f, g, o = split(dz + back, 4)
    dc = cc * state[1] + ci * i + cf * f + cg * g
    return ho * o + hc * dc, dc


def peephole_step(z: jax.Array, state: State, weights: Weights) -> State:
    """Advance h and c, the gates i and f seeing c, and o the new c."""
    c, p = state[1], weights.peephole
    assert p is not None  # by this cell's choice
    i, f, g, o = split(z, 4)
    new = jax.nn.sigmoid(f + p[1:2] * c) * c + jax.nn.sigmoid(i + p[:1] * c) * jnp.tanh(g)
    return jax.nn.sigmoid(o + p[2:] * new) * jnp.tanh(new), new


def apart(gx: jax.Array, h: jax.Array, weights: Weights) -> tuple[jax.Array, jax.Array]:
    """Return ``x wx + b`` and ``h wh``."""
    return add_bias(gx, weights.b), h @ weights.wh


def gru_parts(sums: tuple[jax.Array, jax.Array], weights: Weights) -> Split:
    """Return r, z, n, and what r multiplies in n."""
    gx, back = sums
    units = gx.shape[1] // 3
    rz = jnp.tanh(0.5 * (gx[:, : 2 * units] + back[:, : 2 * units]))
    r, z = split(0.5 + 0.5 * rz, 2)
    m = add_bias(back[:, 2 * units :], weights.bh)
    return [r, z, jnp.tanh(gx[:, 2 * units :] + r * m), m]


def gru_step(sums: tuple[jax.Array, jax.Array], state: State, weights: Weights) -> State:
    """Advance h."""
    _, z, n, _ = gru_parts(sums, weights)
    return (n + z * (state[0] - n),)


def gru_slopes(
    sums: tuple[jax.Array, jax.Array], state: State, weights: Weights
) -> tuple[State, State]:
    """Advance; the slopes are of h by z_r, z_z, r's factor, x wx_n, and the old h."""
    h = state[0]
    r, z, n, m = gru_parts(sums, weights)
    by_n = (1 - z) * (1 - n * n)
    slopes = by_n * m * r * (1 - r), (h - n) * z * (1 - z), by_n * r, by_n, z
    return (n + z * (h - n),), slopes


def gru_joint(weights: Weights) -> tuple[jax.Array, jax.Array | None]:
    """Return the joint weights, with four blocks: r, z, what r multiplies, and x wx_n + b_n."""
    wx, wh, b, bh, _ = weights
    units = wh.shape[0]
    up, down = wx[:, : 2 * units], wx[:, 2 * units :]
    rows = jnp.concatenate([up, jnp.zeros_like(down), down], 1)
    joint = jnp.concatenate([rows, jnp.concatenate([wh, jnp.zeros_like(wh[:, :units])], 1)])
    if b is None and bh is None:
        return joint, None
    b = jnp.zeros_like(joint[0, : 3 * units]) if b is None else b
    bh = jnp.zeros_like(joint[0, :units]) if bh is None else bh
    return joint, jnp.concatenate([b[: 2 * units], bh, b[2 * units :]])


def gru_along(slopes: State, dz: jax.Array, back: jax.Array, state: State) -> State:
    """The derivative of one step."""
    by_r, by_z, by_m, by_n, by_h = slopes
    units = state[0].shape[1]
    r, z, m = split(dz[:, : 3 * units] + back, 3)
    return (by_r * r + by_z * z + by_m * m + by_n * dz[:, 3 * units :] + by_h * state[0],)


def inputs_alone(gx: jax.Array, h: jax.Array, weights: Weights) -> jax.Array:
    """Return ``x wx + b``."""
    return add_bias(gx, weights.b)


def gru_before_step(gx: jax.Array, state: State, weights: Weights) -> State:
    """Advance h, r multiplying h before the product with wh_n."""
    h, units = state[0], state[0].shape[1]
    rz = jax.nn.sigmoid(gx[:, : 2 * units] + h @ weights.wh[:, : 2 * units])
    r, z = split(rz, 2)
    n = jnp.tanh(gx[:, 2 * units :] + add_bias((r * h) @ weights.wh[:, 2 * units :], weights.bh))
    return (n + z * (h - n),)


LSTM = Cell(added, lstm_step, Slopes(stacked, lstm_slopes, lstm_along))
LSTM_PEEPHOLE = Cell(added, peephole_step)
GRU = Cell(apart, gru_step, Slopes(gru_joint, gru_slopes, gru_along))
GRU_BEFORE = Cell(inputs_alone, gru_before_step)
