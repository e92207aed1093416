"""A pytest plugin: the names that every docstring's example may use without an import."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn


@pytest.fixture(autouse=True)
def names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(fnn=fnn, jax=jax, jnp=jnp, np=np)
