"""Convolution: the public face of the kernels.

``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + k d - lo, i] w[k, i, j]`` (cross-correlation), with
stride s, dilation d and padding lo; with groups, i runs over the channels of j's group only. Every
algorithm has this one signature, and what it cannot do it refuses; `conv` picks one by a fixed
rule. Arguments are read and checked here, once, before anything is computed.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Real

from fnn.checks import check_int, check_one_of, describe, shown, wrong
from fnn.dtypes import add_bias
from fnn.functions import jitted, variant
from fnn.kernels.conv.fft import FFT
from fnn.kernels.conv.form import INPUT, OUTPUT, Form, Kernel, apply, trimmed
from fnn.kernels.conv.im2col import IM2COL
from fnn.kernels.conv.library import LIBRARY
from fnn.kernels.conv.rule import AUTO
from fnn.kernels.conv.taps import TAPS
from fnn.kernels.conv.winograd import WINOGRAD2, WINOGRAD4
from fnn.placement import by_examples
from fnn.windows import (
    Ints,
    Padding,
    Pads,
    Windows,
    per_axis,
    resolve,
    resolve_transposed,
)

MODES = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}
LAYOUT, TRANSPOSED = "c_in // groups, c_out", "c_out // groups, c_in"  # of a window's channels
STATIC = ("stride", "padding", "padding_mode", "dilation", "groups")


def _arrays(name: str, **arrays: Any) -> list[Any]:
    """Return all as arrays, or raise where they are not of one real dtype; a bias may be None."""
    given = {argument: jnp.asarray(a) for argument, a in arrays.items() if a is not None}
    first, *_ = given.values()
    for argument, a in given.items():
        if not (jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)):
            raise wrong(name, argument, describe(a), "a floating or integer dtype", TypeError)
        if a.dtype != first.dtype:
            raise wrong(name, argument, describe(a), f"{first.dtype}, the dtype of x", TypeError)
    return [given.get(argument) for argument in arrays]


def _check_window(name: str, w: Any, groups: int, channels: str = LAYOUT) -> None:
    if w.ndim not in (3, 4, 5):
        needed = f"(*window, {channels}) with 1, 2 or 3 window axes"
        raise wrong(name, "w", describe(w), needed)
    check_int(name, "groups", groups, 1)
    if w.shape[-1] % groups:
        raise wrong(name, "groups", groups, f"a divisor of {w.shape[-1]}, the last axis of w")


def _check_input(name: str, x: Any, w: Any, groups: int, channels: int) -> None:
    if x.ndim != w.ndim:
        needed = f"{w.ndim} axes (n, *spatial, channels), as many as w {describe(w)} has"
        raise wrong(name, "x", describe(x), needed)
    if x.shape[-1] != channels:
        needed = f"{channels} channels on its last axis, for w {describe(w)} with groups={groups}"
        raise wrong(name, "x", describe(x), needed)


def _check_bias(name: str, b: Any, out: tuple[int, ...], channels: int) -> None:
    if b is not None and b.shape not in ((channels,), (*out, channels)):
        raise wrong(name, "b", describe(b), f"shape {(channels,)} or, untied, {(*out, channels)}")


def _check_mode(name: str, mode: str, spatial: tuple[int, ...], padding: Pads) -> None:
    check_one_of(name, "padding_mode", mode, tuple(MODES))
    if mode == "zeros":
        return
    for i, pads in zip(spatial, padding, strict=True):
        if not isinstance(i, int):  # of an export
            needed = f'"zeros" for an axis whose size is a symbol, {i}'
            raise wrong(name, "padding_mode", shown(mode), needed)
        most = {"circular": i, "reflect": max(0, i - 1), "replicate": max(pads) if i else 0}
        if max(pads) > most[mode]:
            needed = f'at most {most[mode]} on each side of an axis of size {i} with "{mode}"'
            raise wrong(name, "padding", padding, needed)


def _check_symbols(name: str, kernel: Kernel, x: Any, w: Any) -> None:
    fixed = x.shape[1:] if kernel.symbols == "examples" else x.shape
    if kernel.symbols == "all" or all(isinstance(size, int) for size in (*fixed, *w.shape)):
        return
    but = ", but for that of the examples" if kernel.symbols else ""
    needed = f"sizes that are numbers{but}; fnn.conv takes symbols"
    raise wrong(name, "x, w", f"{describe(x)}, {describe(w)}", needed)


def _form(spatial: tuple[int, ...], windows: Windows, mode: str, groups: int) -> tuple[Form, Pads]:
    """The form of the kernel's convolution, and the padding made before it: all but zeros."""
    none = ((0, 0),) * len(spatial)
    if mode == "zeros":
        return Form(spatial, windows, groups), none
    padded = tuple(lo + i + hi for i, (lo, hi) in zip(spatial, windows.padding, strict=True))
    return Form(padded, windows._replace(padding=none), groups), windows.padding


def _trimmed(form: Form, w: jax.Array) -> tuple[Form, jax.Array]:
    """Leave out the taps that meet only padding, if the sizes are no symbols."""
    if not all(isinstance(i, int) for i in form.spatial):
        return form, w
    shorter, rest = trimmed(form)
    return shorter, w if shorter == form else w[rest]


def _pad(x: jax.Array, pads: Pads, mode: str) -> jax.Array:
    """Pad the spatial axes; on explicit axes only examples stay sharded, as in the convolution.

    `jnp.pad` would slice the axis of examples too, so it is mapped over.
    """
    if not any(map(any, pads)):
        return x
    (x,) = by_examples(x)
    return jax.vmap(lambda x: jnp.pad(x, (*pads, (0, 0)), MODES[mode]))(x)


def _convolve(
    name: str,
    kernel: Kernel,
    x: jax.Array,
    w: jax.Array,
    b: jax.Array | None,
    stride: Ints,
    padding: Padding,
    padding_mode: str,
    dilation: Ints,
    groups: int,
) -> jax.Array:
    """Read and check the arguments of public function ``name``, and run the kernel."""
    x, w, b = _arrays(name, x=x, w=w, b=b)
    _check_window(name, w, groups)
    _check_input(name, x, w, groups, w.shape[-2] * groups)
    spatial = x.shape[1:-1]
    windows = resolve(name, spatial, w.shape[:-2], stride, padding, dilation)
    _check_mode(name, padding_mode, spatial, windows.padding)
    form, pads = _form(spatial, windows, padding_mode, groups)
    _check_bias(name, b, form.out, w.shape[-1])
    if needed := kernel.refuses(form, x.dtype):
        got = f"{describe(x)}, {describe(w)}, {windows}, groups={groups}"
        raise wrong(name, "x, w", got, f"{needed}; fnn.conv takes every form")
    _check_symbols(name, kernel, x, w)
    form, w = _trimmed(form, w)
    y = apply(_pad(x, pads, padding_mode), w, slot=OUTPUT, form=form, kernel=kernel)
    return add_bias(y, b)


@jitted(static=STATIC)
def conv(
    x: Real[Array, "n *spatial c_in"],
    w: Real[Array, "*window c_in_per_group c_out"],
    b: Real[Array, "*untied c_out"] | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: Ints = 1,
    groups: int = 1,
) -> Real[Array, "n *out c_out"]:
    """Convolve x with w.

    ``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + k d - lo, i] w[k, i, j]``, i over j's group.

    Taps at the ends of the window that meet only zeros of the padding are left out.

    The algorithm is picked by a rule over platform, dtype and shapes, or by what `tune` measured.
    On a CPU it is not always a plain sum: small windows over many channels go by minimal filtering,
    large depthwise windows by Fourier transforms. There a NaN or an infinity in x reaches a whole
    tile, or all of its channel. So does an intermediate overflow, which entries near the largest
    float can cause even where the result is finite: `conv_winograd` and `conv_fft` say how near
    they may come. `conv_lax`, `conv_im2col` and `conv_taps` are plain sums; in the gradients of the
    last two, which multiply zeros too, a NaN or an infinity may reach neighbouring taps and places.

    Args:
        x: input (n, *spatial, c_in), with 1, 2 or 3 spatial axes. Half-precision sums accumulate
            in float32.
        w: window (*window, c_in // groups, c_out), of the dtype of x.
        b: bias (c_out,), or (*out, c_out) for one of its own at each place ("untied"); added to
            the sum as rounded to x's dtype.
        stride: input elements from one output to the next; an int stands for every axis.
        padding: "SAME" (ceil(size / stride) outputs, the odd element at the end), "VALID", an
            int, one int per axis, or one pair (lo, hi) per axis.
        padding_mode: what is there: "zeros", "circular", "reflect" or "replicate".
        dilation: input elements from one tap of the window to the next.
        groups: blocks into which the channels fall; c_in of them is a depthwise convolution.

    Returns:
        (n, *out, c_out), of the dtype of x.

    Raises:
        ValueError: shapes or configuration that do not fit, or that this algorithm refuses.
        TypeError: an argument that is no array; dtypes that differ, or are not those of floats or
            integers.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning (2016).

    >>> x, w = jnp.arange(16.0).reshape(1, 4, 4, 1), jnp.ones((3, 3, 1, 1))
    >>> conv(x, w, padding="VALID")[0, :, :, 0].round()
    Array([[45., 54.],
           [81., 90.]], dtype=float32)
    """
    return _convolve("conv", AUTO, x, w, b, stride, padding, padding_mode, dilation, groups)


EXAMPLE = "jnp.ones((1, 8, 1)), jnp.ones((3, 1, 1))"
conv_lax = variant(conv, _convolve, LIBRARY, "by `lax.conv_general_dilated`", example=EXAMPLE)
conv_im2col = variant(
    conv, _convolve, IM2COL, "by patches side by side and one matrix product", example=EXAMPLE
)
conv_taps = variant(conv, _convolve, TAPS, "by shift and add, one term per tap", example=EXAMPLE)
FILTERING = (
    "Takes floats, and windows of at most {} taps along the last two axes, without a stride. "
    "In float32 its largest error is {} that of a plain sum. A NaN or an infinity in x "
    "reaches all outputs of its tile. Nothing overflows on the way while {factor} max|x|, "
    "{factor} max|w| and {factor} N max|x| max|w| are below the largest float, where an output "
    "sums N products; so it is with each gradient and the two arrays that it is made from."
)
conv_winograd = variant(
    conv,
    _convolve,
    WINOGRAD4,
    "by minimal filtering with 6 points, F(4, 3) and its kin",
    notes=FILTERING.format(5, "4 to 11 times", factor=10000),
    example=EXAMPLE,
)
conv_winograd2 = variant(
    conv,
    _convolve,
    WINOGRAD2,
    "by minimal filtering with 4 points, F(2, 3) and its kin",
    notes=FILTERING.format(3, "about", factor=20),
    example=EXAMPLE,
)
conv_fft = variant(
    conv,
    _convolve,
    FFT,
    "by Fourier transforms, for large windows",
    notes="Takes floats. The error of an output is relative to the largest of its channel. A NaN "
    "or an infinity in x reaches all outputs of its example that its channel leads to. Nothing "
    "overflows on the way while P max|x|, P max|w| and P^2 (c_in / groups) max|x| max|w| are below "
    "the largest float, for P places of the padded plane, each of its axes rounded up to a product "
    "of 2, 3 and 5. So it is with each gradient, for the plane and the two arrays that it is made "
    "from; that of the window sums examples, not channels.",
    example=EXAMPLE,
)


@jitted(static=STATIC)
def convolve(
    x: Real[Array, "n *spatial c_in"],
    w: Real[Array, "*window c_in_per_group c_out"],
    b: Real[Array, "*untied c_out"] | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: Ints = 1,
    groups: int = 1,
) -> Real[Array, "n *out c_out"]:
    """Convolve in the sense of the textbooks: `conv` with the window flipped.

    ``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + (K - 1 - k) d - lo, i] w[k, i, j]`` for K taps. With
    ``padding=K - 1`` it is the full convolution, in which x and w may change places. The window of
    a sum over the past, ``sum_k x[o - k] w[k]``, reaches to one side: ``padding=((K - 1, 0),)``. A
    "hard" boundary keeps the places where the window fits and whose index is a multiple of the
    stride, which are those of "VALID" only where the stride divides K - 1.

    Args:
        x, w, b: as in `conv`.
        stride, padding, padding_mode, dilation, groups: as in `conv`.

    Returns:
        (n, *out, c_out), of the dtype of x.

    Raises:
        ValueError, TypeError: as `conv`.

    Source: CSC413 notes (2020), on image classification; Introduction to Deep Learning (2020), for
    the one-sided window.

    >>> x, w = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 10.0])
    >>> convolve(x.reshape(1, 3, 1), w.reshape(2, 1, 1), padding=1).ravel()
    Array([ 1., 12., 23., 30.], dtype=float32)
    """
    flipped = jnp.flip(w, tuple(range(w.ndim - 2)))
    return _convolve(
        "convolve", AUTO, x, flipped, b, stride, padding, padding_mode, dilation, groups
    )


@jitted(static=(*STATIC, "output_padding"))
def conv_transpose(
    x: Real[Array, "n *spatial c_in"],
    w: Real[Array, "*window c_out_per_group c_in"],
    b: Real[Array, "*untied c_out"] | None = None,
    *,
    stride: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: Ints = 1,
    groups: int = 1,
    output_padding: Ints = 0,
) -> Real[Array, "n *out c_out"]:
    """Transpose a convolution: the adjoint of `conv` with the same window and arguments.

    ``<conv(u, w), x> = <u, conv_transpose(x, w)>`` for all u and x: each element of x is spread
    over the window, ``y[n, o s + k d - lo, j] += sum_i x[n, o, i] w[k, j, i]``. So w is the window
    of the convolution that leads from the result's channels to those of x.

    On a CPU a NaN or an infinity in x may reach neighbouring places, as it is multiplied by the
    zeros that fill a window up to its stride, or goes further, as in `conv`.

    Args:
        x: input (n, *spatial, c_in), with 1, 2 or 3 spatial axes.
        w: window (*window, c_out // groups, c_in), of the dtype of x.
        b: bias (c_out,), or untied (*out, c_out).
        stride, padding, padding_mode, dilation, groups: of the convolution that this transposes.
        output_padding: further elements at the end of each axis, fewer than the larger of stride
            and dilation, where the padding is not "SAME". If they are fewer than the stride, the
            strided convolution leads from the size of the result back to that of x.

    Returns:
        (n, *out, c_out), of the dtype of x; for the sizes see `transposed_size`.

    Raises:
        ValueError, TypeError: as `conv`; an output_padding with "SAME".

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning (2016).

    >>> x, w = jnp.array([1.0, 10.0]), jnp.array([1.0, 2.0, 3.0])
    >>> conv_transpose(x.reshape(1, 2, 1), w.reshape(3, 1, 1), stride=2, padding="VALID").ravel()
    Array([ 1.,  2., 13., 20., 30.], dtype=float32)
    """
    name = "conv_transpose"
    x, w, b = _arrays(name, x=x, w=w, b=b)
    _check_window(name, w, groups, TRANSPOSED)
    _check_input(name, x, w, groups, w.shape[-1])
    sizes, windows = resolve_transposed(
        name, x.shape[1:-1], w.shape[:-2], stride, padding, dilation, output_padding
    )
    _check_mode(name, padding_mode, sizes, windows.padding)
    form, pads = _form(sizes, windows, padding_mode, groups)
    _check_bias(name, b, sizes, w.shape[-2] * groups)
    form, w = _trimmed(form, w)
    y = _adjoint(x, w, form)
    if any(map(any, pads)):
        like = y[(slice(None), *map(slice, sizes))]  # in shape and sharding
        (y,) = jax.linear_transpose(lambda u: _pad(u, pads, padding_mode), like)(y)
    return add_bias(y, b)


def _adjoint(x: jax.Array, w: jax.Array, form: Form) -> jax.Array:
    """The adjoint of a convolution, of which x holds the first outputs.

    With output padding of a stride or more the form has further outputs. The tail of the image that
    only they reach is taken off its padding, and where that does not suffice it is zero. So is all
    of it, where the padding cuts off what x reaches.
    """
    win = form.windows
    counts = zip(form.out, x.shape[1:-1], win.stride, strict=True)
    tails = [(every - here) * s for every, here, s in counts]
    ends = [(lo, hi - t) for t, (lo, hi) in zip(tails, win.padding, strict=True)]
    zeros = [max(0, -hi) for _, hi in ends]
    if any(z and i < z for i, z in zip(form.spatial, zeros, strict=True)):
        # On a mesh they are placed as x and w are: by the sums of empty parts.
        none = x[..., :0].sum(tuple(range(1, x.ndim)), keepdims=True) + w[:0].sum()
        channels = w.shape[-2] * form.groups
        return jnp.zeros((1, *form.spatial, channels), x.dtype) + none.astype(x.dtype)
    form = form._replace(
        spatial=tuple(i - z for i, z in zip(form.spatial, zeros, strict=True)),
        windows=win._replace(padding=tuple((lo, max(0, hi)) for lo, hi in ends)),
    )
    y = apply(x, w, slot=INPUT, form=form, kernel=AUTO)
    return _pad(y, tuple((0, z) for z in zeros), "zeros")


@jitted(static=("spatial", *STATIC))
def conv_matrix(
    w: Real[Array, "*window c_in_per_group c_out"],
    spatial: Ints,
    *,
    stride: Ints = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: Ints = 1,
    groups: int = 1,
) -> Real[Array, "rows columns"]:
    """Return the matrix of a convolution, ``conv(x, w).ravel() = M @ x.ravel()`` for one example.

    Column by column it is the convolution of the unit images: banded, one value per tap on its
    diagonals (Toeplitz), block by block for channels.

    Args:
        w: window (*window, c_in // groups, c_out).
        spatial: sizes of the input, an int standing for every axis.
        stride, padding, padding_mode, dilation, groups: as in `conv`.

    Returns:
        (prod(out) c_out, prod(spatial) c_in), of the dtype of w.

    Raises:
        ValueError, TypeError: as `conv`.

    Source: the unwinding of convolutions, notes on vanishing gradients and CNNs.

    >>> conv_matrix(jnp.array([1.0, 2.0]).reshape(2, 1, 1), 3, padding="VALID")
    Array([[1., 2., 0.],
           [0., 1., 2.]], dtype=float32)
    """
    name = "conv_matrix"
    (w,) = _arrays(name, w=w)
    _check_window(name, w, groups)
    shape = (*per_axis(name, "spatial", spatial, w.ndim - 2, 1), w.shape[-2] * groups)
    size = math.prod(shape)
    units = jnp.eye(size, dtype=w.dtype).reshape(size, *shape)
    configuration = (stride, padding, padding_mode, dilation, groups)
    columns = _convolve(name, LIBRARY, units, w, None, *configuration)
    return columns.reshape(size, math.prod(columns.shape[1:])).T
