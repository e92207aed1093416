"""Recurrence as XLA compiles it: which products there are decides its speed."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fnn

pytestmark = pytest.mark.usefixtures("users_passes")

TIME, F, UNITS = 6, 5, 7


def products(n: int, gradient: bool) -> list[tuple[str, str]]:
    """The shape of every product's result, and the axis of its left factor that is summed over.

    A row "1,20" counts as the vector "20", which JAX 0.10.0 makes of it.
    """

    def run(x: jax.Array, wx: jax.Array, wh: jax.Array, b: jax.Array) -> jax.Array:
        return fnn.lstm(x, wx, wh, b)[0]

    f: Any = jax.grad(lambda *args: (run(*args) ** 2).sum(), (0, 1, 2, 3)) if gradient else run
    columns = 4 * UNITS
    shapes = (n, TIME, F), (F, columns), (UNITS, columns), (columns,)
    text = jax.jit(f).lower(*map(jnp.zeros, shapes)).compile().as_text()
    found = r"f32\[(?:1,)?([\d,]+)\]\S* dot\(.*lhs_contracting_dims=\{(\d)\}"
    return sorted(set(re.findall(found, text)))


@pytest.mark.parametrize(("n", "inputs"), [(1, (TIME, 4 * UNITS)), (4, (4, 4 * UNITS))])
def test_few_sequences_have_one_product_of_the_inputs(n: int, inputs: tuple[int, int]) -> None:
    """With more, inputs and state have one product at every step."""
    shapes = {shape for shape, _ in products(n, gradient=False)}
    state = f"{n},{4 * UNITS}".removeprefix("1,")
    assert shapes == {"{},{}".format(*inputs), state}


def test_the_gates_are_not_one_loop_with_reading_the_product_of_the_inputs() -> None:
    """It would compute them one number at a time. Those of an LSTM are read twice, and so apart."""
    shapes = (3, TIME, F), (F, 3 * UNITS), (UNITS, 3 * UNITS)
    run = jax.jit(lambda *args: fnn.gru(*args)[0])
    text = run.lower(*map(jnp.zeros, shapes)).compile().as_text()
    loops = re.findall(r"^%fused\S* .*?^}", text, re.DOTALL | re.MULTILINE)
    gates = [loop for loop in loops if " tanh(" in loop]
    assert gates
    assert not any(" dynamic-slice(" in loop for loop in gates)


def test_the_gradient_of_the_weights_is_one_fast_product() -> None:
    """Row by row of both factors, as it is where the left one is transposed before."""
    n, columns = 4, 4 * UNITS
    assert products(n, gradient=True) == sorted([
        (f"{n},{columns}", "1"),  # forward, at every step
        (f"{n},{UNITS}", "1"),  # backward, at every step
        (f"{F + UNITS},{columns}", "1"),  # by the weights
        (f"{n * TIME},{F}", "1"),  # by x
    ])  # fmt: skip


def test_no_step_of_half_precision_is_stored_as_such() -> None:
    """To write one into an array of bfloat16, XLA on a CPU would write the whole array again."""

    def loss(x: jax.Array, wx: jax.Array, wh: jax.Array) -> jax.Array:
        return fnn.lstm(x, wx, wh)[0].sum()

    shapes = (3, TIME, F), (F, 4 * UNITS), (UNITS, 4 * UNITS)
    arrays = (jnp.zeros(shape, jnp.bfloat16) for shape in shapes)
    text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays).compile().as_text()
    written = re.findall(r"(ROOT )?%\S+ = (\w+)\[\S+ dynamic-update-slice\(", text)
    assert {kind for _, kind in written} == {"f32"}
    assert all(root for root, _ in written)
