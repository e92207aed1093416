"""Metrics against counting; ties, NaN, labels that no class has."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.oracles.losses import cross_entropy

rng = np.random.default_rng(0)
LOGITS = rng.integers(0, 4, (200, 6)).astype(np.float32)  # with many ties
LABELS = rng.integers(0, 6, 200)


def rank(logits: np.ndarray, label: int) -> int:
    """Place of the label when sorted by falling logit, of equal ones the first first."""
    return sorted(range(len(logits)), key=lambda k: (-logits[k], k)).index(label)


def test_accuracies_are_ranks() -> None:
    ranks = np.array([rank(row, label) for row, label in zip(LOGITS, LABELS, strict=True)])
    np.testing.assert_array_equal(fnn.accuracy(LOGITS, LABELS), ranks == 0)
    np.testing.assert_array_equal(fnn.accuracy(LOGITS, LABELS), LOGITS.argmax(-1) == LABELS)
    for k in (1, 3, 6):
        np.testing.assert_array_equal(fnn.top_k_accuracy(LOGITS, LABELS, k=k), ranks < k)


def test_confusion_matrix_counts() -> None:
    want = np.zeros((6, 6))
    for row, label in zip(LOGITS, LABELS, strict=True):
        want[label, row.argmax()] += 1
    got = fnn.confusion_matrix(LOGITS, LABELS)
    np.testing.assert_array_equal(got, want)
    assert float(jnp.trace(got)) == float(fnn.accuracy(LOGITS, LABELS).sum())
    halves = fnn.confusion_matrix(jnp.zeros((4000, 2), jnp.float16), jnp.zeros(4000, int))
    assert (halves.dtype, float(halves[0, 0])) == (jnp.float32, 4000)


def test_perplexity() -> None:
    logits, labels = LOGITS.reshape(10, 20, 6), LABELS.reshape(10, 20)
    losses = cross_entropy(logits, labels)
    np.testing.assert_allclose(fnn.perplexity(logits, labels), np.exp(losses.mean(-1)), rtol=1e-6)
    mask = np.arange(20)[None, :] < np.arange(10)[:, None]
    want = [
        np.exp(row[keep].mean()) if keep.any() else 1
        for row, keep in zip(losses, mask, strict=True)
    ]
    np.testing.assert_allclose(fnn.perplexity(logits, labels, where=mask), want, rtol=1e-6)
    np.testing.assert_allclose(
        fnn.perplexity(np.zeros((3, 6), np.float32), LABELS[:3]), 6, rtol=1e-6
    )


def test_masked_examples_count_nothing_whatever_they_hold() -> None:
    keep = np.random.default_rng(1).random(200) < 0.5
    scores = np.where(keep[:, None], LOGITS, np.float32(np.nan))
    labels = np.where(keep, LABELS, -1)
    names = ("accuracy", "top_k_accuracy", "confusion_matrix")

    @jax.jit
    def masked(scores: Any, labels: Any, keep: Any) -> Any:
        metrics = map(functools.partial(getattr, fnn), names)
        configs: list[Any] = [{}, {"k": 2}, {}]
        return [m(scores, labels, where=keep, **c) for m, c in zip(metrics, configs, strict=True)]

    ranks = np.array([rank(row, label) for row, label in zip(LOGITS, LABELS, strict=True)])
    counts = np.zeros((6, 6))
    for row, label in zip(LOGITS[keep], LABELS[keep], strict=True):
        counts[label, row.argmax()] += 1
    first, second, table = masked(scores, labels, keep)
    np.testing.assert_array_equal(first, keep & (ranks == 0))
    np.testing.assert_array_equal(second, keep & (ranks < 2))
    np.testing.assert_array_equal(table, counts)
    for part in (np.ones(1, bool), np.zeros(1, bool)):  # of all examples at once
        first, second, table = masked(LOGITS, LABELS, part)
        assert float(table.sum()) == 200 * part[0]
        np.testing.assert_array_equal(first, part & (ranks == 0))
    with jax.debug_nans(True):
        assert float(fnn.accuracy(LOGITS, labels, where=keep).sum()) == (keep & (ranks == 0)).sum()
        assert float(fnn.confusion_matrix(LOGITS, labels, where=keep).sum()) == keep.sum()
    kept = np.array([True, False])  # what is kept is as bad as without a mask
    unknown = fnn.accuracy(LOGITS[:2], np.array([9, 9]), where=kept)
    np.testing.assert_array_equal(np.isnan(unknown), kept)
    assert np.isnan(fnn.confusion_matrix(LOGITS[:2], np.array([9, 0]), where=kept)).all()


def test_labels_that_no_class_has_and_nan_logits() -> None:
    x, labels = jnp.asarray(LOGITS[:3]), jnp.array([-1, 6, 0])
    np.testing.assert_array_equal(jnp.isnan(fnn.accuracy(x, labels)), [True, True, False])
    np.testing.assert_array_equal(
        jnp.isnan(fnn.top_k_accuracy(x, labels, k=2)), [True, True, False]
    )
    assert bool(jnp.isnan(fnn.confusion_matrix(x, labels)).all())
    assert bool(jnp.isnan(fnn.perplexity(x, labels)))
    lost = jnp.array([[jnp.nan, 1.0, 0.0], [jnp.nan, 1.0, 0.0]])
    np.testing.assert_array_equal(fnn.accuracy(lost, jnp.array([0, 1])), [0, 0])


def test_wrong_calls() -> None:
    x, labels = jnp.ones((2, 3)), jnp.array([0, 1])
    for call, message in [
        (
            lambda: fnn.accuracy(x, labels[:, None]),
            r"fnn.accuracy: labels: got int32\[2,1\]; needed",
        ),
        (lambda: fnn.top_k_accuracy(x, labels, k=4), r"top_k_accuracy: k: got 4; needed 1 ... 3"),
        (
            lambda: fnn.top_k_accuracy(x, labels, k=0),
            r"accuracy: k: got 0; needed an int >= 1",
        ),
        (lambda: fnn.confusion_matrix(x, labels[:1]), r"confusion_matrix: labels: got int32\[1\]"),
        (lambda: fnn.perplexity(x[0], labels[0]), r"fnn.perplexity: logits: got float32\[3\]"),
        (lambda: fnn.perplexity(x, labels, where=jnp.ones(3, bool)), r"where: got bool\[3\]"),
        *(
            (
                lambda metric=metric: metric(x, labels, where=jnp.ones((2, 1), bool)),
                rf"fnn.{metric.__name__}: where: got bool\[2,1\]; needed the shape \(2,\)",
            )
            for metric in (fnn.accuracy, fnn.confusion_matrix)
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"fnn.accuracy: labels: got float32\[2\]; needed integers"):
        fnn.accuracy(x, jnp.ones(2))
