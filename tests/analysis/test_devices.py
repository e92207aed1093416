"""Analyses with their examples on eight devices give what one device gives."""

from tests.devices import errors_of


def test_every_kind_of_axis() -> None:
    errors = errors_of("tests.analysis.on_devices")
    assert len(errors) == 9
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
