"""The recurrence with its derivative written out.

The derivative is linear in what changes: at every step it adds ``[x, h] dW + dc + [dx, 0] W``,
which needs only what the loop has computed and is one product for all steps, and passes ``dh wh``
on to the next. So the loop of the derivative holds the slopes of the gates and one product per
step; read backwards, as JAX does, it is back-propagation through time with the gradients of the
weights as one product after the loop. Being a rule for forward mode in JAX's own operations, it
leaves forward mode, batching and all higher derivatives in place; before JAX 0.12 the second ones
ignore a rule that the activation has of its own (`fnn/layers/activations.py`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from fnn.compiler import kept_apart, read_alone
from fnn.dtypes import add_bias, widen
from fnn.kernels.recurrent import scan
from fnn.kernels.recurrent.form import (
    Cell,
    Kernel,
    Left,
    State,
    Weights,
    added,
    advance,
    loop,
)
from fnn.placement import placed_as
from fnn.windows import is_known

SMALL = 16 << 20  # bytes of all inputs' product; in jit, memory for more is fresh at every call


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 5))
def run(
    cell: Cell, x: jax.Array, weights: Weights, state: State, left: Left, reverse: bool
) -> tuple[jax.Array, State]:
    """Run the cell."""

    def step(z: Any, state: State) -> tuple[State, None]:
        return cell.step(z, state, weights), None

    last, (h, _) = over_sums(step, cell, x, weights, state, left, reverse)
    return h, last


def over_sums(
    step: Callable[[Any, State], tuple[State, Any]],
    cell: Cell,
    x: jax.Array,
    weights: Weights,
    state: State,
    left: Left,
    reverse: bool,
) -> tuple[State, tuple[jax.Array, Any]]:
    """Run ``step(z, state)`` over time, as `loop` does, with as few products as there can be.

    Where only the sum of both products counts, x and h are multiplied together. Elsewhere the
    inputs of all steps are multiplied before the loop, unless that product is large. So are those
    of three sequences or fewer, of which a step computes little with each weight that it reads.
    """

    def after(gx: jax.Array, state: State) -> tuple[State, Any]:
        return step(cell.sums(gx, state[0], weights), state)

    def ahead(gx: jax.Array, state: State) -> tuple[State, Any]:
        return after(gx if only_sum or on_mesh else read_alone(gx), state)

    def inside(x: jax.Array, state: State) -> tuple[State, Any]:
        return after(x @ weights.wx, state)

    def joint(x: jax.Array, state: State) -> tuple[State, Any]:
        return step(add_bias(jnp.concatenate([x, state[0]], 1) @ w, c), state)

    (time, n, _), only_sum = x.shape, cell.sums is added
    on_mesh = not jax.typeof(x).sharding.mesh.empty
    few = isinstance(n, int) and n < 4  # n is a symbol in an export with any number of sequences
    small = is_known(x) and time * n * weights.wx.shape[1] * x.dtype.itemsize <= SMALL
    if few or (small and not only_sum):
        return loop(ahead, x @ weights.wx, state, left, reverse)
    if not only_sum:
        return loop(inside, x, state, left, reverse)
    assert cell.slopes is not None  # or the kernel refuses
    w, c = cell.slopes.joint(weights)
    return loop(joint, x, state, left, reverse)


@functools.partial(run.defjvp, symbolic_zeros=True)
def derivative(cell: Cell, reverse: bool, primals: Any, tangents: Any) -> Any:
    """The rule: value and derivative along the tangents."""
    x, weights, state, left = primals
    written = cell.slopes
    assert written is not None  # or the kernel refuses

    def step(z: Any, state: State) -> tuple[State, State]:
        return written.step(z, state, weights)

    last, (h, slopes) = over_sums(step, cell, x, weights, state, left, reverse)
    steps = jnp.arange(x.shape[0], dtype=jnp.int32)[:, None, None]
    passed = x.shape[0] - 1 - steps if reverse else steps
    going = None if left is None else left[None] + (passed if reverse else -passed) > 0
    dz = sums(cell, h, going, reverse, primals, tangents)
    across = weights.wh.T  # so that the product of the backward pass reads it row by row

    def along(state: State, here: Any) -> tuple[State, jax.Array]:
        slopes, dz, going = here
        if going is not None:  # at the padding an infinite weight meets 0
            slopes = jax.tree.map(lambda s: jnp.where(going, s, 0), slopes)

        def linear(state: State) -> tuple[State, None]:
            back = lax.dot_general(state[0], across, (((1,), (1,)), ((), ())))
            return written.along(slopes, dz, back, state), None

        state, _ = advance(linear, state, going)
        return state, widen(state[0])

    start = jax.tree.map(present, tangents[2], state, is_leaf=is_zero)
    dlast, dh = lax.scan(along, start, (slopes, dz, going), reverse=reverse)
    return (h, last), (dh, dlast)


def sums(
    cell: Cell, h: jax.Array, going: Left, reverse: bool, primals: Any, tangents: Any
) -> jax.Array:
    """Return what the tangents of x and of the weights add to the sums z of all steps."""
    (x, weights, state, _), (dx, dweights, _, _) = primals, tangents
    assert cell.slopes is not None
    w, _ = cell.slopes.joint(weights)
    dz = jnp.zeros((*x.shape[:2], w.shape[1]), x.dtype)
    if not is_zero(dx):
        dz = dx @ w[: x.shape[2]]
    if not all(map(is_zero, jax.tree.leaves(dweights, is_leaf=is_zero))):
        first = widen(state[0])[None]
        before = jnp.concatenate([h, first])[1:] if reverse else jnp.concatenate([first, h])[:-1]
        if going is not None:  # a sequence without steps may begin with a NaN
            before = jnp.where(going, before, 0)
        dw, dc = cell.slopes.joint(jax.tree.map(present, dweights, weights, is_leaf=is_zero))
        dz = dz + add_bias(for_weights(jnp.concatenate([x, before], 2), dw), dc)
    return dz


def for_weights(a: jax.Array, w: jax.Array) -> jax.Array:
    """Return ``a (time, n, k) @ w (k, m)``, so that the gradient of w is a fast product.

    It sums over time and sequences: one axis, which is the last of its left factor. On a mesh they
    stay two axes, as sequences that are sharded would have to be gathered.
    """
    if not jax.typeof(a).sharding.mesh.empty:
        return a @ w
    (rows,) = kept_apart(a.reshape(a.shape[0] * a.shape[1], a.shape[2]).T)
    product = lax.dot_general(rows, w, (((0,), (0,)), ((), ())))
    return product.reshape(*a.shape[:2], w.shape[1])


def is_zero(tangent: Any) -> bool:
    """Whether a tangent is known to be zero."""
    return isinstance(tangent, SymbolicZero)


def present(tangent: Any, primal: jax.Array) -> jax.Array:
    """Return the tangent as an array."""
    return placed_as(jnp.zeros_like(primal), primal) if is_zero(tangent) else tangent


def run_any(
    cell: Cell, x: jax.Array, weights: Weights, state: State, left: Left, reverse: bool
) -> tuple[jax.Array, State]:
    """Run a cell whose derivative is written out so, and any other as the loop is."""
    how = run if cell.slopes else scan.run
    h, state = how(cell, x, weights, state, left, reverse)
    return h, state


WRITTEN = Kernel("written", run_any)
