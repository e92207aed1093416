"""Losses against float64 loops; extremes, masks, labels that no class has, refused shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import check, tolerance
from tests.entries import DTYPES, assert_rounded, part, three
from tests.oracles import losses as oracles

rng = np.random.default_rng(0)
LOGITS = rng.standard_normal((4, 5)).astype(np.float32)
LABELS = np.array([0, 4, 2, 2], np.int32)
SOFT = rng.dirichlet(np.ones(5), 4).astype(np.float32)
WEIGHTS = np.array([0.5, 2.0, 0.0, 1.0, 3.0], np.float32)
MASK = np.array([[1, 1, 0, 1, 1], [1, 0, 1, 1, 1], [0] * 5, [1] * 5], bool)
TARGETS = {  # of the losses that compare entry by entry: targets, and where the slope jumps
    "squared_error": [(0.5, ())],
    "absolute_error": [(0.5, (0.5,))],
    "huber": [(0.5, (-0.5, 1.5))],
    "binary_cross_entropy": [(0.0, ()), (1.0, ()), (0.25, ())],
    "hinge": [(1.0, (1.0,)), (-1.0, (-1.0,))],
}
GRID = [s * x for x in (0, 0.25, 0.5, 1, 1.25, 2, 4, 8, 15, 30, 80, 300, 1e4) for s in (1, -1)]


@pytest.mark.parametrize("name", TARGETS)
def test_entry_by_entry(name: str) -> None:
    loss, oracle = getattr(fnn, name), getattr(oracles, name)
    with jax.enable_x64(True):
        points = [np.array(GRID).astype(dtype) for dtype in DTYPES]
        against = lambda x, y: loss(x, jnp.full_like(x, y))
        results = jax.jit(lambda xs, y: [three(lambda x: against(x, y), x) for x in xs])
        for y, kinks in TARGETS[name]:
            for x, parts in zip(points, results(points, y), strict=True):
                for order, got in enumerate(map(np.asarray, parts)):
                    assert (got.dtype, got.shape) == (x.dtype, x.shape)
                    of_x = functools.partial(part, lambda at, y=y: oracle(at, y), order)
                    assert_rounded(got, of_x, x, kinks=kinks)


def test_per_example() -> None:
    check(fnn.cross_entropy, oracles.cross_entropy, LOGITS, LABELS, length=5)
    full = {"label_smoothing": 0.1, "weights": WEIGHTS, "ignore": 2, "where": MASK}
    check(fnn.cross_entropy, oracles.cross_entropy, LOGITS, LABELS, length=5, batch=False, **full)
    check(fnn.cross_entropy, oracles.cross_entropy, LOGITS, SOFT, length=5, batch=False)
    log_p = np.log(SOFT)
    check(fnn.nll, oracles.nll, log_p, LABELS, batch=False, weights=WEIGHTS, ignore=4)
    check(fnn.kl_divergence, oracles.kl_divergence, LOGITS, SOFT, length=5, batch=False)
    check(fnn.cosine_distance, oracles.cosine_distance, LOGITS, LOGITS[::-1].copy(), length=5)


def test_classes_that_are_left_out_of_nll_and_kl_divergence() -> None:
    rows = np.array([True, False, True, True])[:, None]
    log_p = np.log(SOFT)
    whole = np.where(rows[:, 0], fnn.nll(log_p, LABELS), 0)
    np.testing.assert_allclose(fnn.nll(log_p, LABELS, where=rows), whole, rtol=1e-6)
    assert np.isposinf(fnn.nll(log_p[:1], np.array([2], np.int32), where=MASK[:1])).all()
    q = np.where(MASK[:2], SOFT[:2], 0) / np.where(MASK[:2], SOFT[:2], 0).sum(1, keepdims=True)
    got = fnn.kl_divergence(LOGITS[:2], q.astype(np.float32), where=MASK[:2])
    for i, some in enumerate(MASK[:2]):  # of each row a distribution over the classes that stay
        want = oracles.kl_divergence(LOGITS[i, some].astype(float), q[i, some].astype(float))
        np.testing.assert_allclose(got[i], want, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=lambda d: d.__name__)
def test_other_dtypes(dtype: Any) -> None:
    logits, soft, weights = (a.astype(dtype) for a in (LOGITS, SOFT, WEIGHTS))
    wide = [np.asarray(a, np.float64) for a in (logits, soft, weights)]
    eps = tolerance(dtype)
    for got, want in [
        (
            fnn.cross_entropy(logits, LABELS, weights=weights, label_smoothing=0.5),
            oracles.cross_entropy(wide[0], LABELS, weights=wide[2], label_smoothing=0.5),
        ),
        (fnn.cross_entropy(logits, soft), oracles.cross_entropy(wide[0], wide[1])),
        (fnn.kl_divergence(logits, soft), oracles.kl_divergence(wide[0], wide[1])),
        (fnn.cosine_distance(logits, soft), oracles.cosine_distance(wide[0], wide[1])),
    ]:
        assert got.dtype == dtype
        np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=eps, atol=eps)


def test_what_is_left_out_makes_no_nan_on_the_way() -> None:
    with jax.disable_jit(), jax.debug_nans(True):
        ignored = fnn.cross_entropy(jnp.zeros((2, 2)), jnp.array([0, -1]), ignore=-1)
        masked = fnn.hinge(jnp.zeros(2), jnp.array([1, 0]), where=jnp.array([True, False]))
    np.testing.assert_allclose(ignored, [np.log(2), 0], rtol=1e-6)
    assert masked.tolist() == [1, 0]


def test_second_derivative_of_cross_entropy() -> None:
    x = np.array([0.3, -1.2, 2.0, -np.inf, 1e4, -1e4])
    cases = [(x[:4], 0), (x[:4], 2), (x[4:], 1)]

    def both(z: Any, label: Any) -> Any:
        loss = lambda z: fnn.cross_entropy(z, label)
        return jax.grad(loss)(z), jax.hessian(loss)(z)

    with jax.enable_x64(True):
        results = jax.jit(lambda cases: [both(*case) for case in cases])(cases)
    for (logits, label), (first, second) in zip(cases, results, strict=True):
        p = np.exp(logits - logits.max())
        p = p / p.sum()
        np.testing.assert_allclose(first, p - np.eye(len(p))[label], atol=1e-15)
        np.testing.assert_allclose(second, np.diag(p) - np.outer(p, p), atol=1e-15)


EXTREME = np.array([[0, 1e4, -1e4], [0, 0, -np.inf], [-np.inf] * 3, [1e4, -np.inf, -np.inf]])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32], ids=lambda d: d.__name__)
def test_finite_at_extremes(dtype: Any) -> None:
    x = EXTREME.astype(dtype)
    labels = np.array([2, 0, 1, 0])
    soft = np.eye(3, dtype=dtype)[labels]
    binary = np.zeros_like(x)
    impossible = np.array([0, 2, 0, 0])
    losses = [
        lambda z: fnn.cross_entropy(z, labels),
        lambda z: fnn.cross_entropy(z, labels, label_smoothing=0.1),
        lambda z: fnn.cross_entropy(z, labels, where=np.zeros(z.shape, bool)),
        lambda z: fnn.cross_entropy(z, soft),
        lambda z: fnn.kl_divergence(z, soft),
        lambda z: fnn.nll(z, labels),
        lambda z: fnn.binary_cross_entropy(z, binary),
        lambda z: fnn.cross_entropy(z, impossible),
    ]

    @jax.jit
    def all_at_once(z: Any) -> list[Any]:
        return [(f(z), jax.grad(lambda z, f=f: f(z).sum())(z)) for f in losses]

    *results, (value, gradient) = all_at_once(x)
    for got in results:
        assert all(np.isfinite(part).all() for part in got), got
    np.testing.assert_array_equal(np.asarray(results[0][0])[2:], 0)
    np.testing.assert_array_equal(np.isposinf(value), [False, True, False, False])
    assert np.isfinite(gradient).all(), "the label has probability 0: a finite gradient"


def test_seventy_thousand_classes_in_half_precision() -> None:
    x, label = np.zeros((1, 70_000), np.float16), np.array([69_999])
    value, gradient = jax.jit(jax.value_and_grad(lambda z: fnn.cross_entropy(z, label)[0]))(x)
    np.testing.assert_allclose(float(value), np.log(70_000), rtol=1e-3)
    first, *_, last = np.float64(gradient)[0]
    np.testing.assert_allclose(first, 1 / 70_000, rtol=1e-2)
    assert last == -1


def test_a_masked_loss_is_the_loss_of_the_subset() -> None:
    x, y = LOGITS, LOGITS[::-1]
    hidden, other = (np.where(MASK, a, np.float32(np.nan)) for a in (x, y))
    signs, bits = np.sign(y), (y > 0).astype(np.float32)
    cases = [
        (fnn.squared_error, other),
        (fnn.absolute_error, other),
        (fnn.huber, other),
        (fnn.binary_cross_entropy, np.where(MASK, bits, np.float32(np.nan))),
        (fnn.hinge, np.where(MASK, signs, np.float32(np.nan))),
    ]

    def kept(loss: Any, target: Any, z: Any) -> Any:
        values = loss(z, target, where=MASK)
        return values.sum(), values

    def subset(loss: Any, target: Any, z: Any) -> Any:
        return loss(z, np.where(MASK, target, np.float32(1)))[MASK].sum()

    @jax.jit
    def both(hidden: Any, x: Any) -> list[Any]:
        return [
            (
                jax.value_and_grad(functools.partial(kept, *case), has_aux=True)(hidden),
                jax.value_and_grad(functools.partial(subset, *case))(x),
            )
            for case in cases
        ]

    for ((got, values), gradient), (want, expected) in both(hidden, x):
        np.testing.assert_allclose(got, want, rtol=1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        np.testing.assert_array_equal(np.asarray(values)[~MASK], 0)


def test_masked_classes_and_features_are_the_subset() -> None:
    x, y = LOGITS, LOGITS[::-1]
    hidden, other = (np.where(MASK, a, np.float32(np.nan)) for a in (x, y))
    rows = np.array([True, False, True, True])[:, None]

    @jax.jit
    def results(x: Any, hidden: Any) -> Any:
        masked = lambda z: fnn.cross_entropy(z, LABELS, where=MASK, label_smoothing=0.1)[0]
        alone = lambda z: fnn.cross_entropy(z[None, MASK[0]], LABELS[:1], label_smoothing=0.1)[0]
        return (
            (jax.value_and_grad(masked)(hidden), jax.value_and_grad(alone)(x[0])),
            (
                fnn.cosine_distance(hidden, other, where=MASK),
                [fnn.cosine_distance(x[i, MASK[i]], y[i, MASK[i]]) for i in (0, 1)],
            ),
            (fnn.cross_entropy(x, LABELS, where=rows), fnn.cross_entropy(x, LABELS)),
        )

    ((got, gradient), (want, expected)), (angles, two), (some, every) = results(x, hidden)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(gradient)[0], expected, atol=1e-7)
    np.testing.assert_array_equal(np.asarray(gradient)[1:], 0)
    np.testing.assert_allclose(np.asarray(angles)[:2], two, rtol=1e-5)
    assert np.asarray(angles)[2] == 0
    np.testing.assert_allclose(some, np.where(rows[:, 0], every, 0))


def test_labels_that_no_class_has() -> None:
    for dtype, bad in ((np.int32, [-1, 5, 100, 0]), (np.uint8, [5, 255, 250, 0])):
        labels = np.array(bad, dtype)
        for loss in (fnn.cross_entropy, fnn.nll):
            np.testing.assert_array_equal(np.isnan(loss(LOGITS, labels)), [True] * 3 + [False])
    wide = np.zeros((1, 300), np.float32)
    assert np.isfinite(fnn.cross_entropy(wide, np.array([44], np.uint8))).all()
    got = fnn.cross_entropy(LOGITS, np.array([-1, 5, 2, 0]), ignore=-1)
    np.testing.assert_array_equal(np.asarray(got)[:2], [0, np.nan])
    zeros = np.zeros(3, np.float32)
    got = fnn.binary_cross_entropy(zeros, np.array([2, -1, 1]))
    np.testing.assert_array_equal(np.isnan(got), [True, True, False])
    got = fnn.hinge(zeros, np.array([0, -1, 1]))
    np.testing.assert_array_equal(np.isnan(got), [True, False, False])


def test_labels_of_int64_that_are_classes_modulo_32_bits() -> None:
    with jax.enable_x64(True):
        labels = jnp.array([2**32 + 1, 1])
        for loss in (fnn.cross_entropy, fnn.nll, fnn.accuracy):
            assert np.isnan(loss(jnp.zeros((2, 3)), labels)).tolist() == [True, False]


def test_the_weight_of_a_class_without_a_share_may_be_anything() -> None:
    """As ``n / counts`` is infinite for a class that no label has."""
    x, labels = jnp.asarray(LOGITS[:3]), jnp.array([0, 0, 2])
    hot, rows = jnp.eye(5)[labels], jnp.array([True, True, False])[:, None]
    losses = [
        lambda x, w: fnn.cross_entropy(x, labels, weights=w),
        lambda x, w: fnn.nll(x, labels, weights=w),
        lambda x, w: fnn.cross_entropy(x, labels, weights=w, label_smoothing=0.0),
        lambda x, w: fnn.cross_entropy(x, hot, weights=w),
        lambda x, w: fnn.cross_entropy(x, labels.at[2].set(1), weights=w, ignore=1),
        lambda x, w: fnn.cross_entropy(x, hot.at[2].set(0.2), weights=w, where=rows),
    ]

    @jax.jit
    def all_at_once(w: Any) -> list[Any]:
        slopes = [jax.grad(lambda *a, f=f: f(*a).sum(), (0, 1))(x, w) for f in losses]
        return [(f(x, w), slope) for f, slope in zip(losses, slopes, strict=True)]

    got = all_at_once(jnp.array([1.5, np.inf, 3, np.nan, -np.inf]))
    want = all_at_once(jnp.array([1.5, 1, 3, 1, 1]))
    assert all(np.isfinite(part).all() for part in jax.tree.leaves(want))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_cosine_distance_at_its_edges() -> None:
    x = np.array([[3e30, 4e30], [1e-30, 0.0], [0.0, 0.0], [1.0, 1e-4]], np.float32)
    y = np.array([[3e-30, 4e-30], [0.0, 1e30], [1.0, 0.0], [1.0, 0.0]], np.float32)
    got = fnn.cosine_distance(x, y)
    np.testing.assert_allclose(got, [0, 1, 1, 5e-9], rtol=1e-4, atol=1e-13)
    gradient = jax.jit(jax.grad(lambda z: fnn.cosine_distance(z, y).sum()))(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(np.asarray(gradient)[2], 0)


def test_penalties() -> None:
    params = {
        "conv": {"w": np.array([[3, -4]], np.float32), "b": np.array([7], np.float32)},
        "head": [np.array([0, 300], np.float16)],
    }
    assert float(fnn.l2_penalty(params)) == (9 + 16 + 49 + 90_000) / 2
    assert float(fnn.l1_penalty(params)) == 3 + 4 + 7 + 300
    weights = functools.partial(fnn.l2_penalty, mask=lambda path: path.endswith("w"))
    assert float(weights(params)) == 12.5
    gradient = jax.jit(jax.grad(weights))(params)
    np.testing.assert_array_equal(gradient["conv"]["w"], [[3, -4]])
    np.testing.assert_array_equal(gradient["conv"]["b"], [0])
    np.testing.assert_array_equal(jax.jit(jax.grad(fnn.l1_penalty))(params)["head"][0], [0, 1])
    paths: list[str] = []
    fnn.l1_penalty(params, mask=lambda path: not paths.append(path))
    assert paths == ["conv/b", "conv/w", "head/0"]
    with pytest.raises(ValueError, match=r"fnn.l2_penalty: mask: got no leaf; needed one of"):
        fnn.l2_penalty(params, mask=lambda path: path == "w")
    with pytest.raises(ValueError, match=r"fnn.l2_penalty: params: got no leaf"):
        fnn.l2_penalty({})
    with pytest.raises(TypeError, match=r"fnn.l1_penalty: where: got an argument .* params, mask"):
        fnn.l1_penalty(params, where=lambda path: True)  # type: ignore[call-arg]  # its old name
    with pytest.raises(TypeError, match=r"fnn.l2_penalty: params\[1\]: got int32\[\]; needed a"):
        fnn.l2_penalty([np.ones(2, np.float32), np.int32(3)])


def test_a_penalty_is_of_the_widest_dtype_of_its_leaves() -> None:
    with jax.enable_x64(True):
        leaves = [jnp.ones(1, jnp.float32), jnp.full(1, 1 + 1e-12)]
        for params in (leaves, leaves[::-1]):
            for penalty, want in ((fnn.l1_penalty, 2 + 1e-12), (fnn.l2_penalty, 1 + 1e-12)):
                got = penalty(params)
                assert got.dtype == jnp.float64
                np.testing.assert_allclose(got, want, rtol=1e-15)


def test_penalties_of_leaves_that_share_a_path() -> None:
    params = {"a/b": np.float32([3]), "a": {"b": np.float32([4])}, "c": np.float32([9])}
    mask = lambda path: path == "a/b"
    assert float(fnn.l2_penalty(params, mask=mask)) == 12.5
    assert float(fnn.l1_penalty(params)) == 16


def test_wrong_calls() -> None:
    x, labels = np.ones((2, 3), np.float32), np.array([0, 1], np.int32)
    n, column, half = x.ravel()[:4], x.ravel()[:4, None], x.astype(np.float16)
    for call, message in [
        (
            lambda: fnn.squared_error(n, column),
            r"squared_error: y: got float32\[4,1\]; needed the sh",
        ),
        (
            lambda: fnn.absolute_error(column, n),
            r"absolute_error: y: got float32\[4\]; needed the sh",
        ),
        (
            lambda: fnn.huber(n, column),
            r"huber: y: got float32\[4,1\]; needed the shape of float32\[4\]",
        ),
        (lambda: fnn.huber(n, n, delta=0.0), "huber: delta: got 0.0; needed a number > 0"),
        (
            lambda: fnn.binary_cross_entropy(n, column),
            r"binary_cross_entropy: labels: got float32\[4,1",
        ),
        (lambda: fnn.hinge(n, column), r"hinge: labels: got float32\[4,1\]"),
        (lambda: fnn.cosine_distance(n, column), r"cosine_distance: y: got float32\[4,1\]"),
        (
            lambda: fnn.squared_error(x, x, where=np.ones(2, bool)),
            r"where: got bool\[2\]; needed the",
        ),
        (
            lambda: fnn.cross_entropy(x, labels[:, None]),
            r"labels: got int32\[2,1\]; needed integers of",
        ),
        (
            lambda: fnn.cross_entropy(x, x[:, 0]),
            r"labels: got float32\[2\]; needed integers of shape",
        ),
        (
            lambda: fnn.cross_entropy(x, jnp.ones((2, 3), int)),
            r"labels: got int32\[2,3\]; needed integers of shape \(2,\), or floats of shape "
            r"\(2, 3\), the probability of each class",
        ),
        *(
            (
                lambda loss=loss, y=y: loss(x, y, where=np.ones(2, bool)),
                rf"fnn.{loss.__name__}: where: got bool\[2\]; needed .* where\[..., None\]",
            )
            for loss, y in ((fnn.cross_entropy, labels), (fnn.nll, labels), (fnn.kl_divergence, x))
        ),
        (lambda: fnn.cross_entropy(x, labels, label_smoothing=1.5), r"got 1.5; needed a number in"),
        (lambda: fnn.cross_entropy(x, labels, weights=x[:, 0]), r"weights: got float32\[2\]"),
        (lambda: fnn.cross_entropy(x, x, ignore=0), "ignore: got 0; needed None with labels that"),
        (lambda: fnn.nll(x, labels[:1]), r"fnn.nll: labels: got int32\[1\]"),
        (lambda: fnn.kl_divergence(x, x[:1]), r"fnn.kl_divergence: labels: got float32\[1,3\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in [
        (lambda: fnn.squared_error(x, half), r"y: got float16\[2,3\]; needed the dtype of float32"),
        (lambda: fnn.cross_entropy(x, half), r"got float16\[2,3\]; needed the dtype of float32"),
        (lambda: fnn.cross_entropy(x, labels == 0), r"labels: got bool\[2\]; needed integers"),
        (lambda: fnn.nll(x, x[:, 0]), r"fnn.nll: labels: got float32\[2\]; needed integers"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


def test_numbers_that_may_be_traced() -> None:
    x, y = LOGITS, LOGITS[::-1]
    sweeps = [
        (lambda v: fnn.huber(x, y, delta=v), (0.1, 1.0, 30.0)),
        (lambda v: fnn.cross_entropy(x, LABELS, label_smoothing=v), (0.0, 0.1, 1.0)),
        (lambda v: fnn.binary_cross_entropy(x, y > 0, pos_weight=v), (0.0, 1.0, 30.0)),
    ]

    @jax.jit
    def swept(points: Any) -> Any:
        return [
            (jax.vmap(f)(vs), jax.vmap(jax.grad(lambda v, f=f: f(v).sum()))(vs))
            for (f, _), vs in zip(sweeps, points, strict=True)
        ]

    found = swept([np.array(values, np.float32) for _, values in sweeps])
    for (loss, values), (losses, slopes) in zip(sweeps, found, strict=True):
        for got, value in zip(np.asarray(losses), values, strict=True):
            np.testing.assert_allclose(got, loss(value), rtol=1e-6)
        step = 1e-3
        up, down = (np.asarray(loss(values[1] + s)).sum() for s in (step, -step))
        np.testing.assert_allclose(np.asarray(slopes)[1], (up - down) / (2 * step), rtol=1e-2)
    np.testing.assert_array_equal(sweeps[1][0](0.0), fnn.cross_entropy(x, LABELS))
    for half in (jnp.bfloat16, jnp.float16):
        loss = fnn.huber(x.astype(half), y.astype(half), delta=np.float32(0.5))
        assert loss.dtype == half


def test_whole_numbers_are_read_as_real_ones() -> None:
    scores, labels = np.array([[1, 2, 3], [3, 2, -1]]), np.array([0, 2])
    real, hot = scores.astype(np.float32), np.eye(3, dtype=np.int8)[labels]
    for got, want in [
        (fnn.cross_entropy(scores, labels), fnn.cross_entropy(real, labels)),
        (fnn.nll(-scores, labels), real[[0, 1], labels]),
        (fnn.kl_divergence(scores, hot), fnn.cross_entropy(real, labels)),
        (fnn.squared_error(scores, scores + 1), np.ones((2, 3))),
        (fnn.squared_error(real, scores), np.zeros((2, 3))),
        (fnn.cosine_distance(scores, real), np.zeros(2)),
        (fnn.hinge(scores[0], np.array([1, 1, -1])), [0, 0, 4]),
        (fnn.accuracy(scores, labels), [0, 0]),
        (fnn.perplexity(scores, labels), fnn.perplexity(real, labels)),
    ]:
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-14)


def test_positive_weight() -> None:
    want = [
        oracles.binary_cross_entropy(LOGITS[:, k], SOFT[:, k], w)[0] for k, w in enumerate(WEIGHTS)
    ]
    got = fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=WEIGHTS)
    np.testing.assert_allclose(got, np.stack(want, 1), rtol=1e-5)
    np.testing.assert_array_equal(
        fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=3),
        fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=np.full(5, 3, np.float32)),
    )
    many, one = np.zeros((8192, 1), jnp.bfloat16), np.ones(1, jnp.bfloat16)
    total = lambda w: fnn.binary_cross_entropy(many, many + one, pos_weight=w).astype(jnp.float32)
    slope = jax.jit(jax.grad(lambda w: total(w).sum()))(one)
    np.testing.assert_allclose(np.float64(slope), [8192 * np.log(2)], 1e-2)
    got = fnn.binary_cross_entropy(jnp.zeros(1, jnp.float16), jnp.array([1]), pos_weight=7e4)
    assert got.tolist() == [np.float16(7e4 * np.log(2))], "no weight is rounded to half precision"
    w, logits, labels = np.array([1, np.inf], np.float32), LOGITS[:, :2], SOFT[:, :2] * [1, 0]
    weigh = lambda w: lambda x: fnn.binary_cross_entropy(x, labels.astype(x.dtype), pos_weight=w)
    for change in (lambda f: f, lambda f: jax.grad(lambda x: f(x).sum())):
        got, want = change(weigh(w))(logits), change(weigh(np.ones_like(w)))(logits)
        np.testing.assert_array_equal(got, want)  # as of a class that no example has
    for bad in (-1.0, np.nan, np.float32(-1), jnp.float32(-1)):
        with pytest.raises(ValueError, match=r"pos_weight: got (-1.0|nan); needed a number >= 0"):
            fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=bad)
    with pytest.raises(TypeError, match=r"pos_weight: got bool True; needed a number >= 0"):
        fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=True)
    with pytest.raises(ValueError, match=r"pos_weight: got float32\[4\]; needed a number"):
        fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=WEIGHTS[:4])
    with pytest.raises(TypeError, match=r"fnn.binary_cross_entropy: pos_weight: got list \[1, 2"):
        fnn.binary_cross_entropy(LOGITS, SOFT, pos_weight=[1, 2, 3, 4, 5])  # type: ignore[arg-type]  # refused


def test_axes_of_size_zero() -> None:
    zeros, none = functools.partial(np.zeros, dtype=np.float32), np.zeros(0, int)
    labels = np.zeros(2, int)
    for loss in (fnn.cross_entropy, fnn.nll, fnn.accuracy):
        assert loss(zeros((0, 3)), none).shape == (0,)
        assert loss(zeros((0, 0)), none).shape == (0,)
    assert fnn.cross_entropy(zeros((2, 0)), labels).tolist() == [0, 0]
    assert fnn.cosine_distance(zeros((2, 0)), zeros((2, 0))).tolist() == [1, 1]
    assert fnn.confusion_matrix(zeros((0, 2)), none).tolist() == [[0, 0], [0, 0]]
    assert fnn.confusion_matrix(zeros((0, 0)), none).shape == (0, 0)
    assert fnn.perplexity(zeros((2, 0, 3)), np.zeros((2, 0), int)).tolist() == [1, 1]
    assert float(fnn.l2_penalty(zeros((0, 3)))) == 0
    losses = (fnn.squared_error, fnn.absolute_error, fnn.huber, fnn.hinge)
    slopes = [jax.grad(lambda x, loss=loss: loss(x, x).sum()) for loss in losses]
    gradients = jax.jit(lambda x: [slope(x) for slope in slopes])(zeros((0, 3)))
    assert [g.shape for g in gradients] == [(0, 3)] * 4


def test_an_ignored_label_is_one_that_its_dtype_can_hold() -> None:
    x, labels = LOGITS, LABELS.astype(np.uint8)
    plain = np.asarray(fnn.cross_entropy(x, labels))
    for ignore in (-1, 255, 2**40):
        np.testing.assert_array_equal(fnn.cross_entropy(x, labels, ignore=ignore), plain)
    got = fnn.cross_entropy(x, np.array([0, 255, 2, 2], np.uint8), ignore=255)
    np.testing.assert_array_equal(got, plain * [1, 0, 1, 1])
    hidden, row = x.copy(), np.array([0, -1, 2, 2])
    hidden[1] = np.nan
    value, slope = jax.jit(
        jax.value_and_grad(lambda z: fnn.cross_entropy(z, row, ignore=-1).sum())
    )(hidden)
    assert np.isfinite(value)
    assert slope.tolist()[1] == [0] * 5
    with pytest.raises(ValueError, match=r"fnn.nll: ignore: got 1.5; needed an int"):
        fnn.nll(x, labels, ignore=1.5)  # type: ignore[arg-type]  # refused


def test_a_new_mask_is_no_new_program(caplog: pytest.LogCaptureFixture) -> None:
    params = {"w": np.ones((3, 17), np.float32), "b": np.ones(17, np.float32)}
    with jax.log_compiles():
        fnn.l2_penalty(params, mask=lambda path: path == "w")
        assert "Compiling" in caplog.text
        caplog.clear()
        for k in range(5):
            names = {f"b{k}", "w"}
            fnn.l2_penalty(params, mask=lambda path, names=names: path in names)
        assert "Compiling" not in caplog.text
