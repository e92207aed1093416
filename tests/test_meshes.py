"""Every public array function with its examples on eight devices."""

import pytest

from tests.devices import errors_of
from tests.on_meshes import COMPILED


@pytest.mark.parametrize("kind", COMPILED)
def test_every_function_gives_what_one_device_gives(kind: str) -> None:
    """Values and gradients; sums are all that devices exchange."""
    errors = errors_of("tests.on_meshes", kind)
    assert errors.keys() == {row.name for row in COMPILED[kind]}
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
