"""The dtype in which sums are formed."""

import jax.numpy as jnp
import pytest

from fnn.dtypes import accumulator


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (jnp.float16, "float32"),
        (jnp.bfloat16, "float32"),
        (jnp.float8_e4m3fn, "float32"),
        (jnp.float32, "float32"),
        (jnp.float64, "float64"),
        (jnp.int8, "int8"),
        (jnp.bool_, "bool"),
        (jnp.complex64, "complex64"),
    ],
)
def test_sums_of_narrow_floats_alone_are_formed_in_another_dtype(dtype: object, wide: str) -> None:
    assert accumulator(dtype) == accumulator(jnp.dtype(dtype)) == jnp.dtype(wide)
