"""Wrong calls that are not refused beside their subject: before any step, by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from tests.training.cases import DATA, KEY, Pairs, X, Y, squares, start

SGD = fnn.sgd(0.1)
START = start()
RUN = fnn.Run(START, SGD.init(START), None, 0, 0, 0, KEY)


def train(loss: Any = squares, params: Any = None, optimizer: Any = SGD, **change: Any) -> None:
    config = {"data": DATA, "batch_size": 5, "epochs": 1, "key": KEY} | change
    list(fnn.train(loss, start() if params is None else params, optimizer, **config))


def step(loss: Any = squares, optimizer: Any = SGD) -> None:
    fnn.make_step(loss, optimizer)(start(), SGD.init(start()), DATA)


def labels(params: Any, batch: Any) -> Any:
    return batch.y


def deleted(x: Any) -> Any:
    """An array as it is after it was donated."""
    x = jnp.array(x)
    x.delete()
    return x


def classes(params: Any, batch: Any) -> Any:
    return fnn.cross_entropy(batch.x @ params, batch.y).mean()


ROUNDING = fnn.Optimizer(
    lambda params: {"mean": jnp.zeros(())},
    lambda grads, state, params=None: (grads, {"mean": state["mean"].astype(jnp.bfloat16)}),
)
GONE = {"w": deleted(np.ones(3)), "b": jnp.ones(())}
CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "params_used_up": (lambda: train(params=GONE), ValueError,
                       r"train: params\['w'\]: got a deleted float32\[3\]; needed an array that"),
    "data_used_up": (lambda: train(data=Pairs(deleted(X), Y)), ValueError,
                     r"train: data.x: got a deleted float32\[10,3\]; needed an array that was not"),
    "statistics_used_up": (lambda: train(stats=GONE), ValueError,
                           r"train: stats\['w'\]: got a deleted float32\[3\]"),
    "run_used_up": (lambda: train(resume=fnn.Run(GONE, (), None, 0, 0, 0, KEY)), ValueError,
                    r"train: resume.params\['w'\]: got a deleted float32\[3\]"),
    "evaluate_used_up": (lambda: fnn.evaluate(squares, GONE, DATA, batch_size=5), ValueError,
                         r"evaluate: params\['w'\]: got a deleted float32\[3\]"),
    "predict_used_up": (lambda: fnn.predict(squares, 1, Pairs(X, deleted(Y)), batch_size=5),
                        ValueError, r"predict: data.y: got a deleted float32\[10\]"),
    "train_traced": (lambda: jax.jit(lambda w: train(params=w))(start()), TypeError,
                     "train: params: got a traced array; needed arrays with values"),
    "evaluate_traced": (
        lambda: jax.jit(lambda w: fnn.evaluate(squares, w, DATA, batch_size=5))(start()),
        TypeError, "evaluate: params: got a traced array; needed arrays with values"),
    "train_traced_data": (
        lambda: jax.jit(lambda x: train(params=START, data=Pairs(x, Y)))(X), TypeError,
        "train: data: got a traced array; needed arrays with values"),
    "train_traced_batches": (
        lambda: jax.jit(lambda x: train(params=START, data=[Pairs(x, Y)], batch_size=None))(X),
        TypeError, "train: data: got a traced array; needed arrays with values"),
    "train_traced_run": (
        lambda: jax.jit(lambda run: train(params=START, resume=run))(RUN),
        TypeError, "train: resume: got a traced array; needed arrays with values"),
    "evaluate_traced_data": (
        lambda: jax.jit(lambda x: fnn.evaluate(labels, START, Pairs(x, x), batch_size=5))(Y),
        TypeError, "evaluate: data: got a traced array; needed arrays with values"),
    "evaluate_traced_batch": (
        lambda: jax.jit(lambda x: fnn.evaluate(labels, START, iter([Pairs(X, x)])))(Y),
        TypeError, "evaluate: a batch of data.y: got a traced array; needed arrays with values"),
    "words": (lambda: train(data=Pairs(X, np.array(["a"] * 10))), TypeError,
              r"train: data.y: got <U1\[10\]; needed an array of numbers"),
    "objects": (lambda: train(data=Pairs(X, np.array([None] * 10))), TypeError,
                r"train: data.y: got object\[10\]; needed an array of numbers"),
    "predict_words": (lambda: fnn.predict(squares, 1, [np.array(["a"])]), TypeError,
                      r"predict: a batch of data: got <U1\[1\]; needed an array of numbers"),
    "real_labels": (lambda: train(classes, jnp.ones((3, 4))), ValueError,
                    r"cross_entropy: labels: got float32\[5\]; needed the shape of float32\[5,4\]"),
    "labels_of_bools": (lambda: train(classes, jnp.ones((3, 4)), data=Pairs(X, Y > 0)), TypeError,
                        r"cross_entropy: labels: got bool\[5\]; needed integers"),
    "optimizer_not_called": (lambda: train(optimizer=fnn.adam), TypeError,
                             r"train: optimizer: got function .*adam.*; needed an \(init, update"),
    "step_without_optimizer": (lambda: step(optimizer=0.1), TypeError,
                               r"make_step: optimizer: got float 0.1; needed an \(init, update\)"),
    "no_loss": (lambda: train(loss=0.1), TypeError, "train: loss: got float 0.1; needed a functio"),
    "whole_loss": (lambda: step(lambda params, batch: jnp.zeros((), jnp.int32)), TypeError,
                   r"make_step: loss: got int32\[\]; needed a floating-point number"),
    "loss_of_python": (lambda: step(lambda params, batch: 0.1), ValueError,
                       "make_step: loss: got float 0.1; needed a scalar array"),
    "observe": (lambda: train(observe="loss"), TypeError,
                r"train: observe: got str 'loss'; needed a function observe\(params, grads, upda"),
    "state_of_another_dtype": (lambda: train(optimizer=ROUNDING), ValueError,
                               r"train: state\['mean'\]: got bfloat16\[\]; needed float32, as be"),
    "step_state_of_another_dtype": (
        lambda: fnn.make_step(squares, ROUNDING)(start(), ROUNDING.init(start()), DATA), ValueError,
        r"make_step: state\['mean'\]: got bfloat16\[\]; needed float32, as before the update"),
    "transform": (lambda: fnn.augmented(squares, 0.1), TypeError,
                  r"augmented: transform: got float 0.1; needed a function transform\(key, batch"),
    "augmented_loss": (lambda: fnn.augmented(0.1, squares), TypeError,
                       r"augmented: loss: got float 0.1; needed a function loss\(params, batch\)"),
    "gradients_of_another_model": (
        lambda: SGD.update({"w": X}, SGD.init(start()), start()), ValueError,
        r"sgd: grads\['b'\]: got nothing; needed float32\[\]"),
    "accumulated_gradients": (
        lambda: fnn.accumulate(SGD, 2).update({"w": X}, fnn.accumulate(SGD, 2).init(start())),
        ValueError, r"accumulate: grads\['b'\]: got nothing; needed float32\[\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_is_refused(name: str) -> None:
    call, kind, message = CALLS[name]
    with pytest.raises(kind, match=f"^fnn.{message}"):
        call()
