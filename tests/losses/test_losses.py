"""Losses against float64 loops; extremes, masks, labels that no class has, refused shapes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import check
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
        points = [jnp.asarray(GRID, dtype) for dtype in DTYPES]
        for y, kinks in TARGETS[name]:
            against = lambda x, y=y: loss(x, jnp.full_like(x, y))
            results = jax.jit(lambda xs, f=against: [three(f, x) for x in xs])(points)
            for x, parts in zip(points, results, strict=True):
                for order, got in enumerate(parts):
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


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=lambda d: d.__name__)
def test_other_dtypes(dtype: Any) -> None:
    logits, soft, weights = (jnp.asarray(a, dtype) for a in (LOGITS, SOFT, WEIGHTS))
    wide = [np.asarray(a, np.float64) for a in (logits, soft, weights)]
    eps = 8 * float(jnp.finfo(dtype).eps)
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


def test_second_derivative_of_cross_entropy() -> None:
    with jax.enable_x64(True):
        x = jnp.array([0.3, -1.2, 2.0, -jnp.inf, 1e4, -1e4])
        for logits, label in ((x[:4], 0), (x[:4], 2), (x[4:], 1)):
            p = np.asarray(jnp.exp(logits - logits.max()))
            p = p / p.sum()
            loss = lambda z, label=label: fnn.cross_entropy(z, jnp.array(label))
            both = jax.jit(lambda z, f=loss: (jax.grad(f)(z), jax.hessian(f)(z)))
            first, second = both(logits)
            np.testing.assert_allclose(first, p - np.eye(len(p))[label], atol=1e-15)
            np.testing.assert_allclose(second, np.diag(p) - np.outer(p, p), atol=1e-15)


EXTREME = jnp.array([[0, 1e4, -1e4], [0, 0, -jnp.inf], [-jnp.inf] * 3, [1e4, -jnp.inf, -jnp.inf]])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32], ids=lambda d: d.__name__)
def test_finite_at_extremes(dtype: Any) -> None:
    x = EXTREME.astype(dtype)
    labels = jnp.array([2, 0, 1, 0])
    soft = jax.nn.one_hot(labels, 3, dtype=dtype)
    binary = jnp.zeros_like(x)
    impossible = jnp.array([0, 2, 0, 0])
    losses = [
        lambda z: fnn.cross_entropy(z, labels),
        lambda z: fnn.cross_entropy(z, labels, label_smoothing=0.1),
        lambda z: fnn.cross_entropy(z, labels, where=jnp.zeros_like(z, bool)),
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
        assert all(bool(jnp.isfinite(part).all()) for part in got), got
    np.testing.assert_array_equal(results[0][0][2:], 0)
    np.testing.assert_array_equal(jnp.isposinf(value), [False, True, False, False])
    assert bool(jnp.isfinite(gradient).all()), "the label has probability 0: a finite gradient"


def test_seventy_thousand_classes_in_half_precision() -> None:
    x, label = jnp.zeros((1, 70_000), jnp.float16), jnp.array([69_999])
    value, gradient = jax.jit(jax.value_and_grad(lambda z: fnn.cross_entropy(z, label)[0]))(x)
    np.testing.assert_allclose(float(value), np.log(70_000), rtol=1e-3)
    np.testing.assert_allclose(np.float64(gradient[0, 0]), 1 / 70_000, rtol=1e-2)
    assert float(gradient[0, -1]) == -1


def test_a_masked_loss_is_the_loss_of_the_subset() -> None:
    x, y = jnp.asarray(LOGITS), jnp.asarray(LOGITS[::-1].copy())
    hidden, other = jnp.where(MASK, x, jnp.nan), jnp.where(MASK, y, jnp.nan)
    signs, bits = jnp.sign(y), (y > 0).astype(jnp.float32)
    cases = [
        (fnn.squared_error, other),
        (fnn.absolute_error, other),
        (fnn.huber, other),
        (fnn.binary_cross_entropy, jnp.where(MASK, bits, jnp.nan)),
        (fnn.hinge, jnp.where(MASK, signs, jnp.nan)),
    ]

    def kept(loss: Any, target: Any, z: Any) -> Any:
        values = loss(z, target, where=MASK)
        return values.sum(), values

    def subset(loss: Any, target: Any, z: Any) -> Any:
        return loss(z, jnp.where(MASK, target, 1))[MASK].sum()

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
        np.testing.assert_array_equal(values[~MASK], 0)


def test_masked_classes_and_features_are_the_subset() -> None:
    x, y = jnp.asarray(LOGITS), jnp.asarray(LOGITS[::-1].copy())
    hidden, other = jnp.where(MASK, x, jnp.nan), jnp.where(MASK, y, jnp.nan)
    got, gradient = jax.value_and_grad(
        lambda z: fnn.cross_entropy(z, LABELS, where=MASK, label_smoothing=0.1)[0]
    )(hidden)
    want, expected = jax.value_and_grad(
        lambda z: fnn.cross_entropy(z[None, MASK[0]], LABELS[:1], label_smoothing=0.1)[0]
    )(x[0])
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(gradient[0], expected, atol=1e-7)
    np.testing.assert_array_equal(gradient[1:], 0)
    np.testing.assert_allclose(
        fnn.cosine_distance(hidden, other, where=MASK)[:2],
        [float(fnn.cosine_distance(x[i, MASK[i]], y[i, MASK[i]])) for i in (0, 1)],
        rtol=1e-5,
    )
    assert float(fnn.cosine_distance(hidden, other, where=MASK)[2]) == 0
    rows = np.array([True, False, True, True])[:, None]
    got = fnn.cross_entropy(x, LABELS, where=rows)
    np.testing.assert_allclose(got, np.where(rows[:, 0], fnn.cross_entropy(x, LABELS), 0))


def test_labels_that_no_class_has() -> None:
    x = jnp.asarray(LOGITS)
    for dtype, bad in ((np.int32, [-1, 5, 100, 0]), (np.uint8, [5, 255, 250, 0])):
        labels = jnp.asarray(bad, dtype)
        for loss in (fnn.cross_entropy, fnn.nll):
            np.testing.assert_array_equal(jnp.isnan(loss(x, labels)), [True, True, True, False])
    wide = jnp.zeros((1, 300))
    assert bool(jnp.isfinite(fnn.cross_entropy(wide, jnp.array([44], np.uint8))[0]))
    got = fnn.cross_entropy(x, jnp.array([-1, 5, 2, 0]), ignore=-1)
    np.testing.assert_array_equal(got[:2], [0, np.nan])
    labels = jnp.array([2, -1, 1])
    np.testing.assert_array_equal(
        jnp.isnan(fnn.binary_cross_entropy(jnp.zeros(3), labels)), [True, True, False]
    )
    np.testing.assert_array_equal(
        jnp.isnan(fnn.hinge(jnp.zeros(3), jnp.array([0, -1, 1]))), [True, False, False]
    )


def test_cosine_distance_at_its_edges() -> None:
    x = jnp.array([[3e30, 4e30], [1e-30, 0.0], [0.0, 0.0], [1.0, 1e-4]])
    y = jnp.array([[3e-30, 4e-30], [0.0, 1e30], [1.0, 0.0], [1.0, 0.0]])
    got = fnn.cosine_distance(x, y)
    np.testing.assert_allclose(got, [0, 1, 1, 5e-9], rtol=1e-4, atol=1e-13)
    gradient = jax.jit(jax.grad(lambda z: fnn.cosine_distance(z, y).sum()))(x)
    assert bool(jnp.isfinite(gradient).all())
    np.testing.assert_array_equal(gradient[2], 0)


def test_penalties() -> None:
    params = {
        "conv": {"w": jnp.array([[3.0, -4.0]]), "b": jnp.array([7.0])},
        "head": [jnp.array([0.0, 300.0], jnp.float16)],
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
    with pytest.raises(TypeError, match=r"fnn.l2_penalty: params\['1'\]: got int32\[\]; needed a"):
        fnn.l2_penalty([jnp.ones(2), jnp.int32(3)])


def test_wrong_calls() -> None:
    x, labels = jnp.ones((2, 3)), jnp.array([0, 1])
    n, column, half = jnp.ones(4), jnp.ones((4, 1)), jnp.ones((2, 3), jnp.float16)
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
            lambda: fnn.squared_error(x, x, where=jnp.ones(2, bool)),
            r"where: got bool\[2\]; needed the",
        ),
        (
            lambda: fnn.cross_entropy(x, labels[:, None]),
            r"labels: got int32\[2,1\]; needed integers of",
        ),
        (lambda: fnn.cross_entropy(x, jnp.ones(2)), r"labels: got float32\[2\]; needed the shape"),
        (lambda: fnn.cross_entropy(x, labels, label_smoothing=1.5), r"got 1.5; needed a number in"),
        (lambda: fnn.cross_entropy(x, labels, weights=jnp.ones(2)), r"weights: got float32\[2\]"),
        (lambda: fnn.cross_entropy(x, x, ignore=0), "ignore: got 0; needed None with labels that"),
        (lambda: fnn.nll(x, jnp.array([0])), r"fnn.nll: labels: got int32\[1\]"),
        (lambda: fnn.kl_divergence(x, x[:1]), r"fnn.kl_divergence: labels: got float32\[1,3\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in [
        (lambda: fnn.squared_error(x, half), r"y: got float16\[2,3\]; needed the dtype of float32"),
        (lambda: fnn.cross_entropy(x, half), r"got float16\[2,3\]; needed the dtype of float32"),
        (lambda: fnn.cross_entropy(x, labels == 0), r"labels: got bool\[2\]; needed integers"),
        (lambda: fnn.nll(x, jnp.ones(2)), r"fnn.nll: labels: got float32\[2\]; needed integers"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


def test_numbers_that_may_be_traced() -> None:
    x, y, labels = jnp.asarray(LOGITS), jnp.asarray(LOGITS[::-1].copy()), jnp.asarray(LABELS)
    sweeps = [
        (lambda v: fnn.huber(x, y, delta=v), (0.1, 1.0, 30.0)),
        (lambda v: fnn.cross_entropy(x, labels, label_smoothing=v), (0.0, 0.1, 1.0)),
        (lambda v: fnn.binary_cross_entropy(x, y > 0, pos_weight=v), (0.0, 1.0, 30.0)),
    ]
    for loss, values in sweeps:
        swept, slopes = jax.jit(
            lambda vs, loss=loss: (
                jax.vmap(loss)(vs),
                jax.vmap(jax.grad(lambda v: loss(v).sum()))(vs),
            )
        )(jnp.array(values))
        for got, value in zip(swept, values, strict=True):
            np.testing.assert_allclose(got, loss(value), rtol=1e-6)
        step = 1e-3
        want = (loss(values[1] + step).sum() - loss(values[1] - step).sum()) / (2 * step)
        np.testing.assert_allclose(slopes[1], want, rtol=1e-2)
    np.testing.assert_array_equal(sweeps[1][0](0.0), fnn.cross_entropy(x, labels))
    for half in (jnp.bfloat16, jnp.float16):
        loss = fnn.huber(x.astype(half), y.astype(half), delta=jnp.float32(0.5))
        assert loss.dtype == half


def test_whole_numbers_are_read_as_real_ones() -> None:
    scores, labels = jnp.array([[1, 2, 3], [3, 2, -1]]), jnp.array([0, 2])
    real, hot = scores.astype(jnp.float32), jax.nn.one_hot(labels, 3, dtype=jnp.int8)
    for got, want in [
        (fnn.cross_entropy(scores, labels), fnn.cross_entropy(real, labels)),
        (fnn.nll(-scores, labels), -real[jnp.arange(2), labels] * -1.0),
        (fnn.kl_divergence(scores, hot), fnn.cross_entropy(real, labels)),
        (fnn.squared_error(scores, scores + 1), jnp.ones((2, 3))),
        (fnn.squared_error(real, scores), jnp.zeros((2, 3))),
        (fnn.cosine_distance(scores, real), jnp.zeros(2)),
        (fnn.hinge(scores[0], jnp.array([1, 1, -1])), jnp.array([0.0, 0.0, 4.0])),
        (fnn.accuracy(scores, labels), jnp.array([0.0, 1.0]) * 0),
        (fnn.perplexity(scores, labels), fnn.perplexity(real, labels)),
    ]:
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-14)


def test_positive_weight() -> None:
    x, y = jnp.asarray(LOGITS), jnp.asarray(SOFT)
    weight = jnp.asarray(WEIGHTS)
    want = [
        oracles.binary_cross_entropy(x[:, k], y[:, k], w)[0]
        for k, w in enumerate(np.array(WEIGHTS))
    ]
    np.testing.assert_allclose(
        fnn.binary_cross_entropy(x, y, pos_weight=weight), np.stack(want, 1), rtol=1e-5
    )
    np.testing.assert_array_equal(
        fnn.binary_cross_entropy(x, y, pos_weight=3),
        fnn.binary_cross_entropy(x, y, pos_weight=jnp.full(5, 3.0)),
    )
    many = jnp.zeros((8192, 1), jnp.bfloat16)
    slope = jax.grad(
        lambda w: fnn.binary_cross_entropy(many, many + 1, pos_weight=w).astype(jnp.float32).sum()
    )
    np.testing.assert_allclose(float(slope(jnp.ones(1, jnp.bfloat16))[0]), 8192 * np.log(2), 1e-2)
    with pytest.raises(ValueError, match=r"pos_weight: got float32\[4\]; needed a number"):
        fnn.binary_cross_entropy(x, y, pos_weight=jnp.ones(4))
    with pytest.raises(TypeError, match=r"fnn.binary_cross_entropy: pos_weight: got list \[1, 2"):
        fnn.binary_cross_entropy(x, y, pos_weight=[1, 2, 3, 4, 5])  # type: ignore[arg-type]  # refused


def test_axes_of_size_zero() -> None:
    none = jnp.zeros(0, int)
    for loss in (fnn.cross_entropy, fnn.nll, fnn.accuracy):
        assert loss(jnp.zeros((0, 3)), none).shape == (0,)
        assert loss(jnp.zeros((0, 0)), none).shape == (0,)
    assert fnn.cross_entropy(jnp.zeros((2, 0)), jnp.zeros(2, int)).tolist() == [0, 0]
    assert fnn.cosine_distance(jnp.zeros((2, 0)), jnp.zeros((2, 0))).tolist() == [1, 1]
    assert fnn.confusion_matrix(jnp.zeros((0, 2)), none).tolist() == [[0, 0], [0, 0]]
    assert fnn.confusion_matrix(jnp.zeros((0, 0)), none).shape == (0, 0)
    assert fnn.perplexity(jnp.zeros((2, 0, 3)), jnp.zeros((2, 0), int)).tolist() == [1, 1]
    assert float(fnn.l2_penalty(jnp.zeros((0, 3)))) == 0
    for loss in (fnn.squared_error, fnn.absolute_error, fnn.huber, fnn.hinge):
        gradient = jax.jit(jax.grad(lambda x, loss=loss: loss(x, x).sum()))(jnp.zeros((0, 3)))
        assert gradient.shape == (0, 3)


def test_an_ignored_label_is_one_that_its_dtype_can_hold() -> None:
    x, labels = jnp.asarray(LOGITS), jnp.asarray(LABELS, np.uint8)
    plain = fnn.cross_entropy(x, labels)
    for ignore in (-1, 255, 2**40):
        np.testing.assert_array_equal(fnn.cross_entropy(x, labels, ignore=ignore), plain)
    got = fnn.cross_entropy(x, jnp.array([0, 255, 2, 2], np.uint8), ignore=255)
    np.testing.assert_array_equal(got, plain.at[1].set(0))
    hidden = x.at[1].set(jnp.nan)
    value, slope = jax.value_and_grad(
        lambda z: fnn.cross_entropy(z, jnp.array([0, -1, 2, 2]), ignore=-1).sum()
    )(hidden)
    assert bool(jnp.isfinite(value))
    assert slope[1].tolist() == [0] * 5
    with pytest.raises(ValueError, match=r"fnn.nll: ignore: got 1.5; needed an int"):
        fnn.nll(x, labels, ignore=1.5)  # type: ignore[arg-type]  # refused


def test_a_new_mask_is_no_new_program(caplog: pytest.LogCaptureFixture) -> None:
    params = {"w": jnp.ones((3, 17)), "b": jnp.ones(17)}
    with jax.log_compiles():
        fnn.l2_penalty(params, mask=lambda path: path == "w")
        assert "Compiling" in caplog.text
        caplog.clear()
        for k in range(5):
            names = {f"b{k}", "w"}
            fnn.l2_penalty(params, mask=lambda path, names=names: path in names)
        assert "Compiling" not in caplog.text
