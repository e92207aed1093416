"""Parameter pytrees: counts, paths, norms."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.trees import check_like, global_norm
from tests.optimizers.test_optimizer_state import nested


def test_count() -> None:
    assert fnn.count(nested(jnp.float32)) == 6 + 3 + 6 + 1
    assert fnn.count(None) == 0
    assert fnn.count({"w": jax.ShapeDtypeStruct((10**6, 10**6), jnp.int8)}) == 10**12
    assert fnn.count([jax.random.key(0), 1.0, True, np.float32(3)]) == 4
    for leaf in ("hello", object()):
        with pytest.raises(TypeError, match=r"^fnn.count: params\['a'\]\[0\]: got (str|object) "):
            fnn.count({"a": [leaf]})


def test_paths_name_every_leaf_and_keep_the_structure() -> None:
    params = nested(jnp.float32)
    names = fnn.paths(params)
    assert jax.tree.leaves(names) == ["a/w", "b/0/first", "b/0/second/0", "b/1/c"]
    assert jax.tree.structure(names) == jax.tree.structure(params)
    assert fnn.paths(jnp.ones(3)) == ""


def test_cast_changes_floats_alone() -> None:
    key = jax.random.key(0)
    tree = {"w": jnp.array([1 + 2.0**-9]), "n": np.float64([0.1]), "i": jnp.arange(2)}
    got = fnn.trees.cast({**tree, "rest": [key, 3, 0.5, None, jnp.array([True])]}, jnp.bfloat16)
    assert [got[k].dtype for k in "wni"] == [jnp.bfloat16, jnp.bfloat16, jnp.int32]
    assert got["w"].tolist() == [1.0]
    assert got["rest"][0] is key
    assert got["rest"][1:4] == [3, 0.5, None]
    assert got["rest"][4].dtype == bool
    back = jax.grad(lambda x: fnn.trees.cast([x], jnp.bfloat16)[0].sum().astype(x.dtype))
    assert back(tree["w"]).dtype == jnp.float32
    shapes = jax.eval_shape(lambda: {"w": jnp.ones(2), "n": jnp.arange(3)})
    half = fnn.trees.cast(shapes, jnp.bfloat16)
    assert half == {"w": jax.ShapeDtypeStruct((2,), jnp.bfloat16), "n": shapes["n"]}
    with pytest.raises(TypeError, match=r"fnn\.trees\.cast: dtype: got .*int.*; needed"):
        fnn.trees.cast(tree, int)
    with pytest.raises(TypeError, match=r"fnn\.trees\.cast: dtype: got 'foo'; needed one of"):
        fnn.trees.cast(tree, "foo")
    for wrong in (tree, jnp.ones(2), np.ones(2), [float]):
        with pytest.raises(TypeError, match=r"^fnn\.trees\.cast: dtype: got .*; needed one of"):
            fnn.trees.cast(tree, wrong)  # type: ignore[arg-type]  # refused
    with pytest.raises(TypeError, match=r"fnn\.trees\.cast: dtype: got None; needed one of"):
        fnn.trees.cast(tree, None)  # type: ignore[arg-type]  # refused


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Tagged:
    w: Any
    tag: str = dataclasses.field(metadata={"static": True})


@pytest.mark.parametrize(
    ("tree", "like", "message"),
    [
        ({"w": 1, "b": None}, {"w": 1}, r"\['b'\]: got None; needed nothing, as in params"),
        ({"w": 1}, {"w": 1, "b": None}, r"\['b'\]: got nothing; needed None"),
        ({"w": 1, "b": None}, {"w": 1, "c": None}, r"\['c'\]: got nothing; needed None"),
        ([1, {"b": ()}], [1, {"b": {}}], r"\[1\]\['b'\]: got a tuple; needed a dict"),
        ([1, {"b": []}], [1, {}], r"\[1\]\['b'\]: got a list; needed nothing, as in params"),
        ([1, []], [1, [None]], r"\[1\]\[0\]: got nothing; needed None"),
        ([None, 1], [(), 1], r"\[0\]: got None; needed a tuple"),
        (None, {}, ": got None; needed a dict"),
        ([Tagged(1, "a")], [Tagged(1, "b")], r"\[0\]: got .*Tagged.*a.*; needed .*Tagged.*b.*"),
    ],
)
def test_nodes_without_leaves_that_differ(tree: Any, like: Any, message: str) -> None:
    trees = [jax.tree.map(lambda x: jnp.ones(2), t) for t in (tree, like)]
    with pytest.raises(ValueError, match=f"^fnn.f: grads{message}"):
        check_like("f", "grads", *trees)


def test_select_keeps_paths() -> None:
    tree = nested(jnp.float32)
    kept = fnn.trees.select(tree, lambda path: path.startswith("b/0"))
    assert jax.tree.leaves(fnn.paths(kept)) == ["b/0/first", "b/0/second/0"]
    assert kept["b"][0].first is tree["b"][0].first
    with pytest.raises(TypeError, match=r"fnn\.trees\.select: mask: got str 'a'; needed a func"):
        fnn.trees.select(tree, "a")  # type: ignore[arg-type]  # refused


def test_global_norm() -> None:
    mixed = {"a": jnp.array([3.0], jnp.bfloat16), "b": [jnp.array([[4.0]]), None]}
    norm = jax.jit(global_norm)
    assert float(norm(mixed)) == 5.0
    assert norm(mixed).dtype == jnp.float32
    assert float(norm({})) == 0.0
    half = jnp.full(1000, 1 + 2.0**-7, jnp.bfloat16)  # its square is no bfloat16
    np.testing.assert_allclose(norm(half), 1000**0.5 * (1 + 2.0**-7), rtol=1e-6)
    with jax.enable_x64(True):
        wide = {"a": jnp.ones(3), "b": jnp.ones(1, jnp.float32)}
        assert (wide["a"].dtype, norm(wide).dtype) == (np.float64, np.float64)
        assert float(norm(wide)) == 2.0


def test_global_norm_at_the_edges() -> None:
    """No square overflows or vanishes; zero has a derivative; NaN and infinity stay."""
    both, norm = jax.jit(jax.value_and_grad(global_norm)), jax.jit(global_norm)
    for values in ([1e20, 1, 1], [1e-30, 1e-30, 0], [3e38, 0, 0]):
        x = np.float32(values)
        want = np.linalg.norm(x.astype(np.float64))
        got, gradient = both(x)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        np.testing.assert_allclose(gradient, x / want, rtol=1e-6)
    huge = jnp.array([3e38, 1e38])  # divided by 3e38 without jit, as by a reciprocal that is 0
    np.testing.assert_allclose(global_norm(huge), np.sqrt(10) * np.float32(1e38), rtol=1e-6)
    assert both(jnp.zeros(2))[1].tolist() == [0, 0]
    assert np.isnan(norm([jnp.array([np.nan, 1])]))
    assert norm([jnp.array([-np.inf, 1])]) == np.inf
    assert norm([jnp.zeros((0, 3))]) == 0


@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.array([3j, 4]), jnp.array([True]), 3, "a"])
def test_global_norm_of_other_numbers(leaf: object) -> None:
    for norm in (global_norm, jax.jit(global_norm)):
        if isinstance(leaf, jax.Array) or norm is global_norm:
            with pytest.raises(TypeError, match=r"trees\.global_norm: tree\['a'\]: got .* float"):
                norm({"a": leaf, "b": jnp.ones(2)})
    assert float(global_norm([3.0, np.float32(4)])) == 5


IMPORTED_ANEW = """
import importlib, sys
import fnn
importlib.reload(fnn.data.images)
for name in [name for name in sys.modules if name.split(".")[0] == "fnn"]:
    del sys.modules[name]
import fnn
fnn.adam(0.1).init(fnn.data.digits()[0].x)
"""


def test_fnn_is_imported_anew() -> None:
    """As a notebook does it: in a process of its own, as two copies would meet in other tests."""
    subprocess.run([sys.executable, "-c", IMPORTED_ANEW], check=True)


def test_types_of_programs_have_names_of_their_own() -> None:
    """JAX's error for two of one name is that of an import anew."""
    files = Path(fnn.__file__).parent.rglob("*.py")
    found = re.findall(r"@exported\nclass (\w+)", "".join(path.read_text() for path in files))
    assert len(found) == len(set(found)) >= 8


class OfAnother:
    """As a tensor of PyTorch, whose dtype NumPy does not read."""

    shape, dtype = (), "torch.float32"


@pytest.mark.parametrize("call", [fnn.adam(0.1).init, fnn.trees.global_norm])
def test_the_parameters_of_another_library_are_named(call: Any) -> None:
    with pytest.raises(TypeError, match=r"^fnn.*: (params|tree)\['w'\]: got torch.float32\[\]"):
        call({"w": OfAnother()})
