"""Convolution on meshes of eight devices, in a process that is told to have them."""

from tests.devices import errors_of


def test_every_kind_of_mesh_gives_what_one_device_gives() -> None:
    """Explicit, automatic and manual axes: value, gradients, derivatives along the arguments."""
    errors = errors_of("tests.layers.conv_on_meshes")
    for kind in ("Explicit, conv, ", "Auto, conv, ", "Manual, conv", "mixed, conv", "partly"):
        assert any(name.startswith(kind) for name in errors), errors
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}
