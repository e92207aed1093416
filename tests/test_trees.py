"""Parameter pytrees: counts, paths, norms."""

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from fnn.trees import global_norm
from tests.optimizers.test_optimizer_state import nested


def test_count() -> None:
    assert fnn.count(nested(jnp.float32)) == 6 + 3 + 6 + 1
    assert fnn.count(None) == 0
    assert fnn.count({"w": jax.ShapeDtypeStruct((10**6, 10**6), jnp.int8)}) == 10**12


def test_paths_name_every_leaf_and_keep_the_structure() -> None:
    params = nested(jnp.float32)
    names = fnn.paths(params)
    assert jax.tree.leaves(names) == ["a/w", "b/0/first", "b/0/second/0", "b/1/c"]
    assert jax.tree.structure(names) == jax.tree.structure(params)
    assert fnn.paths(jnp.ones(3)) == ""


def test_global_norm() -> None:
    mixed = {"a": jnp.array([3.0], jnp.bfloat16), "b": [jnp.array([[4.0]]), None]}
    assert float(global_norm(mixed)) == 5.0
    assert global_norm(mixed).dtype == jnp.float32
    assert float(global_norm({})) == 0.0
    half = jnp.full(1000, 1 + 2.0**-7, jnp.bfloat16)  # its square is no bfloat16
    np.testing.assert_allclose(global_norm(half), 1000**0.5 * (1 + 2.0**-7), rtol=1e-6)
    with jax.enable_x64(True):
        wide = {"a": jnp.ones(3), "b": jnp.ones(1, jnp.float32)}
        assert (wide["a"].dtype, global_norm(wide).dtype) == (np.float64, np.float64)
        assert float(global_norm(wide)) == 2.0


def test_global_norm_at_the_edges() -> None:
    """No square overflows or vanishes; zero has a derivative; NaN and infinity stay."""
    for values in ([1e20, 1, 1], [1e-30, 1e-30, 0], [3e38, 0, 0]):
        x = np.float32(values)
        want = np.linalg.norm(x.astype(np.float64))
        got, gradient = jax.value_and_grad(global_norm)(jnp.asarray(x))
        np.testing.assert_allclose(got, want, rtol=1e-6)
        np.testing.assert_allclose(gradient, x / want, rtol=1e-6)
    assert jax.grad(global_norm)(jnp.zeros(2)).tolist() == [0, 0]
    assert np.isnan(global_norm([jnp.array([np.nan, 1])]))
    assert global_norm([jnp.array([-np.inf, 1])]) == np.inf
    assert global_norm([jnp.zeros((0, 3))]) == 0
