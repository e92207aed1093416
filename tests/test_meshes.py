"""Every public array function with its examples on eight devices."""

from tests.devices import errors_of
from tests.on_meshes import COMPILED


def test_every_function_gives_what_one_device_gives() -> None:
    """Values and gradients; sums are all that devices exchange."""
    errors = errors_of("tests.on_meshes")
    assert errors.keys() == {
        f"{kind} {row.name}" for kind, rows in COMPILED.items() for row in rows
    }
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
