"""Analyses whose examples are on eight devices, against one device; `test_devices.py` runs this."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from fnn.analysis import gradient_noise_scale, rate_range
from tests.devices import error, strict

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


def main() -> None:
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
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

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
