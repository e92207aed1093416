"""Analyses with examples, and parameters in parts, on eight devices give what one gives."""

from tests.devices import errors_of


def test_every_kind_of_axis() -> None:
    errors = errors_of("tests.analysis.on_devices")
    assert len(errors) == 21
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
