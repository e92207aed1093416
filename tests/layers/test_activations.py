"""Activations against float64, in value and two derivatives; and the faults they avoid."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import check, close
from tests.entries import DTYPES, assert_rounded, part, three
from tests.oracles.activations import LIMITS, ORACLES

pytestmark = pytest.mark.usefixtures("optimized")

CONFIGURED = {
    "gelu_tanh": functools.partial(fnn.gelu, approximate=True),
    "gelu_exact": functools.partial(fnn.gelu, approximate=False),
    "celu": functools.partial(fnn.celu, alpha=2.0),
}
CORNERS = [0.0, 0.5, 1.0, 3.0, 6.0]
PLACES = [1e-6, 1e-3, 0.1, 0.7, 2.0, 4.0, 8.0, 12.0, 15.0, 20.0, 37.0, 40.0, 80.0, 300.0, 1e4, 6e4]
KINKS: dict[str, tuple[float, ...]] = {  # where the slope jumps
    **dict.fromkeys(("unit_step", "sign", "relu", "leaky_relu"), (0.0,)),
    **dict.fromkeys(("hard_sigmoid", "hard_swish"), (-3.0, 3.0)),
    **dict.fromkeys(("relu6",), (0.0, 6.0)),
    **dict.fromkeys(("piecewise_linear",), (-0.5, 0.5)),
    **dict.fromkeys(("hard_tanh",), (-1.0, 1.0)),
}
TAILS = [  # where exponentials, densities and their products with x vanish, in one of the dtypes
    x
    for low, high in ((8, 15), (20, 23), (36, 46), (80, 106), (350, 360), (700, 750))
    for x in np.linspace(low, high, 6 * (high - low) + 1)
]
SIZES = np.array([*CORNERS, *PLACES, *TAILS])
STRAIGHT = {*KINKS, "identity"}  # of straight pieces; hard_swish of pieces of parabolas


def extremes(dtype: Any) -> list[float]:
    """The numbers at the ends of a dtype: subnormal, smallest normal, and largest."""
    info = jnp.finfo(dtype)
    return [float(info.smallest_subnormal), float(info.tiny) / 2, float(info.tiny), float(info.max)]


@pytest.mark.parametrize("name", ORACLES)
def test_value_and_two_derivatives(name: str) -> None:
    fn = CONFIGURED.get(name) or getattr(fnn, name)
    with jax.enable_x64(True):
        sizes = [np.array([*SIZES, *extremes(dtype), np.inf, np.nan]) for dtype in DTYPES]
        points = [np.array([*a, *-a]).astype(d) for a, d in zip(sizes, DTYPES, strict=True)]
        results = jax.jit(lambda xs: [three(fn, x) for x in xs])(points)
    for x, parts in zip(points, results, strict=True):
        at = np.asarray(x, np.float64)
        for order, got in enumerate(map(np.asarray, parts)):
            assert (got.dtype, got.shape) == (x.dtype, x.shape)
            oracle = functools.partial(part, ORACLES[name], order)
            finite = np.isfinite(at)
            assert_rounded(got[finite], oracle, at[finite], kinks=KINKS.get(name, ()))
            for end, limit in zip((-np.inf, np.inf), LIMITS[name], strict=True):
                close(got[at == end], [limit[order]])
            assert (name in STRAIGHT and order) or np.isnan(got[np.isnan(at)]).all()


def test_third_derivatives() -> None:
    x = np.array([-3.1, 0.0, 0.7])
    step = 1e-5
    kinked = (*STRAIGHT, "hard_swish", "softsign", "elu", "selu", "celu")
    names = [n for n in ORACLES if n not in kinked]
    with jax.enable_x64(True):
        fns = [CONFIGURED.get(name) or getattr(fnn, name) for name in names]
        third = [jax.vmap(jax.grad(jax.grad(jax.grad(fn)))) for fn in fns]
        got = jax.jit(lambda x: [f(x) for f in third])(jnp.asarray(x))
    for name, values in zip(names, got, strict=True):
        slope = (ORACLES[name](x + step)[2] - ORACLES[name](x - step)[2]) / (2 * step)
        np.testing.assert_allclose(values, slope, rtol=1e-6, atol=1e-9, err_msg=name)


def test_the_fourth_derivative_of_squareplus() -> None:
    """Where x^2 = b, two numbers under a root would be the same, and a maximum of both a tie."""
    x, fourth = np.array([-2.0, -0.3, 0.0, 1.999, 2.0, 5.0]), fnn.squareplus
    for _ in range(4):
        fourth = jax.grad(fourth)
    r = np.sqrt(x * x + 4)
    with jax.enable_x64(True):
        got = jax.jit(jax.vmap(fourth))(x)
    np.testing.assert_allclose(got, -6 * (r * r - 5 * x * x) / r**7, rtol=1e-13)


def test_the_second_derivative_of_squareplus_in_a_loop() -> None:
    """Before JAX 0.12 it is that of the value's own formula."""
    x = np.array([-1e4, -3.0, 0.0, 0.7, 1e4], np.float32)

    def loss(x: Any) -> Any:
        """The sum of squareplus of x + c for c = 0 and 1/2."""

        def body(c: Any, _: None) -> Any:
            return c + 0.5, fnn.squareplus(x + c).sum()

        return jax.lax.scan(body, jnp.float32(0), None, 2)[1].sum()

    got = jax.jit(jax.grad(lambda x: jax.grad(loss)(x).sum()))(x)
    wide = x.astype(np.float64)
    want = sum(ORACLES["squareplus"](wide + c)[2] for c in (0, 0.5))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("name", ORACLES)
def test_the_oracle_differentiates_itself(name: str) -> None:
    x = np.array([-7.1, -3.3, -1.7, -0.6, -0.2, 0.3, 0.8, 2.1, 4.4, 9.0])
    step = 1e-5
    up, here, down = (ORACLES[name](x + d) for d in (step, 0.0, -step))
    for lower in (0, 1):
        slope = (up[lower] - down[lower]) / (2 * step)
        np.testing.assert_allclose(here[lower + 1], slope, rtol=1e-7, atol=1e-9)


LOGISTIC = lambda z: 1 / (1 + np.exp(-z))
TEXTS: dict[str, tuple[Any, Any]] = {  # the formulas of the courses and of their derivatives
    "unit_step": (lambda z: np.where(z < 0, 0, np.where(z > 0, 1, 0.5)), lambda z: 0 * z),
    "sign": (np.sign, lambda z: 0 * z),
    "identity": (lambda z: z, lambda z: 0 * z + 1),
    "piecewise_linear": (
        lambda z: np.where(z < -0.5, 0, np.where(z > 0.5, 1, z + 0.5)),
        lambda z: np.where(np.abs(z) < 0.5, 1, 0),
    ),
    "sigmoid": (LOGISTIC, lambda z: LOGISTIC(z) * (1 - LOGISTIC(z))),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, 1, 0)),
    "softplus": (lambda z: np.log(1 + np.exp(z)), LOGISTIC),
}


def test_C4_values_and_derivatives_of_the_texts() -> None:
    z = np.array([-3.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 2.0], np.float32)
    both = lambda f, z: (f(z), jax.vmap(jax.grad(f))(z))
    results = jax.jit(lambda z: [both(getattr(fnn, name), z) for name in TEXTS])(z)
    for formulas, got in zip(TEXTS.values(), results, strict=True):
        for formula, values in zip(formulas, got, strict=True):
            close(values, formula(z.astype(np.float64)))


def test_D3_saturation() -> None:
    """sigmoid'(z) = s (1 - s): at most 1/4, at 0, and below e^-|z| to either side."""
    z = np.linspace(-30, 30, 121, dtype=np.float32)
    slope = np.asarray(jax.jit(jax.vmap(jax.grad(fnn.sigmoid)))(z), np.float64)
    s = np.asarray(fnn.sigmoid(z), np.float64)
    np.testing.assert_allclose(slope, s * (1 - s), atol=1e-7)
    assert slope.argmax() == 60
    assert slope[60] == 0.25
    assert (np.diff(slope[:61]) > 0).all()
    np.testing.assert_allclose(slope, slope[::-1], rtol=1e-6)
    assert (slope <= np.exp(-np.abs(z.astype(np.float64))) * (1 + 1e-6)).all()
    assert 0 < slope[0] < 1e-12


def second(f: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(jax.grad(f))


def first_entry(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: f(jnp.full(70_000, x))[0]


def before_0_12(f: Callable[..., Any]) -> Callable[..., Any] | None:
    """JAX 0.12 mended the derivative of expm1, which was y + 1 in JAX 0.10 and 0.11."""
    return f if jax.__version_info__ < (0, 12) else None


F16, F32, F64 = np.float16, np.float32, np.float64
# What jax.nn fails, what fnn has instead, where, and what is right. Without a version, JAX 0.10.0,
# 0.10.2 and 0.12.0.1 have the fault.
FAULTS = [
    (jax.grad(jax.nn.sigmoid), jax.grad(fnn.sigmoid), F64(37), np.exp(-37)),
    (jax.grad(jax.nn.sigmoid), jax.grad(fnn.sigmoid), F32(20), np.exp(-20)),
    (jax.grad(jnp.tanh), jax.grad(fnn.tanh), F32(10), 4 * np.exp(-20)),
    (second(jax.nn.softplus), second(fnn.softplus), F32(20), np.exp(-20)),
    (second(jax.nn.log_sigmoid), second(fnn.log_sigmoid), F32(-20), -np.exp(-20)),
    (second(jax.nn.silu), second(fnn.silu), F32(20), -18 * np.exp(-20)),
    (second(jax.nn.mish), second(fnn.mish), F32(10), -72 * np.exp(-20)),
    (before_0_12(jax.grad(jax.nn.elu)), jax.grad(fnn.elu), F32(-20), np.exp(-20)),
    (before_0_12(jax.grad(jax.nn.celu)), jax.grad(fnn.celu), F32(-20), np.exp(-20)),
    (before_0_12(jax.grad(jax.nn.selu)), jax.grad(fnn.selu), F32(-20), 1.7580993 * np.exp(-20)),
    (jax.grad(jax.nn.gelu), jax.grad(fnn.gelu), F16(300), 1.0),
    (jax.nn.gelu, fnn.gelu, F32(-6), ORACLES["gelu_tanh"](np.array([-6.0]))[0][0]),
    (jax.grad(jax.nn.soft_sign), jax.grad(fnn.softsign), F16(300), 301.0**-2),
    (jax.nn.squareplus, fnn.squareplus, F16(-100), 0.01),
    (jax.grad(jax.nn.hard_tanh), jax.grad(fnn.hard_tanh), F32(1), 0.0),
    (jax.grad(jax.nn.leaky_relu), jax.grad(fnn.leaky_relu), F32(0), 0.01),
    (first_entry(jax.nn.softmax), first_entry(fnn.softmax), F16(0), 1 / 70_000),
    (first_entry(jax.nn.log_softmax), first_entry(fnn.log_softmax), F16(0), -np.log(70_000)),
    (jax.grad(jax.nn.logsumexp), jax.grad(fnn.logsumexp), F32(-np.inf), 0.0),
]


def test_upstream_faults_are_avoided() -> None:
    with jax.enable_x64(True):
        xs = [x for *_, x, _ in FAULTS]
        pairs = jax.jit(
            lambda xs: [(u and u(x), o(x)) for (u, o, *_), x in zip(FAULTS, xs, strict=True)]
        )(xs)
    for row, (upstream, ours) in zip(FAULTS, pairs, strict=True):
        assert abs(float(ours) - row[-1]) <= 0.06 * abs(row[-1]), (row, ours)
        if upstream is not None:
            assert not abs(float(upstream) - row[-1]) <= 0.06 * abs(row[-1]), f"well done: {row}"


def test_prelu_and_glu() -> None:
    rng = np.random.default_rng(0)
    x, slope = rng.standard_normal((2, 3, 4)), rng.standard_normal(4)
    args = [np.asarray(a, np.float32) for a in (x, slope)]
    check(fnn.prelu, lambda a, s: np.where(a > 0, a, s * a), *args, length=6, batch=False)
    check(fnn.glu, lambda a, axis: a[:1] / (1 + np.exp(-a[1:])), args[0], axis=0, batch=False)
    slopes = jax.jit(jax.vmap(jax.grad(fnn.prelu, (0, 1))))(*np.float32([[-2, 0], [0.5, 0.5]]))
    np.testing.assert_array_equal(slopes, [[0.5, 0.5], [-2, 0]])


def test_slope_zero_is_relu_and_infinities_leave_the_slopes_gradient_alone() -> None:
    x = np.array([-np.inf, -2, 0, 3, np.inf], np.float32)
    fns = (
        functools.partial(fnn.leaky_relu, negative_slope=0.0),
        lambda x: fnn.prelu(x, jnp.zeros_like(x)),
    )

    @jax.jit
    def results(x: Any, slope: Any) -> Any:
        both = [(fn(x), jax.vmap(jax.grad(fn))(x)) for fn in fns]
        return fnn.relu(x), both, jax.grad(lambda s: fnn.prelu(x[1:], s)[-1])(slope)

    relu, both, to_slope = results(x, np.full(4, 0.1, np.float32))
    for value, gradient in both:
        np.testing.assert_array_equal(value, relu)
        np.testing.assert_array_equal(gradient, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(to_slope, 0)


def test_infinities_leave_the_gradients_of_numbers_alone() -> None:
    """In both modes, and where the quotient by the number is infinite alone."""
    inf, far = np.float32(np.inf), np.float32(3e38)
    cases = [
        *((lambda n, x=x: fnn.softplus(x, beta=n), 2.0, 0.0) for x in (inf, -inf)),
        *((lambda n, x=x: fnn.celu(x, alpha=n), 0.5, -1.0) for x in (-inf, -far)),
        (lambda n: fnn.celu(inf, alpha=n), 0.5, 0.0),
        (lambda n: fnn.celu(-inf, alpha=n), 1e38, -1.0),
        *((lambda n, x=x: fnn.squareplus(x, b=n), 2.0, 0.0) for x in (inf, -inf)),
        *((lambda n, x=x: fnn.squareplus(x, b=n), 1e-6, 0.0) for x in (far, -far)),
    ]

    @jax.jit
    def slopes(numbers: Any) -> Any:
        return [[d(f)(n) for d in (jax.grad, jax.jacfwd)]
                for (f, *_), n in zip(cases, numbers, strict=True)]  # fmt: skip

    for got, (_, number, want) in zip(slopes([n for _, n, _ in cases]), cases, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=str(number))


def bend(z: Any) -> Any:
    """exp(z) - 1 - z exp(z), near 0 its series."""
    series = sum((1 - k) / np.longdouble(math.factorial(k)) * z**k for k in range(2, 30))
    return np.where(z > -1, series, np.expm1(z) - z * np.exp(z))


WIDTHS = {  # by the width n = 3, by both, and by the width twice
    "squareplus": (
        lambda x, n: fnn.squareplus(x, b=n),
        lambda x: 1 / (4 * np.sqrt(x * x + 3)),
        lambda x: -x / (4 * np.sqrt(x * x + 3) ** 3),
        lambda x: -1 / (8 * np.sqrt(x * x + 3) ** 3),
    ),
    "celu": (
        lambda x, n: fnn.celu(x, alpha=n),
        lambda x: bend(np.minimum(x, 0) / 3),
        lambda x: -np.minimum(x, 0) / 9 * np.exp(np.minimum(x, 0) / 3),
        lambda x: np.minimum(x, 0) ** 2 / 27 * np.exp(np.minimum(x, 0) / 3),
    ),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_the_derivatives_by_a_width(name: str) -> None:
    """Small differences of large terms, as the formula has them: near 0, or far from it."""
    fn, *wants = WIDTHS[name]
    sizes = np.array([1e-12, 1e-6, 1e-3, 0.1, 1, 2.9, 3.1, 20, 200, 1e4, 1e7, 1e12, 1e20])
    by_width = jax.grad(fn, 1)
    slopes = (by_width, jax.grad(by_width), jax.grad(by_width, 1))
    with jax.enable_x64(True):
        points = [np.array([0, *sizes, *-sizes], dtype) for dtype in (F32, F64)]
        results = jax.jit(
            lambda xs: [[jax.vmap(f, (0, None))(x, x.dtype.type(3)) for f in slopes] for x in xs]
        )(points)
    for x, got in zip(points, results, strict=True):
        for values, want in zip(got, wants, strict=True):
            assert_rounded(values, want, x)


def test_bounds_of_hard_tanh_and_sharpness_of_softplus() -> None:
    x = np.array([-3, -2, 0.1, 0.5, 0.7], np.float32)
    clipped = functools.partial(fnn.hard_tanh, low=-2.0, high=0.5)
    check(clipped, lambda a: np.clip(a, -2, 0.5), np.delete(x, [1, 3]), batch=False)
    sharp = functools.partial(fnn.softplus, beta=5.0)
    check(sharp, lambda a: ORACLES["softplus"](5 * a)[0] / 5, x, batch=False)
    squareplus = functools.partial(fnn.squareplus, b=0.01)

    @jax.jit
    def results(x: Any, top: Any) -> Any:
        corners = jax.vmap(jax.grad(clipped))(x)
        return corners, sharp(top), jax.value_and_grad(squareplus)(top)

    top = jnp.finfo(jnp.float32).max
    corners, line, (value, slope) = results(x, top)
    np.testing.assert_array_equal(corners, [0, 0, 1, 0, 0])
    assert line == value == top
    assert slope == 1


def test_gates_that_vanish_alone() -> None:
    pairs = np.array([[1e30, -100], [3, -np.inf], [np.inf, -2], [2, np.inf]], np.float32)
    want = [1e30 * np.exp(-100.0), 0, np.inf, 2]
    total = lambda x: fnn.glu(x).sum()
    values, gradient = jax.jit(lambda x: (fnn.glu(x), jax.grad(total)(x[:2])))(pairs)
    np.testing.assert_allclose(np.asarray(values)[:, 0], want, rtol=1e-5)
    slopes = [[np.exp(-100.0), 1e30 * np.exp(-100.0)], [0, 0]]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-38)


def test_wrong_calls() -> None:
    ones = functools.partial(np.ones, dtype=np.float32)
    x = ones((2, 3))
    for call, message in [
        (
            lambda: fnn.glu(x),
            r"fnn.glu: x: got float32\[2,3\] with axis -1; needed an axis of even",
        ),
        (lambda: fnn.glu(x, axis=2), r"fnn.glu: axis: got 2; needed an axis of x float32\[2,3\]"),
        (lambda: fnn.glu(x, axis=(0,)), r"fnn.glu: axis: got \(0,\); needed an axis"),
        (
            lambda: fnn.softmax(x[0, 0]),
            r"fnn.softmax: axis: got -1; needed an axis of x float32\[\]",
        ),
        (lambda: fnn.log_softmax(x, axis=1.0), "fnn.log_softmax: axis: got 1.0; needed an axis"),
        (
            lambda: fnn.logsumexp(x, axis=[0, -2]),
            r"fnn.logsumexp: axis: got \(0, -2\); needed axes of x float32\[2,3\], each once",
        ),
        (lambda: fnn.softplus(x, beta=0.0), "fnn.softplus: beta: got 0.0; needed a number > 0"),
        (
            lambda: fnn.prelu(x, ones(2)),
            r"fnn.prelu: slope: got float32\[2\]; needed the trail",
        ),
        (lambda: fnn.celu(x, alpha=0.0), "fnn.celu: alpha: got 0.0; needed a number > 0"),
        (lambda: fnn.softplus(x, beta=np.inf), "beta: got inf; needed a number > 0, and finite"),
        (lambda: fnn.celu(x, alpha=np.inf), "alpha: got inf; needed a number > 0, and finite"),
        (lambda: fnn.hard_tanh(x, low=1.0), r"fnn.hard_tanh: low: got 1.0; .* in \[-inf, 1\)"),
        (lambda: fnn.hard_tanh(x, high=np.float32(-2)), r"hard_tanh: low: got -1.0; .*, -2\)"),
        (lambda: fnn.hard_tanh(x, low=2.0, high=jnp.float32(1)), r"low: got 2.0; .* \[-inf, 1\)"),
        (lambda: fnn.squareplus(x, b=-1.0), "fnn.squareplus: b: got -1.0; needed a number > 0"),
        (lambda: fnn.softmax(x, where=np.ones(3, bool)), r"fnn.softmax: where: got bool\[3\]"),
        (
            lambda: fnn.logsumexp(x, where=np.ones((3, 3), bool)),
            r"needed the shape \(2, 3\), or 1",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in [
        (lambda: fnn.log_softmax(x, where=x), r"where: got float32\[2,3\]; needed bool"),
        (lambda: fnn.softmax([1.0, 2.0]), "fnn.softmax: x: got list .*; needed an array"),
        (lambda: fnn.prelu(x, np.ones(3, np.float16)), r"fnn.prelu: slope: got float16\[3\]"),
        (
            lambda: fnn.prelu(x.astype(np.float16), jnp.ones(3, jnp.bfloat16)),
            r"slope: got bfloat16\[3\]; needed float16 or float32 for x float16\[2,3\]",
        ),
        (lambda: fnn.leaky_relu(x, negative_slope="a"), "negative_slope: got str 'a'"),
        (lambda: fnn.hard_tanh(x, low="a"), "fnn.hard_tanh: low: got str 'a'"),
        (lambda: fnn.hard_tanh(x, high=x), r"fnn.hard_tanh: high: got float32\[2,3\]"),
        (lambda: fnn.leaky_relu(x, negative_slope=x), r"negative_slope: got float32\[2,3\]"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()
