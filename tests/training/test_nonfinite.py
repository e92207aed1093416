"""A loss or a parameter that is not finite: the step, the path, and the last good run."""

import pickle
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from tests.training.cases import KEY

STEPS = 12
NUMBERS = np.arange(STEPS, dtype=np.float32)[None]


class Fuse(NamedTuple):
    """An example: its number in the data, and what it does to the loss."""

    number: Any
    poison: Any


def loss(params: Any, batch: Any) -> Any:
    """Moves w by the numbers; a poison of 1 spoils the value, of 2 the gradient of b alone."""
    bad = jnp.where((batch.poison == 1).any(), jnp.nan, 0.0)
    steep = jnp.where((batch.poison == 2).any(), 0.0, 1.0)
    return params["w"] * batch.number.mean() + jnp.sqrt(params["b"] * 0 + steep) + bad


def start() -> Any:
    return {"w": jnp.zeros(()), "b": jnp.ones(())}


def fuses(poison: int, number: int) -> Fuse:
    poisons = np.where(np.arange(STEPS) == number, poison, 0)
    return Fuse(NUMBERS[0], poisons.astype(np.int32))


def one_by_one(data: Fuse) -> Any:
    return lambda epoch: [Fuse(data.number[i : i + 1], data.poison[i : i + 1]) for i in range(12)]


def reports(data: Any, on_nonfinite: str, epochs: int = 2, **config: Any) -> Iterator[Any]:
    return fnn.train(
        loss,
        start(),
        fnn.sgd(0.1),
        data,
        epochs=epochs,
        key=KEY,
        on_nonfinite=on_nonfinite,
        **config,
    )


def test_another_step_is_found_by_the_same_programs(caplog: pytest.LogCaptureFixture) -> None:
    optimizer, at = fnn.sgd(0.1), set()
    for number in range(4):
        caplog.clear()
        run = fnn.train(loss, start(), optimizer, fuses(1, number), batch_size=1, epochs=1, key=KEY)
        with jax.log_compiles(), pytest.raises(fnn.NonFiniteError) as caught:
            list(run)
        at.add(caught.value.run.step)
    assert len(at) == 4
    assert "Compiling" not in caplog.text


@pytest.mark.parametrize("at", [0, 1, 6, 11])
@pytest.mark.parametrize("poison", [1, 2])
@pytest.mark.parametrize("every", [None, 4])
def test_batches_stop_at_the_very_step(at: int, poison: int, every: int | None) -> None:
    data = one_by_one(fuses(poison, at))
    with pytest.raises(fnn.NonFiniteError) as caught:
        list(reports(data, "raise", report_every=every))
    error = caught.value
    assert error.run.step == at
    np.testing.assert_allclose(error.run.params["w"], -0.1 * sum(range(at)), rtol=1e-5)
    assert (error.gradient, error.parameter) == ("b", "b") if poison == 2 else (None, None)
    assert np.isnan(error.loss) == (poison == 1)
    assert f"fnn.train: step {at + 1}: got a loss of " in str(error)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_arrays_stop_at_the_very_step(batch_size: int) -> None:
    """In whatever order: the step is the one that the run without poison has its number in."""
    config = {"batch_size": batch_size, "report_every": 1, "epochs": 1}
    seen = lambda params, grads, updates, batch: (batch.number[:, None] == NUMBERS).any(0)
    good = list(reports(fuses(0, 0), "raise", observe=seen, **config))
    for number in (0, 5, 11):
        config["report_every"] = None
        (last,) = reports(fuses(1, number), "stop", **config)
        assert isinstance(last.stopped, fnn.NonFiniteError)
        step = last.stopped.run.step
        assert last.step == step
        assert good[step].observed[0, number]
        before = good[step - 1].params["w"] if step else 0.0
        np.testing.assert_array_equal(last.params["w"], before)


def test_stop_reports_the_good_steps() -> None:
    data = one_by_one(fuses(1, 6))
    first, last = reports(data, "stop", report_every=4)
    assert first.stopped is None
    assert (last.epoch, last.step) == (1, 6)
    want = [1 - 0.1 * sum(range(i)) * i for i in (4, 5)]
    assert last.loss == pytest.approx(np.mean(want), rel=1e-5)
    (only,) = reports(one_by_one(fuses(1, 0)), "stop")
    assert np.isnan(only.loss)
    assert only.step == 0


def test_the_error_goes_to_another_process() -> None:
    *_, last = reports(one_by_one(fuses(2, 6)), "stop")
    error, got = last.stopped, pickle.loads(pickle.dumps(last.stopped))
    assert isinstance(got, fnn.NonFiniteError)
    assert str(got) == str(error)
    assert (got.loss, got.gradient, got.parameter) == (error.loss, "b", "b")
    assert got.run.step == 6
    np.testing.assert_array_equal(got.run.params["w"], error.run.params["w"])


def test_a_caught_error_keeps_nothing() -> None:
    """The run is gone with the error; the suite's collector is off."""

    def caught() -> Any:
        try:  # pytest.raises would keep it
            list(reports(fuses(1, 3), "raise", batch_size=2))
        except fnn.NonFiniteError as error:
            return weakref.ref(error.run.params["w"])

    assert caught()() is None


def test_a_stopped_run_goes_on_with_better_data() -> None:
    data = one_by_one(fuses(1, 6))
    *_, last = reports(data, "stop")
    *_, mended = reports(one_by_one(fuses(0, 0)), "raise", resume=last.run)
    *_, whole = reports(one_by_one(fuses(0, 0)), "raise")
    jax.tree.map(np.testing.assert_array_equal, mended.params, whole.params)


def test_ignore_goes_on() -> None:
    *_, last = reports(one_by_one(fuses(1, 6)), "ignore")
    assert last.step == 2 * STEPS
    assert last.stopped is None


def test_a_bad_gradient_shows_when_the_mean_that_it_is_in_is_used() -> None:
    optimizer = fnn.accumulate(fnn.sgd(0.1), 4)
    data = one_by_one(fuses(2, 5))
    *_, last = fnn.train(loss, start(), optimizer, data, epochs=1, key=KEY, on_nonfinite="stop")
    assert last.stopped.run.step == 7
    assert np.isfinite(last.params["b"])
    assert not np.isfinite(last.state.mean["b"])


def test_bad_gradients_that_the_optimizer_takes_care_of_are_none_of_its_business() -> None:
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 3)
    *_, last = fnn.train(loss, start(), optimizer, one_by_one(fuses(2, 6)), epochs=2, key=KEY)
    assert last.step == 2 * STEPS


def test_infinite_parameters_of_finite_loss() -> None:
    """The last step of the run overflows: no later loss would tell."""
    data = np.ones(4, np.float32)
    run = fnn.train(
        lambda w, batch: w * batch.mean() * 1e30, jnp.zeros(()), fnn.sgd(1e30), data,
        batch_size=4, epochs=1, key=KEY,
    )  # fmt: skip
    with pytest.raises(fnn.NonFiniteError, match=r"step 1: got a loss of 0, .*: 'params';"):
        list(run)


@pytest.mark.parametrize("data", [np.ones(70, np.float32), [np.ones(64), np.ones(6)]])
def test_a_large_loss_is_finite(data: Any) -> None:
    """Its mean over the examples is, where their sum is none of the numbers of float32."""
    size = 64 if isinstance(data, np.ndarray) else None
    run = fnn.train(
        lambda w, batch: w + 1e37 * batch.mean(), jnp.zeros(()), fnn.sgd(0.1), data,
        batch_size=size, epochs=1, key=KEY,
    )  # fmt: skip
    (report,) = run
    assert report.loss == pytest.approx(1e37, rel=1e-6)


def test_a_label_outside_of_the_classes_is_thought_of() -> None:
    """It makes the loss NaN, and neither a gradient nor a parameter."""
    loss = lambda w, batch: fnn.cross_entropy(batch[0] @ w, batch[1]).mean()
    data = np.ones((4, 2), np.float32), np.array([0, 1, 2, 3])
    message = (
        "step 1: got a loss of nan, and finite gradients and parameters, as by a label outside"
    )
    with pytest.raises(fnn.NonFiniteError, match=f"^fnn.train: {message}"):
        list(fnn.train(loss, jnp.ones((2, 3)), fnn.sgd(0.1), data, batch_size=4, epochs=1, key=KEY))


def test_on_nonfinite_is_checked() -> None:
    message = "train: on_nonfinite: got 'warn'; needed 'raise' or 'stop' or 'ignore'"
    with pytest.raises(ValueError, match=message):
        reports(fuses(0, 0), "warn", batch_size=4)
