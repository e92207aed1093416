"""The gradient of a maximum in blocks of examples is the gradient, and needs less memory."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import fnn
from fnn.kernels.pool import blocks

SHAPE = (7, 5, 2)  # of an example

Pool = Callable[..., jax.Array]


def gradient(x: jax.Array, g: jax.Array, pool: Pool = fnn.max_pool) -> jax.Array:
    return jax.vjp(functools.partial(pool, window=3, stride=1, padding="SAME"), x)[1](g)[0]


def arrays(n: int) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((n, *SHAPE), np.float32)) for _ in range(2)]


def turns(*arrays: jax.Array) -> list[int]:
    """The turns of every loop in the gradient."""
    text = str(jax.make_jaxpr(gradient)(*arrays))
    return [int(part.split()[0]) for part in text.split("length=")[1:]]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At most four examples of these arrays are a block; nothing traced elsewhere is used."""
    monkeypatch.setattr(blocks, "WHOLE", 0)
    monkeypatch.setattr(blocks, "BLOCK", 4 * 4 * int(np.prod(SHAPE)))
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("small")
def test_examples_are_taken_in_even_blocks_or_at_once() -> None:
    assert turns(*arrays(8)) == [2]
    assert turns(*arrays(9)) == [3]
    assert turns(*arrays(3)) == turns(*arrays(7)) == []


@pytest.mark.usefixtures("small")
def test_examples_on_a_mesh_are_taken_at_once() -> None:
    """A loop over examples that are sharded makes every device compute everything."""
    spread = NamedSharding(jax.make_mesh((1,), ("data",)), PartitionSpec("data"))
    assert turns(*jax.device_put(arrays(8), spread)) == []


def test_few_examples_are_taken_at_once() -> None:
    assert turns(*arrays(8)) == []


@pytest.mark.usefixtures("small")
def test_every_derivative_is_that_of_the_library() -> None:
    x, g = arrays(8)

    def derivatives(pool: Pool) -> list[jax.Array]:
        of = functools.partial(gradient, pool=pool)
        pooled = functools.partial(pool, window=3, stride=1, padding="SAME")
        twice = jax.grad(lambda g: (of(x, g) ** 2).sum())(g)
        batched = jax.vmap(of)(jnp.stack([x, g]), jnp.stack([g, x]))
        return [jax.jvp(pooled, (x,), (g,))[1], of(x, g), jax.jit(of)(x, g), twice, batched]

    got, want = derivatives(fnn.max_pool), derivatives(fnn.max_pool_lax)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("users_passes")
def test_a_large_gradient_needs_less_than_its_own_memory_twice() -> None:
    """What lies between is of one block: padded copies of all took four times the memory of x."""
    x = jax.ShapeDtypeStruct((16, 28, 28, 192), jnp.float32)
    memory = jax.jit(gradient).lower(x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2 * 4 * x.size
