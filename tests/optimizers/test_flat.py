"""`flat`: the unflattened result, from few vectors and few kernels; shards refused."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.optimizers import flat

HALF = jnp.bfloat16


def ragged(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    shapes = [(3, 2), (), (1,), (0,), (7,), (2**14 + 1,), (3, 2), (5, 5)] + [(2, 5)] * 6
    single = [np.asarray(rng.standard_normal(s), np.float32) for s in shapes]
    half = [np.asarray(rng.standard_normal(s), HALF) for s in [(9,), (), (70, 10), (9,)]]
    return {"single": single, "half": (half, None)}


@pytest.mark.parametrize(
    "opt", [fnn.adam(0.1), fnn.adamw(0.1), fnn.momentum(0.1), optax.rmsprop(0.1)]
)
def test_flat_is_the_unflattened(opt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, or to one unit in the last place of what half precision rounds at every step."""

    def updates(opt: Any) -> list[Any]:
        update, state, found = jax.jit(opt.update), jax.jit(opt.init)(params), []
        for seed in range(1, 9):
            u, state = update(ragged(seed), state, params)
            found.append(u)
        return found

    monkeypatch.setattr(flat, "TOGETHER", 4)  # of the six alike
    params = ragged(0)
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        got, want = updates(fnn.flat(opt)), updates(opt)
    for g, w in zip(got, want, strict=True):
        jax.tree.map(np.testing.assert_array_equal, g["single"], w["single"])
    for g, w in zip(*(jax.tree.leaves(first[0]["half"]) for first in (got, want)), strict=True):
        assert g.dtype == w.dtype == HALF
        np.testing.assert_array_max_ulp(np.float32(g), np.float32(w), 2**16)


def test_flat_takes_gradients_of_several_dtypes() -> None:
    """In float32 where they are not of one dtype, so that none is rounded to another's."""
    params = [jnp.ones(4, HALF)] * 3
    grads = [jnp.full(4, 1 / 3, dtype) for dtype in (jnp.float32, HALF, jnp.float16)]
    opt = fnn.adam(0.1, eps=1.0)
    updates, want = (o.update(grads, o.init(params), params)[0] for o in (fnn.flat(opt), opt))
    jax.tree.map(np.testing.assert_array_equal, updates, want)


def test_flat_takes_params_partly_of_numpy() -> None:
    """Of float64, which without x64 is the float32 of the others in every compiled step."""
    params = {"a": np.ones(3), "b": jnp.ones(3), "c": np.ones((2, 2)), "d": jnp.ones((2, 2))}

    def loss(p: Any, batch: Any) -> Any:
        return batch.mean() * ((p["a"] * p["b"]).sum() + (p["c"] * p["d"]).sum())

    def trained(opt: Any) -> Any:
        data, key = np.ones(4, np.float32), jax.random.key(0)
        (report,) = fnn.train(loss, params, opt, data, batch_size=2, epochs=1, key=key)
        return report.params

    opt = fnn.adam(0.1)
    jax.tree.map(np.testing.assert_array_equal, trained(fnn.flat(opt)), trained(opt))


@pytest.mark.parametrize("opt", [fnn.diagonal_newton(0.5), optax.lbfgs()], ids=["newton", "lbfgs"])
def test_flat_hands_on_the_loss_and_its_gradient(opt: Any) -> None:
    """As functions and vectors of what the optimizer holds."""

    def loss(p: Any, batch: Any) -> Any:
        return (p["w"] ** 4).sum() + ((p["b"] - p["c"]) ** 2).sum() + 10 * p["c"] ** 2

    def trained(opt: Any) -> Any:
        params = {"w": jnp.ones((2, 2)), "b": jnp.arange(3.0), "c": jnp.ones(())}
        step, state = fnn.make_step(loss, opt), opt.init(params)
        for _ in range(3):
            params, state, _ = step(params, state, None)
        return params

    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        got, want = trained(fnn.flat(opt)), trained(opt)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, 1e-5, 1e-6), got, want)


def test_flat_gathers_small_leaves_alone() -> None:
    """Of its 16,384 numbers at most; a larger leaf stays one, and so does a single number."""
    params = [jnp.zeros(shape) for shape in [(2**14,), (2**14 + 1,), (), (2, 1), (2, 1)]]
    state = jax.eval_shape(fnn.flat(fnn.adam(0.1)).init, params)
    assert [m.shape for m in state.inner.moments["mu"]] == [(2**14 + 1,), (), (2**14 + 4,)]


def test_flat_compiles_one_kernel_for_leaves_of_one_size() -> None:
    """What makes it fast: the places of the slices are no constants of the program."""
    params = [jnp.ones((2, 5)) for _ in range(30)]
    opt = fnn.flat(fnn.adam(0.1))
    text = jax.jit(opt.update).lower(params, opt.init(params)).compile().as_text()
    assert text.count(" dynamic-slice(") >= 30
    assert text.count(" slice(") == 0


def test_flat_checks_its_gradients() -> None:
    params = {"w": jnp.ones(4)}
    opt = fnn.flat(fnn.adam(0.1))
    with pytest.raises(ValueError, match=r"fnn.flat: grads\['w'\]: got float32\[3\]"):
        opt.update({"w": jnp.ones(3)}, opt.init(params), params)


TWO_DEVICES = """
from functools import partial
import jax, jax.numpy as jnp, numpy as np, fnn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

mesh = Mesh(np.array(jax.devices()), "d")
params = {"w": jnp.arange(8.0), "b": jnp.arange(6.0).reshape(2, 3)}
split, whole = (jax.device_put(params, NamedSharding(mesh, PartitionSpec(*axes)))
                for axes in ("d", ""))
opt = fnn.flat(fnn.adam(0.1))
state = opt.init(whole)
explicit = jax.make_mesh((2,), "d", axis_types=(AxisType.Explicit,))
cut = jax.device_put(params, NamedSharding(explicit, PartitionSpec("d")))
for init in (partial(opt.init, split), partial(opt.init, cut), partial(jax.jit(opt.init), cut)):
    try:
        init()
        message = "none"
    except ValueError as error:
        message = str(error)
    assert message.startswith("fnn.flat: params['b']: got NamedSharding"), message
    assert "needed leaves on one device" in message
want, _ = opt.update(params, state, params)
got, _ = jax.jit(opt.update)(split, state, split)
jax.tree.map(np.testing.assert_array_equal, got, want)
"""


def test_flat_refuses_shards() -> None:
    """At init, where it sees them; compiled over automatic axes, where it cannot, it is right."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=os.environ | flags, check=True)
