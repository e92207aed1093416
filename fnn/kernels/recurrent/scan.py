"""The loop as it is: the cell in `lax.scan`, differentiated by JAX. It can do every cell."""

import jax

from fnn.kernels.recurrent.form import Cell, Kernel, Left, State, Weights, loop


def run(
    cell: Cell, x: jax.Array, weights: Weights, state: State, left: Left, reverse: bool
) -> tuple[jax.Array, State]:
    """Run the cell."""

    def step(x: jax.Array, state: State) -> tuple[State, None]:
        return cell.step(cell.sums(x @ weights.wx, state[0], weights), state, weights), None

    state, (h, _) = loop(step, x, state, left, reverse)
    return h, state


SCAN = Kernel("scan", run)
