"""Strict settings for every test: no silent promotion, and warnings are errors (pyproject.toml)."""

import gc
from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Most tests ask what a program computes, not how fast: LLVM's expensive passes are left out, which
# takes a third off the suite. XLA's own passes run as always, and `optimized` asks for the rest.
jax.config.update("jax_disable_most_optimizations", True)

# JAX makes many objects that live long: looking through them again and again takes a tenth.
gc.disable()

# pytest --hypothesis-profile long tests/test_fuzz.py
settings.register_profile("long", max_examples=10_000)


@pytest.fixture(autouse=True, scope="module")
def programs() -> Iterator[None]:
    """Drop the programs of a module after it: kept, those of the suite take gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module")
def optimized() -> Iterator[None]:
    """Compile a module's programs as a user's: for numbers at the ends, and for the compiler."""
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
