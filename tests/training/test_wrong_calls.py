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


def step(loss: Any = squares, optimizer: Any = SGD, batch: Any = DATA) -> None:
    fnn.make_step(loss, optimizer)(start(), SGD.init(start()), batch)


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
LONG = np.array([0] * 9 + [2**32 + 5])
MASKED = np.ma.masked_array(Y, Y > 0)


class Shaped(list[Any]):
    """As PyTorch's tensor: of rows, with a shape and a dtype, and no array."""

    shape, dtype = (3, 2), np.dtype(np.float32)


class Unread:
    """As PyTorch's tensor that requires a gradient."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise RuntimeError("Use tensor.detach().numpy() instead.")


SHAPED = Shaped(np.ones((3, 2), np.float32))
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
        TypeError, "evaluate: the call: got one inside jit, grad, vmap or scan; needed one outsid"),
    "words": (lambda: train(data=Pairs(X, np.array(["a"] * 10))), TypeError,
              r"train: data.y: got <U1\[10\]; needed an array of numbers"),
    "objects": (lambda: train(data=Pairs(X, np.array([None] * 10))), TypeError,
                r"train: data.y: got object\[10\]; needed an array of numbers"),
    "predict_words": (lambda: fnn.predict(squares, 1, [np.array(["a"])]), TypeError,
                      r"predict: a batch of data: got <U1\[1\]; needed an array of numbers"),
    "long_integers": (lambda: train(data=Pairs(X, LONG)), ValueError,
                      r"train: data.y: got int64\[10\] from 0 to 4294967301; needed numbers that "),
    "long_integers_in_batches": (
        lambda: train(data=iter([Pairs(X, LONG)]), batch_size=None), ValueError,
        r"train: a batch of data.y: got int64\[10\] from 0 to 4294967301; needed numbers that fit"),
    "evaluate_long_integers": (lambda: fnn.evaluate(labels, START, Pairs(X, -LONG), batch_size=5),
                               ValueError, r"evaluate: data.y: got int64\[10\] from -4294967301 t"),
    "predict_long_integers": (
        lambda: fnn.predict(labels, START, [Pairs(X, LONG.astype(np.uint64))]), ValueError,
        r"predict: a batch of data.y: got uint64\[10\] from 0 to 4294967301; needed numbers that "
        r"fit uint32"),
    "step_of_long_integers": (
        lambda: step(batch=Pairs(X, LONG)), ValueError,
        r"make_step: batch.y: got int64\[10\] from 0 to 4294967301; needed numbers that fit int32"),
    "scan_of_steps_of_long_integers": (
        lambda: jax.jit(lambda x: fnn.make_step(squares, SGD)(
            start(), SGD.init(start()), Pairs(x, LONG)))(X), ValueError,
        r"make_step: batch.y: got int64\[10\] from 0 to 4294967301; needed"),
    "step_of_words": (lambda: step(batch=Pairs(X, np.array(["a"] * 10))), TypeError,
                      r"make_step: batch.y: got <U1\[10\]; needed an array of numbers"),
    "step_of_text": (lambda: step(batch={"x": "a"}), TypeError,
                     r"make_step: batch\['x'\]: got str 'a'; needed an array of numbers"),
    "step_of_a_masked_batch": (lambda: step(batch=Pairs(X, MASKED)), TypeError,
                               r"make_step: batch.y: got a masked float32\[10\]; needed an array"),
    "step_of_objects_for_params": (
        lambda: fnn.make_step(squares, SGD)({"w": None, "b": object()}, (), DATA), TypeError,
        r"make_step: params\['b'\]: got object <object .*; needed an array of numbers"),
    "train_in_a_sweep_of_rates": (
        lambda: jax.vmap(lambda rate: train(optimizer=fnn.sgd(rate)))(jnp.ones(2)), TypeError,
        r"train: the call: got one inside jit, grad, vmap or scan; needed one outside"),
    "train_on_batches_in_a_sweep": (
        lambda: jax.vmap(lambda rate: train(
            optimizer=fnn.sgd(rate), data=[DATA], batch_size=None))(jnp.ones(2)), TypeError,
        "train: the call: got one inside jit"),
    "train_in_a_gradient": (
        lambda: jax.grad(lambda rate: train(
            lambda p, b: rate * squares(p, b)))(1.0), TypeError,
        "train: the call: got one inside jit"),
    "train_constants_in_jit": (jax.jit(lambda: train(params=START)), TypeError,
                               "train: the call: got one inside jit"),
    "evaluate_closes_over_traced": (
        lambda: jax.jit(lambda a: fnn.evaluate(
            lambda p, b: a * b.y, START, DATA, batch_size=5))(1.0), TypeError,
        "evaluate: the call: got one inside jit"),
    "evaluate_in_a_gradient": (
        lambda: jax.grad(lambda a: fnn.evaluate(
            lambda p, b: a * b.y, START, [DATA]))(1.0), TypeError,
        "evaluate: the call: got one inside jit"),
    "no_metrics": (lambda: fnn.evaluate(None, START, DATA, batch_size=5), TypeError,
                   r"evaluate: metrics: got NoneType None; needed a function metrics\(params, bat"),
    "no_model": (lambda: fnn.predict("model", START, [DATA]), TypeError,
                 r"predict: model: got str 'model'; needed a function model\(params, batch\)"),
    "predict_words_in_params": (
        lambda: fnn.predict(labels, {"w": "relu"}, DATA, batch_size=5), TypeError,
        r"predict: params\['w'\]: got str 'relu'; needed arrays"),
    "outputs_of_other_structure": (
        lambda: fnn.predict(lambda p, b: b, 1.0, [{"a": X}, {"b": X}]), ValueError,
        r"predict: the output for an example\['a'\]: got nothing; needed float32\[3\], as in the "),
    "outputs_of_other_shapes": (
        lambda: fnn.predict(lambda p, b: b, 1.0, [X, Y]), ValueError,
        r"predict: the output for an example: got float32\[\]; needed the shape of float32\[3\], "),
    "arrays_without_batch_size": (lambda: fnn.predict(squares, 1.0, X), ValueError,
                                  r"predict: batch_size: got None; needed an int, as data is "
                                  r"float32\[10,3\]; an iterable of batches has none"),
    "tensor_without_batch_size": (lambda: fnn.predict(squares, 1.0, SHAPED), ValueError,
                                  r"predict: batch_size: got None; needed an int, as data is "
                                  r"float32\[3,2\]; an iter"),
    "train_tensor_without_batch_size": (
        lambda: train(data=SHAPED, batch_size=None), ValueError,
        r"train: batch_size: got None; needed an int, as data is float32\[3,2\]; an iter"),
    "tensor_with_batch_size": (lambda: train(data=SHAPED), TypeError,
                               r"train: data: got float32\[3,2\]; needed arrays, as np.asarray ma"),
    "masked": (lambda: train(data=Pairs(X, MASKED)), TypeError,
               r"train: data.y: got a masked float32\[10\]; needed an array without a mask"),
    "masked_batch": (lambda: fnn.predict(labels, 1.0, [Pairs(X, MASKED)]), TypeError,
                     r"predict: a batch of data.y: got a masked float32\[10\]; needed an array w"),
    "lists": (lambda: train(data=Pairs(X.tolist(), Y.tolist())), TypeError,
              r"train: data.x\[0\]\[0\]: got float 0.12\d*; needed arrays, as np.asarray makes of"),
    "text_as_aux": (lambda: train(lambda p, b: (squares(p, b), {"m": "a"}), has_aux=True),
                    TypeError, r"train: loss: aux\['m'\]: got str 'a'; needed arrays"),
    "text_as_aux_of_a_step": (
        lambda: fnn.make_step(lambda p, b: (squares(p, b), "a"), SGD, has_aux=True)(
            start(), SGD.init(start()), DATA), TypeError,
        "make_step: loss: aux: got str 'a'; needed arrays"),
    "text_observed": (lambda: train(observe=lambda *inputs: {"m": "a"}), TypeError,
                      r"train: what observe returns\['m'\]: got str 'a'; needed an array"),
    "key_observed": (lambda: train(observe=lambda *inputs: KEY), TypeError,
                     r"train: what observe returns: got key<fry>\[\]; needed an array of number"),
    "tensor_that_no_array_is_made_of": (
        lambda: train(data=[Unread()], batch_size=None), TypeError,
        r"train: a batch of data: got Unread .*; needed an array, .*: Use tensor.detach\(\)"),
    "loss_of_three": (lambda: train(lambda p, x, y: 0), TypeError,
                      r"train: loss: got loss\(p, x, y\); needed loss\(params, batch\), and "
                      r"key where it draws$"),
    "loss_of_statistics": (lambda: train(squares, stats=X), TypeError,
                           r"train: loss: got loss\(params: .*, batch: .*\) .*; needed "
                           r"loss\(params, stats, batch\)"),
    "key_of_another_name": (lambda: step(lambda p, b, rng: 0), TypeError,
                            r"make_step: loss: got loss\(p, b, rng\); needed loss\(params, batch"),
    "metrics_that_draw": (
        lambda: fnn.evaluate(lambda p, b, key: b, START, DATA, batch_size=5), TypeError,
        r"evaluate: metrics: got metrics\(p, b, key\); needed metrics\(params, batch\)$"),
    "observe_of_two": (lambda: train(observe=lambda params, grads: grads), TypeError,
                       r"train: observe: got observe\(params, grads\); needed observe\(params, gr"),
    "pair_of_functions": (lambda: train(optimizer=(SGD.init, SGD.update)), TypeError,
                          r"train: optimizer: got tuple .*; needed an object with init and update, "
                          r"such as fnn.adam\(1e-3\) or fnn.Optimizer\(init, update\)"),
    "updates_alone": (lambda: train(optimizer=fnn.Optimizer(
        lambda params: (), lambda grads, state, params=None: grads)), TypeError,
        r"train: optimizer: got an update that returns dict .*; needed one that returns a pair "
        r"\(updates, state\)"),
    "many_unequal": (
        lambda: train(data=[X, X, X, X[1:], X]), ValueError,
        r"train: data: got 10 examples in data\[0\], 9 examples in data\[3\], 10 examples in "
        r"data\[1\], and 2 arrays more; needed arrays with one common leading axis"),
    "many_without_examples": (
        lambda: train(data=list(X.ravel())), ValueError,
        r"train: data: got no examples in data\[0\], .*, and 27 arrays more; needed"),
    "real_labels": (lambda: train(classes, jnp.ones((3, 4))), ValueError,
                    r"cross_entropy: labels: got float32\[5\]; needed integers of shape \(5,\)"),
    "labels_of_bools": (lambda: train(classes, jnp.ones((3, 4)), data=Pairs(X, Y > 0)), TypeError,
                        r"cross_entropy: labels: got bool\[5\]; needed integers"),
    "optimizer_not_called": (lambda: train(optimizer=fnn.adam), TypeError,
                             r"train: optimizer: got function .*adam.*; needed an object with"),
    "step_without_optimizer": (lambda: step(optimizer=0.1), TypeError,
                               r"make_step: optimizer: got float 0.1; needed an object with"),
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
    "transform_without_key": (lambda: fnn.augmented(squares, lambda batch: batch), TypeError,
                              r"augmented: transform: got transform\(batch\); needed transform"),
    "data_without_epoch": (lambda: train(data=lambda: [DATA], batch_size=None), TypeError,
                           r"train: data: got data\(\); needed data\(epoch\)$"),
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


def test_the_gradient_of_integers_is_no_data() -> None:
    empty = np.zeros(len(Y), jax.dtypes.float0)
    with pytest.raises(TypeError, match=r"^fnn.train: data.y: got .*; needed an array of numbers"):
        train(data=Pairs(X, empty))
