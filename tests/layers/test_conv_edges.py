"""Convolution at its edges: half precision, padding alone, zero sizes, NumPy's numbers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close
from tests.layers.test_conv import every, normal
from tests.oracles import conv as oracle

HALVES = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)


@HALVES
@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
def test_the_gradient_through_padding_is_summed_in_float32(mode: str, dtype: Any) -> None:
    """A border element is copied 6,000 times by replication, any other once or twice."""
    size = 2 if mode == "replicate" else 6001
    config = {"padding": 6000, "padding_mode": mode}
    x, w, g = np.ones((1, size, 1)), np.ones((1, 1, 1)), np.ones((1, size + 12000, 1))

    @jax.jit
    def pulled(x: Any, w: Any, g: Any) -> Any:
        return jax.vjp(lambda x: fnn.conv(x, w, **config), x)[1](g)

    (got,) = pulled(*(a.astype(dtype) for a in (x, w, g)))
    want, _ = oracle.conv_gradients(x, w, g, **config)
    close(got, want)


# Input size, stride, dilation, padding. In the first nine no output sees an element of the input.
PADDED = [
    (1, 2, 1, (2, 0)),
    (1, 2, 2, (3, 0)),
    (1, 2, 2, (7, 0)),
    (1, 3, 1, (3, 0)),
    (1, 3, 2, (3, 0)),
    (1, 3, 2, (7, 0)),
    (1, 3, 3, (7, 0)),
    (2, 3, 2, (3, 0)),
    (2, 3, 3, (7, 0)),
    (1, 1, 1, (7, 0)),
    (2, 1, 1, (0, 5)),
    (2, 2, 3, (2, 5)),
]


@every
def test_outputs_that_see_padding_only(fn: Any) -> None:
    """Value and all gradients, of every form on a line that the algorithm takes: one program."""
    rng = np.random.default_rng(0)

    def slopes(x: Any, w: Any, g: Any, config: dict[str, Any]) -> Any:
        y, pull = jax.vjp(lambda x, w: fn(x, w, **config), x, w)
        return y, *pull(g)

    calls, wants = [], []
    for size, stride, dilation, pads in PADDED:
        config = {"stride": stride, "dilation": dilation, "padding": (pads,)}
        if "winograd" in fn.__name__ and stride > 1:
            continue
        x, w = rng.standard_normal((2, size, 2)), rng.standard_normal((2, 2, 2))
        y = oracle.conv(x, w, **config)
        g = rng.standard_normal(y.shape)
        calls.append(([a.astype(np.float32) for a in (x, w, g)], config))
        wants.append((y, *oracle.conv_gradients(x, w, g, **config)))
    program = jax.jit(
        lambda arrays: [slopes(*a, c) for a, (_, c) in zip(arrays, calls, strict=True)]
    )
    for got, want, (_, config) in zip(program([a for a, _ in calls]), wants, calls, strict=True):
        for value, expected in zip(got, want, strict=True):
            assert value.shape == expected.shape, config
            close(value, expected, length=12, scale=float(np.abs(expected).max()) + 4)


STRIDED = [fnn.conv, fnn.conv_lax, fnn.conv_im2col, fnn.conv_taps, fnn.conv_fft]


@pytest.mark.parametrize("fn", STRIDED)
def test_a_stride_over_padding_only_of_many_channels(fn: Any) -> None:
    """The phases of the input gradient are then a convolution over no places."""
    x, w = normal((64, 1, 32), (4, 32, 64))
    config = {"stride": 2, "padding": ((6, 0),)}
    y, pull = jax.vjp(lambda x, w: fn(x, w, **config), x, w)
    g = normal(y.shape)[0]
    want = oracle.conv_gradients(*(np.float64(a) for a in (x, w, g)), **config)
    for got, expected in zip(pull(g), want, strict=True):
        close(got, expected, length=64 * 4, scale=float(np.abs(expected).max()) + 8)


def run(fn: Any, *arrays: Any, **config: Any) -> Any:
    """A cotangent, the value, and the gradients for it."""
    call = functools.partial(fn, **config)
    (g,) = normal(jax.eval_shape(call, *arrays).shape, seed=1)

    @jax.jit
    def value_and_gradients(g: Any, *arrays: Any) -> Any:
        y, pull = jax.vjp(call, *arrays)
        return y, *pull(g)

    return g, *value_and_gradients(g, *arrays)


FAR: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 1, 1), (2, 1, 1), {"stride": 2, "dilation": 2, "padding": ((3, 0),)}),
    ((2, 1, 3, 2), (2, 3, 1, 4), {"padding": ((5, 0), (1, 1)), "stride": (4, 1), "groups": 2}),
    ((1, 2, 2, 1, 2), (2, 1, 2, 2, 2), {"padding": ((9, 0), (0, 0), (0, 8)), "stride": (8, 1, 9)}),
]


@pytest.mark.parametrize(("x", "w", "config"), FAR)
def test_padding_only_in_every_rank(x: Any, w: Any, config: dict[str, Any]) -> None:
    a, v = normal(x, w)
    g, _, *gradients = run(fnn.conv, a, v, **config)
    wide = [t.astype(np.float64) for t in (a, v, g)]
    for got, want in zip(gradients, oracle.conv_gradients(*wide, **config), strict=True):
        close(got, want, length=40, scale=float(np.abs(want).max()) + 4)


HOLES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 1, 1), (2, 1, 1), {"stride": 2, "dilation": 2, "padding": 1}),
    ((2, 1, 3, 4), (2, 3, 1, 4), {"dilation": (3, 1), "padding": ((1, 2), (1, 1)), "groups": 2}),
    (
        (1, 2, 2, 1, 2),
        (2, 1, 2, 2, 2),
        {"stride": (1, 3, 2), "dilation": (5, 1, 2), "padding": ((2, 3), (1, 0), (1, 1))},
    ),
]


@pytest.mark.parametrize(("x", "w", "config"), HOLES)
def test_transposed_where_no_element_is_spread_to(x: Any, w: Any, config: dict[str, Any]) -> None:
    """The same of the transposed convolution: the value is 0 there, the gradients are right."""
    a, v = normal(x, w)
    g, *results = run(fnn.conv_transpose, a, v, **config)
    wide = [t.astype(np.float64) for t in (a, v, g)]
    want = oracle.conv_transpose(wide[0], wide[1], **config)
    assert 0 in want
    to_w = oracle.conv_gradients(wide[2], wide[1], wide[0], **config)[1]
    wants = (want, oracle.conv(wide[2], wide[1], **config), to_w)
    for got, expected in zip(results, wants, strict=True):
        close(got, expected, length=40, scale=float(np.abs(expected).max()) + 4)


# Zero sizes: the examples, an axis, input channels, output channels, an axis of vmap.
EMPTY = [
    ((0, 5, 4), (3, 4, 2)),
    ((2, 0, 4), (3, 4, 2)),
    ((2, 5, 0), (3, 0, 2)),
    ((2, 5, 4), (3, 4, 0)),
]


def value_and_gradients(fn: Any, *arrays: Any) -> Any:
    """The value, and the gradients of its sum."""
    y, pull = jax.vjp(fn, *arrays)
    return y, pull(jnp.ones_like(y))


@every
def test_zero_sizes(fn: Any) -> None:
    """Sums over nothing are 0: the value is the bias, gradients have their arrays' shapes."""
    cases = [[np.ones(s, np.float32) for s in (x, w, w[-1:])] for x, w in EMPTY]

    @jax.jit
    def results(cases: Any) -> Any:
        twice = [(jnp.concatenate([x, x], -1), w) for x, w, _ in cases]
        grouped = [fn(x, w, groups=2) for x, w in twice]
        return [value_and_gradients(fn, *arrays) for arrays in cases], grouped

    pairs, grouped = results(cases)
    for arrays, (value, gradients), same in zip(cases, pairs, grouped, strict=True):
        x, w, _ = arrays
        assert value.shape == (*x.shape[:-1], w.shape[-1])
        assert (np.asarray(value) == 1).all()
        assert [g.shape for g in gradients] == [a.shape for a in arrays]
        for gradient in gradients[:2]:
            assert not np.asarray(gradient).any()
        assert same.shape == value.shape


NOTHING: list[tuple[int | None, int | None]] = [(0, 0), (0, None), (None, 1)]


@every
@pytest.mark.parametrize("groups", [1, 2])
def test_vmap_over_nothing(fn: Any, groups: int) -> None:
    shapes = [(2, 5, 4), (3, 4 // groups, 6)]
    cases = [
        [
            np.ones(s if d is None else (*s[:d], 0, *s[d:]), np.float32)
            for s, d in zip(shapes, axes, strict=True)
        ]
        for axes in NOTHING
    ]
    call = lambda x, w: fn(x, w, groups=groups)

    @jax.jit
    def results(cases: Any) -> Any:
        pairs = zip(NOTHING, cases, strict=True)
        return [value_and_gradients(jax.vmap(call, axes), *arrays) for axes, arrays in pairs]

    for arrays, (y, gradients) in zip(cases, results(cases), strict=True):
        assert y.shape == (0, 2, 5, 6)
        for gradient, array in zip(gradients, arrays, strict=True):
            assert gradient.shape == array.shape
            assert not np.asarray(gradient).any()


def test_zero_sizes_elsewhere() -> None:
    ones = lambda *shape: np.ones(shape, np.float32)
    w = ones(3, 4, 2)
    assert fnn.conv_transpose(ones(0, 5, 2), w).shape == (0, 5, 4)
    assert fnn.conv_transpose(ones(2, 0, 2), w).shape == (2, 0, 4)
    assert fnn.conv_transpose(ones(2, 0, 2), w, padding=0).shape == (2, 2, 4)
    assert fnn.convolve(ones(2, 5, 0), ones(3, 0, 2)).shape == (2, 5, 2)
    assert fnn.conv_matrix(ones(3, 0, 2), 5).shape == (10, 0)
    assert fnn.conv_matrix(ones(3, 2, 0), 5).shape == (0, 10)
    _, y, *gradients = run(jax.vmap(fnn.conv_transpose), ones(0, 1, 5, 2), w[None][:0])
    assert y.shape == (0, 1, 5, 4)
    assert [g.shape for g in gradients] == [(0, 1, 5, 2), (0, 3, 4, 2)]


TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 4, 2), (2, 3, 2), {"dilation": 3, "output_padding": 2}),
    ((2, 4, 2), (2, 3, 2), {"dilation": 3, "output_padding": 2, "padding": 1}),
    ((2, 4, 2), (3, 3, 2), {"dilation": 4, "stride": 2, "output_padding": 3, "padding": 3}),
    (
        (1, 3, 4, 4),
        (2, 2, 1, 4),
        {"dilation": (5, 1), "stride": (2, 3), "output_padding": (4, 2), "groups": 2, "padding": 2},
    ),
    (
        (2, 4, 2),
        (2, 3, 2),
        {"dilation": 3, "output_padding": 2, "padding": 1, "padding_mode": "replicate"},
    ),
]


@pytest.mark.parametrize(("x", "w", "config"), TRANSPOSED)
def test_output_padding_below_the_larger_of_stride_and_dilation(
    x: Any, w: Any, config: dict[str, Any]
) -> None:
    """As PyTorch admits it; values and gradients by the definition."""
    config = {"padding": "VALID"} | config
    a, v = normal(x, w)
    sizes = {k: c for k, c in config.items() if k not in ("groups", "padding_mode")}
    g, y, to_a, to_v = run(fnn.conv_transpose, a, v, **config)
    assert y.shape[1:-1] == fnn.transposed_size(x[1:-1], w[:-2], **sizes)
    wide = [t.astype(np.float64) for t in (a, v)]
    close(y, oracle.conv_transpose(*wide, **config), length=40)
    inner = float(np.vdot(np.asarray(y, np.float64), g))  # the value is linear in both
    for gradient, array in ((to_a, a), (to_v, v)):
        assert abs(float(np.vdot(np.asarray(gradient, np.float64), array)) - inner) < 1e-4
    plain = {k: c for k, c in config.items() if k != "output_padding"}
    whole = oracle.conv(g.astype(np.float64), wide[1], **plain)
    close(to_a, whole[:, *(slice(o) for o in x[1:-1])], length=40)


@pytest.mark.parametrize(
    ("taps", "config"),
    [
        (1, {"padding": ((3, 0),), "dilation": 8, "output_padding": 7}),
        (3, {"padding": ((11, 0),), "dilation": 4, "output_padding": 3}),
        (1, {"padding": 3, "dilation": 8, "output_padding": 7}),
    ],
)
def test_a_transpose_that_nothing_reaches_is_zero(taps: int, config: dict[str, Any]) -> None:
    x, w = normal((2, 1, 3), (taps, 2, 3))
    y = fnn.conv_transpose(x, w, **config)
    sizes = fnn.transposed_size((1,), (taps,), **config)
    np.testing.assert_array_equal(y, np.zeros((2, *sizes, 2)))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
        placed = jax.typeof(fnn.conv_transpose(x, w, **config)).sharding.spec
    assert placed == jax.P("data", None, None)


def test_numpy_numbers_and_lists_are_configuration() -> None:
    x, w = normal((1, 5, 6, 2), (3, 3, 1, 2))
    two, one = np.int64(2), np.int32(1)
    got = fnn.conv(
        x,
        w,
        stride=np.array([2, 1]),
        padding=[[one, 0], [np.uint8(0), 2]],
        dilation=[np.int16(1), two],
        groups=two,
        padding_mode=np.str_("zeros"),
    )
    pads = ((1, 0), (0, 2))
    want = fnn.conv(x, w, stride=(2, 1), padding=pads, dilation=(1, 2), groups=2)
    assert got.dtype == jnp.float32
    assert np.array_equal(got, want)
    listed = fnn.conv_transpose(
        x, w, stride=[2, 1], output_padding=[1, 0], padding=[0, 0], groups=two
    )
    assert listed.shape == (1, 12, 8, 2)
    assert fnn.conv_matrix(w, [np.int64(5), 6], groups=2).shape == (60, 60)


@every
@pytest.mark.parametrize("groups", [1, 2])
def test_products_by_an_algorithm_of_the_users(fn: Any, groups: int) -> None:
    """XLA has products of complex numbers wrong by those of real ones, which JAX lets it use."""
    x, w = normal((2, 9, 4), (3, 4 // groups, 6))
    with jax.default_matmul_precision("F32_F32_F32"):
        g, y, *slopes = run(fn, x, w, groups=groups)
    want = oracle.conv(x, w, groups=groups), *oracle.conv_gradients(x, w, g, groups=groups)
    for got, expected in zip((y, *slopes), want, strict=True):
        close(got, expected, length=64)
