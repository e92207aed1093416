"""The wheel and the sdist: what is installed outside of the checkout works as the checkout does."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USER = """
import json, pathlib, sys
import fnn, jax, jax.numpy as jnp
from fnn.kernels.conv import rule
from fnn.kernels.pool import rule as pools

assert pathlib.Path(fnn.__file__).is_relative_to(sys.argv[1]), fnn.__file__
assert rule.CHOICES["cpu"], "the rule of convolution is not in the package"
train, test = fnn.data.digits()
x = jnp.asarray(train.x[:4])
w = jnp.ones((3, 3, 1, 8))
assert fnn.max_pool(fnn.conv(x, w), 2).shape == (4, 4, 4, 8)
print(fnn.__version__)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def outside(place: Path, *words: str) -> str:
    """Run Python where only this folder or zip file, and no checkout, is on the path."""
    environment = {**os.environ, "PYTHONPATH": str(place)}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=place.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_works_outside_of_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert {n.split("/")[0] for n in file.namelist() if "dist-info" not in n} == {"fnn"}
        file.extractall(tmp_path)
    script = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    assert "epochs=20" in script
    program = USER + script.replace("epochs=20", "epochs=2")
    version, _, shown = outside(tmp_path, "-c", program, str(tmp_path)).partition("\n")
    metadata = next(tmp_path.glob("*.dist-info")) / "METADATA"
    assert f"\nVersion: {version}\n" in metadata.read_text()
    assert float(shown.split("accuracy")[1]) > 0.5


def test_the_wheel_works_as_it_is(built: Path) -> None:
    """A zip file on the path, as programs that travel in one file have."""
    (wheel,) = built.glob("*.whl")
    script = "import fnn; print(fnn.__file__, *(part.x.shape for part in fnn.data.digits()))"
    shown = outside(wheel, "-c", script)
    assert shown == f"{wheel}/fnn/__init__.py (1437, 8, 8, 1) (360, 8, 8, 1)\n"


def test_the_sdist_holds_what_its_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        held = {n.partition("/")[2] for n in file.getnames()}
    folders = ("fnn", "tests", "benchmarks", "examples")
    files = [p for name in folders for p in (ROOT / name).rglob("*") if p.is_file()]
    made = {"__pycache__", "quick"}
    here = {str(p.relative_to(ROOT)) for p in files if not made & set(p.parts)}
    here.add(".ci/run")  # which README and CONTRIBUTING name
    assert not here - held, sorted(here - held)[:5]
