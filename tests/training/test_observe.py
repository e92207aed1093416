"""What a run tells beside its loss: observations, aux averages, running statistics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.check import close
from tests.training.cases import DATA, KEY, Pairs, X, Y, counted, squares, start

BATCHES = [Pairs(X[i : i + 4], Y[i : i + 4]) for i in (0, 4, 8)]


def look(params: Any, grads: Any, updates: Any, batch: Any) -> Any:
    return {
        "w": params["w"],
        "grad": grads["w"],
        "update": updates["w"],
        "first": batch.y[0],
        "n": jnp.asarray(batch.y.shape[0]),
    }


@pytest.mark.parametrize("data", [DATA, BATCHES], ids=["arrays", "batches"])
@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("report_every", [None, 2])
def test_observations_are_those_of_the_steps(data: Any, every: int, report_every: Any) -> None:
    """3 epochs of 3 steps, the last of 2 examples, against a loop of single steps in NumPy."""
    config = {"batch_size": 4} if data is DATA else {}
    reports = fnn.train(
        squares, start(), fnn.sgd(0.1), data, epochs=3, key=KEY,
        observe=look, observe_every=every, report_every=report_every, **config,
    )  # fmt: skip
    reports = list(reports)
    got = jax.tree.map(lambda *x: np.concatenate(x), *[r.observed for r in reports])
    steps = np.arange(0, 9, every)
    assert len(got["n"]) == len(steps)
    np.testing.assert_array_equal(got["n"], [4, 4, 2] * 3 @ np.eye(9, dtype=int)[:, steps])
    np.testing.assert_allclose(got["update"], -0.1 * got["grad"], rtol=1e-6)
    np.testing.assert_array_equal(got["w"][0], 0)
    if every == 1:
        np.testing.assert_allclose(got["w"][1:], (got["w"] + got["update"])[:-1], rtol=1e-6)
    if data is BATCHES:
        np.testing.assert_array_equal(got["first"], np.tile(Y[[0, 4, 8]], 3)[steps])
    else:
        assert set(got["first"]) <= set(Y.tolist())
    ends = [r.step for r in reports]
    for report, begin in zip(reports, [0, *ends], strict=False):
        count = len([s for s in steps if begin <= s < report.step])
        assert len(report.observed["n"]) == count


def test_nothing_is_observed_where_nothing_is_asked() -> None:
    (report,) = fnn.train(squares, start(), fnn.sgd(0.1), DATA, batch_size=4, epochs=1, key=KEY)
    assert report.observed is None
    assert report.aux is None


def test_observing_changes_no_number() -> None:
    config = {"batch_size": 4, "epochs": 2, "key": KEY}
    *_, plain = fnn.train(squares, start(), fnn.adam(0.1), DATA, **config)
    *_, seen = fnn.train(squares, start(), fnn.adam(0.1), DATA, observe=look, **config)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(seen.params), strict=True):
        close(a, b, length=30)


@pytest.mark.parametrize("observe_every", [0, 1.5])
def test_observe_every_is_checked(observe_every: Any) -> None:
    with pytest.raises(ValueError, match=r"train: observe_every: got .*; needed an int >= 1"):
        fnn.train(squares, start(), fnn.sgd(0.1), DATA, batch_size=4, epochs=1, key=KEY,
                  observe_every=observe_every)  # fmt: skip


def with_aux(params: Any, batch: Any) -> Any:
    error = batch.x @ params["w"] - batch.y
    aux = {"error": error.mean(), "large": (error > 0.5).sum() // len(error), "x": batch.x.mean(0)}
    return (error**2).mean(), aux


@pytest.mark.parametrize("data", [DATA, BATCHES], ids=["arrays", "batches"])
def test_aux_is_averaged_over_examples(data: Any) -> None:
    config = {"batch_size": 4} if data is DATA else {}
    (report,) = fnn.train(
        with_aux, start(), fnn.sgd(0.0), data, epochs=1, key=KEY, has_aux=True, **config
    )
    assert isinstance(report.aux["error"], float)
    assert report.aux["error"] == pytest.approx(-Y.astype(np.float64).mean(), rel=1e-5)
    close(np.asarray(report.aux["x"], np.float32), X.astype(np.float64).mean(0), length=10)
    assert report.loss == pytest.approx((Y.astype(np.float64) ** 2).mean(), rel=1e-5)


def per_example(params: Any, batch: Any) -> Any:
    error = batch.x @ params["w"] - batch.y
    return (error**2).mean(), {"error": error}


@pytest.mark.parametrize("rest", [1, 2])
@pytest.mark.parametrize("arrays", [True, False])
def test_aux_of_another_shape_in_the_last_batch(rest: int, arrays: bool) -> None:
    """A single number would be spread over those of the other batches."""
    data = Pairs(X[: 4 + rest], Y[: 4 + rest])
    batches = [Pairs(X[:4], Y[:4]), Pairs(X[4 : 4 + rest], Y[4 : 4 + rest])]
    given: Any = {"data": data, "batch_size": 4} if arrays else {"data": batches}
    message = (
        rf"fnn.train: loss: aux\['error'\]: got float32\[{rest}\]; "
        r"needed the shape of float32\[4\], means over the batch, of one shape for every batch"
    )
    given |= {"epochs": 1, "key": KEY, "has_aux": True}
    with pytest.raises(ValueError, match=message):
        list(fnn.train(per_example, start(), fnn.sgd(0.1), **given))


def test_running_statistics_go_from_step_to_step() -> None:
    def loss(params: Any, stats: Any, batch: Any) -> Any:
        new = jax.tree.map(lambda r, b: 0.9 * r + 0.1 * b, stats, fnn.batch_stats(batch.x))
        return squares(params, batch._replace(x=batch.x - stats.mean[None])), new

    def loss_with_aux(params: Any, stats: Any, batch: Any) -> Any:
        value, new = loss(params, stats, batch)
        return value, new, {"value": value}

    stats = fnn.BatchStats(jnp.zeros(3), jnp.ones(3))
    config = {"epochs": 2, "key": KEY, "stats": stats}
    *_, plain = fnn.train(loss, start(), fnn.sgd(0.1), BATCHES, **config)
    *_, aux = fnn.train(loss_with_aux, start(), fnn.sgd(0.1), BATCHES, has_aux=True, **config)
    mean, var = np.zeros(3), np.ones(3)
    for batch in BATCHES * 2:
        x = batch.x.astype(np.float64)
        mean, var = 0.9 * mean + 0.1 * x.mean(0), 0.9 * var + 0.1 * x.var(0)
    for report in (plain, aux):
        close(report.run.stats.mean, mean, length=10)
        close(report.run.stats.var, var, length=10)
    assert aux.aux["value"] == pytest.approx(aux.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "config", "message"),
    [
        (with_aux, {}, r"loss: got tuple .*; needed a scalar array; has_aux=True allows"),
        (squares, {"has_aux": True}, r"loss: got float32\[\]; needed a tuple \(value, aux\)"),
        (
            lambda p, s, b: squares(p, b),
            {"stats": X},
            r"loss: got .* a tuple \(value, stats",
        ),
        (
            lambda p, s, b: (squares(p, b), s[0]),
            {"stats": X},
            r"loss: stats: got float32\[3\]; needed the shape of float32\[10,3\], as loss was",
        ),
        (
            lambda p, s, b: (squares(p, b), s.astype(jnp.float16)),
            {"stats": X},
            r"loss: stats: got float16\[10,3\]; needed float32, as loss was given them",
        ),
        (
            lambda p, s, b: (squares(p, b), s),
            {"stats": X, "has_aux": True},
            r"loss: got tuple .*; needed a tuple \(value, stats, aux\)",
        ),
        (lambda p, b: p["w"], {}, r"loss: got float32\[3\]; needed a scalar array: call .mean\(\)"),
    ],
    ids=[
        "unasked_aux",
        "no_aux",
        "no_stats",
        "other_stats",
        "dtype_of_stats",
        "stats_without_aux",
        "vector",
    ],
)
def test_what_the_loss_returns_is_checked(loss: Any, config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^fnn.train: {message}"):
        list(
            fnn.train(loss, start(), fnn.sgd(0.1), DATA, batch_size=4, epochs=1, key=KEY, **config)
        )


@pytest.mark.parametrize("observe", [None, lambda params, grads, updates, batch: grads])
def test_the_loss_is_traced_once(observe: Any) -> None:
    loss, traces = counted(squares)
    list(fnn.train(loss, start(), fnn.sgd(0.1), BATCHES[:2], epochs=2, key=KEY, observe=observe))
    assert len(traces) == 1
