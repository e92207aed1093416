"""Analyses whose examples are on eight devices, against one device; `test_devices.py` runs this."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from fnn.analysis import (
    gradient_by_time,
    gradient_noise_scale,
    gradients_at,
    rate_range,
    spectral_density,
    watch,
)
from tests.devices import collectives, error, strict

N = 64


def loss(params: Any, batch: Any) -> Any:
    x, y = batch
    return fnn.cross_entropy(fnn.dense(x, **params), y).mean()


def noise(params: Any, data: Any) -> Any:
    return [gradient_noise_scale(loss, params, data, batch_size=b) for b in (1, 4)]


def rates(params: Any, data: Any) -> Any:
    found = rate_range(
        loss, params, fnn.sgd, data, batch_size=6, key=jax.random.key(1), high=1.0, steps=20
    )
    return found.losses


def curvature(params: Any, data: Any) -> Any:
    ends = fnn.extreme_eigenvalues(gathered, params, data, key=jax.random.key(2))
    step = fnn.make_step(gathered, fnn.newton())
    moved = step(jax.tree.map(jnp.copy, params), fnn.newton().init(params), data)[0]
    fnn.analysis.assert_gradients(gathered, params, data)
    return ends.smallest, ends.largest, fnn.hessian_diagonal(gathered, params, data), moved


def gathered(params: Any, batch: Any) -> Any:
    params = fnn.sharding.gather(params)
    return loss(params, batch) + sum((w**2).sum() for w in params.values())


def bends(params: Any, x: Any) -> Any:
    """What looks at the Hessian, of parameters of one's own, and from a first state of all."""

    def bent(params: Any, x: Any) -> Any:
        return (x * params["a"] ** 4).sum() + (params["a"] * params["b"]).sum()

    key, direction = jax.random.key(3), {"a": jnp.ones(3), "b": jnp.ones(3)}
    return {
        "hvp": fnn.hvp(bent, params, direction, x),
        "diagonal": fnn.hessian_diagonal(bent, params, x),
        "sampled": fnn.hutchinson_diagonal(bent, params, x, key=key, samples=3),
        "ends": fnn.extreme_eigenvalues(bent, params, x, key=key),
        "step": fnn.max_stable_step(bent, params, x, key=key),
        "density": spectral_density(bent, params, x, key=key, samples=2),
        "time": gradient_by_time(
            lambda h, x: h / 2 + x, lambda h: (h**3).sum(), jnp.zeros(1), x[None]
        ),
    }


def of_each(mesh: Any) -> None:
    """Print the errors where each device has parameters of its own."""
    rng = np.random.default_rng(1)
    a, b, x = (rng.uniform(1, 2, (8, 3)).astype(np.float32) for _ in range(3))
    args = {"a": a, "b": b}, x

    def alone(*args: Any) -> Any:
        return jax.tree.map(lambda y: y[None], bends(*jax.tree.map(lambda a: a[0], args)))

    on = jax.shard_map(alone, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    got, one = jax.jit(on)(*args), jax.jit(bends)
    each = [one(*jax.tree.map(lambda a, i=i: a[i], args)) for i in range(8)]
    want = jax.tree.map(lambda *y: np.stack(y), *each)
    for name in want:
        print(f"{name} Manual: {error(got[name], want[name]):.1e}", flush=True)


def marked() -> None:
    """Print what gradients inside of a model, sharded over examples, err by and communicate."""
    x = np.random.default_rng(2).standard_normal((N, 6)).astype(np.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    loss = lambda x: (watch(2 * x, "y") ** 3).sum()
    want = 12 * x * x
    with jax.set_mesh(mesh):
        compiled = jax.jit(gradients_at(loss)).lower(jax.device_put(x, P("data"))).compile()
        got = compiled(jax.device_put(x, P("data")))["y"]
    print(f"marked Explicit: {error(got, want):.1e}", flush=True)
    apart = len(collectives(compiled.as_text())) + (got.sharding.spec != P("data", None))
    print(f"marked Explicit, sent or gathered: {apart}", flush=True)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    each = jax.shard_map(gradients_at(loss), mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    print(f"marked Manual: {error(jax.jit(each)(x)['y'], want):.1e}", flush=True)


def main() -> None:
    marked()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 6)).astype(np.float32)
    data = x, (x[:, 0] > 0).astype(np.int32)  # a gradient larger than its noise
    params = fnn.init_dense(jax.random.key(0), 6, 3)
    for kind in (AxisType.Explicit, AxisType.Auto):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
        for spec in ("data", ("data", "model")):
            placed = jax.device_put(data, NamedSharding(mesh, P(spec)))
            whole = jax.device_put(params, NamedSharding(mesh, P()))
            for run in (noise, rates):
                with jax.set_mesh(mesh):
                    got = run(whole, placed)
                name = f"{run.__name__} {kind.name} {spec}"
                print(f"{name}: {error(got, run(params, data)):.1e}", flush=True)
    wide = fnn.init_dense(jax.random.key(0), 6, 8)
    want = curvature(wide, data)
    for kind in (AxisType.Explicit, AxisType.Auto):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        cut = fnn.sharding.place(wide, mesh, "data", least=10)
        got = curvature(cut, jax.device_put(data, NamedSharding(mesh, P("data"))))
        print(f"curvature {kind.name}, parameters cut: {error(got, want):.1e}", flush=True)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    of_each(mesh)

    def here(params: Any, data: Any) -> Any:
        own = jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), params)
        return jax.tree.map(lambda y: y[None], noise(own, data))

    got = jax.shard_map(here, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"))
    parts = jax.tree.map(lambda a: a.reshape(8, -1, *a.shape[1:]), data)
    each = [noise(params, jax.tree.map(lambda a, i=i: a[i], parts)) for i in range(8)]
    want = jax.tree.map(lambda *y: jnp.stack(y), *each)
    print(f"noise Manual: {error(jax.jit(got)(params, data), want):.1e}", flush=True)


if __name__ == "__main__":
    strict()
    main()
