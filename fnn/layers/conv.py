"""Convolution: the public face of the kernels.

``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + k d - lo, i] w[k, i, j]`` (cross-correlation), with
stride s, dilation d and padding lo; with groups, i runs over the channels of j's group only. Every
kernel has this one signature, and what it cannot do it refuses; `conv` picks one by a rule over
static facts. Arguments are read and checked here, once, before anything is computed.
"""

import functools
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

from fnn.checks import describe, wrong
from fnn.kernels.conv.fft import FFT
from fnn.kernels.conv.form import INPUT, OUTPUT, Form, Kernel, apply
from fnn.kernels.conv.im2col import IM2COL
from fnn.kernels.conv.library import LIBRARY
from fnn.kernels.conv.rule import AUTO
from fnn.kernels.conv.taps import TAPS
from fnn.kernels.conv.winograd import WINOGRAD2, WINOGRAD4
from fnn.windows import Ints, Padding, Pads, Windows, per_axis, resolve, resolve_transposed

MODES = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}


class Convolution(Protocol):
    """The signature that `conv` and every ``conv_<algorithm>`` share."""

    __name__: str

    def __call__(
        self,
        x: Real[Array, "n *spatial c_in"],
        w: Real[Array, "*window c_in_per_group c_out"],
        b: Real[Array, "*untied c_out"] | None = None,
        *,
        stride: Ints = 1,
        padding: Padding = "SAME",
        padding_mode: str = "zeros",
        dilation: Ints = 1,
        groups: int = 1,
    ) -> jax.Array:
        """Convolve."""
        ...


class _Plan(NamedTuple):
    """What is static about one call: the kernel, its form, and the padding made before it."""

    kernel: Kernel
    form: Form
    pads: Pads
    mode: str


def _arrays(name: str, **arrays: Any) -> list[Any]:
    """Check that all are real arrays of one dtype; a bias may be None."""
    given = {argument: a for argument, a in arrays.items() if argument != "b" or a is not None}
    for argument, a in given.items():
        if not isinstance(a, jax.Array | np.ndarray):
            raise wrong(name, argument, describe(a), "a JAX or NumPy array", TypeError)
    given = {argument: jnp.asarray(a) for argument, a in given.items()}
    first, *_ = given.values()
    for argument, a in given.items():
        if not (jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)):
            raise wrong(name, argument, describe(a), "a floating or integer dtype", TypeError)
        if a.dtype != first.dtype:
            raise wrong(name, argument, describe(a), f"{first.dtype}, the dtype of x", TypeError)
    return [given.get(argument) for argument in arrays]


def _check_window(name: str, w: Any, groups: Any) -> None:
    if w.ndim not in (3, 4, 5):
        needed = "(*window, c_in // groups, c_out) with 1, 2 or 3 window axes"
        raise wrong(name, "w", describe(w), needed)
    if not isinstance(groups, int) or isinstance(groups, bool) or groups < 1:
        raise wrong(name, "groups", repr(groups), "an int >= 1")
    if w.shape[-1] % groups:
        raise wrong(name, "groups", groups, f"a divisor of {w.shape[-1]}, the last axis of w")


def _check_input(name: str, x: Any, w: Any, groups: int, channels: int) -> None:
    if x.ndim != w.ndim:
        needed = f"{w.ndim} axes (n, *spatial, channels), as many as w {describe(w)} has"
        raise wrong(name, "x", describe(x), needed)
    if x.shape[-1] != channels:
        needed = f"{channels} channels, for w {describe(w)} with groups={groups}"
        raise wrong(name, "x", describe(x), needed)


def _check_bias(name: str, b: Any, out: tuple[int, ...], channels: int) -> None:
    if b is not None and b.shape not in ((channels,), (*out, channels)):
        raise wrong(name, "b", describe(b), f"shape {(channels,)} or, untied, {(*out, channels)}")


def _plan(
    name: str, kernel: Kernel, spatial: tuple[int, ...], windows: Windows, mode: str, groups: int
) -> _Plan:
    """Leave zero padding to the kernel; any other is made before a window without padding."""
    if mode not in tuple(MODES):
        raise wrong(name, "padding_mode", repr(mode), " or ".join(map(repr, MODES)))
    if mode == "zeros":
        return _Plan(kernel, Form(spatial, windows, groups), ((0, 0),) * len(spatial), mode)
    for i, pads in zip(spatial, windows.padding, strict=True):
        most = {"circular": i, "reflect": max(0, i - 1)}.get(mode, max(pads) if i else 0)
        if max(pads) > most:
            needed = f'at most {most} on each side of an axis of size {i} with "{mode}"'
            raise wrong(name, "padding", windows.padding, needed)
    padded = tuple(lo + i + hi for i, (lo, hi) in zip(spatial, windows.padding, strict=True))
    bare = windows._replace(padding=((0, 0),) * len(spatial))
    return _Plan(kernel, Form(padded, bare, groups), windows.padding, mode)


def _pad(x: jax.Array, pads: Pads, mode: str) -> jax.Array:
    if not any(map(any, pads)):
        return x
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), MODES[mode])


def _add(y: jax.Array, b: jax.Array | None) -> jax.Array:
    return y if b is None else y + jnp.expand_dims(b, tuple(range(y.ndim - b.ndim)))


@functools.partial(jax.jit, static_argnames="plan", inline=True)
def _forward(x: jax.Array, w: jax.Array, b: jax.Array | None, plan: _Plan) -> jax.Array:
    x = _pad(x, plan.pads, plan.mode)
    return _add(apply(x, w, slot=OUTPUT, form=plan.form, kernel=plan.kernel), b)


@functools.partial(jax.jit, static_argnames=("plan", "sizes"), inline=True)
def _adjoint(
    y: jax.Array, w: jax.Array, b: jax.Array | None, plan: _Plan, sizes: tuple[int, ...]
) -> jax.Array:
    padded = apply(y, w, slot=INPUT, form=plan.form, kernel=plan.kernel)
    if plan.mode == "zeros":
        return _add(padded, b)
    like = jnp.zeros((y.shape[0], *sizes, padded.shape[-1]), padded.dtype)
    (x,) = jax.linear_transpose(lambda x: _pad(x, plan.pads, plan.mode), like)(padded)
    return _add(x, b)


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
    """Read and check the arguments, and run the kernel."""
    x, w, b = _arrays(name, x=x, w=w, b=b)
    _check_window(name, w, groups)
    _check_input(name, x, w, groups, w.shape[-2] * groups)
    spatial = x.shape[1:-1]
    windows = resolve(name, spatial, w.shape[:-2], stride, padding, dilation)
    plan = _plan(name, kernel, spatial, windows, padding_mode, groups)
    _check_bias(name, b, plan.form.out, w.shape[-1])
    if needed := kernel.refuses(plan.form, x.dtype):
        got = f"{describe(x)}, {describe(w)}, {windows}, groups={groups}"
        raise wrong(name, "x, w", got, f"{needed}; fnn.conv takes every form")
    y: jax.Array = _forward(x, w, b, plan)
    return y


def _face(name: str, kernel: Kernel, summary: str) -> Convolution:
    """Make the public function of a kernel."""

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
        configuration = (stride, padding, padding_mode, dilation, groups)
        return _convolve(name, kernel, x, w, b, *configuration)

    conv.__name__ = conv.__qualname__ = name
    conv.__doc__ = f"{summary}\n\n{_DOC.replace('conv(', name + '(')}"
    return conv


_DOC = """``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + k d - lo, i] w[k, i, j]``, i over j's group.

    Args:
        x: input (n, *spatial, c_in), with 1, 2 or 3 spatial axes. Half-precision sums accumulate
            in float32.
        w: window (*window, c_in // groups, c_out), of the dtype of x.
        b: bias (c_out,), or (*out, c_out) for one of its own at each place ("untied").
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
        TypeError: no arrays, or arrays of different or other than real dtypes.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning (2016).

    >>> x = jax.numpy.arange(16.0).reshape(1, 4, 4, 1)
    >>> w = jax.numpy.ones((3, 3, 1, 1))
    >>> conv(x, w, padding="VALID")[0, :, :, 0].round()
    Array([[45., 54.],
           [81., 90.]], dtype=float32)
    """

conv = _face("conv", AUTO, "Convolve x with w, by whichever algorithm is the fastest there.")
conv_lax = _face("conv_lax", LIBRARY, "Convolve x with w by `lax.conv_general_dilated`.")
conv_im2col = _face("conv_im2col", IM2COL, "Convolve x with w by patches and one matrix product.")
conv_taps = _face("conv_taps", TAPS, "Convolve x with w by shift and add, one term per tap.")
conv_winograd = _face(
    "conv_winograd", WINOGRAD4, "Convolve x with w by F(4, 3) and its kin, for windows to 5."
)
conv_winograd2 = _face(
    "conv_winograd2", WINOGRAD2, "Convolve x with w by F(2, 3) and its kin, for windows to 3."
)
conv_fft = _face("conv_fft", FFT, "Convolve x with w by Fourier transforms, for large windows.")


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
    ``padding=K - 1`` it is the full convolution, in which x and w may change places.

    Args:
        x, w, b: as in `conv`.
        stride, padding, padding_mode, dilation, groups: as in `conv`.

    Returns:
        (n, *out, c_out), of the dtype of x.

    Raises:
        ValueError, TypeError: as `conv`.

    Source: CSC413 notes (2020), on image classification.

    >>> x, w = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 10.0])
    >>> convolve(x.reshape(1, 3, 1), w.reshape(2, 1, 1), padding=1).ravel()
    Array([ 1., 12., 23., 30.], dtype=float32)
    """
    x, w, b = _arrays("convolve", x=x, w=w, b=b)
    _check_window("convolve", w, groups)
    flipped = jnp.flip(w, tuple(range(w.ndim - 2)))
    configuration = (stride, padding, padding_mode, dilation, groups)
    return _convolve("convolve", AUTO, x, flipped, b, *configuration)


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
    """Transposed convolution: the adjoint of `conv` with the same window and arguments.

    ``<conv(u, w), x> = <u, conv_transpose(x, w)>`` for all u and x: each element of x is spread
    over the window, ``y[n, o s + k d - lo, j] += sum_i x[n, o, i] w[k, j, i]``. So w is the window
    of the convolution that leads from the result's channels to those of x.

    Args:
        x: input (n, *spatial, c_in), with 1, 2 or 3 spatial axes.
        w: window (*window, c_out // groups, c_in), of the dtype of x.
        b: bias (c_out,), or untied (*out, c_out).
        stride, padding, padding_mode, dilation, groups: of the convolution that this transposes.
        output_padding: added to the size; less than the stride, of which it picks the remainder.

    Returns:
        (n, *out, c_out), of the dtype of x; for the sizes see `transposed_size`.

    Raises:
        ValueError, TypeError: as `conv`.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning (2016).

    >>> x, w = jnp.array([1.0, 10.0]), jnp.array([1.0, 2.0, 3.0])
    >>> conv_transpose(x.reshape(1, 2, 1), w.reshape(3, 1, 1), stride=2, padding="VALID").ravel()
    Array([ 1.,  2., 13., 20., 30.], dtype=float32)
    """
    name = "conv_transpose"
    x, w, b = _arrays(name, x=x, w=w, b=b)
    _check_window(name, w, groups)
    _check_input(name, x, w, groups, w.shape[-1])
    sizes, windows = resolve_transposed(
        name, x.shape[1:-1], w.shape[:-2], stride, padding, dilation, output_padding
    )
    plan = _plan(name, AUTO, sizes, windows, padding_mode, groups)
    _check_bias(name, b, sizes, w.shape[-2] * groups)
    y: jax.Array = _adjoint(x, w, b, plan, sizes)
    return y


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
    """The matrix of a convolution, ``conv(x, w).ravel() = M @ x.ravel()`` for one example x.

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
