"""Arguments sharded otherwise than over examples alone; `test_meshes.py` runs this.

On explicit axes. Values and gradients are compared with one device. What has examples keeps them
sharded, and a gradient is sharded as its argument.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from tests.devices import error, strict

RNG = np.random.default_rng(0)
SHARDED: dict[str, tuple[Callable[..., Any], list[Any], list[P]]] = {}


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def add(name: str, f: Callable[..., Any], args: list[Any], *specs: list[P]) -> None:
    for spec in specs:
        SHARDED[f"{name} {', '.join(map(str, spec))}"] = f, args, spec


EXAMPLES, WHOLE = P("data"), P()
OVER, ROWS, COLUMNS = P("data", None, "model"), P("model"), P(None, "model")
BOTH, STEPS = P("data", "model"), P(None, "model")
for kind, columns in (("rnn", 4), ("lstm", 16), ("gru", 12)):
    h = normal(8, 4)
    for kernel in ("", "_scan"):

        def run(x: Any, wx: Any, wh: Any, h: Any, f: str = kind + kernel) -> Any:
            state = (h, h) if f.startswith("lstm") else h
            return getattr(fnn, f)(x, wx, wh, state=state, lengths=jnp.arange(8, dtype=jnp.int32))

        args = [normal(8, 7, 4), normal(4, columns), normal(4, columns), h]
        add(kind + kernel, run, args, [OVER, ROWS, WHOLE, WHOLE], [EXAMPLES, COLUMNS, ROWS, BOTH])

    def longer(x: Any, wx: Any, wh: Any, f: str = kind) -> Any:
        return getattr(fnn, f)(x, wx, wh, remat=9)

    add(kind + " in one part", longer, args[:3], [EXAMPLES, ROWS, WHOLE])

    def cell(x: Any, wx: Any, wh: Any, h: Any, f: str = kind) -> Any:
        return getattr(fnn, f + "_cell")(x, wx, wh, state=(h, h) if f == "lstm" else h)

    args = [normal(8, 4), *args[1:]]
    add(kind + "_cell", cell, args, [BOTH, ROWS, ROWS, BOTH])
# The place of each window's first entry in a plane of 4 x 4.
CORNERS = np.broadcast_to(np.array([[0, 2], [8, 10]], np.int32)[..., None], (8, 2, 2, 2))
add(
    "max_unpool",
    lambda y, i: fnn.max_unpool(y, i, 4),
    [normal(8, 2, 2, 2), CORNERS],
    *([EXAMPLES, WHOLE], [WHOLE, EXAMPLES], [BOTH, OVER], [COLUMNS, EXAMPLES]),
)
# A parameter of each channel, or place, on a mesh axis of its own or that of the examples.
ALONG = [EXAMPLES, ROWS], [EXAMPLES, EXAMPLES]


def normalized(x: Any, scale: Any) -> Any:
    return fnn.batch_norm(x, scale, scale, scale, 1 + scale**2)


def of_instances(x: Any, scale: Any) -> Any:
    # Squared: else the gradient to x, with the value as cotangent, would be 0 but for rounding.
    return fnn.instance_norm(x, scale, scale) ** 2


for name, f in {
    "prelu": fnn.prelu,
    "batch_norm": normalized,
    "layer_norm": lambda x, scale: fnn.layer_norm(x, scale, scale),
    "rms_norm": fnn.rms_norm,
    "standardize": lambda x, std: fnn.standardize(x, std, 3 + std),
    "binary_cross_entropy": lambda x, w: fnn.binary_cross_entropy(x, x > 0, pos_weight=w**2),
    "cross_entropy": lambda x, w: fnn.cross_entropy(x, jnp.arange(4), weights=w**2),
}.items():
    add(name, f, [normal(4, 4), normal(4)], *ALONG)
add("batch_norm of images", normalized, [normal(4, 3, 4), normal(4)], *ALONG)
add("instance_norm", of_instances, [normal(4, 3, 4), normal(4)], *ALONG)
add(
    "group_norm",
    lambda x, scale: fnn.group_norm(x, scale, scale, groups=2),
    [normal(4, 3, 4), normal(4)],
    *ALONG,
)
ACROSS, AMONG = P(None, "data"), P("model", "data")  # columns on the examples' own axis
add(
    "dense",
    fnn.dense,
    [normal(8, 4), normal(4, 8), normal(8)],
    *([EXAMPLES, ACROSS, EXAMPLES], [EXAMPLES, AMONG, ROWS], [BOTH, ROWS, EXAMPLES]),
    [BOTH, AMONG, WHOLE],
)
for name, w in {"conv": normal(3, 2, 4), "conv_transpose": normal(3, 4, 2)}.items():
    for b, tied in ((normal(4), EXAMPLES), (normal(8, 4), ACROSS)):
        specs = [EXAMPLES, P(None, None, "data"), tied], [EXAMPLES, WHOLE, ROWS]
        add(f"{name}, bias {b.shape}", getattr(fnn, name), [normal(4, 8, 2), w, b], *specs)
ONE, EACH, x = normal(4), normal(4, 6, 4), normal(4, 6, 4)  # factors of all steps, and of each


def recurrence(x: Any, a: Any, h: Any = None) -> Any:
    return fnn.linear_recurrence(x=x, a=a, state=h)


add("linear_recurrence (d,)", recurrence, [x, ONE], [EXAMPLES, ROWS], [EXAMPLES, EXAMPLES])
add(
    "linear_recurrence",
    recurrence,
    [x, EACH],
    *([WHOLE, EXAMPLES], [EXAMPLES, ROWS], [EXAMPLES, STEPS]),
)
add(
    "linear_recurrence from a state",
    recurrence,
    [x, ONE, normal(4, 4)],
    *([WHOLE, WHOLE, EXAMPLES], [STEPS, WHOLE, EXAMPLES], [EXAMPLES, ROWS, COLUMNS]),
)
OF_WEIGHTS = "spectral_norm"
add(
    OF_WEIGHTS,
    lambda w, u: fnn.spectral_norm(w, u, iterations=2),
    [normal(4, 4), normal(4)],
    *([COLUMNS, WHOLE], [COLUMNS, ROWS], [ROWS, WHOLE], [BOTH, ROWS]),
)


def value_and_gradients(f: Callable[..., Any], args: list[Any]) -> tuple[Any, Any]:
    floats = [i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating)]

    def value(*given: Any) -> Any:
        full = [given[floats.index(i)] if i in floats else a for i, a in enumerate(args)]
        return jax.tree.leaves(f(*full))

    y, pull = jax.vjp(value, *(args[i] for i in floats))
    return y, pull(y)


def compare(mesh: Any, name: str) -> None:
    f, args, specs = SHARDED[name]
    placed = [
        jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(args, specs, strict=True)
    ]
    with jax.set_mesh(mesh):
        got = jax.jit(lambda args: value_and_gradients(f, args))(placed)
    for y in got[0] if OF_WEIGHTS not in name else ():
        assert y.sharding.is_equivalent_to(NamedSharding(mesh, EXAMPLES), y.ndim), name
    for gradient, a in zip(got[1], placed, strict=False):
        assert gradient.sharding.is_equivalent_to(a.sharding, a.ndim), name
    print(f"{name}: {error(got, value_and_gradients(f, args)):.1e}", flush=True)


def numbers_drawn(mesh: Any) -> None:
    """Dropout draws on each device what it needs there, the same as one device does."""
    x, key = normal(64, 32), jax.random.key(0)
    drop = jax.jit(lambda x: fnn.dropout(x, 0.5, key))
    for spec in (EXAMPLES, BOTH):
        where = NamedSharding(mesh, spec)
        with jax.set_mesh(mesh):
            placed = jax.device_put(x, where)
            text, got = drop.lower(placed).compile().as_text(), drop(placed)
        drawn = [
            math.prod(map(int, shape.split(","))) for shape in re.findall(r"u32\[([\d,]+)\]", text)
        ]
        assert max(drawn) == math.prod(where.shard_shape(x.shape)), spec
        assert got.sharding.is_equivalent_to(where, x.ndim), spec
        print(f"dropout {spec}: {error(got, drop(x)):.1e}", flush=True)


def columns_kept(mesh: Any) -> None:
    """The outputs of a dense layer stay on the mesh axis of its columns, where that is another."""
    args = [normal(8, 4), normal(4, 8), normal(8)]
    pairs = zip(args, (EXAMPLES, COLUMNS, ROWS), strict=True)
    with jax.set_mesh(mesh):
        y = fnn.dense(*(jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in pairs))
    assert y.sharding.is_equivalent_to(NamedSharding(mesh, BOTH), y.ndim)
    print(f"dense by columns: {error(y, fnn.dense(*args)):.1e}", flush=True)


def groups_cut(mesh: Any) -> None:
    """A group of channels may be on several devices."""
    for groups in (1, 2):

        def squares(x: Any, scale: Any, groups: int = groups) -> Any:
            return fnn.group_norm(x, scale, scale, groups=groups) ** 2

        for spec in (OVER, P(None, None, ("data", "model"))):
            args, where = [normal(4, 3, 4), normal(4)], NamedSharding(mesh, spec)
            with jax.set_mesh(mesh):
                got = value_and_gradients(squares, [jax.device_put(args[0], where), args[1]])
            assert got[0][0].sharding.is_equivalent_to(where, 3), spec
            assert got[1][0].sharding.is_equivalent_to(where, 3), spec
            e = error(got, value_and_gradients(squares, args))
            print(f"group_norm of {groups}, {spec}: {e:.1e}", flush=True)


if __name__ == "__main__":
    strict()
    axes = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    for name in SHARDED:
        compare(axes, name)
    numbers_drawn(axes)
    columns_kept(axes)
    groups_cut(axes)
