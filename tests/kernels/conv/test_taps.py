"""Shift and add: what its taps multiply, and in which vectors."""

import re
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

import fnn
from tests.layers.test_conv import against_the_oracle, normal

# Sizes, window, configuration, and the share of the products that are none with padding.
WIDE: list[tuple[Any, Any, dict[str, Any], float]] = [
    ((9, 9), (3, 3), {"dilation": 4}, (19 / 27) ** 2),
    ((9, 9), (3, 3), {"dilation": 7}, (13 / 27) ** 2),
    ((2, 3), (3, 3), {}, (4 / 6) * (7 / 9)),
]
FURTHER: list[tuple[Any, Any, dict[str, Any]]] = [
    ((9,), (3,), {"dilation": 3, "stride": 2}),
    ((4, 5), (3, 2), {"padding": ((7, 0), (0, 9))}),  # many places meet nothing
    ((3, 2, 4), (2, 2, 2), {"padding": 1}),
    ((1, 6), (2, 2), {"padding": ((4, 4), (0, 0)), "stride": (3, 1)}),
]


@pytest.mark.parametrize(("sizes", "window", "config"), [*(case[:3] for case in WIDE), *FURTHER])
def test_values_and_gradients(sizes: Any, window: Any, config: dict[str, Any]) -> None:
    x, w = normal((2, *sizes, 40), (*window, 40, 6))
    against_the_oracle(fnn.conv_taps, x, w, 360, **config)


@pytest.mark.parametrize("wanted", ["y", "x", "w"])
@pytest.mark.parametrize(("sizes", "window", "config", "share"), WIDE)
def test_no_padding_is_multiplied(
    sizes: Any, window: Any, config: dict[str, Any], share: float, wanted: str
) -> None:
    def result(x: Any, w: Any, g: Any) -> Any:
        y, pull = jax.vjp(lambda x, w: fnn.conv_taps(x, w, **config), x, w)
        return {"y": y, **dict(zip("xw", pull(g), strict=True))}[wanted]

    # Of one example, as a loop over several would hide its products.
    x, w = normal((1, *sizes, 64), (*window, 64, 64))
    (g,) = normal(fnn.conv_taps(x, w, **config).shape)
    cost = jax.jit(result).lower(x, w, g).compile().cost_analysis()
    products = 2 * share * g.size * w.size / w.shape[-1]
    assert products <= cost["flops"] < 1.1 * products


# Sizes, window, configuration of depthwise layers with padding.
PADDED: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "a line": ((9,), (3,), {"padding": ((3, 1),)}),
    "a plane": ((9, 8), (3, 5), {"padding": "SAME"}),
    "a strided plane": ((9, 8), (3, 3), {"padding": ((1, 0), (0, 2)), "stride": 2}),
    "unlike strides": ((7, 23), (2, 3), {"padding": ((1, 0), (2, 2)), "stride": (1, 2)}),
    "a dilated plane": ((6, 7), (3, 3), {"padding": "SAME", "dilation": (2, 3)}),
    "a strided volume": ((3, 4, 5), (2, 2, 2), {"padding": 1, "stride": (1, 1, 2)}),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", PADDED)
def test_taps_of_a_depthwise_window_read_the_padding(case: str, dtype: str) -> None:
    """The output, and the window gradient with a stride, copy no x to put zeros around it."""
    sizes, window, config = PADDED[case]
    conv = partial(fnn.conv_taps, groups=24, **config)
    x, w = normal((2, *sizes, 24), (*window, 1, 24), dtype=dtype)
    against_the_oracle(fnn.conv_taps, x, w, 144, groups=24, **config)

    def gradient(x: Any, w: Any, g: Any) -> Any:
        return jax.vjp(lambda w: conv(x, w), w)[1](g)

    programs = [jax.jit(conv).lower(x, w)]
    if np.max(config.get("stride", 1)) > 1:
        programs.append(jax.jit(gradient).lower(x, w, conv(x, w)))
    for program in programs:
        of_x = rf"stablehlo\.pad .*: \(tensor<{'x'.join(map(str, x.shape))}x\w+>"
        assert not re.search(of_x, program.as_text())


# Sizes, configuration, the axis of what no window of two meets, and its places.
UNMET: dict[str, tuple[Any, dict[str, Any], int, list[int]]] = {
    "behind the last stop": ((19,), {"stride": 2}, 1, [18]),
    "between the taps": ((19,), {"dilation": 10}, 1, [9]),
    "between and behind": ((21,), {"dilation": 3, "stride": 2}, 1, [1, 18, 20]),
    "rows": ((19, 9), {"dilation": (10, 1)}, 1, [9]),
    "columns": ((5, 19), {"dilation": (1, 10)}, 2, [9]),
}


@pytest.mark.parametrize("conv", [fnn.conv_taps, fnn.conv_im2col], ids=["taps", "im2col"])
@pytest.mark.parametrize(("groups", "outputs"), [(1, 16), (1, 4), (4, 16), (16, 16)])
@pytest.mark.parametrize("case", UNMET)
def test_what_no_window_meets_is_in_no_gradient(
    case: str, groups: int, outputs: int, conv: Any
) -> None:
    """Where zeros fill a block of outputs, or a row that a tap moved."""
    sizes, config, axis, places = UNMET[case]
    x, w = normal((2, *sizes, 16), (*(2 for _ in sizes), 16 // groups, outputs))

    def gradient(x: Any) -> Any:
        y, pull = jax.vjp(lambda w: conv(x, w, padding="VALID", groups=groups, **config), w)
        return pull(y)[0]

    want = np.asarray(gradient(x))
    x[(slice(None),) * axis + (places,)] = np.nan
    np.testing.assert_array_equal(gradient(x), want)


def test_what_a_tap_reads_in_place_of_padding_is_left_out() -> None:
    """The first window lies on padding alone, and the nearest element is infinite."""
    x, w = normal((1, 6, 6, 16), (2, 2, 1, 16))
    x[0, 0, 0] = np.inf
    y = fnn.conv_taps(x, w, padding=((2, 0), (2, 0)), groups=16)
    assert np.all(y[0, 0] == 0)
    assert np.all(np.isinf(y[0, 1, 1]))
    assert np.all(np.isfinite(y[0, 3:]))


@pytest.mark.parametrize(
    ("window", "c", "computed"),
    [((7, 7), 13, 16), ((7, 7), 16, 16), ((7, 7), 5, 5), ((5, 5), 13, 13)],
)
def test_a_large_depthwise_window_computes_whole_vectors(
    window: tuple[int, int], c: int, computed: int
) -> None:
    """In all three maps, and nothing of the zeros that fill the last one reaches a result."""

    def every(x: Any, w: Any, g: Any) -> Any:
        y, pull = jax.vjp(partial(fnn.conv_taps, padding="SAME", groups=c), x, w)
        return y, *pull(g)

    x, w, g = normal((2, 9, 8, c), (*window, 1, c), (2, 9, 8, c))
    text = jax.jit(every).lower(x, w, g).as_text()
    widths = {int(width) for width in re.findall(r"tensor<2x9x8x(\d+)xf32>", text)}
    assert max(widths) == computed
    against_the_oracle(fnn.conv_taps, x, w, 144, padding="SAME", groups=c)
