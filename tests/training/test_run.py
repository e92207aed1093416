"""train over arrays: what each step saw, one trace, reports that stay, errors."""

import dataclasses
import functools
import gc
import itertools
import re
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.training.arrays import Shuffled, draw_order
from fnn.training.loop import Place, advance
from fnn.training.step import Learner, make_plan
from tests.check import close
from tests.training.cases import DATA, KEY, Pairs, X, Y, counted, diary, squares, start

ADAM, SGD = fnn.adam(0.1), fnn.sgd(0.1)


def seen(n: int, batch_size: int, epochs: int, key: Any, **config: Any) -> np.ndarray:
    """Times that each step of each epoch saw each example: (epochs, steps, n)."""
    steps = -(-n // batch_size)
    *_, last = fnn.train(
        lambda params, rows: params[rows].sum(),  # its gradient is 1 at the examples of the batch
        jnp.zeros(n),
        diary(epochs * steps),
        np.arange(n),
        batch_size=batch_size,
        epochs=epochs,
        key=key,
        **config,
    )
    return np.asarray(last.state[1]).reshape(epochs, steps, n)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10])
def test_B11_each_epoch_sees_each_example_once(batch_size: int) -> None:
    pages = seen(10, batch_size, 3, KEY)
    np.testing.assert_array_equal(pages.sum(1), 1)
    sizes = pages.sum(2)
    np.testing.assert_array_equal(sizes[:, :-1], batch_size)
    np.testing.assert_array_equal(sizes[:, -1], 10 % batch_size or batch_size)
    if batch_size < 10:
        assert not np.array_equal(pages[0], pages[1]), "a fresh order for every epoch"
        assert not np.array_equal(pages, seen(10, batch_size, 3, jax.random.key(8)))


def test_order_does_not_depend_on_the_reports() -> None:
    np.testing.assert_array_equal(seen(10, 3, 2, KEY), seen(10, 3, 2, KEY, report_every=3))


@pytest.mark.parametrize("n", [1, 2, 2**16 + 1])
def test_order_is_a_permutation(n: int) -> None:
    np.testing.assert_array_equal(np.sort(draw_order(KEY, 0, n=n)[0]), np.arange(n))


def test_every_order_is_as_likely() -> None:
    draws = 4800
    orders = jax.vmap(lambda epoch: draw_order(KEY, epoch, n=4)[0])(jnp.arange(draws))
    counts = Counter(map(tuple, np.asarray(orders).tolist()))
    expected = draws / 24
    chi2 = sum((counts[p] - expected) ** 2 / expected for p in itertools.permutations(range(4)))
    assert chi2 < 49.7  # exceeded by one fair shuffle in a thousand, 23 degrees of freedom


def test_an_order_of_many_is_not_partly_sorted() -> None:
    """Half of the neighbours ascend, as they do not where random bits are too few."""
    order = np.asarray(draw_order(KEY, 0, n=2**20)[0])
    assert abs((order[1:] > order[:-1]).mean() - 0.5) < 0.01


SCALE = 1.0


def test_what_a_loss_reaches_is_read_when_the_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Any:
        loss = lambda w, batch: SCALE * (w * batch).sum()
        return fnn.train(loss, 1.0 * X[0, 0], ADAM, X, batch_size=len(X), epochs=1, key=KEY)

    late = run()
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    twice = next(late).loss
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert next(run()).loss == twice / 2


def test_a_program_compiled_late_is_found_by_what_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a smaller last batch, before which what the loss reaches has changed."""
    batches, optimizer = [np.ones(2, np.float32), np.ones(1, np.float32)], fnn.sgd(0.0)

    def run() -> Any:
        loss = lambda w, batch: SCALE * (w * batch).sum()
        config: Any = {"epochs": 1, "key": KEY, "report_every": 1}
        return fnn.train(loss, jnp.ones(()), optimizer, batches, **config)

    changed = run()
    assert next(changed).loss == 2
    monkeypatch.setitem(globals(), "SCALE", 4.0)
    assert next(changed).loss == 4
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert [report.loss for report in run()] == [2, 1]


def mesh_batches() -> list[Any]:
    """Two of one shape, of which an axis is said to be sharded in the second alone."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    return [jax.device_put(np.ones(2, np.float32), jax.NamedSharding(mesh, jax.P(*axis)))
            for axis in ((), ("d",))]  # fmt: skip


@pytest.mark.parametrize(
    "batches",
    [lambda: [{"a": np.ones(2, np.float32)}, {"b": np.ones(2, np.float32)}], mesh_batches],
    ids=["structure", "sharding"],
)
def test_a_program_is_another_for_batches_of_another_kind(
    monkeypatch: pytest.MonkeyPatch, batches: Any
) -> None:
    """Of equal shapes: what the loss reaches is read anew for each, as it is compiled for each."""
    one, other = batches()
    optimizer = fnn.sgd(0.0)

    def run(data: Any) -> Any:
        loss = lambda w, batch: SCALE * (w * jax.tree.leaves(batch)[0]).mean()
        return fnn.train(loss, jnp.ones(()), optimizer, data, epochs=1, key=KEY, report_every=1)

    changed = run([one, other])
    assert next(changed).loss == 1
    monkeypatch.setitem(globals(), "SCALE", 4.0)
    assert next(changed).loss == 4
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    assert [report.loss for report in run([other])] == [1]


def test_batches_on_explicit_axes_go_into_one_call_where_they_are_sharded_alike() -> None:
    """JAX stacks no others."""
    whole, sharded = mesh_batches()
    loss = lambda w, batch: (w * batch).mean()
    batches = [sharded, whole, 2 * whole, np.ones(2, np.float32), sharded]
    run = fnn.train(loss, jnp.ones(()), fnn.sgd(0.0), batches, epochs=1, key=KEY)
    assert [report.loss for report in run] == [1.2]


def test_a_wrapper_may_take_other_arguments_than_what_it_wraps() -> None:
    @functools.wraps(lambda w, batch, scale: scale * (w * batch).mean())
    def loss(w: Any, batch: Any) -> Any:
        return 2 * (w * batch).mean()

    config: Any = {"epochs": 1, "key": KEY, "batch_size": 2}
    (report,) = fnn.train(loss, jnp.ones(()), fnn.sgd(0.0), np.ones(2, np.float32), **config)
    assert report.loss == 2


def test_integers_of_64_bits_that_are_none_fit() -> None:
    """Where examples have no numbers there is no smallest one."""
    data = {"x": np.ones(2, np.float32), "ids": np.zeros((2, 0), np.int64)}
    loss = lambda w, batch: (w * batch["x"]).mean()
    config: Any = {"epochs": 1, "key": KEY, "batch_size": 2}
    (report,) = fnn.train(loss, jnp.ones(()), fnn.sgd(0.0), data, **config)
    assert report.loss == 1


def test_an_observer_is_read_as_the_loss_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reaches may change, and it need have no hash."""
    loss = lambda w, batch: (w * batch).sum()

    @dataclasses.dataclass
    class Look:
        by: float

        def __call__(self, params: Any, grads: Any, updates: Any, batch: Any) -> Any:
            return self.by * SCALE * grads

    def seen(look: Any) -> Any:
        settings: Any = {"batch_size": len(X), "epochs": 1, "key": KEY, "observe": look}
        return next(fnn.train(loss, 1.0 * X[0, 0], ADAM, X, **settings)).observed[0]

    look = lambda params, grads, updates, batch: SCALE * grads
    once = seen(look)
    assert seen(Look(3.0)) == 3 * once
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    assert seen(look) == 2 * once


def test_train_is_a_loop_of_steps() -> None:
    pages, optimizer = seen(10, 4, 2, KEY), fnn.adam(0.1)
    step, params = fnn.make_step(squares, optimizer), start()
    state = optimizer.init(params)
    for page in pages.reshape(-1, 10):
        rows = np.flatnonzero(page)
        params, state, _ = step(params, state, Pairs(X[rows], Y[rows]))
    *_, last = fnn.train(squares, start(), optimizer, DATA, batch_size=4, epochs=2, key=KEY)
    for got, want in zip(
        jax.tree.leaves((last.params, last.state)), jax.tree.leaves((params, state)), strict=True
    ):
        close(got, want, length=100)


@pytest.mark.parametrize(("batch_size", "shapes"), [(5, 1), (4, 2)])
def test_one_trace_per_shape_of_batch(batch_size: int, shapes: int) -> None:
    loss, traces = counted(squares)

    def run(**change: Any) -> list[Any]:
        config = {"batch_size": batch_size, "epochs": 3, "key": KEY} | change
        return list(fnn.train(loss, start(), ADAM, DATA, **config))

    assert len(run()) == 3
    assert len(traces) == shapes
    run(key=jax.random.key(1))
    assert len(traces) == shapes, "a second run of the same functions compiles nothing"
    assert len(run(report_every=2)) == 3 * shapes
    assert len(traces) == shapes, "nor do reports of other lengths"


def test_equal_losses_are_one_program() -> None:
    def plan(power: int) -> Any:
        return make_plan("train", lambda p, batch: (p**power).sum(), ADAM, has_aux=False)

    assert plan(2) == plan(2)
    assert hash(plan(2)) == hash(plan(2))
    assert plan(2) != plan(3)


def test_reports() -> None:
    """Nothing moves at rate 0, so that each chunk's loss is the mean of its own examples."""
    config = {"batch_size": 4, "epochs": 2, "key": KEY}
    reports = list(fnn.train(squares, start(), fnn.sgd(0.0), DATA, report_every=2, **config))
    assert [(r.epoch, r.step) for r in reports] == [(1, 2), (1, 3), (2, 5), (2, 6)]
    pages = seen(10, 4, 2, KEY)
    chunks = [pages[0, :2].sum(0), pages[0, 2], pages[1, :2].sum(0), pages[1, 2]]
    for report, page in zip(reports, chunks, strict=True):
        want = (Y[page == 1].astype(np.float64) ** 2).mean()
        assert report.loss == pytest.approx(want, rel=1e-5)
    (report, _) = fnn.train(squares, start(), fnn.sgd(0.0), DATA, **config)
    assert report.loss == pytest.approx((Y.astype(np.float64) ** 2).mean(), rel=1e-5)
    line = r"epoch   1  step      3  loss [\d.]+ +[\d,]+ examples/s"
    assert re.fullmatch(line, str(report)), str(report)


def test_examples_per_second_without_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a look at moves on by a second: from call to call, not while compiling."""
    ticks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(sys.modules["fnn.training.run"], "time", clock)
    config = {"batch_size": 4, "epochs": 2, "key": KEY, "report_every": 2}
    reports = fnn.train(squares, start(), fnn.sgd(0.0), DATA, **config)
    assert [r.examples_per_second for r in reports] == [8, 2, 8, 2]


def test_what_was_yielded_stays() -> None:
    params, optimizer = start(), fnn.adam(0.1)
    state = optimizer.init(params)
    config = {
        "batch_size": 4,
        "epochs": 4,
        "key": KEY,
        "resume": fnn.Run(params, state, None, 0, 0, 0, KEY),
    }
    copies, reports = [], []
    for report in fnn.train(squares, params, optimizer, DATA, **config):
        reports.append(report)
        copies.append(jax.tree.map(np.array, report.run[:3]))
        if report.epoch == 3:
            break
    for report, copy in zip(reports, copies, strict=True):
        jax.tree.map(np.testing.assert_array_equal, report.run[:3], copy)
    assert not any(x.is_deleted() for x in jax.tree.leaves((params, state)))
    np.testing.assert_array_equal(params["w"], 0)
    again = list(fnn.train(squares, params, optimizer, DATA, **config))
    for report, other in zip(reports, again, strict=False):
        jax.tree.map(np.testing.assert_array_equal, report.run[:3], other.run[:3])
        assert report.loss == other.loss


@pytest.mark.parametrize("stream", [False, True])
def test_a_run_holds_one_learner_at_a_report(stream: bool) -> None:
    size, held = 12_347, []
    data = [X[:5], X[5:]] if stream else X
    config: Any = {"epochs": 4, "key": KEY, "batch_size": None if stream else 5}
    loss, optimizer = lambda w, x: (w * x.mean()).sum(), fnn.momentum(0.1)
    for _report in fnn.train(loss, jnp.zeros(size), optimizer, data, report_every=1, **config):
        gc.collect()
        held.append(sum(x.size == size for x in jax.live_arrays()))
    assert held == 8 * [2], "the params and the velocity"


def test_a_report_that_is_changed_changes_no_other() -> None:
    config: Any = {"batch_size": 4, "epochs": 3, "key": KEY}
    plain = [r.loss for r in fnn.train(squares, start(), ADAM, DATA, **config)]
    losses = []
    for report in fnn.train(squares, start(), ADAM, DATA, **config):
        losses.append(report.loss)
        report.params["w"] = report.state.moments["mu"]["w"] = jnp.ones(3)
    assert losses == plain


def test_a_run_starts_from_what_the_call_was_given() -> None:
    """Not from what is written into it before the first report, or while the run lasts."""
    params = {"w": np.zeros(2**16, np.float32), "b": np.zeros((), np.float32)}
    stats, key = [np.zeros(2**16, np.float32)], np.array(jax.random.key_data(KEY))

    def loss(params: Any, stats: Any, batch: Any, key: Any) -> Any:
        noise = jax.random.normal(key)
        return (params["w"] - stats[0] - noise).sum() * batch.mean() + params["b"], stats

    def reports() -> Any:
        config: Any = {"batch_size": 5, "epochs": 2, "stats": stats, "key": key}
        return fnn.train(loss, params, SGD, np.arange(10, dtype=np.float32), **config)

    plain = [r.loss for r in reports()]
    changed = reports()
    for array in (*params.values(), *stats, key):
        array[...] = 9
    params["w"] = params["b"] = stats[0] = None
    assert [r.loss for r in changed] == plain


@pytest.mark.parametrize("part", ["params", "state"])
def test_donating_a_report_that_the_run_goes_on_from_is_named(part: str) -> None:
    donate = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    config: Any = {"batch_size": 4, "epochs": 2, "key": KEY}
    reports = fnn.train(squares, start(), ADAM, DATA, **config)
    donate(getattr(next(reports), part))
    with pytest.raises(ValueError, match=rf"^fnn.train: report.{part}.*: got a deleted .*copy"):
        next(reports)
    for report in fnn.train(squares, start(), ADAM, DATA, **config):
        if report.epoch == 2:
            donate(report.params)  # the run needs them no more
    params = start()
    reports = fnn.train(squares, params, ADAM, DATA, **config)
    donate(params)
    with pytest.raises(ValueError, match=r"^fnn.train: params\['b'\]: got a deleted "):
        next(reports)
    run = report.run._replace(epoch=1, params=start())
    reports = fnn.train(squares, start(), ADAM, DATA, resume=run, **config)
    donate(getattr(run, part))
    with pytest.raises(ValueError, match=rf"^fnn.train: resume.{part}.*: got a deleted .*copy"):
        next(reports)


def test_each_step_has_its_own_key() -> None:
    def noise(params: Any, batch: Any, key: Any) -> Any:
        return (params * jax.random.normal(key, params.shape)).sum()

    *_, last = fnn.train(noise, jnp.zeros(1), diary(9), X, batch_size=4, epochs=3, key=KEY)
    assert np.unique(last.state[1]).size == 9


def test_a_diverging_loss_is_reported() -> None:
    config = {"batch_size": 2, "epochs": 2, "key": KEY, "on_nonfinite": "ignore"}
    losses = [r.loss for r in fnn.train(squares, start(), fnn.sgd(1e20), DATA, **config)]
    assert len(losses) == 2
    assert not np.isfinite(losses).any()


def test_weak_types_and_float64() -> None:
    with jax.enable_x64(True):
        x = np.linspace(0, 1, 6)
        loss, traces = counted(lambda params, batch: ((params["w"] - batch) ** 2).mean())
        params = {"w": jnp.asarray(0.5)}  # weakly typed, its successors not
        *_, last = fnn.train(loss, params, fnn.sgd(0.1), x, batch_size=6, epochs=3, key=KEY)
        assert last.params["w"].dtype == jnp.float64
        assert last.loss == pytest.approx(((x - 0.5) ** 2).mean(), rel=1e-14)
        assert len(traces) == 1


@pytest.mark.usefixtures("users_passes")
def test_arrays_of_numpy_are_moved_without_a_program(caplog: pytest.LogCaptureFixture) -> None:
    """It would hold each once more, and be compiled for every shape."""
    data = {"x": np.ones((12, 7), np.float16), "y": np.ones(12, np.int64), "z": np.ones((12, 5))}

    def own(w: Any, batch: Any) -> Any:
        return w * sum(x.reshape(len(x), -1).astype(w.dtype).mean(1) for x in batch.values())

    def loss(w: Any, batch: Any) -> Any:
        return own(w, batch).mean()

    def calls(data: Any) -> None:
        w = jnp.ones(())
        fnn.predict(own, w, data, batch_size=4)
        list(fnn.train(loss, w, SGD, data, batch_size=4, epochs=1, key=KEY))

    calls(jax.tree.map(jnp.asarray, data))
    with jax.log_compiles():
        calls(data)
    assert "Compiling" not in caplog.text


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_data_is_not_copied(dtype: Any) -> None:
    """Nor changed into another dtype as a whole."""
    data = jnp.zeros((4096, 64), dtype)
    optimizer, params = fnn.adam(0.1), jnp.zeros(64)
    loss = lambda p, b: ((b.astype(p.dtype) @ p) ** 2).mean()
    plan = make_plan("train", loss, optimizer, has_aux=False)
    learner = Learner(params, optimizer.init(params))
    order, noise = draw_order(KEY, 0, n=4096)
    place = Place(noise, 0, 0)
    lowered = advance.lower(plan, None, learner, Shuffled(data, order, 32, (None,)), place, 0, 128)
    assert lowered.compile().memory_analysis().temp_size_in_bytes < data.nbytes / 8


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"batch_size": 11}, ValueError, "batch_size: got 11; .* at most the 10 examples"),
        ({"batch_size": 0}, ValueError, "batch_size: got 0; needed an int >= 1"),
        ({"batch_size": 2.0}, ValueError, "batch_size: got 2.0"),
        ({"epochs": -1}, ValueError, "epochs: got -1; needed an int >= 0"),
        ({"report_every": 0}, ValueError, "report_every: got 0; needed an int >= 1"),
        ({"key": 0}, TypeError, "key: got int 0; needed one random key"),
        ({"key": jax.random.split(KEY, 2)}, TypeError, r"key: got key<fry>\[2\]"),
        ({"data": Pairs(X, Y[:9])}, ValueError, r"data: got 10 .* data.x, 9 examples in data.y"),
        ({"data": Pairs(X[:0], Y[:0])}, ValueError, "data: got no examples in data.x"),
        ({"data": ()}, ValueError, "data: got no array"),
        ({"data": Pairs(X, np.float32(1))}, ValueError, "data: .* no examples in data.y"),
        ({"params": {"w": 1}}, TypeError, r"params\['w'\]: got int 1; needed a floating-point"),
    ],
)
def test_train_refuses_at_the_call(change: Any, kind: type[Exception], message: str) -> None:
    call = {"params": start(), "data": DATA, "batch_size": 4, "epochs": 1, "key": KEY, **change}
    with pytest.raises(kind, match=f"^fnn.train: {message}"):
        fnn.train(squares, optimizer=fnn.sgd(0.1), **call)


def test_no_epochs_no_reports() -> None:
    assert not list(
        fnn.train(squares, start(), fnn.sgd(0.1), DATA, batch_size=4, epochs=0, key=KEY)
    )


def test_numbers_of_numpy_make_a_run_that_can_be_saved(tmp_path: Path) -> None:
    config = {"batch_size": np.int64(4), "epochs": np.int64(1), "report_every": np.int64(1)}
    report, *_ = fnn.train(squares, start(), fnn.sgd(0.1), DATA, key=KEY, **config)
    fnn.save(tmp_path / "run.safetensors", report.run)
    assert [type(x) for x in (report.step, report.run.step, report.run.batch)] == [int] * 3


def test_observations_of_an_epoch_need_no_more_room_than_it_has_steps() -> None:
    """With 10**12 steps to a report, a row for each would be 4 TB."""
    config = {"batch_size": 4, "epochs": 1, "report_every": 10**12, "key": KEY}
    observe = lambda params, grads, updates, batch: jnp.ones(())
    (report,) = fnn.train(squares, start(), fnn.sgd(0.1), DATA, observe=observe, **config)
    assert report.observed.shape == (-(-len(Y) // 4),)


def test_more_examples_than_their_order_can_count_are_refused() -> None:
    data = np.broadcast_to(np.zeros((), np.uint8), (2**31,))
    with pytest.raises(ValueError, match=r"fnn\.train: data: got 2,147,483,648 examples; needed"):
        fnn.train(squares, start(), fnn.sgd(0.1), data, batch_size=4, epochs=1, key=KEY)
    with pytest.raises(ValueError, match=r"fnn\.predict: data: got 2,147,483,648 examples; needed"):
        fnn.predict(lambda params, x: x, (), data, batch_size=4)


@pytest.mark.parametrize("data", [np.arange(5.0, dtype=np.float32), [np.ones(4), np.ones(3)]])
def test_observations_of_one_shape(data: Any) -> None:
    """Else a last batch of one example would be spread over the row of a whole batch."""
    how: Any = {"batch_size": 4} if isinstance(data, np.ndarray) else {}
    run = fnn.train(
        lambda w, batch: (w * batch).mean(),
        jnp.ones(()),
        fnn.sgd(0.0),
        data,
        epochs=1,
        key=KEY,
        observe=lambda params, grads, updates, batch: {"x": batch},
        **how,
    )
    with pytest.raises(ValueError, match=r"fnn.train: what observe returns\['x'\]: got float"):
        list(run)


def test_complex_aux_is_refused() -> None:
    run = fnn.train(
        lambda w, batch: (w * batch.mean(), {"z": jax.lax.complex(batch.mean(), w)}),
        jnp.ones(()),
        fnn.sgd(0.1),
        X[:, 0],
        batch_size=4,
        epochs=1,
        key=KEY,
        has_aux=True,
    )
    with pytest.raises(TypeError, match=r"train: loss: aux\['z'\]: got complex64\[\]; needed re"):
        list(run)


def test_numbers_beyond_an_int32() -> None:
    """Such as say "never"."""
    optimizer = fnn.with_loss_scale(fnn.newton(dense_up_to=0, iterations=10**10), grow_after=10**10)
    reports = fnn.train(
        squares,
        start(),
        optimizer,
        DATA,
        batch_size=4,
        epochs=1,
        key=KEY,
        observe=lambda params, grads, updates, batch: jnp.ones(()),
        observe_every=10**12,
    )
    assert [len(r.observed) for r in reports] == [1]


def test_a_loss_that_cannot_be_hashed() -> None:
    @dataclasses.dataclass
    class Loss:
        scale: float

        def __call__(self, w: Any, batch: Any) -> Any:
            return self.scale * (w * batch).mean()

    for scale in (1.0, 2.0):
        (report,) = fnn.train(
            Loss(scale), jnp.ones(()), fnn.sgd(0.0), np.ones(4), batch_size=2, epochs=1, key=KEY
        )
        assert report.loss == scale


def test_room_for_the_observations_of_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over batches too: each is a row of an array that every call returns."""
    module, rooms = sys.modules["fnn.training.run"], []

    def run_call(plan: Any, watch: Any, *rest: Any) -> Any:
        rooms.append(watch.most)
        return plain(plan, watch, *rest)

    plain = module.run_call
    monkeypatch.setattr(module, "run_call", run_call)
    batches = [np.ones(4, np.float32)] * 5
    reports = fnn.train(
        lambda w, batch: (w * batch).mean(),
        jnp.ones(()),
        fnn.sgd(0.0),
        batches,
        epochs=1,
        key=KEY,
        report_every=2,
        observe=lambda params, grads, updates, batch: grads,
    )
    assert [len(r.observed) for r in reports] == [2, 2, 1]
    assert set(rooms) == {2}
