"""Convolution as one trilinear form, and what a kernel is.

With cotangent ``y`` the number ``t(x, w, y) = <conv(x, w), y>`` is linear in each of three arrays.
Its three partial derivatives are all a network needs: the convolution itself (`OUTPUT`), the
gradient to the input (`INPUT`, which is also the transposed convolution) and the gradient to the
window (`WINDOW`). Each is bilinear in the two others, and its own derivatives are again among the
three. So a kernel is three functions, and one JAX primitive with the product rule gives reverse
mode, forward mode, batching and every higher derivative, in the kernel's own algorithm.

Arrays: ``x (n, *spatial, c_in)``, ``w (*window, c_in // groups, c_out)``, ``y (n, *out, c_out)``.
"""

import functools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from fnn import lazily
from fnn.placement import varying
from fnn.windows import Axis, Windows, is_known

OUTPUT, INPUT, WINDOW = "output", "input", "window"


class Form(NamedTuple):
    """The static facts of one convolution: hashable, complete, explicit.

    Attributes:
        spatial: input sizes.
        windows: window, stride, padding, dilation.
        groups: how many blocks the channels fall into.
        platform: "cpu", "gpu" or "tpu", known to the maps when the program is lowered for it; ""
            is any other.
    """

    spatial: tuple[int, ...]
    windows: Windows
    groups: int
    platform: str = ""

    @property
    def out(self) -> tuple[int, ...]:
        """Spatial output sizes."""
        return self.windows.output(self.spatial)

    @property
    def axes(self) -> list[Axis]:
        """The spatial axes, one by one."""
        return self.windows.axes(self.spatial)


Map = Callable[[jax.Array, jax.Array, Form], jax.Array]
Bilinear = Callable[[jax.Array, jax.Array], jax.Array]
Shape = tuple[int, ...]


class Kernel(NamedTuple):
    """One algorithm for the three maps.

    Attributes:
        name: as in ``fnn.conv_<name>``.
        output: ``(x, w, form) -> y``.
        input: ``(y, w, form) -> x``.
        window: ``(x, y, form) -> w``.
        refuses: ``(form, dtype) -> what it needs instead``, or None where it can.
        symbols: which sizes it takes that are symbols, as `jax.export` has them: "all" or the
            number of "examples".
    """

    name: str
    output: Map
    input: Map
    window: Map
    refuses: Callable[[Form, Any], str | None] = lambda form, dtype: None
    symbols: str = ""


def trimmed(form: Form) -> tuple[Form, tuple[slice, ...]]:
    """Leave out the taps at both ends that meet only padding; say which of the window are left.

    A window much longer than the plane has such taps, and one with a large dilation:

    >>> from fnn.windows import resolve
    >>> sizes = (9, 9)
    >>> form, rest = trimmed(Form(sizes, resolve("", sizes, 3, 1, "SAME", (1, 12)), 1))
    >>> form.windows.size, rest
    ((3, 1), (slice(0, 3, None), slice(1, 2, None)))
    """
    rest, pads = list[slice](), list[tuple[int, int]]()
    for i, o, k, s, d, lo, hi in form.axes:
        reach = (stops_inside(i, o, s, t * d - lo) for t in range(k))
        met = [t for t, (start, stop) in enumerate(reach) if start < stop] or [0]
        # Not more than the padding has room for: it cannot become negative.
        first, end = min(met[0], lo // d), max(met[-1] + 1, k - hi // d)
        rest.append(slice(first, end))
        pads.append((lo - first * d, hi - (k - end) * d))
    size = tuple(part.stop - part.start for part in rest)
    windows = form.windows._replace(size=size, padding=tuple(pads))
    return form._replace(windows=windows), tuple(rest)


def stops_inside(size: int, stops: int, stride: int, start: int) -> tuple[int, int]:
    """The first stop at which a tap is inside of an axis, and the first behind, or two zeros.

    The tap starts at ``start``, in the padding or not.
    """
    first, last = max(0, -(start // stride)), min(stops, -(-(size - start) // stride))
    return (first, last) if first < last else (0, 0)


def _shape(a: Shape, b: Shape, slot: str, form: Form) -> Shape:
    """The shape of the result, from those of the operands."""
    match slot:
        case "output":
            return (a[0], *form.out, b[-1])
        case "input":
            return (a[0], *form.spatial, b[-2] * form.groups)
        case _:
            return (*form.windows.size, a[-1] // form.groups, b[-1])


def apply(a: jax.Array, b: jax.Array, *, slot: str, form: Form, kernel: Kernel) -> jax.Array:
    """One of the three maps, differentiable and batchable: x w -> y, y w -> x, or x y -> w.

    On a mesh with explicit axes it is sharded over examples, and over nothing else. Gradients are
    brought back to the sharding of what they are gradients to, as the transpose of `reshard` does.
    """
    run: Bilinear = functools.partial(conv_p.bind, slot=slot, form=form, kernel=kernel)
    a, b = varying(a, b)
    for mesh in (jax.typeof(a).sharding.mesh, jax.sharding.get_abstract_mesh()):
        if mesh.explicit_axes:
            with jax.sharding.use_abstract_mesh(mesh):
                examples = PartitionSpec(jax.typeof(a).sharding.spec[0])
                right = examples if slot == WINDOW else PartitionSpec()
                return run(*jax.sharding.reshard([a, b], [examples, right]))
    return run(a, b)


def _automatic(run: Bilinear, out: PartitionSpec, a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute with automatic axes in place of explicit ones, of which no kernel need know."""
    mesh = jax.typeof(a).sharding.mesh
    if not mesh.explicit_axes:
        return run(a, b)
    with jax.sharding.use_abstract_mesh(mesh):
        inside = jax.sharding.auto_axes(run, axes=mesh.explicit_axes, out_sharding=out)
        result: jax.Array = inside(a, b)
    return result


def _placed(a: Any, slot: str) -> PartitionSpec:
    """How the result of a map is sharded, from its left operand."""
    return PartitionSpec() if slot == WINDOW else PartitionSpec(a.sharding.spec[0])


def devices(x: jax.Array) -> int:
    """How many devices the compiler may spread x over: those of its mesh's automatic axes."""
    mesh = jax.typeof(x).sharding.mesh
    return math.prod(mesh.shape[axis] for axis in mesh.auto_axes)


def cores() -> int:
    """How many cores this process may use: XLA on a CPU computes on all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def by_device(one: Map, slot: str) -> Map:
    """Make a map that loops over examples loop over those of every device, on all at once.

    A loop over an axis that is sharded makes every device compute everything. So the examples are
    cut into as many parts as there are devices: the parts are an axis that stays sharded, and the
    loop goes over the examples of a part. Gradients to the window are summed over the parts last,
    which is the only communication. On one device nothing is cut.
    """

    def whole(a: jax.Array, b: jax.Array, form: Form) -> jax.Array:
        parts = math.gcd(len(a), devices(a)) if is_known(a) else 1  # any mesh axis divides both
        if parts == 1:
            return one(a, b, form)
        a = a.reshape(parts, -1, *a.shape[1:])
        if slot == WINDOW:
            b = b.reshape(parts, -1, *b.shape[1:])
            return jax.vmap(lambda a, b: one(a, b, form))(a, b).sum(0)
        y = jax.vmap(lambda a: one(a, b, form))(a)
        return y.reshape(-1, *y.shape[2:])

    return whole


def divisor(n: int, most: int) -> int:
    """The largest divisor of n that is at most ``most`` or 1: how many examples a block takes."""
    return next(d for d in range(max(1, min(n, most)), 0, -1) if n % d == 0)


def _run(
    a: jax.Array, b: jax.Array, *, slot: str, form: Form, kernel: Kernel, platform: str
) -> jax.Array:
    shape = _shape(a.shape, b.shape, slot, form)

    def compute(a: jax.Array, b: jax.Array) -> jax.Array:
        if 0 in (*a.shape, *b.shape, *shape):
            return jnp.zeros(shape, a.dtype)  # an empty sum, or nothing to fill
        one: Map = getattr(kernel, slot)
        return one(a, b, form._replace(platform=platform)).astype(a.dtype)

    return _automatic(compute, _placed(jax.typeof(a), slot), a, b)


@functools.partial(jax.jit, static_argnames=("slot", "form", "kernel"))  # or every call compiles
def _run_eagerly(a: jax.Array, b: jax.Array, **params: Any) -> jax.Array:
    return _run(a, b, **params, platform=jax.default_backend())


def _abstract(a: Any, b: Any, *, slot: str, form: Form, kernel: Kernel) -> Any:
    shape, sharding = _shape(a.shape, b.shape, slot, form), a.sharding
    if sharding.mesh.explicit_axes:
        sharding = sharding.update(spec=_placed(a, slot))
    return a.update(shape=shape, weak_type=False, sharding=sharding)


def _by_left(ct: jax.Array, a: Any, b: jax.Array, *, slot: str, **rest: Any) -> jax.Array:
    """Cotangent of the left operand: x of (x w -> y), y of (y w -> x), x of (x y -> w)."""
    match slot:
        case "output":
            return apply(ct, b, slot=INPUT, **rest)
        case "input":
            return apply(ct, b, slot=OUTPUT, **rest)
        case _:
            return apply(b, ct, slot=INPUT, **rest)


def _by_right(ct: jax.Array, a: jax.Array, b: Any, *, slot: str, **rest: Any) -> jax.Array:
    """Cotangent of the right operand: w of (x w -> y), w of (y w -> x), y of (x y -> w)."""
    match slot:
        case "output":
            return apply(a, ct, slot=WINDOW, **rest)
        case "input":
            return apply(ct, a, slot=WINDOW, **rest)
        case _:
            return apply(a, ct, slot=OUTPUT, **rest)


# Where one operand is batched: which of its axes takes the new one in, and in which axis of the
# result it comes out.
_PLACES = {
    (OUTPUT, 0): (0, 0),  # examples
    (OUTPUT, 1): (-1, -1),  # output channels
    (INPUT, 0): (0, 0),
    (INPUT, 1): (-2, -1),  # input channels
    (WINDOW, 0): (-1, -2),
    (WINDOW, 1): (-1, -1),
}


def _merge(t: jax.Array, new: int, axis: int, blocks: int) -> jax.Array:
    """Merge axis ``new`` into ``axis`` of the others, before the entries of each of its blocks."""
    t = jnp.moveaxis(t, new, 0)
    p = axis % (t.ndim - 1) + 1
    count, size, rest = t.shape[0], t.shape[p], t.shape[p + 1 :]
    t = t.reshape(*t.shape[:p], blocks, size // blocks, *rest)
    return jnp.moveaxis(t, 0, p).reshape(*t.shape[1:p], count * size, *rest)


def _split(t: jax.Array, count: int, axis: int, blocks: int) -> jax.Array:
    """Undo `_merge` of an axis of this size, which comes first."""
    p = axis % t.ndim
    size, rest = t.shape[p] // count, t.shape[p + 1 :]
    t = t.reshape(*t.shape[:p], blocks, count, size // blocks, *rest)
    return jnp.moveaxis(t, p + 1, 0).reshape(count, *t.shape[:p], size, *rest)


def _batch(
    args: tuple[jax.Array, jax.Array],
    dims: tuple[int | None, int | None],
    *,
    slot: str,
    form: Form,
    kernel: Kernel,
) -> tuple[jax.Array, int]:
    specs = [list(jax.typeof(t).sharding.spec) for t in args]
    new = [spec.pop(d) for spec, d in zip(specs, dims, strict=True) if d is not None]
    placed = PartitionSpec(next(filter(None, new), None), None if slot == WINDOW else specs[0][0])
    run = functools.partial(_batched, dims=dims, slot=slot, form=form, kernel=kernel)
    if not any(axis for spec in (*specs, new) for axis in spec):
        return run(*args), 0  # or `jax.shard_map` over other axes could not be transposed
    return _automatic(run, placed, *args), 0


def _batched(
    *args: jax.Array, dims: tuple[int | None, int | None], slot: str, form: Form, kernel: Kernel
) -> jax.Array:
    batched = [(t.shape[d], d) for t, d in zip(args, dims, strict=True) if d is not None]
    (count, new), *both = batched
    if count == 0:
        a, b = (_without(t.shape, d) for t, d in zip(args, dims, strict=True))
        return jnp.zeros((0, *_shape(a, b, slot, form)), args[0].dtype)
    if both:
        x, y = (_merge(t, d, -1, 1) for t, d in zip(args, dims, strict=True) if d is not None)
        form = form._replace(groups=form.groups * count)
        return _split(apply(x, y, slot=slot, form=form, kernel=kernel), count, -1, 1)
    which = dims.index(new)
    axis, result = _PLACES[slot, which]
    operands = list(args)
    operands[which] = _merge(args[which], new, axis, form.groups if axis == -1 else 1)
    out = apply(*operands, slot=slot, form=form, kernel=kernel)
    return _split(out, count, result, form.groups if result == -1 else 1)


def _without(shape: Shape, axis: int | None) -> Shape:
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]


# The primitive of all three maps; its parameters are ``slot``, ``form``, ``kernel``.
conv_p = lazily.Primitive("fnn_conv")
conv_p.def_impl(_run_eagerly)
conv_p.def_abstract_eval(_abstract)
ad.defbilinear(conv_p, _by_left, _by_right)
batching.primitive_batchers[conv_p] = _batch
_PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "rocm": "gpu", "tpu": "tpu", None: ""}  # None: others
for _target, _platform in _PLATFORMS.items():
    _lowering = mlir.lower_fun(functools.partial(_run, platform=_platform), multiple_results=False)
    mlir.register_lowering(conv_p, _lowering, platform=_target)
