"""The rule that picks a kernel, and what `tune` remembers."""

import functools
import json
import os
import pwd
import re
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.kernels.conv import rule as rules
from fnn.kernels.conv import tuning
from fnn.kernels.conv.cells import cell as cell_of
from fnn.kernels.conv.form import INPUT, OUTPUT, WINDOW, Form
from fnn.kernels.conv.im2col import IM2COL
from fnn.windows import resolve

# One form of every kind: window, input channels, output channels, configuration.
KINDS = {
    "depthwise, small window": ((9, 9), (3, 3), 4, 8, {"groups": 4}),
    "depthwise, middle window": ((9, 9), (7, 7), 2, 2, {"groups": 2}),
    "depthwise, large window": ((12, 12), (9, 9), 32, 32, {"groups": 32}),
    "depthwise, larger window": ((17, 16), (12, 11), 32, 32, {"groups": 32}),
    "depthwise, small plane": ((16, 16), (12, 11), 32, 32, {"groups": 32}),
    "depthwise, huge window": ((17, 16), (23, 23), 2, 2, {"groups": 2}),
    "grouped": ((9, 9), (3, 3), 18, 8, {"groups": 2}),
    "few products": ((9, 9), (3, 3), 3, 40, {}),
    "grouped, few channels": ((9, 9), (3, 3), 16, 8, {"groups": 2}),
    "pointwise": ((9, 9), (1, 1), 6, 7, {}),
    "pointwise, narrowing": ((9, 9), (1, 1), 8, 2, {}),
    "volume": ((2, 19, 20), (3, 3, 3), 32, 33, {}),
    "strided": ((25,), (3,), 32, 33, {"stride": 2}),
    "strided, few channels": ((9, 9), (3, 3), 16, 7, {"stride": 2}),
    "one input channel": ((9, 9), (3, 3), 1, 32, {"stride": 2}),
    "narrow input": ((9, 9), (3, 3), 4, 32, {}),
    "narrow input and output": ((9, 9), (3, 3), 8, 31, {}),
    "narrow output": ((9, 9), (3, 3), 32, 6, {}),
    "few outputs": ((9, 9), (3, 3), 32, 3, {}),
    "line": ((20,), (5,), 32, 33, {}),
    "line, large patches": ((4000,), (9,), 32, 33, {}),
    "line, few channels": ((20,), (5,), 16, 17, {}),
    "line, narrow": ((40,), (31,), 3, 7, {}),
    "plane": ((9, 9), (3, 3), 31, 127, {}),
    "plane, few places": ((3, 3), (3, 3), 64, 40, {}),
    "plane, small window, few places": ((8, 8), (3, 3), 256, 257, {}),
    "plane, dilated": ((9, 9), (3, 3), 31, 127, {"dilation": 2}),
    "mostly padding": ((9, 9), (3, 3), 64, 65, {"dilation": 5}),
    "plane, small window, dilated": ((16, 8), (3, 3), 32, 65, {"dilation": 2}),
    "plane, small window, dilated, ragged": ((9, 9), (3, 3), 32, 65, {"dilation": 2}),
    "plane, small window": ((8, 12), (3, 3), 63, 127, {}),
    "plane, small window, few channels": ((8, 9), (3, 4), 24, 31, {}),
    "plane, small window, ragged": ((9, 9), (3, 3), 32, 127, {}),
    "plane, small window, deep": ((9, 9), (5, 2), 64, 64, {}),
    "line, small window": ((80,), (3,), 16, 157, {"dilation": 2}),
    "line, small window, deep": ((80,), (3,), 128, 129, {}),
    "volume, small window, large": ((2, 20, 20), (3, 3, 3), 32, 33, {}),
    "plane, large window": ((12, 12), (6, 3), 16, 17, {}),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty cache folder of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rules.tuned.cache_clear()
    yield tmp_path / "fnn" / "tuned.json"
    rules.tuned.cache_clear()


measure = tuning._seconds
measured = functools.cache(measure)


@pytest.fixture
def default_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every race ends as if the default took three times as long as all others.

    So what one test has measured is the same in the next.
    """
    monkeypatch.setattr(tuning, "_seconds", measured)
    monkeypatch.setattr(
        tuning, "_race", lambda runs: {k: 3.0 if k == "auto" else 1.0 for k in runs}
    )


def arrays(kind: str, dtype: Any = jnp.float32) -> tuple[Any, Any, dict[str, Any]]:
    spatial, window, c_in, c_out, config = KINDS[kind]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *spatial, c_in)).astype(dtype)
    w = rng.standard_normal((*window, c_in // config.get("groups", 1), c_out)).astype(dtype)
    return *jax.device_put((x, w)), config


def test_every_kind_has_its_cell_and_every_cell_its_choice() -> None:
    named, other = set(), {"few outputs": (WINDOW, "narrow output")}
    other["line, large patches"] = (OUTPUT, "line")  # the cells of the other map
    for kind, (spatial, window, c_in, c_out, config) in KINDS.items():
        stride, dilation = config.get("stride", 1), config.get("dilation", 1)
        windows = resolve("test", spatial, window, stride, "SAME", dilation)
        form = Form(spatial, windows, config.get("groups", 1))
        for slot in (OUTPUT, WINDOW):
            cell = cell_of(slot, form, 2, c_in, c_out)
            named.add(cell)
            where, instead = other.get(kind, (None, None))
            assert cell == f"{slot} {instead if slot == where else kind}"
    for platform, choices in rules.CHOICES.items():
        assert set(choices) == named, platform
        assert set(choices.values()) <= set(rules.KERNELS)


@pytest.mark.parametrize(
    ("window", "c_in", "c_out", "few"),
    [
        ((3, 3), 16, 8, True),
        ((3, 3), 18, 8, False),  # more than 8 channels in a group
        ((3, 3), 8, 4, True),
        ((5, 5), 8, 4, False),  # sums of 100 products for 2 outputs
        ((5, 5), 8, 8, True),
        ((9, 8), 8, 8, False),  # more taps than are unrolled
        ((3, 3), 8, 320, True),
        ((3, 3), 8, 360, False),  # the window of a group has 6,480 entries
    ],
)
def test_groups_of_few_channels(window: tuple[int, ...], c_in: int, c_out: int, few: bool) -> None:
    form = Form((12, 12), resolve("test", (12, 12), window, 1, "SAME"), 2)
    kind = "grouped, few channels" if few else "grouped"
    assert cell_of(OUTPUT, form, 2, c_in, c_out) == f"{OUTPUT} {kind}"


@pytest.mark.parametrize(
    ("side", "c_in", "c_out", "kind"),
    [
        (8, 64, 80, "plane, small window"),
        (8, 62, 80, "grouped"),
        (8, 128, 130, "plane, small window, deep"),
        (9, 64, 80, "plane, small window, ragged"),
        (4, 64, 64, "plane, small window"),
        (4, 64, 66, "grouped"),  # more channels of a group than places
    ],
)
def test_groups_of_many_channels_go_as_one_does(
    side: int, c_in: int, c_out: int, kind: str
) -> None:
    """From 32 channels on, in each of two groups; where there is one alone, from 24 on."""
    form = Form((side, side), resolve("test", (side, side), (3, 3), 1, "SAME"), 2)
    for slot in (OUTPUT, WINDOW):
        assert cell_of(slot, form, 2, c_in, c_out) == f"{slot} {kind}"


@pytest.mark.parametrize(
    ("side", "size", "groups", "kind"),
    [
        (7, 3, 16, "grouped"),
        (7, 3, 15, "plane, small window"),  # too few for both cores
        (8, 3, 16, "plane, small window"),  # tiles cover no more than the output
        (17, 3, 16, "plane, small window"),  # the products are too large to be taken together
        (7, 7, 16, "grouped"),  # which no tile covers
    ],
)
def test_products_of_many_groups_are_not_filtered_minimally(
    side: int, size: int, groups: int, kind: str
) -> None:
    form = Form((side, side), resolve("test", (side, side), (size, size), 1, "SAME"), groups)
    for slot in (OUTPUT, WINDOW):
        assert cell_of(slot, form, 8, 32 * groups, 32 * groups) == f"{slot} {kind}"


def test_a_window_gradient_of_few_places_needs_more_of_them() -> None:
    """Minimal filtering needs 128 there, not 64. Here are 98: too few for it, many for patches."""
    form = Form((7, 7), resolve("test", (7, 7), (3, 3), 1, "SAME"), 1)
    assert cell_of(OUTPUT, form, 2, 256, 257) == "output plane, small window, few places"
    assert cell_of(WINDOW, form, 2, 256, 257) == "window plane"


@pytest.mark.parametrize(
    ("k", "c_in", "c_out", "kind"),
    [
        (5, 50, 50, "line, small window"),
        (5, 50, 49, "line"),  # fewer products
        (6, 50, 50, "line"),
        (8, 16, 31, "line, few channels"),
        (9, 16, 31, "line"),  # its patches are long
        (3, 15, 200, "line, narrow"),
        (32, 1, 31, "one input channel"),
        (33, 1, 31, "line, narrow"),
        (16, 1, 32, "one input channel"),
        (17, 1, 32, "line, narrow"),
    ],
)
def test_lines(k: int, c_in: int, c_out: int, kind: str) -> None:
    form = Form((300,), resolve("test", (300,), (k,), 1, "SAME"), 1)
    assert cell_of(OUTPUT, form, 2, c_in, c_out) == f"{OUTPUT} {kind}"


@pytest.mark.parametrize(
    ("size", "k", "c_in", "c_out", "large"),
    [
        (3641, 9, 32, 33, True),  # patches of 8 MB
        (3640, 9, 32, 33, False),
        (4100, 8, 32, 33, False),
        (3641, 9, 32, 24, True),
        (3641, 9, 32, 23, False),  # products of few columns
        (3641, 9, 131, 33, True),
        (3641, 9, 132, 33, False),  # patches are of the cotangent
    ],
)
def test_patches_of_long_lines(size: int, k: int, c_in: int, c_out: int, large: bool) -> None:
    form = Form((size,), resolve("test", (size,), (k,), 1, "SAME"), 1)
    kind = cell_of(WINDOW, form, 2, c_in, c_out)
    assert (kind == "window line, large patches") == large


@pytest.mark.parametrize(
    ("window", "stride", "phases"),
    [
        ((5, 5), (2, 2), True),  # 3 x 3 turns
        ((4, 4), (1, 2), True),
        ((3, 3), (1, 2), False),  # 3 x 2
    ],
)
def test_phases_of_enough_taps_are_filtered_minimally(
    window: tuple[int, int], stride: tuple[int, int], phases: bool
) -> None:
    form = Form((32, 32), resolve("test", (32, 32), window, stride, "SAME"), 1, "cpu")
    y, w = jnp.ones((8, *form.out, 128)), jnp.ones((*window, 64, 128))
    assert rules._by_phases(form, y, w) == phases


def test_the_input_gradient_goes_by_the_places_that_it_has() -> None:
    """5 x 15 outputs are whole tiles, and the 6 x 16 inputs are not."""
    form = Form((6, 16), resolve("test", (6, 16), (2, 2), 1, "VALID"), 1, "cpu")
    assert cell_of(OUTPUT, form, 2, 60, 28) == "output plane, small window, few channels"
    shapes = (2, 5, 15, 60), (2, 2, 28, 60)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    auto, patches = (
        jax.jit(lambda y, w, kernel=kernel: kernel.input(y, w, form)).lower(*arrays).as_text()
        for kernel in (rules.AUTO, IM2COL)
    )
    assert auto == patches


@pytest.mark.parametrize(
    ("k", "c_in", "c_out", "few"),
    [
        (3, 16, 8, True),
        (3, 16, 12, False),
        (3, 18, 8, False),
        (3, 6, 20, True),
        (5, 6, 20, False),  # 75 products of a sum
        (3, 6, 12, False),
        (3, 6, 34, False),
    ],
)
def test_window_gradients_of_few_channels(k: int, c_in: int, c_out: int, few: bool) -> None:
    """Outputs are whole vectors, 4 of each of two groups and not 6; with 3 inputs, 16 in all."""
    form = Form((12, 12), resolve("test", (12, 12), (k, k), 1, "SAME"), 2)
    kind = "grouped, few channels" if few else "grouped"
    assert cell_of(WINDOW, form, 2, c_in, c_out) == f"{WINDOW} {kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_equals_the_library(kind: str) -> None:
    x, w, config = arrays(kind)

    def slopes(conv: Any, x: Any, w: Any) -> Any:
        return jax.value_and_grad(lambda x, w: (conv(x, w, **config) ** 2).sum(), (0, 1))(x, w)

    both = jax.jit(lambda x, w: [slopes(conv, x, w) for conv in (fnn.conv, fnn.conv_lax)])
    got, want = map(jax.tree.leaves, both(x, w))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5 * float(np.abs(b).max()))


def test_a_platform_without_measurements_uses_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "CHOICES", {})
    x, w, config = arrays("depthwise, small window")

    def program(conv: Any) -> str:
        jitted = jax.jit(lambda x, w: conv(x, w, **config))
        return str(jitted.lower(x, w).as_text()).replace("conv_lax", "conv")

    assert program(fnn.conv).count("stablehlo.convolution") == 1
    monkeypatch.undo()
    assert program(fnn.conv).count("stablehlo.convolution") == 0


@pytest.mark.usefixtures("default_loses")
def test_tune_remembers_and_conv_follows(cache: Path) -> None:
    x, w, _ = arrays("line")
    said: list[str] = []
    choices = fnn.tune(lambda x, w: fnn.conv(x, w).sum(), x, w, say=said.append)
    assert sorted(name.split()[2] for name in choices) == [INPUT, OUTPUT, WINDOW]
    found = {key.split()[2]: name for key, name in choices.items()}
    for slot in (OUTPUT, WINDOW):  # the first kernel whose program is not the default's
        ruled = rules.CHOICES["cpu"][f"{slot} line"]
        assert found[slot] == ("im2col" if ruled == "lax" else "lax")
    assert json.loads(cache.read_text()) == choices
    assert rules.tuned() == choices
    assert [line.split(":")[1] for line in said[:3]] == [f" {i} of 3" for i in (1, 2, 3)]
    assert said[0].endswith(f": {next(iter(choices.values()))}, 3.00 times as fast")
    assert said[3] == "fnn.tune: 3 of 3 maps changed; all together are 3.00 times as fast"
    # Another choice in the file is another program.
    cache.write_text(json.dumps(dict.fromkeys(choices, "fft")))
    rules.tuned.cache_clear()
    lowered = jax.jit(jax.grad(lambda x: (fnn.conv(x, w) ** 2).sum())).lower(x)
    assert lowered.as_text().count("stablehlo.fft") >= 6
    cache.unlink()
    rules.tuned.cache_clear()
    assert "stablehlo.fft" not in jax.jit(lambda x: fnn.conv(x, w)).lower(x).as_text()


def test_tune_measures_and_leaves_what_is_as_fast_as_any(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, _ = arrays("line")
    changes = fnn.tune(fnn.conv, x, w, say=None)  # by the clock: whatever it is today
    assert rules.tuned() == changes

    def tuned_where_the_default_takes(time: float) -> dict[str, str]:
        race = lambda runs: {name: time if name == "auto" else 1.0 for name in runs}
        monkeypatch.setattr(tuning, "_race", race)
        return fnn.tune(fnn.conv, x, w, say=None)

    assert tuned_where_the_default_takes(1.04) == {}
    assert rules.tuned() == changes
    gained = tuned_where_the_default_takes(1.06)
    assert len(gained) == 3
    assert rules.tuned() == changes | gained


def test_a_race_gives_the_least_time_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn by turn; what took more than four times the least so far is not run again."""
    now, ran = [0.0], list[str]()
    monkeypatch.setattr(tuning, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    times = {
        "auto": [3.0, 2.0, 2.5, 4.0, 3.0, 2.0, 1.5, 2.0, 9.0],
        "lax": [1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0],
        "taps": [4.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 1.25],
        "fft": [4.5],
    }

    def run(name: str) -> None:
        now[0] += times[name][ran.count(name)]
        ran.append(name)

    got = tuning._race({name: functools.partial(run, name) for name in times})
    assert got == {"auto": 1.5, "lax": 1.0, "taps": 1.25, "fft": 4.5}
    assert ran == [*times, *["auto", "lax", "taps"] * (tuning.ROUNDS - 1)]


@pytest.mark.usefixtures("default_loses")
def test_tune_looks_into_scans_and_adds_to_what_is_there(cache: Path) -> None:
    x, w, _ = arrays("pointwise")
    first = fnn.tune(fnn.conv, x, w, say=None)
    line, window, _ = arrays("line, few channels", jnp.bfloat16)

    def stack(x: Any, w: Any) -> Any:
        return jax.lax.scan(
            lambda x, _: (fnn.conv(x, w)[..., : x.shape[-1]], None), x, None, length=2
        )[0]

    second = fnn.tune(stack, line, window, say=None)
    assert len(second) == 3
    assert all("bfloat16" in name for name in second)  # of which a CPU has products
    assert json.loads(cache.read_text()) == first | second


@pytest.mark.usefixtures("default_loses")
@pytest.mark.parametrize(
    ("window", "padding"), [((3, 1), "SAME"), ((8, 1), "VALID"), ((3, 5), "VALID")]
)
def test_tune_remembers_what_conv_looks_up_where_axes_are_merged(
    cache: Path, window: tuple[int, ...], padding: str
) -> None:
    """Where one has a single stop, the input gradient has another form than the other maps."""
    x, w = jnp.ones((2, 8, 5, 16)), jnp.ones((*window, 16, 16))
    conv = functools.partial(fnn.conv, padding=padding)
    choices = fnn.tune(conv, x, w, say=None)
    assert len(choices) == 3
    cache.write_text(json.dumps(dict.fromkeys(choices, "fft")))
    rules.tuned.cache_clear()
    y = conv(x, w)
    for one in (
        lambda x, w, y: conv(x, w),
        lambda x, w, y: jax.linear_transpose(lambda x: conv(x, w), x)(y),
        lambda x, w, y: jax.linear_transpose(lambda w: conv(x, w), w)(y),
    ):
        assert "stablehlo.fft" in jax.jit(one).lower(x, w, y).as_text()


def convolves_as_the_library() -> None:
    x, w, config = arrays("strided, few channels")
    want = np.asarray(fnn.conv_lax(x, w, **config))
    np.testing.assert_allclose(fnn.conv(x, w, **config), want, rtol=0, atol=1e-6 * np.max(want))


UNREADABLE = [b"{", b"[]", b"null", b"3", b'"lax"', b"\xff", b"", b"[" * 100_000]


@pytest.mark.usefixtures("default_loses")
@pytest.mark.parametrize("content", UNREADABLE, ids=lambda content: repr(content[:9]))
def test_a_file_of_something_else_is_said_and_ignored(cache: Path, content: bytes) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content)
    said = r"tuned\.json (is not readable|holds no table)"
    with pytest.warns(UserWarning, match=said):
        assert rules.tuned() == {}
    convolves_as_the_library()
    with pytest.warns(UserWarning, match=said):
        fnn.tune(fnn.conv, *arrays("line")[:2], say=None)  # which replaces it
    assert len(json.loads(cache.read_text())) == 3


def test_names_that_are_no_kernels_are_said_and_ignored(cache: Path) -> None:
    names = {"a": "lax", "b": "winograd3", "c": 3, "d": ["lax"], "e": None, "f": "winograd"}
    cache.parent.mkdir()
    cache.write_text(json.dumps(names))
    with pytest.warns(UserWarning, match=r"no kernel by 'winograd3', 3, None, \['lax'\]: ignored"):
        assert rules.tuned() == {"a": "lax", "f": "winograd"}
    convolves_as_the_library()


@pytest.mark.parametrize("name", ["winograd", "fft"])
def test_a_tuned_kernel_that_refuses_the_form_is_ignored(cache: Path, name: str) -> None:
    """As in a file that was written by hand, or for another version."""
    dtype = jnp.float32 if name == "winograd" else jnp.int32
    x, w, _ = arrays("strided, few channels", dtype)
    form = Form((9, 9), resolve("test", (9, 9), (3, 3), 2, "SAME"), 1, "cpu")
    y = jax.device_put(np.zeros((2, 5, 5, 7), x.dtype))
    maps = ((OUTPUT, x, w), (INPUT, y, w), (WINDOW, x, y))
    cache.parent.mkdir()
    cache.write_text(json.dumps({rules.key(slot, form, a, b): name for slot, a, b in maps}))
    assert len(rules.tuned()) == 3
    pairs = jax.jit(
        lambda: [
            [getattr(k, slot)(a, b, form) for k in (rules.AUTO, rules.LIBRARY)]
            for slot, a, b in maps
        ]
    )
    for got, want in pairs():
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_no_home_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without HOME, for a user without an entry in the password file."""

    def nobody(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(RuntimeError, match="home"):
        Path.home()
    rules.tuned.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rules.tuned() == {}
        convolves_as_the_library()
    with pytest.raises(RuntimeError, match=r"fnn\.tune: no home directory to remember in: set"):
        fnn.tune(fnn.conv, *arrays("line")[:2])
    rules.tuned.cache_clear()


def test_a_home_that_is_no_folder_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    rules.tuned.cache_clear()
    assert rules.tuned() == {}
    monkeypatch.setattr(tuning, "_seconds", None)  # nothing is measured
    said = r"fnn\.tune: cannot remember in /dev/null/fnn: set XDG_CACHE_HOME to a folder"
    with pytest.raises(RuntimeError, match=said):
        fnn.tune(fnn.conv, *arrays("line")[:2])
    rules.tuned.cache_clear()


def test_tune_takes_functions() -> None:
    with pytest.raises(TypeError, match=r"fnn\.tune: fn: got int 3; needed a function"):
        fnn.tune(3)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(TypeError, match=r"fnn\.tune: say: got int 3; needed a function"):
        fnn.tune(fnn.conv, *arrays("line")[:2], say=3)  # type: ignore[arg-type]  # the mistake


def test_a_kernel_is_named_as_its_function() -> None:
    for kernel in rules.KERNELS.values():
        assert getattr(fnn, f"conv_{kernel.name}").__name__ == f"conv_{kernel.name}"
    assert all(name == kernel.name for name, kernel in rules.KERNELS.items())


@pytest.mark.usefixtures("default_loses")
def test_tune_of_empty_arrays_and_of_padding_alone(cache: Path) -> None:
    """Nothing to measure; and outputs that are exactly 0, of which errors are no large part."""
    zeros = lambda *shape: np.zeros(shape, np.float32)
    assert fnn.tune(jax.vmap(fnn.conv), zeros(0, 2, 5, 4), zeros(0, 3, 4, 6)) == {}
    for shape in ((0, 5, 4), (2, 0, 4)):
        assert fnn.tune(fnn.conv, zeros(*shape), zeros(3, 4, 6)) == {}
    assert fnn.tune(fnn.conv, zeros(2, 5, 0), zeros(3, 0, 6)) == {}
    assert not cache.exists()
    blind = {"stride": 2, "dilation": 2, "padding": ((3, 0),)}
    call = lambda x, w: fnn.conv(x, w, **blind)
    assert len(fnn.tune(call, zeros(1, 1, 3), zeros(2, 3, 2), say=None)) == 3


@pytest.mark.usefixtures("default_loses")
def test_a_kernel_that_disagrees_is_an_error_and_nothing_is_lost(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, w, _ = arrays("line")
    before = fnn.tune(fnn.conv, x, w, say=None)
    wrong = IM2COL._replace(output=lambda x, w, form: 1.001 * IM2COL.output(x, w, form))
    monkeypatch.setitem(rules.KERNELS, "im2col", wrong)
    monkeypatch.setattr(tuning, "_seconds", measure)
    with pytest.raises(RuntimeError, match=r"kernel \w+ differs from the default by 0\.00"):
        fnn.tune(fnn.conv, x, w)
    assert json.loads(cache.read_text()) == before
    assert os.listdir(cache.parent) == ["tuned.json"]


def test_threads_that_remember_at_once_lose_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = json.dumps

    def slowly(*args: Any, **kwargs: Any) -> str:
        time.sleep(0.05)  # between reading and writing
        return dumps(*args, **kwargs)

    monkeypatch.setattr(json, "dumps", slowly)
    cache.parent.mkdir()
    maps = [f"map {i}" for i in range(4)]
    with ThreadPoolExecutor(len(maps)) as pool:
        list(pool.map(lambda name: tuning._remember({name: "taps"}, cache), maps))
    assert sorted(json.loads(cache.read_text())) == maps
    assert os.listdir(cache.parent) == ["tuned.json"]


def test_maps_that_differ_in_their_window_alone_have_keys_of_their_own() -> None:
    x, y = jnp.ones((1, 8, 8, 4)), jnp.ones((1, 3, 3, 8))
    windows = [resolve("test", (8, 8), size, 2, "VALID") for size in ((3, 3), (4, 4))]
    keys = [rules.key(WINDOW, Form((8, 8), window, 1, "cpu"), x, y) for window in windows]
    assert keys[0] != keys[1]


def test_products_that_a_platform_rounds_agree() -> None:
    """To TF32, as GPUs do by default, and not where products are of float32."""
    out, first = np.full(4, 1.0003), np.ones(4)
    tuning._check_agreement("lax", out, first, jnp.float32, 4 * 576, "gpu")
    with pytest.raises(RuntimeError, match=r"kernel lax differs from the default by 0\.02"):
        tuning._check_agreement("lax", out + 0.02, first, jnp.float32, 4 * 576, "gpu")
    with pytest.raises(RuntimeError, match=r"kernel lax differs from the default by 0\.0003"):
        tuning._check_agreement("lax", out, first, jnp.float32, 4 * 576, "cpu")


@pytest.mark.parametrize(("dtype", "product"), [(jnp.bfloat16, "bf16"), (jnp.float16, "f32")])
@pytest.mark.parametrize("kind", ["plane", "pointwise"])  # minimal filtering in float32, and im2col
def test_bfloat16_is_multiplied_as_it_is(kind: str, dtype: Any, product: str) -> None:
    """In all three maps: a CPU has products of bfloat16 summed in float32, but none of float16."""
    x, w, _ = arrays(kind, dtype)

    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return (fnn.conv(x, w).astype(jnp.float32) ** 2).sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, w).as_text()
    operands = re.findall(r"dot_general.*: \(tensor<[\dx]*x(\w+)>, .*-> tensor<[\dx]*xf32>", text)
    assert len(operands) >= 3
    assert set(operands) == {product}
