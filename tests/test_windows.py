"""Window arithmetic: sizes against counting, receptive fields against perturbation, messages."""

import itertools
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fnn

SIZES = list(itertools.product((1, 2, 5, 8), (1, 2, 3, 5), (1, 2, 3), (1, 2)))  # i, k, s, d


def places(i: int, lo: int, hi: int, window: int, stride: int, dilation: int) -> int:
    """Count the starts from which every tap falls inside the padded axis."""
    starts = range(0, lo + i + hi, stride)
    return sum(start + (window - 1) * dilation < lo + i + hi for start in starts)


def test_output_size_counts_places() -> None:
    for i, k, s, d in SIZES:
        config = {"stride": s, "dilation": d}
        for lo, hi in ((0, 0), (2, 2), (1, 4)):
            if lo + i + hi < (k - 1) * d + 1:
                with pytest.raises(ValueError, match="a span within the padded input"):
                    fnn.output_size((i,), k, padding=((lo, hi),), **config)
            else:
                want = (places(i, lo, hi, k, s, d),)
                assert fnn.output_size((i,), k, padding=((lo, hi),), **config) == want
        assert fnn.output_size((i,), k, padding="SAME", **config) == (-(-i // s),)


def test_transposed_size_inverts_output_size() -> None:
    for (i, k, s, d), padding in itertools.product(SIZES, ("SAME", "VALID", 1, ((0, 2),))):
        config: dict[str, Any] = {"stride": s, "dilation": d, "padding": padding}
        ends = {"SAME": 0, "VALID": 0, 1: 2}.get(padding, 2)
        for extra in range(1 if padding == "SAME" else s):
            if (i - 1) * s + (k - 1) * d + 1 + extra < ends:
                with pytest.raises(ValueError, match="needed less: it leaves the sizes"):
                    fnn.transposed_size((i,), k, output_padding=extra, **config)
            else:
                sizes = fnn.transposed_size((i,), k, output_padding=extra, **config)
                assert fnn.output_size(sizes, k, **config) == (i,)


def test_axes_are_independent() -> None:
    config = {"stride": (2, 1, 3), "padding": ((0, 1), (2, 0), (1, 1)), "dilation": (1, 2, 1)}
    assert fnn.output_size((7, 8, 9), (3, 2, 4), **config) == (3, 8, 3)
    assert fnn.output_size((7, 8), [3, 2], stride=[2, 1], padding=[1, 0]) == (4, 7)
    array = {"window": 3, "padding": np.array([1, 0])}
    assert fnn.output_size((7, 8), **array) == (7, 6)
    assert fnn.transposed_size((7, 6), **array) == (7, 8)
    assert fnn.receptive_field((7, 8), [array])[0].output == (7, 6)
    assert fnn.transposed_size((3, 8, 3), (3, 2, 4), **config, output_padding=(1, 0, 1)) == (
        7,
        8,
        9,
    )


STACKS = [
    [{"window": 3, "padding": "SAME"}, {"window": 3, "stride": 2, "padding": 1}, {"window": 2}],
    [{"window": 4, "stride": 3}, {"window": 2, "dilation": 2, "padding": ((1, 0),)}],
    [{"window": 2, "stride": 2}, {"window": 2, "stride": 2}, {"window": 3, "padding": 1}],
]


@pytest.mark.parametrize("stack", STACKS)
def test_receptive_field_is_what_a_unit_sees(stack: list[dict[str, Any]]) -> None:
    """B14: the input elements that change it, in a stack of all-ones convolutions."""
    size = 31
    maps = jnp.eye(size)[..., None]  # one unit impulse per example
    for layer, field in zip(stack, fnn.receptive_field((size,), stack), strict=True):
        rest = {"padding": "VALID"} | {k: v for k, v in layer.items() if k != "window"}
        maps = fnn.conv(maps, jnp.ones((layer["window"], 1, 1)), **rest)
        assert field.output == maps.shape[1:-1]
        for unit in range(maps.shape[1]):
            start = field.start[0] + unit * field.stride[0]
            inside = np.flatnonzero(maps[:, unit, 0])
            assert inside[0] >= start
            assert inside[-1] < start + field.size[0]
            if start >= 0 and start + field.size[0] <= size:  # no part of it in the padding
                assert (inside[0], inside[-1]) == (start, start + field.size[0] - 1)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (fnn.output_size, {"stride": 0}, "stride: got 0; needed an int >= 1 or a tuple of 2 such ints"),
    (fnn.output_size, {"stride": -1}, "stride: got -1; needed an int >= 1"),
    (fnn.output_size, {"stride": 1.5}, "stride: got 1.5"),
    (fnn.output_size, {"stride": True}, "stride: got True"),
    (fnn.output_size, {"dilation": (1, 1, 1)}, "dilation: got (1, 1, 1)"),
    (fnn.output_size, {"window": 0}, "window: got 0"),
    (fnn.output_size, {"padding": "same"}, 'padding: got \'same\'; needed "SAME", "VALID", an'),
    (fnn.output_size, {"padding": -1}, "padding: got -1"),
    (fnn.output_size, {"padding": True}, "padding: got True"),
    (fnn.output_size, {"padding": (1, True)}, "padding: got (1, True)"),
    (fnn.output_size, {"padding": ((1, 2),)}, "padding: got ((1, 2),)"),
    (fnn.output_size, {"padding": ((1, 2, 3), 1)}, "padding: got ((1, 2, 3), 1)"),
    (fnn.output_size, {"padding": np.array([1.0, 1.0])}, "padding: got (1.0, 1.0)"),
    (fnn.output_size, {"window": 9}, "window: got (9, 9) with dilation (1, 1), a span of (9, 9)"),
    (fnn.transposed_size, {"stride": 2, "output_padding": 2}, "needed less than the stride (2, 2)"),
    (fnn.transposed_size, {"output_padding": -1}, "output_padding: got -1; needed an int >= 0"),
    (
        fnn.transposed_size,
        {"padding": "SAME", "output_padding": 1, "stride": 2},
        'output_padding: got (1, 1); needed 0 with the padding "SAME", which gives i s outputs',
    ),
    (
        fnn.transposed_size,
        {"spatial": (0, 5), "stride": 4, "padding": 1},
        "spatial sizes: got (0, 5); needed 1 or more",
    ),
    (fnn.transposed_size, {"padding": 9}, "padding: got ((9, 9), (9, 9)); needed less: it leaves"),
    (fnn.transposed_size, {"spatial": ()}, "spatial: got (); needed one int >= 0 per spatial axis"),
    (fnn.output_size, {"spatial": ()}, "spatial: got (); needed one int >= 0 per spatial axis"),
]


@pytest.mark.parametrize(("fn", "config", "message"), WRONG)
def test_wrong_calls(fn: Any, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        fn(**{"spatial": (5, 6), "window": 3} | config)
    assert str(error.value).startswith(f"fnn.{fn.__name__}: ")


def test_receptive_field_names_itself() -> None:
    with pytest.raises(ValueError, match=re.escape("fnn.receptive_field: window: got (3,)")):
        fnn.receptive_field((5,), [{"window": 4}, {"window": 3}])
    for layers, got in ((5, "5"), ({"window": 3}, "'window'"), ([3], "3")):
        said = rf"fnn\.receptive_field: layers: got {got}; needed dicts of window"
        with pytest.raises(ValueError, match=said):
            fnn.receptive_field((5, 5), layers)  # type: ignore[arg-type]  # the mistake
