"""One run, one value: a run in two parts is the whole, bit for bit."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn import trees
from tests.check import close
from tests.training.cases import DATA, KEY, Pairs, X, Y, squares, start


def noisy(params: Any, stats: Any, batch: Any, key: Any) -> Any:
    """A loss with all that a run carries: parameters, statistics and randomness."""
    noise = 0.1 * jax.random.normal(key, batch.y.shape)
    value = squares(params, Pairs(batch.x - stats[None], batch.y + noise))
    return value, 0.9 * stats + 0.1 * batch.x.mean(0)


def batches(epoch: int) -> Iterator[Any]:
    order = np.random.default_rng(epoch).permutation(10)
    for rows in np.split(order, [3, 6, 9]):
        yield Pairs(X[rows], Y[rows])


def runs(data: Any, optimizer: Any) -> Callable[..., list[Any]]:
    """All reports of a run, from the start or from where another stopped."""
    config = {"batch_size": None if data is batches else 3, "report_every": 3}
    run = functools.partial(fnn.train, noisy, start(), optimizer, data, key=KEY, **config)
    return lambda resume=None, epochs=3: list(run(stats=jnp.zeros(3), resume=resume, epochs=epochs))


ADAM = fnn.adam(0.1)


def same(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("data", [DATA, batches], ids=["arrays", "batches"])
@pytest.mark.parametrize(
    "optimizer",
    [
        fnn.adam(fnn.schedules.cosine(0.1, 12)),
        optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)),
    ],
    ids=["fnn", "optax"],
)
def test_parts_equal_the_whole(data: Any, optimizer: Any) -> None:
    run = runs(data, optimizer)
    whole = run()
    assert [(r.epoch, r.step) for r in whole] == [(1, 3), (1, 4), (2, 7), (2, 8), (3, 11), (3, 12)]
    for i, report in enumerate(whole):
        rest = run(resume=report.run)
        assert len(rest) == len(whole) - i - 1
        for got, want in zip(rest, whole[i + 1 :], strict=True):
            same(got.run, want.run)
            assert (got.epoch, got.step, got.loss) == (want.epoch, want.step, want.loss)


def test_a_run_of_fewer_epochs_goes_on() -> None:
    run = runs(DATA, ADAM)
    *_, half = run(epochs=1)
    *_, rest = run(resume=half.run)
    *_, whole = run()
    same(rest.run, whole.run)


@pytest.mark.parametrize(
    "carry", [jax.device_put, jax.device_get, functools.partial(jax.tree.map, jnp.copy)]
)
@pytest.mark.parametrize("data", [DATA, batches], ids=["arrays", "batches"])
def test_a_run_is_a_pytree(data: Any, carry: Callable[[Any], Any]) -> None:
    """Its counts may come as arrays, as all that is mapped over its leaves gives them."""
    run = runs(data, ADAM)
    first, *rest = run(epochs=2)
    for got, want in zip(run(resume=carry(first.run), epochs=2), rest, strict=True):
        same(got.run, want.run)
        assert type(got.run.step) is type(got.epoch) is int


def test_what_a_run_says() -> None:
    *_, report = runs(DATA, ADAM)()
    assert repr(report.run) == "Run(4 parameters, epoch 3, batch 0, step 12)"
    assert repr(report) == str(report)
    assert report.params is report.run.params
    assert report.state is report.run.state


def test_step_counts_batches_under_accumulation() -> None:
    optimizer = fnn.accumulate(fnn.sgd(0.1), 4)
    (report,) = fnn.train(squares, start(), optimizer, DATA, batch_size=1, epochs=1, key=KEY)
    assert report.step == 10
    assert int(report.state.inner.step) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run.params, run.state), "resume: got tuple .*; needed a Run, such as report"),
        (
            lambda run: run._replace(params={"w": run.params["w"]}),
            r"resume.params\['b'\]: got nothing; needed float32\[\]",
        ),
        (
            lambda run: run._replace(state=fnn.sgd(0.1).init(run.params)),
            r"resume.state.*: got nothing; .*as this optimizer's init returns it",
        ),
        (lambda run: run._replace(stats=None), "resume.stats: got nothing; .*, as in stats"),
        (
            lambda run: run._replace(key=jax.random.key(8)),
            r"key: got another key than that of resume; needed the key .*_replace\(key=key\)",
        ),
        (
            lambda run: run._replace(params=trees.cast(run.params, jnp.bfloat16)),
            r"resume.params\['b'\]: got bfloat16\[\]; needed float32, as a new run has it",
        ),
        (
            lambda run: run._replace(state=trees.cast(run.state, jnp.float16)),
            r"resume.state.*: got float16\[.*\]; needed float32, as a new run has it",
        ),
        (lambda run: run._replace(batch=4), "resume.batch: got 4; needed less than the 4 batches"),
        (lambda run: run._replace(epoch=-1), "resume.epoch: got -1; needed an int >= 0"),
        (lambda run: run._replace(epoch=jnp.array(-1)), "resume.epoch: got -1; needed an int >= 0"),
        (lambda run: run._replace(batch=np.array(0.5)), "resume.batch: got 0.5; needed an int"),
        (lambda run: run._replace(epoch=1.5), "resume.epoch: got 1.5; needed an int >= 0"),
        (lambda run: run._replace(batch=-1), "resume.batch: got -1; needed an int >= 0"),
        (
            lambda run: run._replace(batch=1, step=0),
            "resume.step: got 0; needed an int >= 1",
        ),
    ],
    ids=[
        *["pair", "params", "state", "stats", "key", "params_dtype", "state_dtype", "batch"],
        *["negative_epoch", "negative_array"],
        *["part_of_a_batch", "part_of_an_epoch", "negative_batch", "step_before_batch"],
    ],
)
def test_resume_refuses(change: Any, message: str) -> None:
    run = runs(DATA, ADAM)
    report = run()[1]
    with pytest.raises((ValueError, TypeError), match=f"^fnn.train: {message}"):
        run(resume=change(report.run))


def test_resume_beyond_the_batches_of_an_epoch() -> None:
    """Which only reading them tells."""
    run = runs(batches, ADAM)
    beyond = run()[0].run._replace(batch=5, step=5)
    message = "^fnn.train: resume.batch: got 5; needed at most the batches of an epoch of this"
    with pytest.raises(ValueError, match=message):
        run(resume=beyond)


def test_a_run_with_another_key_is_asked_for() -> None:
    config = {"batch_size": 3, "epochs": 2}
    first = next(fnn.train(squares, start(), fnn.sgd(0.1), DATA, key=KEY, **config))
    other = jax.random.key(8)
    run = first.run._replace(key=other)
    (report,) = fnn.train(squares, start(), fnn.sgd(0.1), DATA, key=other, resume=run, **config)
    assert report.step == 8


def test_a_finished_run_has_nothing_to_report() -> None:
    run = runs(DATA, ADAM)
    assert run(resume=run()[-1].run) == []


def test_a_generator_cannot_be_resumed() -> None:
    def once() -> Iterator[Any]:
        return itertools.chain(batches(0))

    config = {"epochs": 1, "key": KEY, "report_every": 1}
    report = next(fnn.train(squares, start(), fnn.sgd(0.1), once(), **config))
    message = "train: data: got chain .*, which can be read once; needed what can be read from"
    with pytest.raises(ValueError, match=message):
        fnn.train(squares, start(), fnn.sgd(0.1), once(), resume=report.run, **config)


@pytest.mark.parametrize("rate", [0.1, fnn.schedules.cosine(0.1, 9)])
@pytest.mark.parametrize("wide", [False, True])
def test_a_run_goes_on_where_x64_is_set_otherwise(tmp_path: Path, wide: bool, rate: Any) -> None:
    def last(epochs: int, run: Any = None) -> Any:
        config: dict[str, Any] = {"batch_size": 4, "epochs": epochs, "key": KEY, "resume": run}
        *_, report = fnn.train(squares, start(), fnn.adam(rate), DATA, **config)
        return report

    with jax.enable_x64(wide):
        fnn.save(tmp_path / "run", last(1).run)
        whole = last(2).params
    with jax.enable_x64(not wide):
        resumed = last(2, fnn.load(tmp_path / "run")).params
    for got, want in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        close(got, want, length=40)
