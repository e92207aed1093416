"""Checkpoints of Orbax and loaders of grain: what they hold and give is what fnn takes."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest

import fnn
from tests.training.cases import DATA, KEY, squares, start


def test_orbax_keeps_a_whole_run(tmp_path: Path) -> None:
    """With its key: a run restored goes on as one that was not interrupted."""

    def run(epochs: int, resume: Any = None) -> Any:
        config = {"batch_size": 4, "epochs": epochs, "key": KEY, "resume": resume}
        *_, report = fnn.train(squares, start(), fnn.adam(0.1), DATA, **config)
        return report.run

    half = run(1)
    with orbax.checkpoint.StandardCheckpointer() as files:
        files.save(tmp_path / "run", half)
        files.wait_until_finished()
        restored = files.restore(tmp_path / "run", half)
    whole, resumed = run(2), run(2, resume=restored)
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    for got, want in zip(jax.tree.leaves(resumed[:-1]), jax.tree.leaves(whole[:-1]), strict=True):
        np.testing.assert_array_equal(got, want)


def test_an_optimizer_of_optax_whose_state_holds_a_key() -> None:
    """Noise on the gradients, drawn anew at every step: a run in two parts is the whole."""
    noisy = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(3)), optax.sgd(0.1))

    def run(epochs: int, resume: Any = None) -> Any:
        config = {"batch_size": 4, "epochs": epochs, "key": KEY, "resume": resume}
        with jax.numpy_dtype_promotion("standard"):  # which optax relies on
            *_, report = fnn.train(squares, start(), noisy, DATA, **config)
        return report.run

    whole, resumed = run(2), run(2, resume=run(1))
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert whole.state[0].rng_key != noisy.init(start())[0].rng_key


def test_an_optimizer_that_keeps_what_a_step_has_used_up() -> None:
    noisy = optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(3)), optax.sgd(0.1))
    with jax.numpy_dtype_promotion("standard"):
        fnn.make_step(squares, noisy)(start(), noisy.init(start()), DATA)
        refused = r"^fnn.train: optimizer.init\(params\)\[0\].rng_key: got a deleted key"
        with pytest.raises(ValueError, match=refused):
            fnn.train(squares, start(), noisy, DATA, batch_size=4, epochs=1, key=KEY)


def test_batches_of_grain() -> None:
    """A function of the epoch, as the guide shows it, and a loader: each example once an epoch."""
    # Of the packages that the tests need, few machines have this one at hand.
    grain = pytest.importorskip("grain", reason="grain is no dependency of the tests")
    numbers = np.arange(10)

    def epoch(number: int) -> Any:
        return grain.MapDataset.source(numbers).shuffle(seed=number).batch(4).to_iter_dataset()

    sampler = grain.samplers.IndexSampler(
        10, shard_options=grain.sharding.NoSharding(), shuffle=True, num_epochs=1, seed=1
    )
    loader = grain.DataLoader(
        data_source=numbers, sampler=sampler, operations=[grain.transforms.Batch(4)]
    )
    for data in (epoch, loader):
        config = {"epochs": 2, "key": KEY, "report_every": 1}
        config["observe"] = lambda params, grads, updates, rows: rows
        loss = lambda params, rows: params[rows].sum()
        reports = list(fnn.train(loss, jnp.zeros(10), fnn.sgd(1.0), data, **config))
        assert [len(report.observed[0]) for report in reports] == [4, 4, 2] * 2
        for number in (1, 2):
            seen = [report.observed[0] for report in reports if report.epoch == number]
            assert sorted(np.concatenate(seen)) == list(range(10))
