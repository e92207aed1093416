"""The table of public functions on eight devices; `test_meshes.py` runs this.

On explicit and on manual axes, where types say how every result is sharded, each row is traced: its
value, and its gradients with the value as cotangent. `COMPILED` rows are computed too, all in one
program, and compared with one device.
"""

import zlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from tests.devices import collectives, error, strict
from tests.table import ACTIVATIONS, LAYERS, LOSSES, POOLING, RECURRENT, Row
from tests.table import ROWS as TABLE

DEVICES = 8
OF_WEIGHTS = (fnn.conv_matrix, fnn.spectral_norm)  # which have no examples
ROWS = [row for row in TABLE if row.fn not in OF_WEIGHTS]
POOLS = [fnn.max_pool, fnn.max_pool_lax, fnn.min_pool, fnn.avg_pool, fnn.lp_pool]
POOLED = [row for row in POOLING if row.fn in POOLS]
OTHERS = [row for row in (*LOSSES, *LAYERS, *RECURRENT) if row.fn not in OF_WEIGHTS]
COMPILED = {
    "Explicit": [*POOLED, *ACTIVATIONS, *OTHERS],
    "Manual": POOLED,
    "Auto": [*POOLING[:4], *OTHERS],
}


def arguments(row: Row) -> list[Any]:
    """As many times the examples of the table as there are devices; the parameters once."""
    rng = np.random.default_rng(zlib.crc32(row.name.encode()))
    drawn = list(zip(*(row.args(rng) for _ in range(DEVICES)), strict=True))
    return [
        np.concatenate(arrays) if i < row.data else np.asarray(arrays[0])
        for i, arrays in enumerate(drawn)
    ]


def specs(row: Row, args: Sequence[Any]) -> list[P]:
    return [P("data") if i < row.data else P() for i in range(len(args))]


def run(row: Row, args: Sequence[Any]) -> Any:
    """The arrays that a row returns, and its gradients by the place of the argument."""
    floats = {i: a for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)}

    def value(floats: dict[int, Any]) -> list[Any]:
        full = [floats.get(i, a) for i, a in enumerate(args)]
        return jax.tree.leaves(row.fn(*full, **row.config))

    if not row.smooth:
        return value(floats)
    y, pull = jax.vjp(value, floats)
    return y, pull(y)[0]


def by_hand(row: Row, args: Sequence[Any]) -> Any:
    """On manual axes: every device computes its own examples; results get an axis for devices."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    here = lambda args: jax.tree.map(lambda y: y[None], run(row, args))
    return jax.shard_map(here, mesh=mesh, in_specs=(specs(row, args),), out_specs=P("data"))(args)


def on_axes(kind: str) -> None:
    """Print the errors on a mesh with one kind of axis."""
    rows = COMPILED[kind]
    one = by_hand if kind == "Manual" else run
    mesh = jax.make_mesh(
        (DEVICES,), ("data",), axis_types=(AxisType[kind.replace("Manual", "Auto")],)
    )

    def every(one: Any, args: Any) -> Any:
        return {row.name: one(row, args[row.name]) for row in rows}

    given = {row.name: arguments(row) for row in ROWS}
    placed = {
        row.name: [
            jax.device_put(a, NamedSharding(mesh, spec))
            for a, spec in zip(given[row.name], specs(row, given[row.name]), strict=True)
        ]
        for row in ROWS
    }
    with jax.set_mesh(mesh):
        for row in ROWS if kind != "Auto" else []:
            jax.jit(partial(one, row)).trace(placed[row.name])
        compiled = jax.jit(partial(every, one)).lower(placed).compile()
    assert set(collectives(compiled.as_text())) <= {"all-reduce"}
    got, want = compiled(placed), jax.jit(partial(every, run))(given)
    if kind == "Manual":  # pooling has examples only
        want = jax.tree.map(lambda y: y.reshape(DEVICES, -1, *y.shape[1:]), want)
    for row in rows:
        print(f"{kind} {row.name}: {error(got[row.name], want[row.name]):.1e}", flush=True)


if __name__ == "__main__":
    strict()
    for kind in COMPILED:
        on_axes(kind)
