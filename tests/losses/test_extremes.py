"""Losses and metrics at infinities, NaN and the ends of each dtype, against their limits."""

import functools
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import tolerance
from tests.oracles import losses as oracles

pytestmark = pytest.mark.usefixtures("optimized")

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The oracles meet infinities and NaN on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def special(dtype: Any, *others: float) -> np.ndarray:
    """Zero, one, the ends of a dtype, infinity, both signs of each, and NaN."""
    info = jnp.finfo(dtype)
    ends = [float(info.smallest_subnormal), float(info.tiny), float(info.max)]
    sizes = np.array([0.0, 1.0, *ends, np.inf, *others])
    return np.array([*sizes, *-sizes, np.nan])


def rows(dtype: Any, *sizes: int) -> list[np.ndarray]:
    """Every combination of special numbers, as arrays (n, size) of float64."""
    every = np.array(list(itertools.product(special(dtype), repeat=sum(sizes))))
    return np.split(every, np.cumsum(sizes)[:-1], axis=1)


def flushed(x: np.ndarray, dtype: Any) -> np.ndarray:
    """With 0 for subnormal numbers, as many processors compute."""
    return np.where(np.abs(x) < float(jnp.finfo(dtype).tiny), 0, x)


def agree(got: Any, *wanted: Any, slack: Any = 0.0) -> None:
    """Assert that every entry is, rounded, that of one of the wanted arrays."""
    info, got64 = jnp.finfo(got.dtype), np.asarray(got, np.float64)
    good = np.zeros(got64.shape, bool)
    for want in wanted:
        want = np.where(np.isinf(want.astype(got.dtype)), np.copysign(np.inf, want), want)
        bound = tolerance(got.dtype) * np.abs(want) + float(info.tiny) + slack
        bound = np.where(np.isinf(want), 0, bound)  # to an infinity nothing else is near
        good |= (got64 == want) | (np.abs(got64 - want) <= bound)
        good |= np.isnan(got64) & np.isnan(want)
    places = np.argwhere(~good)
    assert good.all(), [(tuple(p), got64[tuple(p)], wanted[0][tuple(p)]) for p in places[:9]]


def test_no_number_agrees_with_an_infinity() -> None:
    for got, want in ((1.0, np.inf), (-np.inf, np.inf), (3e38, -np.inf), (np.nan, np.inf)):
        with pytest.raises(AssertionError):
            agree(np.array([got], np.float32), np.array([want]))


def value_and_slopes(fn: Any, *xs: Any) -> Any:
    """The value by entry, and the derivative of each entry in every argument."""
    value, pull = jax.vjp(fn, *xs)
    return value, pull(jnp.ones_like(value))


BY_ENTRY = [
    (fnn.squared_error, oracles.squared_error),
    (fnn.absolute_error, oracles.absolute_error),
    *(
        (functools.partial(fnn.huber, delta=d), functools.partial(oracles.huber, delta=d))
        for d in (2.0**-9, 0.5, 2.0**9)
    ),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_errors(dtype: Any) -> None:
    x, y = (a[:, 0] for a in rows(dtype, 1, 1))

    @jax.jit
    def results(x: Any, y: Any) -> Any:
        return [value_and_slopes(loss, x, y) for loss, _ in BY_ENTRY]

    got = results(x.astype(dtype), y.astype(dtype))
    for (value, (dx, dy)), (_, oracle) in zip(got, BY_ENTRY, strict=True):
        exact, flat = oracle(x, y), oracle(flushed(x, dtype), flushed(y, dtype))
        none = oracle(flushed(x - y, dtype), 0)  # their difference is subnormal
        agree(value, exact[0], flat[0], none[0])
        agree(dx, exact[1], flat[1], none[1])
        agree(dy, -exact[1], -flat[1], -none[1])


def test_huber_without_a_line() -> None:
    """An infinite delta leaves half the square, with derivative d."""
    d = np.array([1.0, -3.0, 1e20, np.inf, -np.inf], np.float32)
    loss = functools.partial(fnn.huber, delta=np.inf)
    value, (slope, _) = jax.jit(functools.partial(value_and_slopes, loss))(d, np.zeros_like(d))
    np.testing.assert_array_equal(value, [0.5, 4.5, *[np.inf] * 3])
    np.testing.assert_array_equal(slope, d)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_yes_and_no(dtype: Any) -> None:
    x = special(dtype, 80.0)
    cases = [
        *((fnn.binary_cross_entropy, oracles.binary_cross_entropy, (0, 1, 0.25), config)
          for config in ({}, {"pos_weight": 0.0}, {"pos_weight": 3.0})),
        (fnn.hinge, oracles.hinge, (-1, 1), {}),
    ]  # fmt: skip

    @jax.jit
    def results(x: Any) -> Any:
        found = []
        for loss, _, ys, config in cases:
            labels = jnp.stack([jnp.full_like(x, y) for y in ys])
            each = functools.partial(loss, labels=labels, **config)
            found.append(value_and_slopes(each, jnp.broadcast_to(x, labels.shape)))
        zeros = jnp.zeros(4, dtype)
        return found, [
            fnn.binary_cross_entropy(zeros, jnp.array([-0.5, 1.5, np.inf, np.nan], dtype)),
            fnn.hinge(zeros, jnp.array([0, 2, np.inf, np.nan], dtype)),
        ]

    found, unknown = results(x.astype(dtype))
    for (values, (slopes,)), (_, oracle, ys, config) in zip(found, cases, strict=True):
        for value, slope, y in zip(np.asarray(values), np.asarray(slopes), ys, strict=True):
            want = oracle(x, y, **config)
            agree(value, np.where(np.isnan(x), np.nan, want[0]))
            agree(slope[:-1], want[1][:-1])  # at NaN the hinge is flat
    assert np.isnan(unknown).all()


def probabilities(x: np.ndarray) -> np.ndarray:
    """Softmax of rows of three: infinite entries share, absent rows are 0, NaN spreads."""
    infinite, unknown = np.isposinf(x), np.isnan(x).any(-1, keepdims=True)
    shared = np.where(infinite.any(-1, keepdims=True), np.where(infinite, 0, -np.inf), x)
    return np.where(unknown, np.nan, np.exp(oracles.log_softmax(shared)))


def costs(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """``-log p``, also where p is too small for a number."""
    with_log = -np.log(p)
    top = x.max(-1, keepdims=True)
    far = np.isfinite(x) & np.isfinite(top) & (p < 1e-300)
    return np.where(far, top - x, with_log)


TARGETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.25, 0.75]])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_classes(dtype: Any) -> None:
    x = rows(dtype, 3)[0]
    soft = np.repeat(TARGETS[:, None].astype(dtype), len(x), 1)
    labels = soft[:3].argmax(-1)

    @jax.jit
    def results(x: Any, labels: Any, soft: Any) -> Any:
        losses = [
            lambda x: fnn.cross_entropy(x[:3], labels),
            lambda x: fnn.cross_entropy(x[:3], labels, label_smoothing=0.25),
            lambda x: fnn.cross_entropy(x, soft),
            lambda x: fnn.kl_divergence(x, soft),
            lambda x: fnn.perplexity(x[:3, :, None], labels[:, :, None]),
        ]
        return [value_and_slopes(loss, x) for loss in losses]

    found = results(np.repeat(x.astype(dtype)[None], len(soft), 0), labels, soft)
    pairs = [zip(*map(np.asarray, (v, slope)), strict=False) for v, (slope,) in found]
    *got, a, b, c = itertools.chain.from_iterable(pairs)

    p = probabilities(x)
    cost, here = costs(x, p), ~np.isneginf(x)
    absent = ~here.any(-1)
    even = here / np.maximum(here.sum(-1, keepdims=True), 1)
    entropy = np.array([sum(-a * np.log(a) for a in q if a) for q in TARGETS])
    asked = [
        *((q, 0) for q in TARGETS[:3]),
        *((0.75 * q + 0.25 * even, 0) for q in TARGETS[:3]),
        *((q, 0) for q in TARGETS),
        *zip(TARGETS, entropy, strict=True),
    ]
    top = float(jnp.finfo(jnp.float32).max)
    finite = np.where(np.isfinite(x), x, 0)
    far = finite.max(-1) - finite.min(-1) > top  # documented: there the loss is infinite
    eps = tolerance(dtype)
    for (value, slope), (q, less) in zip(got, asked, strict=True):
        want = np.where(absent, 0, oracles.times(q, cost).sum(-1) - less)
        agree(value, want, np.where(far, np.inf, want), slack=eps)
        agree(slope, np.where(absent[:, None], 0, p - q), slack=eps)
    for (value, slope), q in zip((a, b, c), TARGETS, strict=False):
        want = np.where(absent, 1, np.exp(oracles.times(q, cost).sum(-1)))
        agree(value, want)
        some = np.isfinite(np.asarray(value, np.float64))
        flat = np.where(absent[:, None], 0, want[:, None] * (p - q))
        agree(slope[some], flat[some], slack=eps)


def turned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The derivative of the cosine distance in x: what of the unit y is across x, over |x|."""
    u, v = (np.apply_along_axis(oracles.unit, -1, a) for a in (x, y))
    across = np.stack([v[:, 1] * u[:, 1] * u[:, 0] - v[:, 0] * u[:, 1] ** 2,
                       v[:, 0] * u[:, 0] * u[:, 1] - v[:, 1] * u[:, 0] ** 2], -1)  # fmt: skip
    size = np.hypot(x[:, :1], x[:, 1:])
    flat = ~x.any(-1, keepdims=True) | ~y.any(-1, keepdims=True) | np.isinf(size)
    return np.where(flat, 0, across / np.where(size == 0, 1, size))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_directions(dtype: Any) -> None:
    x, y = rows(dtype, 2, 2)
    keep = np.arange(len(x)) % 7 == 0
    x, y = x[keep], y[keep]
    value, (dx, _) = jax.jit(functools.partial(value_and_slopes, fnn.cosine_distance))(
        x.astype(dtype), y.astype(dtype)
    )
    value, dx = np.asarray(value), np.asarray(dx)
    unknown = np.isnan(x).any(-1) | np.isnan(y).any(-1)
    zero = ~flushed(x, dtype).any(-1) | ~flushed(y, dtype).any(-1)
    assert np.isnan(value[unknown & ~zero]).all()
    x, y, value, dx = (a[~unknown] for a in (x, y, value, dx))
    eps = tolerance(dtype)
    a, b = flushed(x, dtype), flushed(y, dtype)
    agree(value, oracles.cosine_distance(x, y), oracles.cosine_distance(a, b), slack=eps)
    size = np.maximum(np.hypot(x[:, :1], x[:, 1:]), float(jnp.finfo(dtype).smallest_subnormal))
    agree(dx, turned(x, y), turned(a, b), slack=eps / size)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_metrics(dtype: Any) -> None:
    x = rows(dtype, 3)[0]
    known = ~np.isnan(x).any(-1)
    labels = np.repeat(np.arange(3)[:, None], len(x), 1)

    @jax.jit
    def results(scores: Any, labels: Any) -> Any:
        each = jnp.broadcast_to(scores, (3, *scores.shape))
        ranks = [fnn.top_k_accuracy(each, labels, k=k) for k in (1, 2)]
        tables = [fnn.confusion_matrix(s, labels[0, : len(s)]) for s in (scores[known], scores)]
        return ranks, tables

    def place(x: np.ndarray, label: int) -> np.ndarray:
        own = x[:, [label]]
        ahead = (x > own) | ((x == own) & (np.arange(3) < label)) | np.isnan(x) | np.isnan(own)
        return ahead.sum(-1)

    ranks, (counted, unknown) = results(x.astype(dtype), labels)
    for k, hits in zip((1, 2), ranks, strict=True):
        for label, got in enumerate(np.asarray(hits)):
            agree(got, place(x, label) < k, place(flushed(x, dtype), label) < k)
    wanted = [np.bincount(a[known].argmax(-1), minlength=3) for a in (x, flushed(x, dtype))]
    assert counted[0].tolist() in [w.tolist() for w in wanted]
    assert np.isnan(unknown).all()


def test_penalties() -> None:
    penalties = (fnn.l1_penalty, fnn.l2_penalty)
    each = [special(dtype).astype(dtype)[:, None] for dtype in DTYPES]
    slopes = [jax.vmap(jax.value_and_grad(penalty)) for penalty in penalties]
    found = jax.jit(lambda ws: [[f(w) for f in slopes] for w in ws])(each)
    for w, pairs in zip(each, found, strict=True):
        wide = w[:, 0].astype(float)
        large = np.abs(wide) >= float(jnp.finfo(w.dtype).tiny)
        exact = [(np.abs(wide), np.sign(wide)), (wide**2 / 2, wide)]
        for (value, got), (term, slope) in zip(pairs, exact, strict=True):
            agree(value, term)
            agree(got[:, 0], slope, slope * large)


def test_the_gradient_of_class_weights() -> None:
    """Finite where a class that no label asks for costs infinity, or all of an ignored row do."""
    rows = jnp.array([[0.0, 0.0], [0.0, -jnp.inf], [0.0, 0.0]])
    labels = jnp.array([0, 0, -1])
    wants = {
        lambda w: fnn.cross_entropy(rows, labels, weights=w, ignore=-1): jnp.log(2.0),
        lambda w: fnn.nll(rows - 1, labels, weights=w, ignore=-1): 2.0,
    }
    for loss, want in wants.items():
        np.testing.assert_allclose(jax.grad(lambda w, f=loss: f(w).sum())(jnp.ones(2)), [want, 0])


def test_a_row_left_out_has_no_share_in_the_gradient_of_class_weights() -> None:
    """Though its label is one of the classes."""
    rows, labels = jnp.log(jnp.full((2, 2), 0.5)), jnp.array([0, 1])
    for loss in (fnn.cross_entropy, fnn.nll):
        for without in ({"where": jnp.array([[True], [False]])}, {"ignore": 1}):
            some = functools.partial(loss, rows, labels, **without)
            got = jax.grad(lambda w, f=some: f(weights=w).sum())(jnp.ones(2))
            np.testing.assert_allclose(got, [jnp.log(2.0), 0], rtol=1e-6)


def test_labels_of_a_row_left_out_have_gradient_0() -> None:
    def loss(q: Any) -> Any:
        return fnn.kl_divergence(jnp.zeros((1, 2)), q, where=jnp.zeros((1, 1), bool)).sum()

    assert jax.grad(loss)(jnp.full((1, 2), jnp.nan)).tolist() == [[0, 0]]


def test_the_derivative_of_kl_divergence_by_a_target_of_0() -> None:
    """log q + 1 - log p at q = 1; at 0, where that is infinite, its -log p."""
    got = jax.grad(lambda q: fnn.kl_divergence(jnp.zeros((1, 2)), q).sum())(jnp.array([[1.0, 0.0]]))
    np.testing.assert_allclose(got, [[1 + np.log(2), np.log(2)]], rtol=1e-6)
