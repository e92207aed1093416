"""Every public array function with its examples on eight devices."""

from tests.devices import errors_of
from tests.on_meshes import COMPILED
from tests.on_two_axes import SHARDED


def test_every_function_gives_what_one_device_gives() -> None:
    """Values and gradients; sums are all that devices exchange."""
    errors = errors_of("tests.on_meshes")
    assert errors.keys() == {
        f"{kind} {row.name}" for kind, rows in COMPILED.items() for row in rows
    }
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}


def test_arguments_that_are_sharded_otherwise() -> None:
    """Over features, or unlike each other: they are brought together."""
    errors = errors_of("tests.on_two_axes", devices=4)
    assert errors.keys() > SHARDED.keys()
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
