"""Convolution in plain float64 NumPy: one loop over the places at which the window stops."""

from collections.abc import Iterator
from typing import Any

import numpy as np

MODES = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge"}


def per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def pads_of(
    sizes: Any, span: Any, stride: Any, padding: Any, rank: int
) -> tuple[tuple[int, int], ...]:
    if padding == "VALID":
        return ((0, 0),) * rank
    if padding == "SAME":  # ceil(i / s) places; what is missing is split, the odd one at the end
        totals = [
            max(0, (int(np.ceil(i / s)) - 1) * s + e - i)
            for i, e, s in zip(sizes, span, stride, strict=True)
        ]
        return tuple((t // 2, t - t // 2) for t in totals)
    return tuple((p, p) if isinstance(p, int) else tuple(p) for p in per_axis(padding, rank))


class Walk:
    """Every place o of the output with the slices of the padded input under the window there."""

    def __init__(self, sizes: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> None:
        rank = len(window)
        self.stride, self.dilation = per_axis(stride, rank), per_axis(dilation, rank)
        self.span = [(k - 1) * d + 1 for k, d in zip(window, self.dilation, strict=True)]
        self.pads = pads_of(sizes, self.span, self.stride, padding, rank)
        self.out = tuple(
            len(range(0, lo + i + hi - e + 1, s))
            for i, (lo, hi), e, s in zip(sizes, self.pads, self.span, self.stride, strict=True)
        )

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        for place in np.ndindex(*self.out):
            yield (
                place,
                tuple(
                    slice(o * s, o * s + e, d)
                    for o, s, e, d in zip(place, self.stride, self.span, self.dilation, strict=True)
                ),
            )


def blocks(w: np.ndarray, groups: int) -> Iterator[tuple[slice, slice]]:
    """The input and the output channels of each group."""
    c_in, c_out = w.shape[-2], w.shape[-1] // groups
    for g in range(groups):
        yield slice(g * c_in, (g + 1) * c_in), slice(g * c_out, (g + 1) * c_out)


def padded(x: np.ndarray, walk: Walk, mode: str) -> np.ndarray:
    return np.pad(x, [(0, 0), *walk.pads, (0, 0)], MODES[mode])


def conv(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Any = 1,
    padding: Any = "SAME",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
) -> np.ndarray:
    """``y[n, o, j] = b[j] + sum_{k, i} x[n, o s + k d - lo, i] w[k, i, j]``."""
    walk = Walk(x.shape[1:-1], w.shape[:-2], stride, padding, dilation)
    xp, taps = padded(x, walk, padding_mode), w.ndim - 1
    y = np.zeros((len(x), *walk.out, w.shape[-1]))
    for place, under in walk:
        for i, j in blocks(w, groups):
            y[:, *place, j] = np.tensordot(xp[:, *under, i], w[..., j], taps)
    return y if b is None else y + b


def conv_gradients(
    x: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    *,
    stride: Any = 1,
    padding: Any = "SAME",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of ``sum(g * conv(x, w))`` to x and w: each place gives g back to what it read."""
    walk = Walk(x.shape[1:-1], w.shape[:-2], stride, padding, dilation)
    index = np.arange(np.prod(x.shape[1:-1])).reshape(1, *x.shape[1:-1], 1)
    source = padded(index + 1, walk, padding_mode)[0, ..., 0] - 1  # -1: a zero, read from nowhere
    xp = padded(x, walk, padding_mode)
    gxp, gw = np.zeros(xp.shape), np.zeros(w.shape)
    for place, under in walk:
        for i, j in blocks(w, groups):
            gxp[:, *under, i] += np.einsum("nj,...ij->n...i", g[:, *place, j], w[..., j])
            gw[..., j] += np.einsum("n...i,nj->...ij", xp[:, *under, i], g[:, *place, j])
    gx = np.zeros((len(x), index.size, x.shape[-1]))
    for place in np.ndindex(*source.shape):
        if source[place] >= 0:
            gx[:, source[place]] += gxp[:, *place]
    return gx.reshape(x.shape), gw


def conv_transpose(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Any = 1,
    padding: Any = "SAME",
    padding_mode: str = "zeros",
    dilation: Any = 1,
    groups: int = 1,
    output_padding: Any = 0,
) -> np.ndarray:
    """The gradient of `conv` to an input of this size, whose first outputs have the gradient x.

    With output padding of a stride or more there are others: their gradient is 0.
    """
    rank = w.ndim - 2
    strides, extra = per_axis(stride, rank), per_axis(output_padding, rank)
    walk = Walk((1,) * rank, w.shape[:-2], stride, padding, dilation)
    if padding == "SAME":
        sizes = [o * s for o, s in zip(x.shape[1:-1], strides, strict=True)]
    else:
        sizes = [
            (o - 1) * s - lo - hi + e + p
            for o, s, (lo, hi), e, p in zip(
                x.shape[1:-1], strides, walk.pads, walk.span, extra, strict=True
            )
        ]
    image = np.zeros((len(x), *sizes, w.shape[-2] * groups))
    config = {"stride": stride, "padding": padding, "padding_mode": padding_mode}
    out = Walk(sizes, w.shape[:-2], stride, padding, dilation).out
    g = np.pad(x, [(0, 0), *((0, o - i) for o, i in zip(out, x.shape[1:-1], strict=True)), (0, 0)])
    y, _ = conv_gradients(image, w, g, **config, dilation=dilation, groups=groups)
    return y if b is None else y + b
