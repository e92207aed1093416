"""Data in batches: every batch once and in order, from whatever yields them; clean ends."""

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.training import stream
from tests.training.cases import DATA, KEY, Pairs, X, Y, counted, diary, squares, start

UNENDED = """
import jax, jax.numpy as jnp, numpy as np, fnn, threading, time

reads = threading.Event()

def data():
    yield from [np.ones(2, np.float32)] * 2
    reads.set()
    time.sleep(0.3)
    print(" ended", end="", flush=True)
    yield np.ones(2, np.float32)

loss = lambda w, batch: (w * batch).mean()
config = {"epochs": 1, "key": jax.random.key(0), "report_every": 1}
reports = fnn.train(loss, jnp.zeros(()), fnn.sgd(0.1), data(), **config)
print(next(reports).step, end="", flush=True)
assert reads.wait(60)
"""
N = 10
SGD = fnn.sgd(0.1)


def rows(sizes: list[int]) -> list[np.ndarray]:
    """0 ... n - 1 in batches of these sizes."""
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


def marks(params: Any, batch: Any) -> Any:
    return params[batch].sum()  # its gradient is 1 at the examples of the batch


def seen(data: Any, steps: int, **config: Any) -> np.ndarray:
    """Times that each step saw each of N examples."""
    config = {"epochs": 1, "key": KEY} | config
    *_, last = fnn.train(marks, jnp.zeros(N), diary(steps), data, **config)
    assert last.step == steps
    return np.asarray(last.state[1])


def expected(batches: list[np.ndarray]) -> np.ndarray:
    return np.array([np.bincount(batch, minlength=N) for batch in batches])


class Loader:
    """As PyTorch's DataLoader: an iterable that begins again whenever it is asked to."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Tensor:
    """As PyTorch's: no NumPy array, but can become one."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None) -> Any:
        return np.asarray(self.values, dtype)


@pytest.mark.parametrize("sizes", [[3, 3, 3, 1], [5, 5], [10], [1] * 10, [2, 3, 3, 2]])
@pytest.mark.parametrize("every", [None, 3])
def test_every_batch_is_one_step(sizes: list[int], every: int | None) -> None:
    batches = rows(sizes)
    got = seen(batches, len(batches), report_every=every)
    np.testing.assert_array_equal(got, expected(batches))


@pytest.mark.parametrize(
    "data",
    [
        lambda batches: batches,
        lambda batches: Loader(batches),
        lambda batches: (batch for batch in batches),
        lambda batches: lambda epoch: iter(batches),
        lambda batches: [jnp.asarray(batch) for batch in batches],
        lambda batches: [Tensor(batch) for batch in batches],
    ],
    ids=["list", "loader", "generator", "function", "jax", "tensors"],
)
def test_whatever_yields_batches(data: Any) -> None:
    batches = rows([4, 4, 2])
    np.testing.assert_array_equal(seen(data(batches), 3), expected(batches))


def test_a_function_is_told_the_epoch() -> None:
    told: list[int] = []

    def data(epoch: int) -> list[np.ndarray]:
        told.append(epoch)
        return [np.array([epoch])]

    got = seen(data, 3, epochs=3)
    assert told == [0, 1, 2]
    np.testing.assert_array_equal(got, expected([np.array([e]) for e in range(3)]))


def test_an_epoch_of_a_stream_is_that_of_arrays() -> None:
    """The same batches give the same numbers, wherever they come from."""
    n, size = 10, 3
    pages = []

    def order(params: Any, batch: Any) -> Any:
        return params[batch].sum()

    *_, last = fnn.train(
        order, jnp.zeros(n), diary(4), np.arange(n), batch_size=size, epochs=1, key=KEY
    )
    pages = [np.flatnonzero(page) for page in np.asarray(last.state[1])]
    batches = [Pairs(X[page], Y[page]) for page in pages]
    adam = fnn.adam(0.1)
    (a,) = fnn.train(squares, start(), adam, DATA, batch_size=size, epochs=1, key=KEY)
    (b,) = fnn.train(squares, start(), adam, batches, epochs=1, key=KEY)
    assert a.loss == pytest.approx(b.loss, rel=1e-6)
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_one_trace_per_shape_and_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, traces = counted(squares)
    sizes: list[int] = []
    stack = stream._stacked
    monkeypatch.setattr(stream, "_stacked", lambda *a: sizes.append(len(a[0])) or stack(*a))

    def groups(batches: list[Any], **config: Any) -> list[int]:
        sizes.clear()
        list(fnn.train(loss, start(), SGD, batches, key=KEY, **config))
        return list(sizes)

    pieces = [Pairs(X[i : i + 3], Y[i : i + 3]) for i in (0, 3, 6, 9)]
    assert groups(pieces * 2, epochs=2) == [3, 1] * 4
    assert len(traces) == 2
    assert groups(pieces[:1] * 130, epochs=1) == [64, 64, 2]
    assert groups(pieces[:1] * 130, epochs=1, report_every=50) == [50, 50, 30]


def test_large_batches_go_one_by_one() -> None:
    batch = np.zeros((stream.STACK // 4,), np.float32)
    assert stream._capacity(batch, None) == 1
    assert stream._capacity(np.zeros(stream.STACK, np.float32), None) == 1
    assert stream._capacity(batch[: len(batch) // 8], None) == 8


def test_reports_within_an_epoch() -> None:
    batches = rows([2] * 5)
    reports = list(
        fnn.train(marks, jnp.ones(N), fnn.sgd(0.0), batches, epochs=2, key=KEY, report_every=2)
    )
    assert [(r.epoch, r.step) for r in reports] == [(1, 2), (1, 4), (1, 5), (2, 7), (2, 9), (2, 10)]
    assert [(r.run.epoch, r.run.batch) for r in reports[:3]] == [(0, 2), (0, 4), (1, 0)]
    assert all(r.loss == pytest.approx(2) for r in reports)
    assert all(r.examples_per_second > 0 for r in reports)


def test_the_loss_is_the_mean_over_examples() -> None:
    batches = rows([4, 4, 2])  # sums 4, 4, 2
    (report,) = fnn.train(marks, jnp.ones(N), fnn.sgd(0.0), batches, epochs=1, key=KEY)
    assert report.loss == pytest.approx((4 * 4 + 4 * 4 + 2 * 2) / 10)


def test_each_step_has_its_own_key() -> None:
    def noise(params: Any, batch: Any, key: Any) -> Any:
        return (params * jax.random.normal(key, params.shape)).sum()

    data = rows([1] * 9)
    for every in (None, 4):
        *_, last = fnn.train(
            noise, jnp.zeros(1), diary(18), data, epochs=2, key=KEY, report_every=every
        )
        assert np.unique(last.state[1]).size == 18


def test_a_buffer_that_is_filled_again() -> None:
    def data(epoch: int) -> Iterator[np.ndarray]:
        buffer = np.zeros(1, np.int32)
        for i in range(6):
            buffer[:] = i
            yield buffer
        buffer[:] = 9

    np.testing.assert_array_equal(seen(data, 6), expected(rows([1] * 6)))


def reading() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("fnn.train")]


def test_an_error_of_the_producer_is_raised_with_its_place() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from rows([1] * 3)
        raise OSError("disk gone")

    reports = fnn.train(marks, jnp.zeros(N), SGD, broken(), epochs=1, key=KEY)
    with pytest.raises(OSError, match="disk gone") as caught:
        list(reports)
    assert "broken" in [entry.name for entry in caught.traceback]
    assert not reading()


def test_a_report_that_is_due_when_the_producer_fails_comes_first() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from rows([1] * 4)
        raise OSError("disk gone")

    config: Any = {"epochs": 1, "key": KEY, "report_every": 2}
    reports = fnn.train(marks, jnp.zeros(N), SGD, broken(), **config)
    assert [next(reports).step for _ in range(2)] == [2, 4]
    with pytest.raises(OSError, match="disk gone"):
        next(reports)


def test_a_run_whose_producer_failed_behind_the_last_batch_goes_on() -> None:
    """It had taken the whole epoch, but did not know that."""

    def broken(epoch: int) -> Iterator[np.ndarray]:
        yield from rows([1] * 4)
        raise OSError("disk gone")

    config: Any = {"epochs": 2, "key": KEY, "report_every": 2}
    reports = fnn.train(marks, jnp.zeros(N), SGD, broken, **config)
    run = [next(reports) for _ in range(2)][1].run
    assert (run.epoch, run.batch) == (0, 4)
    whole = fnn.train(marks, jnp.zeros(N), SGD, lambda _: rows([1] * 4), resume=run, **config)
    assert [(r.run.epoch, r.run.batch, r.step) for r in whole] == [(1, 2, 6), (2, 0, 8)]


def test_stopping_early_ends_the_thread_and_the_producer() -> None:
    ends: list[str] = []
    read: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        try:
            for i in itertools.count():
                time.sleep(0.02)  # so that it is reading when the loop is left
                read.append(i)
                yield np.array([i % N])
        finally:
            ends.append("closed")

    for report in fnn.train(marks, jnp.zeros(N), SGD, endless(), epochs=1, key=KEY, report_every=5):
        if report.step == 10:
            break
    assert not reading()
    assert ends == ["closed"]
    assert len(read) < 10 + 5 * (stream.AHEAD + 2), "reads further ahead than it may"


def test_leaving_waits_for_one_batch_alone() -> None:
    """Not for all that one call of the program takes."""
    began, leaving, read = threading.Event(), threading.Event(), []

    def data(epoch: int) -> Iterator[np.ndarray]:
        for i in range(2 * stream.MOST):
            if i > stream.MOST:  # the first of the next call is read with the one before
                began.set()
                assert leaving.wait(60)
                time.sleep(0.02)
            read.append(i)
            yield np.array([i % N])

    config: Any = {"epochs": 1, "key": KEY, "report_every": stream.MOST}
    reports: Any = fnn.train(marks, jnp.zeros(N), SGD, data, **config)
    next(reports)
    assert began.wait(60)
    leaving.set()
    reports.close()
    assert not reading()
    assert len(read) < 2 * stream.MOST


def test_an_interrupt_while_the_thread_is_started_is_raised_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = threading.Event()

    def data(epoch: int) -> Iterator[np.ndarray]:
        began.set()
        yield np.zeros(1, np.int32)

    class Interrupted(threading.Thread):
        def start(self) -> None:
            super().start()
            assert began.wait(60)
            raise KeyboardInterrupt

    monkeypatch.setattr(threading, "Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(fnn.train(marks, jnp.zeros(N), SGD, data, epochs=1, key=KEY))
    assert not reading()


def test_an_interrupt_at_any_line_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it falls just before the thread is ended, that happens when Python ends."""
    at_exit: list[Any] = []
    monkeypatch.setattr(
        stream, "atexit", SimpleNamespace(register=at_exit.append, unregister=at_exit.remove)
    )
    data, places = rows([1] * 4), {stream.__file__, contextlib.__file__}

    def interrupted_after(lines: int) -> bool:
        """Whether that many lines were run, and the next one then interrupted."""
        more = iter(range(lines))

        def trace(frame: Any, event: str, _: Any) -> Any:
            if frame.f_code.co_filename not in places:
                return None
            if event == "line" and next(more, None) is None:
                raise KeyboardInterrupt
            return trace

        reports = fnn.train(marks, jnp.zeros(N), SGD, data, epochs=2, key=KEY, report_every=2)
        before = sys.gettrace()
        try:
            sys.settrace(trace)
            for report in reports:
                if report.step == 6:
                    reports.close()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False

    list(fnn.train(marks, jnp.zeros(N), SGD, data, epochs=1, key=KEY, report_every=2))
    interrupts = next(n for n in itertools.count() if not interrupted_after(n))
    assert interrupts > 50
    assert len(reading()) <= 5  # lines, from the last report to where the thread is told
    for end in at_exit:
        end()
    assert not reading()


def test_python_ends_with_a_run_that_has_not() -> None:
    """The thread has ended before, though it was at its work, and nobody is told of anything."""
    done = subprocess.run([sys.executable, "-c", UNENDED], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 ended", "")


@pytest.mark.parametrize("once", [True, False])
def test_an_iterator_that_the_thread_itself_collects(
    once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last reference to it may go wherever Python collects garbage."""
    unraisable: list[str] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda found: unraisable.append(str(found.exc_value))
    )
    left, ended = threading.Event(), []
    kept: list[Any] = []

    def data(epoch: int) -> Iterator[np.ndarray]:
        try:
            for i in range(N):
                if i == 2:
                    assert left.wait(60)
                    kept.clear()
                yield np.array([i])
        finally:
            ended.append(threading.current_thread())

    config: Any = {"epochs": 1, "key": KEY, "report_every": 1}
    kept.append(fnn.train(marks, jnp.zeros(N), SGD, data(0) if once else data, **config))
    assert next(kept[0]).step == 1
    (thread,) = reading()
    left.set()
    thread.join(60)
    assert ended == [thread]
    assert not unraisable


def test_one_thread_reads_the_whole_run() -> None:
    threads: list[threading.Thread] = []
    data = lambda epoch: threads.append(threading.current_thread()) or rows([5, 5])
    list(fnn.train(marks, jnp.zeros(N), SGD, data, epochs=3, key=KEY))
    assert len(threads) == 3
    assert len(set(threads)) == 1


@pytest.mark.parametrize("every", [None, 1])
def test_an_epoch_begins_when_a_report_of_it_is_asked_for(every: int | None) -> None:
    """A loader that is changed after the last report of an epoch is read as changed."""
    begun = [threading.Event() for _ in range(5)]
    ended: list[int] = []
    value = np.zeros(1, np.float32)

    def data(epoch: int) -> Iterator[np.ndarray]:
        begun[epoch].set()
        try:
            yield from [value.copy()] * 2
        finally:
            ended.append(epoch)

    losses = []
    config: Any = {"epochs": 4, "key": KEY, "report_every": every}
    loss = lambda w, batch: (w + batch).mean()
    reports: Any = fnn.train(loss, jnp.zeros(()), fnn.sgd(0.0), data, **config)
    for report in reports:
        losses.append(report.loss)
        assert not begun[report.epoch].wait(0.1), "begun before its time"
        value[:] = 10 * report.run.epoch
        if report.run.epoch == 3:
            break
    reports.close()
    assert losses == [mean for mean in (0.0, 10.0, 20.0) for _ in range(2 if every else 1)]
    assert ended == [0, 1, 2]
    assert not begun[3].is_set()


def test_a_batch_of_which_an_array_was_donated_is_named() -> None:
    batch = {"x": jnp.ones(2)}
    batch["x"].delete()
    for run in (
        lambda data: list(fnn.train(marks, jnp.zeros(N), SGD, data, epochs=1, key=KEY)),
        lambda data: fnn.predict(lambda params, batch: batch["x"], jnp.zeros(N), data),
    ):
        with pytest.raises(ValueError, match=r"a batch of data\['x'\]: got a deleted float32\[2\]"):
            run([batch])


def test_nothing_is_read_before_the_first_report_is_asked_for() -> None:
    read: list[int] = []
    reports = fnn.train(
        marks,
        jnp.zeros(N),
        fnn.sgd(0.1),
        lambda e: read.append(e) or rows([5, 5]),
        epochs=1,
        key=KEY,
    )
    assert not read
    list(reports)
    assert read == [0]


def test_batches_arrive_while_the_program_runs() -> None:
    """The next batch but one is read while the user's own work goes on after a report."""
    begun, held = ([threading.Event() for _ in range(9)] for _ in range(2))

    def data(epoch: int) -> Iterator[np.ndarray]:
        for i in range(8):
            assert i < 2 or held[i - 1].wait(60), "no work between two reports"
            begun[i].set()
            yield np.array([i])

    config: Any = {"epochs": 1, "key": KEY, "report_every": 1}
    for report in fnn.train(marks, jnp.zeros(N), SGD, data, **config):
        held[report.step].set()
        assert report.step > 6 or begun[report.step + 1].wait(60), "not read before it is needed"


def test_the_thread_has_the_callers_mesh() -> None:
    """A producer may put its batches where the caller's mesh is, by a `PartitionSpec` alone."""
    mesh, meshes = jax.make_mesh((1,), ("data",)), []

    def data(epoch: int) -> list[jax.Array]:
        meshes.append(jax.sharding.get_mesh())
        return [jax.device_put(np.ones(4, np.float32), jax.P("data"))]

    def train(data: Any) -> None:
        loss = lambda w, batch: (w * batch).mean()
        list(fnn.train(loss, jnp.zeros(()), SGD, data, epochs=1, key=KEY))

    with jax.set_mesh(mesh):
        train(data)
    train(lambda epoch: meshes.append(jax.sharding.get_mesh()) or [np.ones(4)])
    assert meshes[0] == mesh
    assert meshes[1].empty


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable_x64", True),
        ("default_device", jax.devices()[0]),
        ("default_prng_impl", "rbg"),
        ("default_matmul_precision", "float32"),
        ("numpy_dtype_promotion", "standard"),
        ("numpy_rank_promotion", "allow"),
        ("debug_nans", True),
        ("debug_infs", True),
        ("threefry_partitionable", False),
        ("disable_jit", True),
        ("debug_key_reuse", True),
        ("check_tracer_leaks", True),
        ("enable_checks", True),
        ("log_compiles", True),
    ],
)
def test_the_thread_has_the_callers_settings(name: str, value: Any) -> None:
    found: list[Any] = []

    def data(epoch: int) -> list[np.ndarray]:
        found.append((getattr(jax.config, f"jax_{name}"), np.geterr()["divide"]))
        return [np.ones(N, np.float32)]

    assert getattr(jax.config, f"jax_{name}") != value
    params = jnp.zeros(N)
    with getattr(jax, name)(value), np.errstate(divide="ignore"):
        list(fnn.train(lambda w, b: (w * b).mean(), params, SGD, data, epochs=2, key=KEY))
    assert found == [(value, "ignore")] * 2


@pytest.mark.parametrize("whole", [True, False])
def test_a_setting_of_the_producer_lasts_as_it_wrote_it(whole: bool) -> None:
    """Through all that it reads, and neither longer nor in the thread of the caller."""
    found: list[bool] = []
    outside = jax.config.jax_debug_nans

    def data(epoch: int) -> Iterator[np.ndarray]:
        with jax.debug_nans(not outside):
            for i in range(8):
                found.append(jax.config.jax_debug_nans)
                yield np.array([i])
        found.append(not jax.config.jax_debug_nans)

    config: Any = {"epochs": 2 if whole else 1, "key": KEY, "report_every": 1}
    reports = fnn.train(marks, jnp.zeros(N), SGD, data, **config)
    if whole:
        assert len(list(reports)) == 16
        assert len(found) == 18
    else:
        next(reports)
        reports.close()
    assert set(found) == {not outside}
    try:  # pinned for this thread, it would not follow
        jax.config.update("jax_debug_nans", not outside)
        assert jax.config.jax_debug_nans is not outside
    finally:
        jax.config.update("jax_debug_nans", outside)
    assert jax.config.jax_debug_nans is outside


def test_numbers_of_the_callers_width_are_read() -> None:
    with jax.enable_x64(True):
        params = jnp.zeros(3, jnp.float64)
        loss = lambda p, batch: ((p - batch) ** 2).sum()
        (report,) = fnn.train(loss, params, fnn.sgd(0.5), [np.ones(3)], epochs=1, key=KEY)
        assert report.params.dtype == np.float64


def test_a_stream_draws_as_arrays_do() -> None:
    """With the caller's settings of random numbers."""

    def loss(w: Any, batch: Any, key: Any) -> Any:
        return (w - jax.random.normal(key)) ** 2 * batch.mean()

    config: Any = {"epochs": 3, "key": KEY}
    x = np.ones(4, np.float32)
    with jax.threefry_partitionable(False):
        *_, arrays = fnn.train(loss, jnp.zeros(()), SGD, x, batch_size=4, **config)
        *_, batches = fnn.train(loss, jnp.zeros(()), SGD, [x], **config)
    assert float(arrays.params) == pytest.approx(float(batches.params), rel=1e-5)


@pytest.mark.parametrize(
    ("data", "change", "kind", "message"),
    [
        (DATA, {}, ValueError, "batch_size: got None; needed an int, as data is a Pairs"),
        ({"x": X}, {}, ValueError, "batch_size: got None; needed an int, as data is a dict"),
        (MappingProxyType({"x": X}), {}, ValueError, "batch_size: .* as data is a mappingproxy"),
        (X, {}, ValueError, r"batch_size: got None; needed an int, as data is float32\[10,3\]"),
        (3, {}, TypeError, "data: got int 3; needed arrays and a batch_size, an iterable of"),
        (lambda e: 3, {}, TypeError, r"data\(0\): got int 3; needed an iterable of batches"),
        ([], {}, ValueError, "data: got no batch in epoch 1; needed at least one"),
        (
            (batch for batch in rows([5, 5])),
            {"epochs": 2},
            ValueError,
            "data: got generator .* which can be read once; .* a function that takes the epoch",
        ),
        ([np.array(["a"])], {}, TypeError, "a batch of data: got <U1.*; needed an array of"),
        (Loader([]), {"batch_size": 4}, TypeError, "data: got Loader .* without batch_size, an"),
        (iter(rows([5, 5])), {"batch_size": 4}, TypeError, "data: got list_iterator .* without"),
    ],
    ids=["named_tuple", "dict", "mapping", "array", "number", "no_iterable", "empty", "once",
         "strings", "loader_with_size", "iterator_with_size"],
)  # fmt: skip
def test_refuses(data: Any, change: Any, kind: type[Exception], message: str) -> None:
    config = {"epochs": 1, "key": KEY} | change
    with pytest.raises(kind, match=f"^fnn.train: {message}"):
        list(fnn.train(marks, jnp.zeros(N), SGD, data, **config))


def test_an_iterable_that_is_exhausted_in_the_second_epoch() -> None:
    class Once:
        def __init__(self) -> None:
            self.batches = iter(rows([5, 5]))

        def __iter__(self) -> Iterator[np.ndarray]:
            return self.batches

    reports = fnn.train(marks, jnp.zeros(N), SGD, Once(), epochs=2, key=KEY)
    assert next(reports).step == 2
    message = "data: got no batch in epoch 2; needed at least one; what is read once, such as a gen"
    with pytest.raises(ValueError, match=message):
        next(reports)
