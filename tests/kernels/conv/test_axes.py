"""Axes that a window does not span, or covers, are merged on a CPU, and nothing else changes."""

from typing import Any

import jax
import numpy as np
import pytest

import fnn
from fnn.kernels.conv.axes import merged
from fnn.kernels.conv.form import INPUT, OUTPUT, Form
from fnn.windows import resolve
from tests.check import close
from tests.layers.test_conv import against_the_oracle, normal
from tests.oracles import conv as oracle

# Sizes, window, configuration, and the sizes of the merged form.
CASES: list[tuple[Any, Any, dict[str, Any], Any]] = [
    ((3, 4, 5), (3, 1, 1), {}, (60,)),
    ((3, 4, 5), (1, 3, 3), {}, (4, 5)),
    ((3, 4, 5), (1, 3, 1), {"dilation": 2}, (20,)),
    ((3, 4, 5), (3, 3, 1), {"dilation": (1, 2, 3)}, (3, 20)),
    ((3, 4, 5), (3, 1, 3), {"groups": 2}, (3, 4, 5)),
    ((3, 4, 5), (1, 1, 3), {"padding": ((0, 0), (0, 0), (0, 1))}, (5,)),
    ((3, 6, 5), (1, 3, 1), {"stride": (1, 2, 1)}, (6, 5)),  # its stops are not a line
    ((3, 4, 5), (3, 1, 1), {"stride": (1, 1, 2)}, (3, 4, 5)),
    ((3, 4, 5), (1, 3, 1), {"padding": ((1, 0), (1, 1), (0, 0))}, (3, 20)),
    ((3, 4, 5), (1, 1, 1), {}, (3, 4, 5)),
    ((7, 6), (5, 1), {"groups": 2}, (42,)),
    ((7, 6), (1, 3), {"padding": ((0, 0), (2, 0))}, (6,)),
    ((3, 4, 5), (2, 4, 5), {"padding": "VALID"}, (3,)),  # the last axes become channels
    ((3, 4, 5), (2, 4, 5), {"padding": "VALID", "stride": (1, 3, 2)}, (3,)),
    ((3, 4, 5), (3, 4, 5), {"padding": "VALID"}, (1,)),
    ((3, 4, 5), (1, 4, 5), {"padding": "VALID"}, (3,)),
    ((3, 4, 5), (3, 4, 5), {"padding": "VALID", "groups": 2}, (3, 4, 5)),  # not side by side
    ((3, 4, 5), (2, 4, 5), {}, (3, 4, 5)),  # padded
    ((4, 5), (4, 1), {"padding": "VALID"}, (20,)),
    ((4, 5), (4, 3), {"padding": "VALID"}, (4, 5)),
    ((5, 4), (3, 2), {"padding": "VALID", "dilation": (2, 3)}, (5, 4)),  # between taps lie others
    ((4,), (4,), {"padding": "VALID"}, (1,)),
]


def form_of(sizes: Any, window: Any, config: dict[str, Any], platform: str) -> Form:
    facts = (config.get("stride", 1), config.get("padding", "SAME"), config.get("dilation", 1))
    windows = resolve("test", sizes, window, *facts)
    return Form(sizes, windows, config.get("groups", 1), platform)


@pytest.mark.parametrize(("sizes", "window", "config", "spatial"), CASES)
def test_the_axes_that_are_left(sizes: Any, window: Any, config: Any, spatial: Any) -> None:
    assert merged(form_of(sizes, window, config, "cpu"), OUTPUT).spatial == spatial
    other = form_of(sizes, window, config, "gpu")
    assert merged(other, OUTPUT) == other


@pytest.mark.parametrize(
    ("config", "slot", "stride"),
    [
        ({}, INPUT, (4, 1)),
        ({}, OUTPUT, (1, 1)),
        ({"groups": 2}, OUTPUT, (4, 1)),
        ({"stride": (6, 2)}, INPUT, (6, 2)),
        ({"dilation": (1, 2)}, INPUT, (4, 1)),
        ({"padding": ((0, 1), (0, 0))}, INPUT, (1, 1)),
    ],
)
def test_an_axis_of_one_stop_has_a_stride(config: Any, slot: str, stride: Any) -> None:
    """That of all its taps, for the input gradient and in several groups."""
    form = merged(form_of((4, 9), (4, 3), {"padding": "VALID", **config}, "cpu"), slot)
    assert form.windows.stride == stride
    assert merged(form, slot) == form


# Minimal filtering takes any number of taps along the first axis of a volume, but not along a line.
LONG: list[tuple[Any, Any, dict[str, Any]]] = [
    ((10, 4, 3), (6, 1, 1), {"padding": "VALID"}),
    ((8, 4, 3), (7, 1, 1), {}),
    ((12, 4, 5), (9, 3, 1), {"padding": "VALID"}),
]


@pytest.mark.parametrize(
    ("algorithm", "sizes", "window", "config"),
    [
        *((fnn.conv, *case[:3]) for case in CASES),
        *((fnn.conv_winograd, *case[:3]) for case in CASES if "stride" not in case[2]),
        *((algorithm, *case) for case in LONG for algorithm in (fnn.conv, fnn.conv_winograd)),
        *((fnn.conv_winograd2, *case) for case in LONG),
    ],
)
def test_values_and_gradients(algorithm: Any, sizes: Any, window: Any, config: Any) -> None:
    groups = config.get("groups", 1)
    x, w = normal((2, *sizes, 4), (*window, 4 // groups, 6))
    against_the_oracle(algorithm, x, w, 60, **config)


@pytest.mark.parametrize(("sizes", "window", "config"), [case[:3] for case in CASES])
def test_transposed(sizes: Any, window: Any, config: Any) -> None:
    x, w = normal((2, *sizes, 4), (*window, 3, 4))
    want = oracle.conv_transpose(x.astype(np.float64), w.astype(np.float64), **config)
    close(fnn.conv_transpose(x, w, **config), want, length=60)


@pytest.mark.parametrize(("algorithm", "there"), [(fnn.conv, True), (fnn.conv_im2col, False)])
def test_the_program_has_them_merged(algorithm: Any, there: bool) -> None:
    """That of `fnn.conv`, whose window goes along a line of 5 x 7 places."""
    x, w = normal((2, 5, 7, 32), (3, 1, 32, 32))
    assert ("tensor<2x35x32xf32>" in jax.jit(algorithm).lower(x, w).as_text()) == there


@pytest.mark.parametrize(
    ("sizes", "window", "groups"),
    [((9, 7), (9, 7), 1), ((5, 40), (3, 40), 1), ((40, 5), (40, 3), 1), ((40, 5), (40, 1), 8)],
)
def test_no_gradient_multiplies_padding(sizes: Any, window: Any, groups: int) -> None:
    """A convolution of the one stop, padded all around, multiplied 2 to 84 times as often."""
    x, w = normal((2, *sizes, 8), (*window, 8 // groups, 16))
    y, pull = jax.vjp(lambda x: fnn.conv(x, w, padding="VALID", groups=groups), x)
    cost = jax.jit(pull).lower(y).compile().cost_analysis()
    products = 2 * y.size * w.size / w.shape[-1]
    assert cost["flops"] < 2 * products  # along a line, what lies between two rows is multiplied
