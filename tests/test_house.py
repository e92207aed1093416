"""The architecture: imports run one way, without circles, and no private name leaves its file."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fnn

HOUSE = Path(fnn.__file__).parent
GROUND = (
    *("dtypes", "checks", "trees", "windows", "static", "functions"),
    *("lazily", "compiler", "memory", "placement"),
)
# A room may import the ground, itself, and the rooms before it.
ROOMS = ("kernels", "layers", "losses", "analysis", "optimizers", "training")
APART = ("data", "weights")  # import the ground and themselves alone
GROUPED = ("analysis", "data", "weights")  # fnn.<room>.<name>: the __init__ names what is public
FILES = sorted(p for p in HOUSE.rglob("*.py") if p != HOUSE / "__init__.py")


def module(path: Path) -> str:
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every module of fnn that a file imports from, and the name that it takes from there."""
    names = {module(p) for p in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if str(node.module).split(".")[0] == "fnn":
                    yield (whole, "") if whole in names else (str(node.module), alias.name)
        elif isinstance(node, ast.Import):
            yield from ((a.name, "") for a in node.names if a.name.split(".")[0] == "fnn")


def room(name: str) -> str:
    return name.split(".")[1]


def allowed(here: str) -> set[str]:
    if here in GROUND:
        return set(GROUND)
    before = ROOMS[: ROOMS.index(here) + 1] if here in ROOMS else (here,)
    return {*GROUND, *before}


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    here = room(module(path))
    assert here in (*GROUND, *ROOMS, *APART), f"{here} is no room"
    for name, taken in imports(path):
        assert name != "fnn", f"{path} imports the public face"
        assert room(name) in allowed(here), f"{here} must not import {name}"
        own_kernel = name.split(".")[:3] == module(path).split(".")[:3]
        assert here != "kernels" or room(name) != "kernels" or own_kernel, f"{path}: {name}"
        assert not taken.startswith("_"), f"{path} takes the private {taken} of {name}"


def test_there_is_no_circle() -> None:
    graph = {module(p): {name for name, _ in imports(p)} for p in FILES}

    @functools.cache
    def depth(name: str) -> int:
        return 1 + max(map(depth, graph.get(name, ())), default=0)

    try:
        assert max(map(depth, graph)) > 3
    except RecursionError:
        pytest.fail("the imports of fnn run in a circle")


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=module)
def test_a_room_opens_with_its_docstring(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} says not what it is for"
    files = {p.stem for p in path.parent.glob("*.py")}
    if room(module(path)) not in GROUPED:
        assert len(body) == 1, f"{path} holds more than its docstring"
    for node in body[1:]:
        assert isinstance(node, ast.ImportFrom), f"{path} holds more than names"
        for alias in node.names:
            assert alias.name not in files, f"{alias.name} would shadow its module"


def test_the_front_names_each_thing_once_and_shadows_nothing() -> None:
    body = ast.parse((HOUSE / "__init__.py").read_text()).body
    found = [a.asname for n in body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert len(found) == len(set(found))
    modules = {p.stem for p in HOUSE.iterdir()} - {"__init__", "trees", *GROUPED}
    assert not set(map(str, found)) & modules


def test_the_checks_of_this_file_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = HOUSE / "layers" / "climbing.py"
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self: "from fnn.training.run import train\n" if self == bad else "",
    )
    with pytest.raises(AssertionError, match="must not import"):
        test_imports_run_one_way(bad)


def test_neither_import_nor_convolution_loads_pallas() -> None:
    """It would be a third of what importing fnn costs; see `fnn.lazily`."""
    code = (
        "import jax, sys; before = set(sys.modules); import fnn; x = jax.numpy.ones((1, 4, 4));"
        "jax.grad(lambda x: fnn.conv(x, x).sum())(x); print(*set(sys.modules) - before)"
    )
    run = [sys.executable, "-c", code]
    loaded = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert "fnn.layers.conv" in loaded
    assert not [name for name in loaded if "pallas" in name]
