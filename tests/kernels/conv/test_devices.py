"""Convolution with its examples on eight devices stays there, and gives what one device gives."""

from tests.devices import errors_of


def test_every_algorithm_keeps_examples_where_they_are() -> None:
    """Value and gradients; the sum of the window's gradient is all that devices exchange."""
    errors = errors_of("tests.kernels.conv.on_devices")
    assert len(errors) == 11
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
