"""Training on eight devices; `test_sharding.py` runs this in a process of its own."""

import tempfile
import threading
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from fnn.static import frozen
from fnn.training.arrays import array_calls, spread_of
from fnn.training.evaluate import _by_batches
from fnn.training.loop import advance
from fnn.training.report import Run
from fnn.training.step import Learner, make_plan
from fnn.training.stream import batch_calls
from tests.devices import collectives, error, strict

N, SIZE = 40, 16  # the last batch has 8 examples
KEY = jax.random.key(0)
OPTIMIZER = fnn.accumulate(fnn.momentum(0.05), 2)
LEAST = 96  # numbers in an array that is cut


def data() -> Any:
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 8, 2)).astype(np.float32), rng.integers(0, 3, N)


def start() -> Any:
    one, two = jax.random.split(KEY)
    return {
        "conv": fnn.init_conv(one, (3,), 2, 16, bias=False),
        "norm": fnn.init_norm(16),
        "head": fnn.init_dense(two, 128, 3),
    }


def loss(params: Any, stats: Any, batch: Any, key: Any) -> Any:
    """A convolution, batch normalization and dropout: all that a batch has in common."""
    x, labels = batch
    params = fnn.sharding.gather(params)
    x = fnn.conv(x, **params["conv"])
    here = fnn.batch_stats(x)
    x = fnn.batch_norm(x, **params["norm"], mean=here.mean, var=here.var)
    logits = fnn.dense(fnn.dropout(fnn.flatten(fnn.relu(x)), 0.2, key), **params["head"])
    value = fnn.cross_entropy(logits, labels).mean()
    return value, fnn.running_stats(stats, here), {"accuracy": fnn.accuracy(logits, labels).mean()}


def new_stats() -> Any:
    return fnn.BatchStats(jnp.zeros(16), jnp.ones(16))


def reports(data: Any, run: Run | None = None, place: Any = lambda tree: tree) -> list[Any]:
    """Two epochs, or what a run lacks of three."""
    arguments = {"stats": place(new_stats()), "has_aux": True, "key": KEY, "batch_size": SIZE}
    arguments |= {"epochs": 2} if run is None else {"epochs": 3, "resume": run}
    return list(fnn.train(loss, place(start()), OPTIMIZER, data, **arguments))


def seen(reports: list[Any]) -> list[Any]:
    return [(r.loss, r.aux["accuracy"], r.run.stats, r.params) for r in reports]


def program(data: Any, params: Any) -> Any:
    """The compiled steps of an epoch."""
    plan = make_plan("train", loss, OPTIMIZER, has_stats=True, has_aux=True)
    run = Run(params, OPTIMIZER.init(params), new_stats(), 0, 0, 0, KEY)
    call = next(array_calls(data, SIZE, run, 1, 3))
    learner = Learner(run.params, run.state, run.stats)
    return advance.lower(plan, None, learner, call.feed, call.place, 0, 3).compile()


def check_program(on_mesh: Any, params: Any) -> None:
    """Each device computes its own examples; gathered are their places, and parameters cut."""
    large = [x for x in jax.tree.leaves(params) if not x.sharding.is_fully_replicated]
    shapes = [f"f32{list(x.shape)}".replace(" ", "") for x in large]
    text = program(on_mesh, params).as_text()
    assert f"f32[{SIZE // 8},8,16]" in text  # what the convolution gives
    assert f"f32[{SIZE},8,16]" not in text
    lines = [line for line in text.splitlines() if collectives(line)]
    usual = ("s32", "u32", *shapes)
    odd = [x for x in lines if "all-reduce" not in x and not x.split(" = ")[1].startswith(usual)]
    assert not odd, odd


def check_parts(mesh: Any, learner: Any, on_mesh: Any) -> None:
    """Of large arrays each device has an eighth: parameters, moments and, if typed, gradients."""

    def value(params: Any) -> Any:
        return loss(params, new_stats(), on_mesh, KEY)[0]

    with jax.set_mesh(mesh):
        grads = jax.jit(jax.grad(value))(learner[0]) if mesh.explicit_axes else ()
    large = [x for x in jax.tree.leaves((*learner, grads)) if x.size >= LEAST]
    assert len(large) >= (8 if mesh.explicit_axes else 6)  # of two layers
    assert {x.size // x.addressable_shards[0].data.size for x in large} == {8}


def check_batches(mesh: Any) -> None:
    """Batches of an iterable stay where they are; evaluation gives what one device gives."""
    x = np.arange(48, dtype=np.float32).reshape(24, 2)
    placed = jax.device_put(x, NamedSharding(mesh, P("data")))
    params = fnn.sharding.place(jnp.ones((2, 16)), mesh)
    plan = make_plan("train", lambda w, x: ((x @ w) ** 2).mean(), fnn.sgd(0.1), has_aux=False)
    left = threading.Event()
    call = next(batch_calls([placed] * 3, Run(params, (), None, 0, 0, 0, KEY), 1, None, left))
    learner = Learner(params, fnn.sgd(0.1).init(params))
    text = advance.lower(plan, None, learner, call.feed, call.place, 0, 3).compile().as_text()
    assert "f32[3,16]" in text
    assert "f32[24," not in text  # neither results nor examples of all devices
    half = [placed, x[:12]]  # the second, of no multiple of 8, is on one device
    if mesh.explicit_axes:
        half[1] = jax.device_put(x[:12], NamedSharding(mesh, P()))
    outputs = fnn.predict(lambda w, x: (x @ w)[:, 0], params, half)
    assert outputs.tolist() == [*x.sum(1), *x[:12].sum(1)]


def check_evaluation(mesh: Any) -> None:
    """Each device computes its own examples of a batch, and gives what one device gives."""
    x = np.arange(72, dtype=np.float32).reshape(24, 3)
    placed = jax.device_put(x, NamedSharding(mesh, P("data")))
    params = fnn.sharding.place(jnp.ones((3, 16)), mesh)
    norms = lambda w, x: ((x @ w) ** 2).sum(1)
    predict = lambda x: fnn.predict(norms, params, x, batch_size=16)
    ahead = _by_batches.lower("predict", frozen(norms), 16, (spread_of(placed),), params, placed)
    text = ahead.compile().as_text()
    assert "f32[2,16]" in text  # of the product
    assert "f32[16,16]" not in text
    assert "f32[24,3]" not in text  # all examples
    want = 16 * x.sum(1, np.float64) ** 2
    assert predict(placed).tolist() == want.tolist()
    assert jax.jit(predict)(placed).tolist() == want.tolist()
    slopes = jax.grad(lambda x: predict(x).sum())
    with jax.set_mesh(mesh):  # as JAX needs it for gradients on explicit axes
        assert slopes(placed).tolist() == [[32 * s] * 3 for s in x.sum(1).tolist()]
    apart = lambda x: fnn.predict(norms, jnp.ones((3, 16)), x, batch_size=2)
    manual = jax.shard_map(apart, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    assert jax.jit(manual)(placed).tolist() == want.tolist()
    assert fnn.evaluate(norms, params, placed, batch_size=16) == want.mean()
    with pytest.raises(ValueError, match="evaluate: batch_size: got 12; needed a multiple of 8"):
        fnn.evaluate(norms, params, placed, batch_size=12)


def check_axes_of_both_kinds() -> None:
    """Examples may be on explicit and on auto axes of one mesh."""
    kinds = (AxisType.Explicit, AxisType.Auto)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)
    x = np.arange(32, dtype=np.float32).reshape(16, 2)
    placed = jax.device_put(x, NamedSharding(mesh, P(("data", "model"))))
    for cut in (placed, jax.device_put(x, NamedSharding(mesh, P("data", "model")))):
        assert fnn.sharding.gather(cut).sharding.is_fully_replicated
    params, config = fnn.sharding.place(jnp.ones(2), mesh), {"batch_size": 8, "epochs": 1}
    got = fnn.predict(lambda w, x: x @ w, params, placed, batch_size=8)
    assert got.tolist() == x.sum(1).tolist()
    with jax.set_mesh(mesh):
        loss = lambda w, x: (x @ w).mean()
        (report,) = fnn.train(loss, params, fnn.sgd(0.0), placed, key=KEY, **config)
    assert report.loss == x.sum(1).mean()


def check_steps(mesh: Any) -> None:
    """A step leaves alone what its arrays were placed from, and what else shares their memory."""
    w = jnp.ones(16)
    placed = fnn.sharding.place(w, mesh)
    again = jax.device_put(placed, NamedSharding(mesh, P(None)))
    step = fnn.make_step(lambda w, x: (w * x).sum(), fnn.sgd(0.5))
    after, _, _ = step(placed, fnn.sgd(0.5).init(placed), again)
    assert float(after.sum() + w.sum() + again.sum()) == 8 + 16 + 16


def check_aux(mesh: Any) -> None:
    """What a loss returns beside its value may be cut as its parameters are."""

    def loss(w: Any, x: Any) -> Any:
        return (x @ fnn.sharding.gather(w)).mean(), jnp.abs(w).mean(0)

    w = fnn.sharding.place(jnp.ones((2, 64)), mesh, "data", least=LEAST)
    data = jax.device_put(np.ones((32, 2), np.float32), NamedSharding(mesh, P("data")))
    config = {"batch_size": 16, "epochs": 1, "key": KEY, "has_aux": True}
    with jax.set_mesh(mesh):
        (report,) = fnn.train(loss, w, fnn.sgd(0.0), data, **config)
    assert report.aux.tolist() == [1] * 64


def check_place(mesh: Any) -> None:
    """Cut is an axis that eight devices divide evenly, if there is one."""
    arrays = jnp.ones((8, 100)), jnp.ones((9, 100))
    placed = fnn.sharding.place(arrays, mesh, "data", least=LEAST)
    parts = [x.sharding.shard_shape(x.shape) for x in placed]
    assert parts == [(1, 100), (9, 100)]


def observed(data: Any, place: Any) -> Any:
    """The gradients and the sum of parameters, which may be cut, at every step of an epoch."""
    look = lambda params, grads, updates, batch: (grads["head"], params["head"]["w"].sum())
    config = {"batch_size": SIZE, "epochs": 1, "key": KEY, "stats": place(new_stats())}
    config |= {"has_aux": True, "observe": look}
    (report,) = fnn.train(loss, place(start()), OPTIMIZER, data, **config)
    return report.observed


def check_refused(on_mesh: Any) -> None:
    message = "fnn.train: batch_size: got 12; needed a multiple of 8, as the examples are on 8"
    settings: Any = {"stats": new_stats(), "has_aux": True, "key": KEY}
    with pytest.raises(ValueError, match=message):
        fnn.train(loss, start(), OPTIMIZER, on_mesh, epochs=1, batch_size=12, **settings)


def main(file: Path) -> None:
    check_axes_of_both_kinds()
    *_, one = want = reports(data())
    for axis, kind in product((None, "data"), (AxisType.Auto, AxisType.Explicit)):
        mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,))
        on_mesh = jax.device_put(data(), NamedSharding(mesh, P("data")))
        place = partial(fnn.sharding.place, mesh=mesh, axis=axis, least=LEAST)
        check_batches(mesh)
        check_evaluation(mesh)
        check_place(mesh)
        check_steps(mesh)
        check_aux(mesh)
        check_refused(on_mesh)
        if axis or kind == AxisType.Auto:
            check_program(on_mesh, place(start()))
        programs = advance._cache_size()
        got = reports(on_mesh, place=place if axis else lambda tree: tree)
        more = 1 + (kind == AxisType.Explicit)  # P() and P(None) are one program, but two entries
        assert advance._cache_size() == programs + more  # for all reports
        learner = got[-1].run[:3]
        for x, y in zip(jax.tree.leaves(learner), jax.tree.leaves(place(learner)), strict=True):
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        if axis:
            check_parts(mesh, learner, on_mesh)
        print(f"{kind.name}, params cut over {axis}: {error(seen(got), seen(want)):.1e}")
        apart = error(observed(on_mesh, place), observed(data(), lambda tree: tree))
        print(f"{kind.name}, observed, cut over {axis}: {apart:.1e}")
    (third,) = reports(data(), one.run)
    (after,) = reports(on_mesh, got[-1].run, place)
    print(f"resumed on eight: {error(seen([after]), seen([third])):.1e}")
    fnn.save(file, one.run)
    (after,) = reports(on_mesh, place(fnn.load(file)), place)
    print(f"saved by one, loaded by eight: {error(seen([after]), seen([third])):.1e}")
    fnn.save(file, got[-1].run)
    (after,) = reports(data(), fnn.load(file))
    print(f"saved by eight, loaded by one: {error(seen([after]), seen([third])):.1e}")


if __name__ == "__main__":
    strict()
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder) / "run.safetensors")
