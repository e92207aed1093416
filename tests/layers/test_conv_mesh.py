"""Convolution on meshes of eight devices, in a process that is told to have them."""

import os
import re
import subprocess
import sys
from pathlib import Path


def test_every_kind_of_mesh_gives_what_one_device_gives() -> None:
    """Explicit, automatic and manual axes: value, gradients, derivatives along the arguments."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.layers.conv_on_meshes"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors = dict(re.findall(r"^(.*): (\S+)$", done.stdout, re.MULTILINE))
    for kind in ("Explicit, conv, ", "Auto, conv, ", "Manual, conv", "mixed, conv"):
        assert any(name.startswith(kind) for name in errors), done.stdout
    assert {name: e for name, e in errors.items() if not float(e) < 1e-5} == {}
