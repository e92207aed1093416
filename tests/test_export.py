"""Programs for other machines: `jax.export`, which serves a model without fnn or its code."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fnn
from tests.table import ROWS, Row


def init(key: Any) -> Any:
    k1, k2, k3 = jax.random.split(key, 3)
    return {
        "conv1": fnn.init_conv(k1, (3, 3), 1, 16),
        "conv2": fnn.init_conv(k2, (3, 3), 16, 32),
        "head": fnn.init_dense(k3, 2 * 2 * 32, 10),
    }


def logits(params: Any, x: Any) -> Any:
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv1"])), 2)
    x = fnn.max_pool(fnn.relu(fnn.conv(x, **params["conv2"])), 2)
    return fnn.dense(fnn.flatten(x), **params["head"])


def test_the_digits_cnn_is_one_file_for_any_batch(tmp_path: Path) -> None:
    """As a server has it: for three platforms, saved, loaded, run with 1, 3 and 64 images."""
    params, x = init(jax.random.key(0)), fnn.data.digits()[1].x[:64]
    images = jax.ShapeDtypeStruct((*export.symbolic_shape("n"), *x.shape[1:]), jnp.float32)
    platforms = ("cpu", "cuda", "tpu")
    program = export.export(jax.jit(lambda x: logits(params, x)), platforms=platforms)(images)
    (tmp_path / "digits").write_bytes(program.serialize())
    served = export.deserialize((tmp_path / "digits").read_bytes())
    assert served.platforms == platforms
    want = logits(params, x)
    for n in (1, 3, 64):
        np.testing.assert_allclose(served.call(x[:n]), want[:n], rtol=1e-4, atol=1e-5)


def test_running_statistics_and_a_batch_go_in_and_out_of_a_file() -> None:
    batch = fnn.data.Dataset(*(part[:4] for part in fnn.data.digits()[0]))

    @jax.jit
    def update(running: Any, batch: Any) -> Any:
        return fnn.running_stats(running, fnn.batch_stats(batch.x)), batch

    running = fnn.BatchStats(jnp.zeros(1), jnp.ones(1))
    served = export.deserialize(export.export(update)(running, batch).serialize())
    got = served.call(running, batch)
    assert [type(part) for part in got] == [fnn.BatchStats, fnn.data.Dataset]
    jax.tree.map(np.testing.assert_array_equal, got, update(running, batch))


def in_all_wrappers() -> Any:
    inner = fnn.chain(fnn.lookahead(fnn.adam(0.1), 2), fnn.average())
    return fnn.with_loss_scale(fnn.accumulate(fnn.with_master_weights(inner), 2))


@pytest.mark.parametrize("optimizer", [in_all_wrappers(), fnn.flat(fnn.adam(0.1)), fnn.newton()])
def test_a_step_of_training_goes_into_a_file(optimizer: Any) -> None:
    def loss(params: Any, batch: Any) -> Any:
        return ((params["w"] - batch) ** 2).mean()

    params, batch = {"w": jnp.arange(3.0)}, jnp.ones(3)
    step = jax.jit(fnn.make_step(loss, optimizer))
    given = params, optimizer.init(params), batch
    served = export.deserialize(export.export(step)(*given).serialize())
    jax.tree.map(np.testing.assert_array_equal, served.call(*given), step(*given))


# Those that take no examples, and those that refuse a symbol by name (layers/test_conv_export.py).
FIXED = ("conv_matrix", "spectral_norm", "conv_im2col", "conv_winograd", "conv_winograd2")


def like(row: Row) -> tuple[Any, ...]:
    """Shapes and dtypes of a row's arguments, with a symbol for the number of examples."""
    examples = 0 if row.name in FIXED else row.data
    arguments = jax.tree.map(jax.device_put, row.args(np.random.default_rng(0)))
    return tuple(
        jax.ShapeDtypeStruct((N, *x.shape[1:]) if i < examples else x.shape, x.dtype)
        for i, x in enumerate(arguments)
    )


(N,) = export.symbolic_shape("n")


def with_gradients(row: Row, *args: Any) -> Any:
    """What a row returns, and the gradients of its arguments that are floats."""
    floats = [i for i, x in enumerate(args) if jnp.issubdtype(x.dtype, jnp.floating)]

    def of(*chosen: Any) -> Any:
        given = dict(enumerate(args)) | dict(zip(floats, chosen, strict=True))
        return row.fn(*given.values(), **row.config)

    if not row.smooth:
        return of(*[args[i] for i in floats])
    y, pull = jax.vjp(of, *[args[i] for i in floats])
    return y, pull(y)


def test_every_function_is_lowered_for_every_platform_and_number_of_examples() -> None:
    def call(arguments: dict[str, Any]) -> dict[str, Any]:
        return {row.name: with_gradients(row, *arguments[row.name]) for row in ROWS}

    platforms = ("cuda", "rocm", "tpu")
    arguments = {row.name: like(row) for row in ROWS}
    program = export.export(jax.jit(call), platforms=platforms)(arguments)
    assert program.platforms == platforms
