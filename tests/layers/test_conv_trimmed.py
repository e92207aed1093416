"""Convolution leaves out the taps that meet only padding."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest

import fnn
from fnn.kernels.conv.form import Form, trimmed
from fnn.windows import Windows
from tests.check import close
from tests.layers.test_conv import against_the_oracle, normal
from tests.oracles import conv as oracle


def test_the_taps_that_are_left() -> None:
    """On a line: all that read an element, and none at the ends that reads none.

    Such a tap stays only where the padding left without it would be negative, or no tap would be.
    """
    shorter = 0
    grid = itertools.product((1, 2, 5), (1, 2, 5), (1, 2, 3), (1, 2, 6), (0, 3, 8), (0, 4, 9))
    for i, k, s, d, lo, hi in grid:
        form = Form((i,), Windows((k,), (s,), ((lo, hi),), (d,)), 1)
        if form.windows.span[0] > lo + i + hi:
            continue
        left, (rest,) = trimmed(form)
        met = [t for t in range(k) if any(0 <= o * s + t * d - lo < i for o in range(form.out[0]))]
        ((before, after),) = left.windows.padding
        assert left.out == form.out
        assert left.windows.size == (rest.stop - rest.start,)
        assert (before, after) == (lo - rest.start * d, hi - (k - rest.stop) * d)
        assert set(met) <= {*range(k)[rest]}
        assert min(before, after) >= 0
        if met:
            assert rest.start == met[0] or before < d
            assert rest.stop == met[-1] + 1 or after < d
        shorter += left != form
    assert shorter > 50


# A long window, a large dilation, both with a stride, three axes, and an axis of one element.
CASES: list[tuple[Any, Any, dict[str, Any], tuple[int, ...]]] = [
    ((2, 3, 2, 4), (9, 7, 1, 4), {"groups": 4}, (5, 3)),
    ((2, 5, 6, 3), (3, 3, 3, 2), {"dilation": (5, 9)}, (1, 1)),
    ((2, 7, 2), (9, 2, 3), {"stride": 3, "dilation": 2, "padding": ((9, 7),)}, (6,)),
    ((1, 1, 3, 2, 2), (3, 3, 2, 2, 4), {"padding": ((1, 1), (1, 1), (0, 1))}, (1, 3, 2)),
]


@pytest.mark.parametrize(("x", "w", "config", "size"), CASES)
def test_values_and_gradients(x: Any, w: Any, config: Any, size: Any) -> None:
    """The program's window is shorter; value and gradients are those of the whole one."""
    a, v = normal(x, w)
    convolve = functools.partial(fnn.conv, **config)
    assert f"size={size}" in str(jax.make_jaxpr(convolve)(a, v))
    against_the_oracle(fnn.conv, a, v, 60, **config)


@pytest.mark.parametrize(
    ("x", "w", "config", "size"),
    [
        ((2, 3, 2, 4), (9, 7, 1, 4), {"groups": 4}, (5, 3)),
        ((2, 4, 3), (5, 2, 3), {"stride": 2, "padding": 3, "output_padding": 1}, (5,)),
        ((2, 4, 3), (3, 2, 3), {"dilation": 7, "padding": 7}, (1,)),
    ],
)
def test_transposed(x: Any, w: Any, config: Any, size: Any) -> None:
    a, v = normal(x, w)
    spread = functools.partial(fnn.conv_transpose, **config)
    assert f"size={size}" in str(jax.make_jaxpr(spread)(a, v))
    want = oracle.conv_transpose(a.astype(np.float64), v.astype(np.float64), **config)
    close(jax.jit(spread)(a, v), want, length=60)
