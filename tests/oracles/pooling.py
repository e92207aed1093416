"""Pooling in plain NumPy: a loop over every output, a list of what its window sees."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def _tuple(value: Any, rank: int) -> tuple[Any, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _places(
    i: int, k: int, s: int, d: int, padding: Any, ceil_mode: bool
) -> list[tuple[list[int], int]]:
    """Along one axis, per window: indices into the input, taps that input and padding hold."""
    span = (k - 1) * d + 1
    if padding == "VALID":
        lo, hi = 0, 0
    elif padding == "SAME":
        rest = max(0, (-(-i // s) - 1) * s + span - i)
        lo, hi = rest // 2, rest - rest // 2
    else:
        lo, hi = padding if isinstance(padding, tuple) else (padding, padding)
    windows = []
    start = -lo
    while start + span <= i + hi or (ceil_mode and start < i and start - s + span < i + hi):
        taps = [start + t * d for t in range(k)]
        windows.append(([p for p in taps if 0 <= p < i], sum(p < i + hi for p in taps)))
        start += s
    return windows


def pool(
    x: np.ndarray,
    window: Any,
    reduce: Callable[[np.ndarray, int], np.ndarray],
    *,
    stride: Any = None,
    padding: Any = "VALID",
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> np.ndarray:
    """``reduce(elements (taps, c), taps that input and padding hold)`` of every window."""
    rank = x.ndim - 2
    paddings = padding if isinstance(padding, tuple) else (padding,) * rank
    axes = [
        _places(i, k, s, d, p, ceil_mode)
        for i, k, s, d, p in zip(
            x.shape[1:-1],
            _tuple(window, rank),
            _tuple(window if stride is None else stride, rank),
            _tuple(dilation, rank),
            paddings,
            strict=True,
        )
    ]
    y = [
        [
            reduce(
                np.array([image[p] for p in itertools.product(*(a[0] for a in axis))]).reshape(
                    -1, x.shape[-1]
                ),
                int(np.prod([a[1] for a in axis])),
            )
            for axis in itertools.product(*axes)
        ]
        for image in x
    ]
    return np.array(y).reshape(len(x), *map(len, axes), x.shape[-1])


def max_pool(x: np.ndarray, window: Any, **config: Any) -> np.ndarray:
    return pool(x, window, lambda seen, _: seen.max(0), **config)


def min_pool(x: np.ndarray, window: Any, **config: Any) -> np.ndarray:
    return pool(x, window, lambda seen, _: seen.min(0), **config)


def sum_pool(x: np.ndarray, window: Any, **config: Any) -> np.ndarray:
    return pool(x, window, lambda seen, _: seen.sum(0), **config)


def avg_pool(
    x: np.ndarray, window: Any, *, count_include_pad: bool = True, **config: Any
) -> np.ndarray:
    def mean(seen: np.ndarray, taps: int) -> np.ndarray:
        return seen.sum(0) / (taps if count_include_pad else len(seen))

    return pool(x, window, mean, **config)


def lp_pool(x: np.ndarray, window: Any, p: float, **config: Any) -> np.ndarray:
    def norm(seen: np.ndarray, _: int) -> np.ndarray:
        most = np.abs(seen).max(0, initial=0)
        scale = np.where((most > 0) & np.isfinite(most), most, 1)
        return scale * ((np.abs(seen) / scale) ** p).sum(0) ** (1 / p)

    return pool(x, window, norm, **config)


def _places_of(x: np.ndarray, window: Any, **config: Any) -> np.ndarray:
    """For every stop, as objects, the places of its taps among the flattened spatial axes."""
    number = np.arange(x[0, ..., 0].size).reshape(1, *x.shape[1:-1], 1)

    def seen(places: np.ndarray, _: int) -> np.ndarray:
        found = np.empty(1, object)
        found[0] = places[:, 0].astype(int)
        return found

    return pool(number, window, seen, **config)[0, ..., 0]


def max_pool_indices(x: np.ndarray, window: Any, **config: Any) -> np.ndarray:
    """Place of each window's first maximum, a NaN counting as infinity."""
    values = np.where(np.isnan(x), np.inf, x).reshape(len(x), -1, x.shape[-1])
    stops = _places_of(x, window, **config)
    first = [taps[np.argmax(values[:, taps], 1)] for taps in stops.ravel()]
    return np.stack(first, 1).reshape(len(x), *stops.shape, x.shape[-1])


def max_unpool(y: np.ndarray, indices: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Every value at its place, later ones over earlier ones."""
    flat = np.zeros((len(y), int(np.prod(sizes)), y.shape[-1]), y.dtype)
    for n, *stop, c in np.ndindex(y.shape):
        flat[n, indices[(n, *stop, c)], c] = y[(n, *stop, c)]
    return flat.reshape(len(y), *sizes, y.shape[-1])


def max_pool_gradient(x: np.ndarray, window: Any, ct: np.ndarray, **config: Any) -> np.ndarray:
    """Cotangent of x: each window's goes to its first maximum."""
    indices = max_pool_indices(x, window, **config)
    flat = np.zeros((len(x), x[0, ..., 0].size, x.shape[-1]))
    for n, *stop, c in np.ndindex(ct.shape):
        flat[n, indices[(n, *stop, c)], c] += ct[(n, *stop, c)]
    return flat.reshape(x.shape)


def lp_pool_gradient(
    x: np.ndarray, window: Any, p: float, ct: np.ndarray, **config: Any
) -> np.ndarray:
    """Cotangent of x by ``sign(x) |x / y|^(p - 1)``, 0 at 0."""
    y = lp_pool(x, window, p, **config).reshape(len(x), -1, x.shape[-1])
    values, slopes = x.reshape(len(x), -1, x.shape[-1]), np.zeros_like(x)
    flat = slopes.reshape(values.shape)
    for stop, taps in enumerate(_places_of(x, window, **config).ravel()):
        scale = np.where(y[:, stop] > 0, y[:, stop], 1)[:, None]
        power = np.abs(values[:, taps] / scale) ** (p - 1)
        flat[:, taps] += np.sign(values[:, taps]) * power * ct.reshape(y.shape)[:, stop][:, None]
    return slopes


def by_blocks(
    x: np.ndarray,
    axes: Sequence[Sequence[Sequence[int]]],
    reduce: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """``reduce`` the elements (count, c) of every product of one block per spatial axis."""
    y = [
        [reduce(image[np.ix_(*blocks)].reshape(-1, x.shape[-1])) for image in x]
        for blocks in itertools.product(*axes)
    ]
    return np.moveaxis(np.array(y), 0, 1).reshape(len(x), *map(len, axes), x.shape[-1])


def shares(i: int, o: int) -> list[list[int]]:
    """PyTorch's adaptive windows: from floor(j i / o) up to, not including, ceil((j + 1) i / o)."""
    return [
        [p for p in range(i) if np.floor(j * i / o) <= p < np.ceil((j + 1) * i / o)]
        for j in range(o)
    ]
