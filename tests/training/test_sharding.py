"""Training on several devices: the numbers of one, from as many parts of every batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import fnn
from tests.devices import errors_of

KEY = jax.random.key(0)


def test_eight_devices_train_as_one_does() -> None:
    """All that a report tells, and the parameters, of files that the other wrote too."""
    errors = errors_of("tests.training.on_devices")
    assert len(errors) == 11
    assert {name: e for name, e in errors.items() if not e < 1e-5} == {}


def test_place_leaves_what_is_no_array() -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    run = fnn.Run({"w": jnp.ones(3)}, None, None, 1, 0, 23, jax.random.key(0))
    placed = fnn.sharding.place(run, mesh)
    assert (placed.epoch, placed.state, placed.step) == (1, None, 23)
    assert placed.key == run.key
    assert placed.params["w"].sharding.mesh == mesh


def on(name: str, kind: Any, array: Any) -> Any:
    return fnn.sharding.place(array, jax.make_mesh((1,), (name,), axis_types=(kind,)))


@pytest.mark.parametrize("stream", [False, True], ids=["arrays", "stream"])
@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_a_run_on_another_mesh_than_its_data_is_named(stream: bool, resumed: bool) -> None:
    data = on("data", AxisType.Explicit, np.ones(4, np.float32))
    start, loss = np.zeros(4, np.float32), lambda w, batch: ((w - batch) ** 2).mean()
    there = on("data", AxisType.Auto, start)
    run = fnn.Run(there, fnn.sgd(0.1).init(there), None, 0, 0, 0, KEY) if resumed else None
    params, sizes = start if resumed else there, {} if stream else {"batch_size": 4}

    batches: Any = [data] if stream else data
    reports = fnn.train(loss, params, fnn.sgd(0.1), batches, epochs=1, key=KEY, resume=run, **sizes)
    message = r"^fnn.train: params, state, stats and data: got arrays on more than one mesh; needed"
    with pytest.raises(ValueError, match=message + r" one: .*place\(run, mesh\)"):
        next(reports)


@pytest.mark.parametrize("stream", [False, True], ids=["arrays", "stream"])
def test_what_no_operation_joins_may_be_on_several_meshes(stream: bool) -> None:
    """JAX takes it."""
    ones = np.ones(4, np.float32)
    w, stats = on("data", AxisType.Auto, ones), on("other", AxisType.Explicit, ones)
    batch = {"x": ones, "unread": on("third", AxisType.Explicit, ones)}
    data, sizes = ([batch], {}) if stream else (batch, {"batch_size": 4})

    def loss(w: Any, stats: Any, batch: Any) -> Any:
        return ((w - batch["x"]) ** 2).mean(), stats

    config: Any = {"epochs": 2, "key": KEY, **sizes}
    *_, report = fnn.train(loss, w, fnn.sgd(0.1), data, stats=stats, **config)
    assert (report.loss, report.step) == (0, 2)


def test_automatic_axes_may_have_other_names() -> None:
    data, w = (on(name, AxisType.Auto, np.ones(4, np.float32)) for name in ("data", "model"))
    loss = lambda w, batch: ((w - batch) ** 2).mean()
    (report,) = fnn.train(loss, w, fnn.sgd(0.1), data, batch_size=4, epochs=1, key=KEY)
    assert report.loss == 0


def test_a_step_with_placed_parameters_leaves_the_ones_before() -> None:
    w = jnp.ones(3)
    placed = fnn.sharding.place(w, jax.make_mesh((1,), ("data",)))
    step = fnn.make_step(lambda w, x: (w * x).sum(), fnn.sgd(0.5))
    step(placed, fnn.sgd(0.5).init(placed), np.ones(3, np.float32))
    assert placed.is_deleted()
    assert w.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": "model"}, r"fnn\.sharding\.place: axis: got 'model'; needed 'data'"),
        ({"least": 0}, r"fnn\.sharding\.place: least: got 0; needed an int >= 1"),
        (
            {"mesh": None},
            r"fnn\.sharding\.place: mesh: got NoneType None; needed a jax.sharding",
        ),
        (
            {"mesh": {"w": 1.0}},
            r"fnn\.sharding\.place: mesh: got dict .*; needed a jax.sharding.M",
        ),
        (
            {"mesh": jax.devices()[0], "axis": None},
            r"fnn\.sharding\.place: mesh: got \w+ .*; needed a jax.sharding",
        ),
        (
            {"tree": [np.array(["a"])]},
            r"fnn\.sharding\.place: tree\[0\]: got <U1\[1\]; needed an array of numbers",
        ),
        (
            {"tree": [np.array([2**40])]},
            r"fnn\.sharding\.place: tree\[0\]: got int64\[1\] .*; needed numbers that fit int32",
        ),
        (
            {"tree": {"w": np.ma.masked_array([1.0], [True])}},
            r"fnn\.sharding\.place: tree\['w'\]: got a masked float64\[1\]; needed",
        ),
    ],
)
def test_wrong_calls(change: dict[str, object], message: str) -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises((ValueError, TypeError), match=message):
        fnn.sharding.place(**{"tree": {}, "mesh": mesh, "axis": "data", **change})
