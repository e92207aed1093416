"""The input gradient of a strided window as one product."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.kernels.conv import col2im
from fnn.kernels.conv.form import INPUT, Form, apply
from fnn.kernels.conv.rule import AUTO
from fnn.windows import Windows
from tests.oracles.conv import conv_gradients

# Spatial sizes, window, stride, padding, groups, channels of a group: of x, of y.
CASES: dict[str, tuple[Any, ...]] = {
    "3x3 stride 2": ((7, 6), (3, 3), (2, 2), ((1, 1), (0, 1)), 1, 2, 3),
    "stride on one axis": ((5, 6), (2, 3), (1, 2), ((1, 0), (1, 1)), 1, 2, 3),
    "a stride beyond the window": ((9, 8), (2, 1), (3, 2), ((0, 0), (1, 0)), 1, 2, 3),
    "more padding than window": ((4, 3), (3, 2), (2, 2), ((5, 6), (3, 4)), 1, 1, 2),
    "a line": ((11,), (5,), (3,), ((2, 1),), 1, 2, 3),
    "a volume": ((4, 5, 3), (3, 2, 2), (2, 2, 1), ((1, 1), (0, 1), (0, 0)), 1, 2, 2),
    "groups": ((7, 6), (3, 3), (2, 2), ((1, 1), (0, 1)), 3, 2, 3),
    "depthwise": ((7, 6), (3, 5), (2, 2), ((1, 1), (2, 1)), 3, 1, 1),
}


def gradient(y: Any, w: Any, form: Form) -> Any:
    """The input gradient by the default kernel, lowered."""
    run = jax.jit(lambda y, w: apply(y, w, slot=INPUT, form=form, kernel=AUTO))
    return run.lower(y, w)


@pytest.mark.parametrize("budget", [1, 1000, col2im.BUDGET])
@pytest.mark.parametrize("case", CASES)
def test_the_shares_are_summed(case: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With rows cut as often as can be, one example in a block, and all in one."""
    spatial, size, stride, padding, groups, c, each = CASES[case]
    monkeypatch.setattr(col2im, "BUDGET", budget)
    form = Form(spatial, Windows(size, stride, padding, (1,) * len(size)), groups)
    rng = np.random.default_rng(0)
    y, w = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((2, *form.out, groups * each), (*size, c, groups * each))
    )
    assert col2im.applies(form, jnp.asarray(y), jnp.asarray(w))
    x = np.zeros((2, *spatial, groups * c))
    want, _ = conv_gradients(x, w, y, stride=stride, padding=padding, groups=groups)
    got = gradient(y, w, form).compile()(y, w)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("n", "size", "groups"), [(32, 128, 1), (1, 640, 1), (8, 128, 8)])
def test_shares_are_bounded(n: int, size: int, groups: int) -> None:
    """Blocks of examples, or of rows of one, two groups at once: all shares would take 9/4 of x."""
    form = Form((size, size), Windows((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1)), groups)
    y = jax.ShapeDtypeStruct((n, *form.out, 32 * groups), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 16, 32 * groups), jnp.float32)
    memory: Any = gradient(y, w, form).compile().memory_analysis()
    x = 4 * n * size * size * 16 * groups
    assert memory.temp_size_in_bytes <= min(groups, 2) * col2im.BUDGET + 3 * x / 2 < 9 * x / 4


def test_three_by_three_with_stride_two_is_one_product() -> None:
    form = Form((8, 8), Windows((3, 3), (2, 2), ((0, 1), (0, 1)), (1, 1)), 1)
    text = gradient(jnp.zeros((2, 4, 4, 64)), jnp.zeros((3, 3, 64, 64)), form).as_text()
    assert text.count("stablehlo.dot_general") == 1
    assert "stablehlo.convolution" not in text
