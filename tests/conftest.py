"""Strict settings for every test: no silent promotion, and warnings are errors (pyproject.toml)."""

import jax
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# pytest --hypothesis-profile long tests/test_fuzz.py
settings.register_profile("long", max_examples=10_000)
