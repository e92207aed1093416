"""What training costs beside the step itself, and what saves memory, read from the programs."""

from typing import Any

import jax
import jax.numpy as jnp

import fnn
from fnn.training.step import Learner, make_plan, take_step
from fnn.trees import all_finite, global_norm
from tests.check import close
from tests.training.cases import DATA, KEY, squares, start

ADAM = fnn.adam(1e-3)


def init(key: Any) -> Any:
    """The small CNN of the benchmarks, for images of 28 x 28."""
    keys = jax.random.split(key, 4)
    return {
        "conv1": fnn.init_conv(keys[0], (3, 3), 1, 32),
        "conv2": fnn.init_conv(keys[1], (3, 3), 32, 64),
        "hidden": fnn.init_dense(keys[2], 7 * 7 * 64, 128),
        "head": fnn.init_dense(keys[3], 128, 10),
    }


def loss(params: Any, batch: Any) -> Any:
    x, labels = batch  # the library's convolution, whose operations the compiler can count
    x = fnn.max_pool(fnn.relu(fnn.conv_lax(x, **params["conv1"])), 2)
    x = fnn.max_pool(fnn.relu(fnn.conv_lax(x, **params["conv2"])), 2)
    x = fnn.relu(fnn.dense(fnn.flatten(x), **params["hidden"]))
    return fnn.cross_entropy(fnn.dense(x, **params["head"]), labels).mean()


def operations(function: Any, *args: Any) -> float:
    """Counted in the program before it is compiled."""
    return jax.jit(function).lower(*args).cost_analysis()["flops"]


def test_checks_and_norms_are_a_small_part_of_a_step() -> None:
    """Of 128 images: the check, once in a call of many steps, is 0.03 %, norms in each 0.3 %."""
    params = jax.eval_shape(init, KEY)
    learner = Learner(params, jax.eval_shape(ADAM.init, params))
    images = jax.ShapeDtypeStruct((128, 28, 28, 1), jnp.float32)
    batch = images, jax.ShapeDtypeStruct((128,), jnp.int32)
    plan = make_plan("train", loss, ADAM, has_aux=False)
    step = operations(lambda *args: take_step(plan, *args, None), learner, batch)
    assert step > 2.5e9  # 3 times the forward pass's, but for the gradient of the images
    assert operations(all_finite, params) < 0.01 * step
    assert 3 * operations(global_norm, params) < 0.03 * step  # of gradients, updates, params


def test_gradients_are_accumulated_within_the_program() -> None:
    """Five batches of two make the step of ten examples."""
    config = {"epochs": 4, "key": KEY}
    accumulated = fnn.accumulate(fnn.sgd(0.1), 5)
    *_, parts = fnn.train(squares, start(), accumulated, DATA, batch_size=2, **config)
    *_, whole = fnn.train(squares, start(), fnn.sgd(0.1), DATA, batch_size=10, **config)
    for got, want in zip(*map(jax.tree.leaves, (parts.params, whole.params)), strict=True):
        close(got, want, length=40)


def test_a_checkpointed_block_keeps_its_input_alone() -> None:
    """The compiled step says what it needs, before it runs."""

    def block(x: Any, w: Any) -> Any:
        for _ in range(6):
            x = jnp.tanh(x * w)
        return x

    def needed(block: Any) -> int:
        def loss(params: Any, batch: Any) -> Any:
            return jax.lax.scan(lambda x, w: (block(x, w), None), batch, params)[0].mean()

        params, batch = jnp.ones((8, 64)), jnp.ones((256, 64))
        step = jax.jit(fnn.make_step(loss, fnn.sgd(0.1)), donate_argnums=(0, 1))
        lowered = step.lower(params, fnn.sgd(0.1).init(params), batch)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    with jax.numpy_rank_promotion("allow"):
        assert needed(jax.checkpoint(block)) < 0.5 * needed(block)
