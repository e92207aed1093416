"""How public functions are made: what `jitted` and `variant` keep of the plain function."""

import doctest
import inspect
import pickle
import sys
import typing
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fnn
from fnn.functions import jitted, variant

FUNCTIONS = [
    getattr(fnn, name)
    for name in fnn.__all__
    if callable(getattr(fnn, name)) and getattr(fnn, name).__module__.split(".")[0] == "fnn"
]


def test_the_example_of_every_public_function_is_run() -> None:
    """The doctests that pytest collects are those of all public functions."""
    finder = doctest.DocTestFinder()
    modules = {sys.modules[thing.__module__] for thing in FUNCTIONS}
    found = {test.name for module in modules for test in finder.find(module) if test.examples}
    for thing in FUNCTIONS:
        if not inspect.isclass(thing):
            assert f"{thing.__module__}.{thing.__name__}" in found, thing.__name__


@pytest.mark.parametrize("thing", FUNCTIONS, ids=lambda thing: thing.__name__)
def test_a_public_function_is_a_plain_function_to_tools(thing: Any) -> None:
    assert pickle.loads(pickle.dumps(thing)) is thing
    if not inspect.isclass(thing):
        hints, signature = typing.get_type_hints(thing), inspect.signature(thing)
        assert set(signature.parameters) | {"return"} == set(hints)
        assert inspect.isfunction(thing)


class Kernel(typing.NamedTuple):
    name: str
    factor: int


def run(name: str, kernel: Kernel, x: jax.Array, *, twice: bool) -> jax.Array:
    assert type(twice) is bool, name
    return x * (kernel.factor * (1 + twice))


@jitted(static=("twice",))
def scaled(x: jax.Array, *, twice: bool = False) -> jax.Array:
    """Scale x.

    >>> 1
    1
    """
    return run("scaled", Kernel("auto", 1), x, twice=twice)


scaled_more = variant(scaled, run, Kernel("more", 3), "by more", example="jnp.zeros(2)")


def test_a_variant_is_the_base_by_another_kernel() -> None:
    assert scaled_more(jnp.ones(2)).tolist() == [3, 3]
    assert scaled_more(x=jnp.ones(2), twice=True).tolist() == [6, 6]
    assert scaled_more.__name__ == scaled_more.__qualname__ == "scaled_more"
    assert scaled_more.__module__ == scaled.__module__
    assert inspect.signature(scaled_more) == inspect.signature(scaled)
    assert str(inspect.getdoc(scaled_more)).startswith("Scale x, by more.\n\nReturns:")
    assert "got, want = (f(jnp.zeros(2)) for f in (fnn.scaled_more, fnn.scaled))" in str(
        scaled_more.__doc__
    )
    assert pickle.loads(pickle.dumps(scaled_more)) is scaled_more
    with pytest.raises(TypeError, match="twicee"):
        scaled_more(jnp.ones(2), twicee=True)
