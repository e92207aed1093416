"""A recurrence ``state_t = cell(x_t, state_{t-1})``: what a cell and a kernel are, and what
surrounds every kernel.

Inside, time is the first axis. Lengths: what is padded is replaced by 0, a state with no step left
stays as it is, and outputs there are 0, so padding can be seen neither forward nor backward.
``left (n, 1)`` counts the real steps that each sequence has from the present one on; in reverse it
is positive from the last real step on. Precision: a step is computed in `accumulator`'s dtype and
its state rounded to the dtype that it came in. The outputs of all steps are stored wide: a CPU
writes one into an array of bfloat16 by writing the whole array (`fnn.compiler.as_bits`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnn.dtypes import add_bias, nan_where, widen
from fnn.placement import by_examples, replicated, varying

State = tuple[jax.Array, ...]  # each (n, units), the output h first
Left = jax.Array | None


class Weights(NamedTuple):
    """The arrays of a recurrence, named as `fnn.lstm` and kin name them; None is absent."""

    wx: jax.Array
    wh: jax.Array
    b: jax.Array | None = None
    bh: jax.Array | None = None
    peephole: jax.Array | None = None


class Slopes(NamedTuple):
    """The derivative of a cell, written out.

    For cells that depend on x, h and the weights through sums ``z = [x, h] W + c`` alone, and are
    elementwise beyond them.

    Attributes:
        joint: ``weights -> (W, c)``, linear: W (f + units, blocks units); c is its bias, or None.
        step: the cell's, but gives ``(state, slopes)``: derivatives by z, elementwise.
        along: ``(slopes, dz, dh wh, dstate) -> dstate``, linear in the last three.
    """

    joint: Callable[[Weights], tuple[jax.Array, jax.Array | None]]
    step: Callable[[Any, State, Weights], tuple[State, State]]
    along: Callable[[State, jax.Array, jax.Array, State], State]


class Cell(NamedTuple):
    """A kind of recurrence.

    Attributes:
        sums: ``(x_t wx, h, weights) -> z``: what the products give. `added`, or the cell's own.
        step: ``(z, state, weights) -> state``.
        slopes: its derivative, or None.
    """

    sums: Callable[[jax.Array, jax.Array, Weights], Any]
    step: Callable[[Any, State, Weights], State]
    slopes: Slopes | None = None


def added(gx: jax.Array, h: jax.Array, weights: Weights) -> jax.Array:
    """Return ``z = x wx + h wh + b``."""
    return add_bias(gx + h @ weights.wh, weights.b)


class Kernel(NamedTuple):
    """An algorithm for the loop over time.

    Attributes:
        name: as in ``fnn.lstm_<name>``.
        run: ``(cell, x, weights, state, left, reverse) -> (h of every step, last state)``.
    """

    name: str
    run: Callable[[Cell, jax.Array, Weights, State, Left, bool], tuple[jax.Array, State]]


def recur(
    kernel: Kernel,
    cell: Cell,
    x: jax.Array,
    weights: Weights,
    state: State,
    lengths: jax.Array | None,
    reverse: bool,
    remat: int | None,
) -> tuple[jax.Array, State]:
    """Run a cell over ``x (n, time, f)``: outputs (n, time, units), and the last state."""
    time, dtype, left = x.shape[1], x.dtype, None
    given = () if lengths is None else (lengths,)
    x, *parts = by_examples(x, *state, *given)  # all else a step needs whole
    state, weights = tuple(parts[: len(state)]), jax.tree.map(replicated, weights)
    if lengths is not None:
        lengths = parts[-1].astype(jnp.int64 if lengths.dtype.itemsize > 4 else jnp.int32)[:, None]
        wrong, lengths = (lengths < 0) | (lengths > time), lengths.astype(jnp.int32)
        real = (jnp.arange(time, dtype=jnp.int32)[None] < lengths)[..., None]
        x = jnp.where(real, x, 0)
        left = lengths - (time - 1 if reverse else 0)
    x, weights = jnp.swapaxes(widen(x), 0, 1), jax.tree.map(widen, weights)
    read = jax.tree.leaves((state, left, x, weights))
    state, left = jax.tree.map(lambda a: varying(a, *read)[0], (state, left))

    def steps(x: jax.Array, state: State, left: Left) -> tuple[jax.Array, State]:
        return kernel.run(cell, x, weights, state, left, reverse)

    if isinstance(time, int) and time == 0:  # a scan of no steps fails without jit
        h = state[0][None][:0]
    else:  # not inlined, or a gradient without jit compiles its scan at every call
        whole = functools.partial(in_chunks, steps, reverse=reverse, size=remat) if remat else steps
        h, state = jax.jit(whole)(x, state, left)
    y = jnp.swapaxes(h, 0, 1).astype(dtype)
    if lengths is not None:
        y = nan_where(wrong[..., None], jnp.where(real, y, 0))
        state = tuple(nan_where(wrong, s) for s in state)
    return y, state


def in_chunks(
    run: Callable[[jax.Array, State, Left], tuple[jax.Array, State]],
    x: jax.Array,
    state: State,
    left: Left,
    reverse: bool,
    size: int,
) -> tuple[jax.Array, State]:
    """Run so many steps at a time, keeping only the states between them for the backward pass."""
    again = jax.checkpoint(run, prevent_cse=False)

    def chunk(carry: tuple[State, Left], x: jax.Array) -> tuple[tuple[State, Left], jax.Array]:
        h, state = again(x, *carry)
        return (state, after(x.shape[0], carry[1], reverse)), h

    count = x.shape[0] // size
    whole, carry = count * size, (state, left)
    if not whole:
        (state, _), h = chunk(carry, x)
        return h, state
    chunks, rest = x[:whole].reshape(count, size, *x.shape[1:]), x[whole:]
    if whole == x.shape[0]:
        (state, _), h = lax.scan(chunk, carry, chunks, reverse=reverse)
        return h.reshape(whole, *h.shape[2:]), state
    if reverse:
        carry, end = chunk(carry, rest)
        carry, h = lax.scan(chunk, carry, chunks, reverse=True)
    else:
        carry, h = lax.scan(chunk, carry, chunks)
        carry, end = chunk(carry, rest)
    return jnp.concatenate([h.reshape(whole, *end.shape[1:]), end]), carry[0]


def after(steps: int, left: Left, reverse: bool) -> Left:
    """Return what is left after so many steps."""
    return None if left is None else left + (steps if reverse else -steps)


def advance(
    step: Callable[[State], tuple[State, Any]], state: State, going: jax.Array | None
) -> tuple[State, Any]:
    """Return the next state, computed wide, of the sequences that are still going; and the rest.

    The others are computed from zeros: where their own state has an infinite slope, not even a
    cotangent of 0 goes back through it. From zeros, the step must have a finite one.
    """
    seen = state if going is None else tuple(jnp.where(going, s, 0) for s in state)
    new, more = step(tuple(map(widen, seen)))
    new = tuple(a.astype(s.dtype) for a, s in zip(new, state, strict=True))
    if going is not None:
        new = tuple(jnp.where(going, a, s) for a, s in zip(new, state, strict=True))
    return new, more


def loop(
    step: Callable[[jax.Array, State], tuple[State, Any]],
    xs: jax.Array,
    state: State,
    left: Left,
    reverse: bool,
) -> tuple[State, tuple[jax.Array, Any]]:
    """Scan ``step(x, state) -> (state, more)`` over time.

    Args:
        step: the step.
        xs: its input at every step.
        state: the first state.
        left: steps left of each sequence.
        reverse: whether time runs backwards.

    Returns:
        The last state; h and the rest of every step.
    """

    def body(carry: tuple[State, Left], x: jax.Array) -> tuple[tuple[State, Left], Any]:
        state, left = carry
        going = None if left is None else left > 0
        state, more = advance(lambda s: step(x, s), state, going)
        return (state, after(1, left, reverse)), (widen(state[0]), more)

    (state, _), steps = lax.scan(body, (state, left), xs, reverse=reverse)
    return state, steps
