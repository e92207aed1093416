"""Max pooling's gradient as XLA compiles it: what is repeated there decides its speed."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

import fnn

pytestmark = pytest.mark.usefixtures("users_passes")

OLD = jax.__version_info__ < (0, 11)

windows = pytest.mark.parametrize(("window", "stride"), [(2, 1), (3, 1), (2, 2), (3, 2)])


@functools.cache
def program(window: int, stride: int, depth: int) -> str:
    """The compiled gradient of a stack of max pools."""

    def loss(x: jax.Array, g: jax.Array) -> jax.Array:
        for _ in range(depth):
            x = fnn.max_pool(x, window, stride=stride, padding="SAME")
        return (x * g).sum()

    side = 3 * stride**depth  # every layer has several windows
    x, g = (jax.ShapeDtypeStruct((1, size, size, 2), jnp.float32) for size in (side, 3))
    return jax.jit(jax.grad(loss)).lower(x, g).compile().as_text()


@windows
def test_instructions_grow_in_proportion_to_the_depth(window: int, stride: int) -> None:
    """XLA repeats a layer in every one that reads it unless something is stored between them.

    A layer adds as many in the seventh as in the sixth place, and as in the third (in JAX 0.10 as
    in the second, where JAX 0.12 merges more). With a stride JAX 0.10 repeats some of the taps of
    layers before it; JAX 0.12 does so only without `kept_apart`.
    """
    repeats = 1.7 if stride == window else 4.3
    early, factor = (1, repeats) if OLD and stride > 1 else (2, 1)
    first, second, five, six, seven = (
        program(window, stride, depth).count(" = ") for depth in (early, early + 1, 5, 6, 7)
    )
    assert seven - six == six - five <= factor * (second - first)


@windows
def test_the_winner_is_looked_for_once(window: int, stride: int) -> None:
    """One comparison with infinity per tap, in a loop of its own: not once per input element.

    The search compares by <, and nothing else does.
    """
    text = program(window, stride, 1)
    assert text.count("direction=LT") == window**2
    root = text.split("ENTRY")[1].split("ROOT")[1].split("\n")[0]
    name = root.split("calls=")[1].split(",")[0]
    loop = text.split(f"\n{name} (")[1].split("\n\n")[0]
    assert "direction=EQ" in loop
    assert "direction=LT" not in loop


def test_a_maximum_of_half_precision_is_rounded_once() -> None:
    """And not at every tap, which takes longer than to compare."""
    x = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.bfloat16)
    text = jax.jit(functools.partial(fnn.max_pool, window=3)).lower(x).compile().as_text()
    assert len(re.findall(r"= bf16\S+ convert\(", text)) == 1
