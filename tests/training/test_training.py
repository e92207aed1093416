"""make_step and train: the formula, what each step saw, one trace, reports that stay, errors."""

import functools
import itertools
import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn
from fnn.training.arrays import draw_order, shuffled
from fnn.training.loop import advance
from fnn.training.step import Learner, make_plan
from tests.check import close

KEY = jax.random.key(7)
X = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
Y = X @ np.array([1.0, -2.0, 0.5], np.float32) + np.float32(0.25)


class Pairs(NamedTuple):
    x: Any
    y: Any


DATA = Pairs(X, Y)


def squares(params: Any, batch: Any) -> Any:
    return ((batch.x @ params["w"] + params["b"] - batch.y) ** 2).mean()


def start() -> Any:
    return {"w": jnp.zeros(3), "b": jnp.zeros(()), "nothing": None}


def counted(loss: Any) -> tuple[Any, list[int]]:
    traces: list[int] = []

    def wrapped(params: Any, batch: Any) -> Any:
        traces.append(1)
        return loss(params, batch)

    return wrapped, traces


def diary(steps: int) -> Any:
    """An optimizer that changes nothing and writes each step's gradient into its state."""

    def init(params: Any) -> Any:
        return jnp.zeros((), jnp.int32), jnp.zeros((steps, *params.shape))

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        step, page = state
        return jnp.zeros_like(grads), (step + 1, page.at[step].set(grads))

    return optax.GradientTransformation(init, update)


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


# make_step


def test_step_is_the_formula_and_donates() -> None:
    loss, traces = counted(squares)
    optimizer, params, batch = fnn.sgd(0.5), start(), jax.tree.map(jnp.asarray, DATA)
    step = fnn.make_step(loss, optimizer)
    state, w, b = optimizer.init(params), np.zeros(3), 0.0
    for _ in range(3):
        error = X.astype(np.float64) @ w + b - Y
        before = params
        params, state, value = step(params, state, batch)
        assert before["w"].is_deleted()
        close(value, (error**2).mean(), length=30)
        w, b = w - 0.5 * 2 * X.T @ error / 10, b - 0.5 * 2 * error.mean()
        close(params["w"], w, length=30)
        close(params["b"], b, length=30)
    assert not batch.x.is_deleted()
    assert len(traces) == 1


def test_step_passes_aux_and_key() -> None:
    def noisy(params: Any, batch: Any, key: Any) -> Any:
        noise = jax.random.normal(key, params.shape)
        return (params * noise).sum(), noise

    step = fnn.make_step(noisy, fnn.sgd(1.0), has_aux=True)
    state = fnn.sgd(1.0).init(jnp.ones(4))
    params, _, (value, noise) = step(jnp.ones(4), state, None, KEY)
    want = np.asarray(jax.random.normal(KEY, (4,)))
    close(noise, want)
    close(value, want.sum(), length=4)
    close(params, 1 - want)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.lbfgs(),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
        optax.polyak_sgd(max_learning_rate=1.0),
        optax.GradientTransformation(*optax.sgd(0.3)),
    ],
    ids=["lbfgs", "line_search", "polyak", "plain"],
)
def test_step_gives_each_optimizer_what_it_takes(optimizer: Any) -> None:
    step, params = fnn.make_step(squares, optimizer), start()
    state = optimizer.init(params)
    values = []
    for _ in range(60):
        params, state, value = step(params, state, DATA)
        values.append(float(value))
    assert values[-1] < 1e-3 < values[0]


def test_step_rounds_once() -> None:
    """bfloat16 params move by the float32 update; rounded first, this one would be half a bit."""
    update = jnp.full(2, 2.0**-8 * (1 + 2.0**-10))
    wide = optax.GradientTransformation(
        lambda params: None, lambda grads, state, params=None: (update, state)
    )
    step = fnn.make_step(lambda params, batch: params.sum(), wide)
    params, _, _ = step(jnp.ones(2, jnp.bfloat16), None, None)
    assert params.dtype == jnp.bfloat16
    np.testing.assert_array_equal(params.astype(jnp.float32), 1 + 2.0**-7)


@pytest.mark.parametrize(
    ("loss", "params", "kind", "message"),
    [
        (lambda p, b: p * b, jnp.ones(2), ValueError, r"loss: got float32\[2\]; .* call .mean\(\)"),
        (lambda p, b: (p.sum(), b), jnp.ones(2), ValueError, r"loss: got tuple .* a scalar array"),
        (lambda p, b: p["w"].sum(), {"w": np.arange(2)}, TypeError, r"params\['w'\]: got int32\[2"),
        (lambda p, b, key: p.sum(), jnp.ones(2), ValueError, "key: got None; needed a key"),
        (3, jnp.ones(2), TypeError, r"loss: got int 3; needed a function loss\(params, batch\)"),
    ],
    ids=["vector", "tuple", "integers", "no_key", "no_function"],
)
def test_step_refuses(loss: Any, params: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^fnn.make_step: {message}"):
        fnn.make_step(loss, fnn.sgd(0.1))(params, None, jnp.ones(2))


def test_step_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"loss: got float32\[\]; needed a pair \(value, aux\)"):
        fnn.make_step(squares, fnn.sgd(0.1), has_aux=True)(start(), None, DATA)
    with pytest.raises(ValueError, match=r"key: got key.*; needed no key, as loss takes none"):
        fnn.make_step(squares, fnn.sgd(0.1))(start(), None, DATA, KEY)
    broadcast = optax.stateless(lambda grads, params: jax.tree.map(jnp.sum, grads))
    message = r"make_step: updates\['w'\]: got float32\[\]; needed the shape of float32\[3\]"
    with pytest.raises(ValueError, match=message):
        fnn.make_step(squares, broadcast)(start(), broadcast.init(start()), DATA)


# train


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10])
def test_each_epoch_sees_each_example_once(batch_size: int) -> None:
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
    run = functools.partial(
        fnn.train, loss, start(), fnn.adam(0.1), DATA, batch_size=batch_size, epochs=3
    )
    assert len(list(run(key=KEY))) == 3
    assert len(traces) == shapes
    list(run(key=jax.random.key(1)))
    assert len(traces) == shapes, "a second run of the same functions compiles nothing"
    assert len(list(run(key=KEY, report_every=2))) == 3 * (1 if batch_size == 5 else 2)
    assert len(traces) == shapes, "nor do reports of other lengths"


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
        assert report.examples_per_second > 0
    (report, _) = fnn.train(squares, start(), fnn.sgd(0.0), DATA, **config)
    assert report.loss == pytest.approx((Y.astype(np.float64) ** 2).mean(), rel=1e-5)
    line = r"epoch   1  step      3  loss [\d.]+ +[\d,]+ examples/s"
    assert re.fullmatch(line, str(report)), str(report)


def test_what_was_yielded_stays() -> None:
    params, optimizer = start(), fnn.adam(0.1)
    state = optimizer.init(params)
    config = {"state": state, "batch_size": 4, "epochs": 4, "key": KEY}
    copies, reports = [], []
    for report in fnn.train(squares, params, optimizer, DATA, **config):
        reports.append(report)
        copies.append(jax.tree.map(np.array, report[4:]))
        if report.epoch == 3:
            break
    for report, copy in zip(reports, copies, strict=True):
        jax.tree.map(np.testing.assert_array_equal, report[4:], copy)
    assert not any(x.is_deleted() for x in jax.tree.leaves((params, state)))
    np.testing.assert_array_equal(params["w"], 0)
    again = list(fnn.train(squares, params, optimizer, DATA, **config))
    for report, other in zip(reports, again, strict=False):
        jax.tree.map(np.testing.assert_array_equal, report[4:], other[4:])
        assert report.loss == other.loss


def test_a_run_continues_from_its_state() -> None:
    optimizer = fnn.adam(0.1)
    run = functools.partial(fnn.train, squares, optimizer=optimizer, data=DATA, batch_size=10)
    *_, whole = run(start(), epochs=4, key=KEY)
    *_, half = run(start(), epochs=2, key=KEY)
    *_, rest = run(half.params, state=half.state, epochs=2, key=KEY)
    close(rest.params["w"], whole.params["w"], length=100)


def test_each_step_has_its_own_key() -> None:
    def noise(params: Any, batch: Any, key: Any) -> Any:
        return (params * jax.random.normal(key, params.shape)).sum()

    *_, last = fnn.train(noise, jnp.zeros(1), diary(9), X, batch_size=4, epochs=3, key=KEY)
    assert np.unique(last.state[1]).size == 9


def test_a_diverging_loss_is_reported() -> None:
    reports = fnn.train(squares, start(), fnn.sgd(1e20), DATA, batch_size=2, epochs=2, key=KEY)
    assert not any(np.isfinite(report.loss) for report in reports)


def test_weak_types_and_float64() -> None:
    with jax.enable_x64(True):
        x = np.linspace(0, 1, 6)
        loss, traces = counted(lambda params, batch: ((params["w"] - batch) ** 2).mean())
        params = {"w": jnp.asarray(0.5)}  # weakly typed, its successors not
        *_, last = fnn.train(loss, params, fnn.sgd(0.1), x, batch_size=6, epochs=3, key=KEY)
        assert last.params["w"].dtype == jnp.float64
        assert last.loss == pytest.approx(((x - 0.5) ** 2).mean(), rel=1e-14)
        assert len(traces) == 1


def test_data_is_not_copied() -> None:
    data = jnp.zeros((4096, 64))
    optimizer, params = fnn.adam(0.1), jnp.zeros(64)
    plan = make_plan("train", lambda p, b: ((b @ p) ** 2).mean(), optimizer)
    learner = Learner(params, optimizer.init(params))
    lowered = advance.lower(plan, learner, shuffled(data, 32, KEY, 0), 0, 128)
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
