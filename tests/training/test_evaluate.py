"""predict, evaluate and augmented: every example once, in order; another change at every step."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from fnn.static import frozen
from fnn.training.evaluate import _by_batches
from tests.training.cases import DATA, KEY, Pairs, X, Y, counted, squares, start
from tests.training.test_stream import Tensor

PARAMS = {"w": jnp.array([1.0, -1.0, 0.5]), "b": jnp.array(0.25)}


def model(params: Any, batch: Any) -> Any:
    y = batch.x @ params["w"] + params["b"]
    return {"y": y, "pair": jnp.stack([y, batch.y], 1)}


def metrics(params: Any, batch: Any) -> Any:
    error = model(params, batch)["y"] - batch.y
    return {"squared": error**2, "large": jnp.abs(error) > 1, "x": batch.x}


@pytest.mark.parametrize("size", [1, 3, 4, 5, 10, 99])
def test_every_example_once_and_in_order(size: int) -> None:
    counting, traces = counted(model)
    got = fnn.predict(counting, PARAMS, DATA, batch_size=size)
    want = X.astype(np.float64) @ [1.0, -1.0, 0.5] + 0.25
    np.testing.assert_allclose(got["y"], want, rtol=1e-5)
    np.testing.assert_allclose(got["pair"], np.stack([want, Y], 1), rtol=1e-5)
    assert len(traces) == 1, "the smaller last batch is a program of its own"


@pytest.mark.parametrize("size", [3, 5, 10, None])
def test_means_are_over_examples(size: int | None) -> None:
    data = DATA if size else [Pairs(X[i : i + 4], Y[i : i + 4]) for i in (0, 4, 8)]
    got = fnn.evaluate(metrics, PARAMS, data, batch_size=size)
    error = X.astype(np.float64) @ [1.0, -1.0, 0.5] + 0.25 - Y
    assert got["squared"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert got["large"] == (np.abs(error) > 1).mean()
    np.testing.assert_allclose(got["x"], X.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6)


def test_batches_give_the_outputs_of_arrays() -> None:
    batches = (Pairs(Tensor(X[i : i + 4]), Tensor(Y[i : i + 4])) for i in (0, 4, 8))
    got = fnn.predict(model, PARAMS, batches)  # as PyTorch's loader gives them
    want = fnn.predict(model, PARAMS, DATA, batch_size=10)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_no_program_joins_the_outputs_of_all_batches(caplog: pytest.LogCaptureFixture) -> None:
    """It would compile for as long as there are many, and anew for every number of them."""
    batches, double = np.arange(300.0, dtype=np.float32).reshape(150, 2), lambda _, x: 2 * x
    with jax.log_compiles():
        got = fnn.predict(double, (), [*batches, batches[0, :1]])
    programs = re.findall(r"Compiling (.*)", caplog.text)
    assert max(program.count("ShapedArray") for program in programs) <= 64
    np.testing.assert_array_equal(got, [*2 * batches.ravel(), 0])
    caplog.clear()
    with jax.log_compiles():
        mean = fnn.evaluate(double, (), [*batches, batches[0, :1]])
    assert "concatenate" not in caplog.text
    assert mean == 2 * batches.sum() / 301


@pytest.mark.parametrize("given", ["data", "params", "params and batches"])
def test_arrays_of_numpy_are_read_when_predict_returns(given: str) -> None:
    """On a CPU they are read where they are: who writes into them later changes no output."""
    slow = jax.jit(lambda w: jax.lax.fori_loop(0, 200, lambda _, w: jnp.tanh(w @ w), w))
    model = lambda params, x: x + params[0][0, 0] + params[1]
    of_numpy, of_jax = np.ones((1, 3), np.float32), jnp.ones((1, 3))
    for _ in range(2):  # the first call compiles, and all is computed by then
        w = slow(jnp.eye(300))
        if given == "data":
            y = fnn.predict(model, (w, of_jax), X, batch_size=5)
        elif given == "params":
            y = fnn.predict(model, (w, of_numpy), jnp.asarray(X), batch_size=5)
        else:
            y = fnn.predict(model, (w, of_numpy), [jnp.asarray(X)])
    assert y.is_ready()


def test_memory_holds_the_activations_of_one_batch() -> None:
    wide = {"in": jnp.ones((3, 4096)), "out": jnp.ones(4096)}
    model = frozen(lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"])
    lowered = _by_batches.lower("predict", model, 32, (None,), wide, jnp.ones((1024, 3)))
    activations = 32 * 4096 * 4  # bytes; of all examples 32 times as many
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 3 * activations


def test_bfloat16_is_read_and_written_batch_by_batch() -> None:
    """XLA on a CPU would change all examples to float32, and all outputs at every batch."""
    data, model = jnp.ones((4096, 256), jnp.bfloat16), frozen(lambda _, x: 2 * x)
    compiled = _by_batches.lower("predict", model, 32, (None,), (), data).compile()
    wide = 2 * data.nbytes  # the outputs, in float32
    assert compiled.memory_analysis().temp_size_in_bytes < 1.1 * wide
    got = fnn.predict(model, (), data[:50], batch_size=32)
    assert got.dtype == jnp.bfloat16
    assert (got == 2).all()
    slope = jax.grad(lambda x: fnn.predict(model, (), x, batch_size=32).astype(float).sum())
    assert (slope(data[:50]) == 2).all()


@pytest.mark.parametrize("size", [1, 4, 10])
def test_outputs_of_no_numbers(size: int) -> None:
    got = fnn.predict(lambda _, batch: batch.x[:, :0], (), DATA, batch_size=size)
    assert got.shape == (10, 0)


def test_a_batch_may_have_a_scalar_first() -> None:
    """As for `fnn.train`, its examples are those of its first array that has any."""
    batches = [{"scale": 2.0, "x": np.arange(3.0)}, {"scale": 3.0, "x": np.arange(2.0)}]
    got = fnn.predict(lambda _, batch: batch["scale"] * batch["x"], (), batches)
    assert got.tolist() == [0, 2, 4, 0, 3]


@pytest.mark.parametrize(
    ("config", "data", "kind", "message"),
    [
        ({"batch_size": 0}, DATA, ValueError, "batch_size: got 0; needed an int >= 1"),
        ({"batch_size": 4}, Pairs(X, Y[:9]), ValueError, "data: got 10 examples in data.x, 9"),
        ({"batch_size": 4}, iter([DATA]), TypeError, "data: got list_iterator .* without batch"),
        ({}, [], ValueError, "data: got no batch; needed at least one"),
        ({}, DATA, ValueError, "batch_size: got None; needed an int, as data is a Pairs"),
        ({}, 5, TypeError, "data: got int 5; needed arrays and a batch_size, or an iterable of"),
        (
            {},
            fnn.data.batches(X, 4),
            TypeError,
            r"data: got function .*; needed .* of batches, such as data\(0\), in its order",
        ),
        ({}, [1.0, 2.0], ValueError, r"a batch of data: got float32\[\]; needed an array with the"),
        ({}, [{}], ValueError, "a batch of data: got no array; needed an array with the examples"),
        (
            {},
            [DATA, Pairs(X[:0], Y[:0])],
            ValueError,
            r"a batch .* float32\[0,3\], .* at least",
        ),
    ],
)
@pytest.mark.parametrize("function", [fnn.predict, fnn.evaluate])
def test_refuses(function: Any, config: Any, data: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=f"^fnn.{function.__name__}: {message}"):
        function(model, PARAMS, data, **config)


@pytest.mark.parametrize("function", [fnn.predict, fnn.evaluate])
def test_outputs_of_one_dtype(function: Any) -> None:
    """Joined, the integers would be rounded to floats."""
    same, other = [np.ones(2, np.float32), np.ones(1, np.float32)], np.array([2**24 + 1], np.int32)
    message = r"the output for an example\['y'\]: got int32\[\]; needed float32, as in the first"
    with pytest.raises(ValueError, match=f"^fnn.{function.__name__}: {message}"):
        function(lambda _, batch: {"y": batch}, (), [*same, other])
    function(lambda _, batch: {"y": batch}, (), same)


def test_outputs_that_are_keys_are_joined() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    got = fnn.predict(lambda _, batch: batch, (), [keys[:2], keys[2:]])
    assert (jax.random.key_data(got) == jax.random.key_data(keys)).all()


def test_a_mean_is_no_output_per_example() -> None:
    message = r"fnn.evaluate: the output: got float32\[\]; needed the 4 examples of the batch first"
    with pytest.raises(ValueError, match=message):
        fnn.evaluate(squares, PARAMS, DATA, batch_size=4)


def test_no_mean_of_complex_numbers() -> None:
    with pytest.raises(TypeError, match=r"fnn.evaluate: metrics: got complex64\[4\]; needed real"):
        fnn.evaluate(lambda p, x: lax.complex(x, x), (), np.ones(4, np.float32), batch_size=2)


@pytest.mark.parametrize("keyed", [False, True])
def test_augmented_changes_every_batch_anew(keyed: bool) -> None:
    def plain(params: Any, batch: Any) -> Any:
        return params["w"].sum() * batch.y.mean()

    def noisy(params: Any, batch: Any, key: Any) -> Any:
        return plain(params, batch) * jax.random.normal(key)

    def shift(key: Any, batch: Any) -> Any:
        return batch._replace(y=batch.y * 0 + jax.random.uniform(key))

    loss = fnn.augmented(noisy if keyed else plain, shift)
    config = {"batch_size": 5, "epochs": 2, "key": KEY, "observe": lambda p, g, u, b: g["w"][0]}
    reports = list(fnn.train(loss, start(), fnn.sgd(0.1), DATA, **config))
    slopes = np.concatenate([r.observed for r in reports])
    assert len(set(slopes.tolist())) == 4
    assert keyed or ((slopes > 0) & (slopes < 1)).all()


def test_the_loss_and_the_transform_draw_apart() -> None:
    def loss(params: Any, batch: Any, key: Any) -> Any:
        return params * (batch - jax.random.uniform(key))

    both = fnn.augmented(loss, lambda key, batch: jax.random.uniform(key))
    assert both(1.0, None, key=KEY) != 0


def test_augmented_with_statistics() -> None:
    def loss(params: Any, stats: Any, batch: Any) -> Any:
        return squares(params, batch), stats + batch.x.mean()

    one = fnn.augmented(loss, lambda key, batch: batch._replace(x=jnp.ones_like(batch.x)))
    config = {"batch_size": 5, "epochs": 1, "key": KEY, "stats": jnp.zeros(())}
    (report,) = fnn.train(one, start(), fnn.sgd(0.1), DATA, **config)
    assert float(report.run.stats) == 2.0
