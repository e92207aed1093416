"""A pytest plugin for docstrings: the names that examples may use, and where they are found."""

import doctest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn

_from_module = doctest.DocTestFinder._from_module


def _belongs(self: doctest.DocTestFinder, module: Any, thing: Any) -> bool:
    """Whether an object is of a module: a function that a decorator made bears the module's name.

    Python's own finder goes by where the decorator stands, and passes over all that it decorates.
    """
    return _from_module(self, module, thing) or thing.__module__ == module.__name__


doctest.DocTestFinder._from_module = _belongs


@pytest.fixture(autouse=True)
def names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(fnn=fnn, jax=jax, jnp=jnp, np=np)
