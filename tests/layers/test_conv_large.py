"""Numbers near the largest: below the bounds of the docstrings nothing overflows on the way."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.kernels.conv.transforms import transforms

LARGEST = float(jnp.finfo(jnp.float32).max)


def signs(shape: tuple[int, ...], points: int) -> Any:
    """Ones, and in the corner the signs of the row of B^T that has the largest sum."""
    a, bt = np.ones(shape, np.float32), transforms(points, 3)[2]
    row = np.sign(bt[np.abs(bt).sum(1).argmax()])
    corner = min(points, shape[1])
    a[:, :corner, :corner] *= np.outer(row, row)[:corner, :corner, None]
    return a


def maps(conv: Any, x: Any, w: Any) -> dict[str, tuple[Any, Any, Any]]:
    """Each map of a convolution, and two operands of ones."""
    y = np.ones(jax.eval_shape(conv, x, w).shape, np.float32)
    of_x = lambda y, w: jax.vjp(lambda x: conv(x, w), x)[1](y)[0]
    of_w = lambda x, y: jax.vjp(lambda w: conv(x, w), w)[1](y)[0]
    return {"output": (conv, x, w), "input": (of_x, y, w), "window": (of_w, x, y)}


def check_finite(map_: Any, a: Any, b: Any, entry: float, product: float) -> None:
    """For entries of at most 1 / entry and products of at most 1 / product of the largest float."""
    most = 0.999 * LARGEST / entry
    other = min(most, entry / product)
    for size_a, size_b in ((most, other), (other, most)):
        assert jnp.isfinite(jax.jit(map_)(np.float32(size_a) * a, np.float32(size_b) * b)).all()


@pytest.mark.parametrize(
    ("fn", "points", "factor"), [(fnn.conv_winograd, 6, 1e4), (fnn.conv_winograd2, 4, 20.0)]
)
@pytest.mark.parametrize("name", ["output", "input", "window"])
def test_minimal_filtering(fn: Any, points: int, factor: float, name: str) -> None:
    conv = functools.partial(fn, padding="VALID")
    x, w = np.ones((2, 10, 10, 16), np.float32), np.ones((3, 3, 16, 16), np.float32)
    map_, a, b = maps(conv, x, w)[name]
    terms = 9 * 16 if name != "window" else 2 * 8 * 8
    for left in (a, signs(a.shape, points)):
        check_finite(map_, left, b, factor, factor * terms)
    assert f" {factor:g} max|x|" in fn.__doc__.replace("\n    ", " ")


@pytest.mark.parametrize(("points", "taps"), [(p, k) for p in (4, 6) for k in range(1, p)])
def test_the_factors_hold_for_every_window(points: int, taps: int) -> None:
    """No sum on the way is larger, for rows of the transforms of two axes."""
    a, g, bt = transforms(points, taps)
    rows = lambda m: np.abs(m).sum(1)
    outputs = rows(g) * rows(bt)  # at a point, for every product of a sum over all taps
    most = [rows(bt), rows(a), rows(g), outputs / taps, np.abs(a.T) @ outputs / taps]
    for o in range(1, points - taps + 2):  # outputs of a tile that are there
        window = rows(a[:, :o]) * rows(bt) / o
        most += [window, np.abs(g.T) @ window]
    assert max(m.max() for m in most) ** 2 == {4: 16, 6: 9216}[points]


@pytest.mark.parametrize("name", ["output", "input", "window"])
def test_spectra(name: str) -> None:
    """Depthwise 31 x 31 over 56 x 56, of which a spectrum has 90 x 90."""
    conv = functools.partial(fnn.conv_fft, groups=2)
    x, w = np.ones((3, 56, 56, 2), np.float32), np.ones((31, 31, 1, 2), np.float32)
    map_, a, b = maps(conv, x, w)[name]
    places = 90 * 90
    check_finite(map_, a, b, places, places**2 * (3 if name == "window" else 1))
