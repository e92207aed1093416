"""Convolution on eight devices against one; `test_conv_mesh.py` runs this in a process of its own.

One line a case: its name, and the error of value and gradients relative to the largest entry.
"""

import functools
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from tests.devices import error, strict

X, W = (16, 5, 8, 2), (3, 3, 2, 8)
ALGORITHMS = ("", "_lax", "_im2col", "_taps", "_winograd", "_winograd2", "_fft")
Function = Callable[..., Any]


def normal(*shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def run(fn: Function, g: Any, *args: Any) -> Any:
    """Value, gradients, and the value's derivative along the arguments."""
    y, pull = jax.vjp(fn, *args)
    return y, pull(g), jax.jvp(fn, args, args)[1]


def transposed(x: Any, w: Any, b: Any, mode: str) -> Any:
    return fnn.conv_transpose(x, w, b, stride=2, padding=1, padding_mode=mode)


def second(x: Any, w: Any, b: Any) -> Any:
    """A gradient step, so that its derivative is a second one."""
    return w - jax.grad(lambda w: (fnn.conv(x, w, b) ** 2).sum())(w)


def calls() -> Iterator[tuple[str, Function, list[Any]]]:
    """Name, function and arguments: examples are the first axis of the first."""
    for name in ALGORITHMS:
        yield f"conv{name}", getattr(fnn, f"conv{name}"), normal(X, W, (8,))
    grouped = functools.partial(fnn.conv, groups=2, stride=2)
    yield "groups, untied bias", grouped, normal(X, (3, 3, 1, 8), (3, 4, 8))
    for mode in ("circular", "reflect", "replicate"):
        yield mode, functools.partial(fnn.conv, padding_mode=mode), normal(X, W, (8,))
        back = functools.partial(transposed, mode=mode)
        yield f"transposed, {mode}", back, normal(X, (3, 3, 8, 2), (8,))
    yield "second derivative", second, normal(X, W, (8,))


def sharded(mesh: Any, arrays: list[Any], *specs: P) -> list[Any]:
    return [jax.device_put(a, NamedSharding(mesh, s)) for a, s in zip(arrays, specs, strict=True)]


def reference(fn: Function, args: list[Any]) -> tuple[Any, Any]:
    """A cotangent, and everything on one device."""
    g = normal(jax.eval_shape(fn, *args).shape)[0]
    return g, jax.tree.map(np.asarray, jax.jit(functools.partial(run, fn))(g, *args))


def compare(kind: AxisType, name: str, fn: Function, args: list[Any], g: Any, want: Any) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
    columns, channels = P(None, None, "data"), P(None, None, None, "data")
    places = {
        "examples": (P("data"), P(), P()),
        "examples and weights": (P("data"), channels, P()),
        "columns": (columns, P(), P()),
    }
    if args[1].shape[-1] % 8 or name == "second derivative":
        places.pop("examples and weights")  # of a window or a value that does not divide by eight
    for how, specs in places.items():
        by_example = P(*specs[0][:1]) if g.shape[0] == X[0] else P()
        with jax.set_mesh(mesh):
            placed = sharded(mesh, [g, *args], by_example, *specs)
            got = jax.jit(functools.partial(run, fn))(*placed)
        if kind == AxisType.Explicit:
            assert jax.typeof(got[0]).sharding.spec[0] == (by_example[0] if by_example else None)
            for gradient, a in zip(got[1], placed[1:], strict=True):
                assert gradient.sharding.is_equivalent_to(a.sharding, a.ndim), (name, how)
        print(f"{kind.name}, {name}, sharded {how}: {error(got, want):.1e}", flush=True)


def compare_manual(name: str, fn: Function, args: list[Any], g: Any, want: Any) -> None:
    """Every device convolves its own examples; what all share gets the sum of the gradients."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    specs = (P("data"), P("data"), P(), P())
    outs = (P("data"), (P("data"), P(), P()), P("data"))
    program = jax.shard_map(functools.partial(run, fn), mesh=mesh, in_specs=specs, out_specs=outs)
    print(f"Manual, {name}: {error(jax.jit(program)(g, *args), want):.1e}", flush=True)


def compare_mixed() -> None:
    """An explicit axis beside an automatic one; vmap over an axis that is sharded; eagerly."""
    x, w, b = normal(X, W, (8,))
    types = (AxisType.Explicit, AxisType.Auto)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=types)
    g, want = reference(fnn.conv, [x, w, b])
    with jax.set_mesh(mesh):
        placed = sharded(mesh, [g, x, w, b], P("data"), P("data"), P(), P())
        got = jax.jit(functools.partial(run, fnn.conv))(*placed)
    print(f"mixed, conv: {error(got, want):.1e}", flush=True)
    mesh = jax.make_mesh((8,), ("data",))
    mapped = jax.vmap(lambda x: fnn.conv(x[None], w, b))
    g, want = reference(mapped, [x])
    with jax.set_mesh(mesh):
        got = jax.jit(functools.partial(run, mapped))(*sharded(mesh, [g, x], P("data"), P("data")))
    print(f"Explicit, vmap over the sharded axis: {error(got, want):.1e}", flush=True)
    placed = sharded(mesh, [x, w, b], P("data"), P(), P())
    got = fnn.conv(*placed)
    assert got.sharding.spec[0] == "data"
    print(f"Explicit, no mesh set: {error(got, want[0][:, 0]):.1e}", flush=True)


def compare_partly_manual() -> None:
    """`jax.shard_map` over one axis, beside another kind, and the gradients through it.

    Of one product, of a loop over groups, and mapped over examples or over windows.
    """
    x, w, thin = normal(X, W, (3, 3, 1, 8))
    by_example = jax.vmap(lambda x, w: fnn.conv(x[None], w), (0, None))
    by_window = jax.vmap(fnn.conv, (None, 0), 1)
    looped = functools.partial(fnn.conv_winograd, groups=2)
    cases = {
        "one product": (fnn.conv, x, w),
        "a loop": (looped, x, thin),
        "vmap over examples": (by_example, x, w),
        "vmap over windows": (by_window, x, np.stack([w, 2 * w])),
    }
    for kind, (how, (fn, *args)) in product((AxisType.Auto, AxisType.Explicit), cases.items()):
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)
        g, want = reference(fn, args)
        part = jax.shard_map(
            fn, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"), axis_names={"data"}
        )
        for where, columns in {"examples": None, "columns": "model"}.items():
            if columns and "vmap" in how:
                continue  # the axis of examples is alone there
            name = f"partly manual, {kind.name}, {how}, sharded {where}"
            with jax.set_mesh(mesh):
                placed = sharded(mesh, [g, *args], P("data"), P("data", None, columns), P())
                got = jax.jit(functools.partial(run, part))(*placed)
            for gradient, a in zip(got[1], placed[1:], strict=True):
                same = gradient.sharding.is_equivalent_to(a.sharding, a.ndim)
                assert kind == AxisType.Auto or same, name
            print(f"{name}: {error(got, want):.1e}", flush=True)


def main() -> None:
    assert jax.device_count() == 8
    for name, fn, args in calls():
        case = name, fn, args, *reference(fn, args)
        compare(AxisType.Explicit, *case)
        if name in ("conv", "transposed, circular", "conv_im2col", "conv_winograd"):
            compare(AxisType.Auto, *case)
            compare_manual(*case)
    compare_mixed()
    compare_partly_manual()


if __name__ == "__main__":
    strict()
    main()
