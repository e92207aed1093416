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
from tests.check import FACTOR
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
        want = np.where(np.abs(want) > float(info.max), np.copysign(np.inf, want), want)
        bound = FACTOR * float(info.eps) * np.abs(want) + float(info.tiny) + slack
        good |= (got64 == want) | (np.abs(got64 - want) <= bound)
        good |= np.isnan(got64) & np.isnan(want)
    places = np.argwhere(~good)
    assert good.all(), [(tuple(p), got64[tuple(p)], wanted[0][tuple(p)]) for p in places[:9]]


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

    got = results(*(jnp.asarray(a, dtype) for a in (x, y)))
    for (value, (dx, dy)), (_, oracle) in zip(got, BY_ENTRY, strict=True):
        exact, flat = oracle(x, y), oracle(flushed(x, dtype), flushed(y, dtype))
        none = oracle(flushed(x - y, dtype), 0)  # their difference is subnormal
        agree(value, exact[0], flat[0], none[0])
        agree(dx, exact[1], flat[1], none[1])
        agree(dy, -exact[1], -flat[1], -none[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_yes_and_no(dtype: Any) -> None:
    x = special(dtype, 80.0)
    cases = [
        *((fnn.binary_cross_entropy, oracles.binary_cross_entropy, y, {}) for y in (0, 1, 0.25)),
        *((fnn.binary_cross_entropy, oracles.binary_cross_entropy, y, {"pos_weight": w})
          for y in (0, 1, 0.25) for w in (0.0, 3.0)),
        *((fnn.hinge, oracles.hinge, y, {}) for y in (-1, 1)),
    ]  # fmt: skip

    @jax.jit
    def results(x: Any) -> Any:
        return [
            value_and_slopes(functools.partial(loss, labels=jnp.full_like(x, y), **config), x)
            for loss, _, y, config in cases
        ]

    for (value, (slope,)), (_, oracle, y, config) in zip(
        results(jnp.asarray(x, dtype)), cases, strict=True
    ):
        want = oracle(x, y, **config)
        agree(value, np.where(np.isnan(x), np.nan, want[0]))
        agree(slope[:-1], want[1][:-1])  # at NaN the hinge is flat
    for loss, bad in (
        (fnn.binary_cross_entropy, (-0.5, 1.5, np.inf, np.nan)),
        (fnn.hinge, (0.0, 2.0, np.inf, np.nan)),
    ):
        assert np.isnan(loss(jnp.zeros(4, dtype), jnp.asarray(bad, dtype))).all()


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

    def label(x: Any, k: int) -> Any:
        return jnp.full(x.shape[:-1], k)

    def soft(x: Any, q: Any) -> Any:
        return jnp.broadcast_to(jnp.asarray(q, x.dtype), x.shape)

    losses = [
        *(lambda x, k=k: fnn.cross_entropy(x, label(x, k)) for k in range(3)),
        *(lambda x, k=k: fnn.cross_entropy(x, label(x, k), label_smoothing=0.25) for k in range(3)),
        *(lambda x, q=q: fnn.cross_entropy(x, soft(x, q)) for q in TARGETS),
        *(lambda x, q=q: fnn.kl_divergence(x, soft(x, q)) for q in TARGETS),
        *(lambda x, k=k: fnn.perplexity(x[:, None], label(x, k)[:, None]) for k in range(3)),
    ]
    *got, a, b, c = jax.jit(lambda x: [value_and_slopes(loss, x) for loss in losses])(
        jnp.asarray(x, dtype)
    )

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
    eps = FACTOR * float(jnp.finfo(dtype).eps)
    for (value, (slope,)), (q, less) in zip(got, asked, strict=True):
        want = np.where(absent, 0, oracles.times(q, cost).sum(-1) - less)
        agree(value, want, np.where(far, np.inf, want), slack=eps)
        agree(slope, np.where(absent[:, None], 0, p - q), slack=eps)
    for (value, (slope,)), q in zip((a, b, c), TARGETS, strict=False):
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
        *(jnp.asarray(a, dtype) for a in (x, y))
    )
    unknown = np.isnan(x).any(-1) | np.isnan(y).any(-1)
    zero = ~flushed(x, dtype).any(-1) | ~flushed(y, dtype).any(-1)
    assert np.isnan(np.asarray(value)[unknown & ~zero]).all()
    x, y, value, dx = (a[~unknown] for a in (x, y, value, dx))
    eps = FACTOR * float(jnp.finfo(dtype).eps)
    a, b = flushed(x, dtype), flushed(y, dtype)
    agree(value, oracles.cosine_distance(x, y), oracles.cosine_distance(a, b), slack=eps)
    size = np.maximum(np.hypot(x[:, :1], x[:, 1:]), float(jnp.finfo(dtype).smallest_subnormal))
    agree(dx, turned(x, y), turned(a, b), slack=eps / size)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
def test_metrics(dtype: Any) -> None:
    x = rows(dtype, 3)[0]
    scores = jnp.asarray(x, dtype)

    def place(x: np.ndarray, label: int) -> np.ndarray:
        own = x[:, [label]]
        ahead = (x > own) | ((x == own) & (np.arange(3) < label)) | np.isnan(x) | np.isnan(own)
        return ahead.sum(-1)

    for label, k in itertools.product(range(3), (1, 2)):
        got = fnn.top_k_accuracy(scores, jnp.full(len(x), label), k=k)
        agree(got, place(x, label) < k, place(flushed(x, dtype), label) < k)
    known = ~np.isnan(x).any(-1)
    counted = fnn.confusion_matrix(scores[known], jnp.zeros(known.sum(), int))
    wanted = [np.bincount(a[known].argmax(-1), minlength=3) for a in (x, flushed(x, dtype))]
    assert counted[0].tolist() in [w.tolist() for w in wanted]
    assert np.isnan(fnn.confusion_matrix(scores, jnp.zeros(len(x), int))).all()


def test_penalties() -> None:
    for dtype in (*DTYPES, jnp.float32):
        w = special(dtype)
        for penalty, term, slope in (
            (fnn.l1_penalty, np.abs(w), np.sign(w)),
            (fnn.l2_penalty, w**2 / 2, w),
        ):
            each = jnp.asarray(w, dtype)[:, None]
            value, got = jax.vmap(jax.value_and_grad(penalty))(each)
            agree(value, term)
            agree(got[:, 0], slope, slope * (np.abs(w) >= float(jnp.finfo(dtype).tiny)))
