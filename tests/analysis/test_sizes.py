"""Sizes of models: formulas of the texts, by hand, and the compiled program's own count."""

import itertools
import json
import re
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jax.experimental.pallas import pallas_call

import fnn
from fnn.analysis import summary
from fnn.compiler import read_alone

S = jax.ShapeDtypeStruct


def shape(*sizes: int) -> Any:
    return S(sizes, jnp.float32)


def dense(d_in: int, d_out: int) -> Any:
    return {"w": shape(d_in, d_out), "b": shape(d_out)}


def conv(size: int, c_in: int, c_out: int) -> Any:
    return {"w": shape(size, size, c_in, c_out), "b": shape(c_out)}


# Kernels, widths, after which of them to halve the image, and dense layers.
NETWORKS = {
    "regular": ([4, 4, 4, 4, 4, 3, 3, 3], [128] * 8, (5, 6, 7), [2048, 500, 500, 10], 2_776_088),
    "shallow": ([4, 4, 4], [256, 256, 128], (0, 1, 2), [2048, 500, 500, 10], 2_864_152),
    "extra shallow": ([4, 4], [700, 128], (0, 0, 1), [2048, 500, 500, 10], 2_746_200),
    "2-layer": ([5], [3000], (0, 0), [192000, 10], 2_145_000),
}


def network(name: str) -> Any:
    kernels, widths, halved, sizes, _ = NETWORKS[name]
    channels = zip([3, *widths], widths, strict=False)
    params = {
        "conv": [conv(k, *pair) for k, pair in zip(kernels, channels, strict=True)],
        "dense": [dense(*pair) for pair in itertools.pairwise(sizes)],
    }

    def model(params: Any, x: Any) -> Any:
        for i, layer in enumerate(params["conv"]):
            x = fnn.relu(fnn.conv_lax(x, **layer))
            for _ in range(halved.count(i)):
                x = fnn.max_pool(x, 2)
        x = fnn.flatten(x)
        for layer in params["dense"][:-1]:
            x = fnn.relu(fnn.dense(x, **layer))
        return fnn.dense(x, **params["dense"][-1])

    return model, params


def compiled(model: Any, *args: Any) -> float:
    """What XLA counts, transcendental functions included."""
    cost = jax.jit(model).lower(*args).compile().cost_analysis()
    return float(cost["flops"]) + float(cost.get("transcendentals", 0))


def layers(size: Any) -> dict[str, Any]:
    return {layer.name: layer for layer in size.layers if layer.weights or layer.multiply_adds}


@pytest.mark.parametrize("name", NETWORKS)
def test_D4_four_networks(name: str) -> None:
    model, params = network(name)
    x = shape(1, 32, 32, 3)
    size = summary(model, params, x)
    assert size.total["weights"] == NETWORKS[name][-1]
    assert size.total["weights"] + size.total["biases"] == fnn.count(params)
    assert size.flops == pytest.approx(compiled(model, params, x), rel=0.01)
    by_layer = layers(size)
    assert list(by_layer) == [
        *(f"conv/{i}" for i in range(len(params["conv"]))),
        *(f"dense/{i}" for i in range(len(params["dense"]))),
    ]
    assert size.unused == ()
    lines = str(size).splitlines()
    assert lines[0].split()[:3] == ["layer", "output", "units"]
    assert max(map(len, lines)) <= 80
    assert f"{NETWORKS[name][-1]:,}" in lines[-2]


def test_B15_units_weights_connections() -> None:
    """From J maps to I: W H I units; W^2 H^2 I J or K^2 I J weights; W^2 H^2 I J or W H K^2 I J
    connections, those into the padding counted."""
    w, h, i, j, k = 6, 5, 4, 3, 3
    full = dense(w * h * j, w * h * i)
    (fully,) = summary(lambda p, x: fnn.dense(x, **p["f"]), {"f": full}, shape(1, w * h * j)).layers
    assert (fully.units, fully.weights) == (w * h * i, w**2 * h**2 * i * j)
    assert fully.connections == fully.multiply_adds == w**2 * h**2 * i * j
    (local,) = summary(
        lambda p, x: fnn.conv(x, **p["c"]), {"c": conv(k, j, i)}, shape(1, w, h, j)
    ).layers
    assert (local.units, local.weights, local.biases) == (w * h * i, k**2 * i * j, i)
    assert local.connections == w * h * k**2 * i * j
    assert local.multiply_adds == (3 * w - 2) * (3 * h - 2) * i * j  # without taps in the padding
    assert local.output == (1, w, h, i)
    assert local.bytes == 4 * w * h * i


def test_B15_units_and_connections_are_in_the_convolutions_weights_in_the_dense_layers() -> None:
    layers = summary(*network("2-layer"), shape(1, 32, 32, 3)).layers
    share = {
        name: sum(getattr(layer, name) for layer in layers if layer.name.startswith("conv"))
        / sum(getattr(layer, name) for layer in layers if layer.weights)
        for name in ("units", "connections", "weights")
    }
    assert share["units"] > 0.99
    assert share["connections"] > 0.99
    assert share["weights"] < 0.2


@pytest.mark.parametrize("seed", range(6))
def test_B14_receptive_field_of_every_layer(seed: int) -> None:
    """Of a random stack, against the window arithmetic."""
    rng = np.random.default_rng(seed)
    spatial = (64, 60)[: int(rng.integers(1, 3))]
    stack = []
    for _ in range(3):
        window = int(rng.integers(2, 5))
        stack.append({"window": window, "stride": int(rng.integers(1, 3)), "padding": "SAME"})
        stack.append({"window": 2, "stride": 2})
    params = [shape(*(layer["window"],) * len(spatial), 2, 2) for layer in stack[::2]]

    def model(params: Any, x: Any) -> Any:
        for i, w in enumerate(params):
            x = fnn.conv(x, w, stride=stack[2 * i]["stride"])
            x = fnn.max_pool(fnn.relu(x), 2)
        return x

    want = fnn.receptive_field(spatial, stack)
    rows = summary(model, params, shape(1, *spatial, 2)).layers
    assert [layer.field for layer in rows] == [field.size for field in want]
    assert [layer.output[1:-1] for layer in rows] == [field.output for field in want]
    assert [layer.name for layer in rows] == ["0", "max_pool", "1", "max_pool", "2", "max_pool"]


@pytest.mark.parametrize("pool", [fnn.max_pool, fnn.avg_pool, fnn.max_pool_lax])
@pytest.mark.parametrize(
    "places",
    [
        {"window": 3, "stride": 2, "padding": 1},
        {"window": 3, "stride": 1, "padding": "SAME"},
        {"window": 5, "stride": 3, "padding": 2, "dilation": 2},
        {"window": 7, "stride": 1},
    ],
    ids=str,
)
def test_B14_receptive_field_of_pooling(pool: Any, places: Any) -> None:
    """By every algorithm, also where it reads rows by their numbers or keeps the size."""
    size = summary(lambda p, x: pool(x * p, **places), shape(1, 1, 1, 2), shape(1, 61, 59, 2))
    (want,) = fnn.receptive_field((61, 59), [places])
    assert size.layers[-1].field == want.size
    assert size.layers[-1].name == pool.__name__


def both(a: Any, b: Any) -> Any:
    """(1 + a) (1 + b) - 1: three numbers computed, and 0 changes nothing."""
    return a + b + a * b


X = shape(2, 9, 8, 4)
ONE = {
    "conv": (lambda p, x: fnn.conv_lax(x, p, stride=2, dilation=2), shape(3, 2, 4, 6), X),
    "groups": (lambda p, x: fnn.conv_lax(x, p, groups=2), shape(3, 2, 2, 6), X),
    "depthwise": (lambda p, x: fnn.conv_lax(x, p, groups=4), shape(3, 3, 1, 8), X),
    "library": (
        lambda p, x: lax.conv_transpose(
            x, p, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        *(shape(3, 3, 4, 5), X),
    ),
    "dense": (lambda p, x: fnn.dense(x, p), shape(4, 7), X),
    "window": (
        lambda p, x: lax.reduce_window(x * p, 0.0, lax.add, (1, 3, 3, 1), (1,) * 4, "SAME"),
        shape(1, 1, 1, 4),
        X,
    ),
    "own window": (
        lambda p, x: lax.reduce_window(x * p, 0.0, both, (1, 3, 3, 1), (1,) * 4, "SAME"),
        shape(1, 1, 1, 4),
        X,
    ),
    "own sum": (lambda p, x: lax.reduce(x * p, 0.0, both, (1, 2)), shape(1, 1, 1, 4), X),
}


@pytest.mark.parametrize("name", ONE)
def test_agrees_with_the_compiled_count(name: str) -> None:
    model, params, x = ONE[name]
    assert summary(model, params, x).flops == pytest.approx(compiled(model, params, x), rel=0.01)


def test_transposed_convolution() -> None:
    """The arithmetic of the convolution that it transposes."""
    w, small = shape(3, 3, 5, 8), shape(2, 9, 8, 8)
    up = summary(lambda p, x: fnn.conv_transpose(x, p, stride=2), w, small)
    down = summary(lambda p, x: fnn.conv(x, p, stride=2), w, shape(2, 18, 16, 5))
    assert up.total["multiply_adds"] == down.total["multiply_adds"]
    assert up.total["connections"] == down.total["connections"] == 2 * 9 * 8 * 9 * 5 * 8
    assert up.layers[0].output == (2, 18, 16, 5)


def mlp(params: Any, x: Any) -> Any:
    for layer in params:
        x = jnp.tanh(fnn.dense(x, **layer))
    return x


def test_a_scan_is_a_loop() -> None:
    each = [dense(6, 6)] * 5
    stacked = {"w": shape(5, 6, 6), "b": shape(5, 6)}

    def scanned(params: Any, x: Any) -> Any:
        return lax.scan(lambda h, layer: (jnp.tanh(fnn.dense(h, **layer)), None), x, params)[0]

    loop, scan = summary(mlp, each, shape(3, 6)), summary(scanned, stacked, shape(3, 6))
    assert scan.total == loop.total
    assert scan.flops == loop.flops == compiled(mlp, each, shape(3, 6))
    assert len(scan.layers) == 1
    assert len(loop.layers) == 5


def test_recurrence_by_hand() -> None:
    """A state that starts as a constant is data; weights count once, arithmetic every step."""
    params = {"cell": {"u": shape(3, 4), "w": shape(4, 4), "b": shape(1, 4)}}

    def step(cell: Any, h: Any, x: Any) -> Any:
        return jnp.tanh(x @ cell["u"] + h @ cell["w"] + cell["b"])

    def scanned(params: Any, x: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            return step(params["cell"], h, x), None

        return lax.scan(body, jnp.zeros((2, 4)), x)[0]

    def unrolled(params: Any, x: Any) -> Any:
        h = jnp.zeros((2, 4))
        for row in x:
            h = step(params["cell"], h, row)
        return h

    x = shape(7, 2, 3)
    scan, loop = summary(scanned, params, x), summary(unrolled, params, x)
    assert scan.total == loop.total
    assert (scan.total["weights"], scan.total["biases"]) == (3 * 4 + 4 * 4, 4)
    assert scan.total["multiply_adds"] == scan.total["connections"] == 7 * 2 * (3 * 4 + 4 * 4)
    assert scan.flops == pytest.approx(compiled(unrolled, params, x), rel=0.01)
    assert [layer.name for layer in scan.layers] == ["cell"]
    assert [layer.weights for layer in loop.layers] == [28, *[0] * 6]


def test_a_state_becomes_data() -> None:
    """One weight per unit, h' = w h + x, from h = 0: a weight, though the first h is constant."""

    def model(params: Any, x: Any) -> Any:
        return lax.scan(lambda h, x: (h * params["w"] + x, None), jnp.zeros((2, 4)), x)[0]

    (layer,) = summary(model, {"w": shape(2, 4)}, shape(7, 2, 4)).layers
    assert (layer.weights, layer.biases, layer.connections) == (8, 0, 7 * 8)


def test_a_learned_state() -> None:
    """Counts as a bias, once, and takes no output from the layer that reads it first."""
    x = shape(7, 2, 3)

    def plain(params: Any, xs: Any) -> Any:
        step = lambda h, x: (jnp.tanh(x @ params["u"] + h @ params["w"]), None)
        return lax.scan(step, params["h0"], xs)[0]

    params = {"h0": shape(2, 4), "u": shape(3, 4), "w": shape(4, 4)}
    size = summary(plain, params, x)
    assert size.unused == ()
    assert (size.total["weights"], size.total["biases"]) == (3 * 4 + 4 * 4, 2 * 4)
    assert size.total["connections"] == 7 * 2 * (3 * 4 + 4 * 4)
    assert [layer.name for layer in size.layers] == ["u", "h0+w"]

    def gated(params: Any, xs: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            h, c = state
            i, f = jnp.split(x @ params["u"] + h @ params["w"], 2, 1)
            c = f * c + i
            return (jnp.tanh(c), c), None

        return lax.scan(step, (params["h0"], params["c0"]), xs)[0]

    wide = {"h0": shape(2, 4), "c0": shape(2, 4), "u": shape(3, 8), "w": shape(4, 8)}
    (layer,) = summary(lambda p, xs: gated(p["cell"], xs), {"cell": wide}, x).layers
    assert (layer.weights, layer.biases, layer.output) == (24 + 32, 8 + 8, (2, 8))

    cell = jax.eval_shape(lambda: fnn.init_lstm(jax.random.key(0), 3, 4))
    start = (shape(2, 4), shape(2, 4))
    size = summary(lambda p, x: fnn.lstm(x, **p[0], state=p[1])[0], [cell, start], shape(2, 5, 3))
    assert (size.unused, len(size.layers), size.total["biases"]) == ((), 1, 16 + 8 + 8)


def test_shared_layers() -> None:
    """Weights count where they are used first, arithmetic everywhere."""
    block = jax.jit(lambda layer, x: fnn.relu(fnn.dense(x, **layer)))

    def model(params: Any, x: Any) -> Any:
        x = block(params["own"], x)
        for _ in range(2):
            x = jax.checkpoint(block)(params["shared"], x)
        return x @ params["tied"]["w"] @ params["tied"]["w"].T

    tied = {"w": shape(6, 2), "unused": shape(1)}
    params = {"own": dense(6, 6), "shared": dense(6, 6), "tied": tied}
    size = summary(model, params, shape(3, 6))
    names = [layer.name for layer in size.layers]
    assert names == ["own", "shared", "shared", "tied", "tied"]
    assert [layer.weights for layer in size.layers] == [36, 36, 0, 12, 0]
    assert [layer.multiply_adds for layer in size.layers] == [3 * n for n in (36, 36, 36, 12, 12)]
    assert size.unused == ("tied/unused",)
    assert "not used: tied/unused" in str(size)


def test_mapped_models() -> None:
    """`jax.vmap` over examples and over params: the same arithmetic in one program."""
    params, x = [dense(6, 4), dense(4, 2)], shape(5, 6)
    whole = summary(mlp, params, x)
    assert summary(jax.vmap(mlp, (None, 0)), params, x).total == whole.total
    many = jax.tree.map(lambda a: shape(3, *a.shape), params)
    ensemble = summary(jax.vmap(mlp, (0, None)), many, x).total
    assert ensemble == {name: 3 * count for name, count in whole.total.items()}
    images = shape(4, 8, 8, 2)
    single = lambda w, x: fnn.conv(x[None], w)[0]
    mapped = summary(jax.vmap(single, (None, 0)), shape(3, 3, 2, 5), images)
    assert mapped.total == summary(lambda w, x: fnn.conv(x, w), shape(3, 3, 2, 5), images).total


def test_other_layers() -> None:
    def attention(params: Any, ids: Any) -> Any:
        x = fnn.embed(ids, **params["words"])
        x = fnn.layer_norm(x, **params["norm"])
        q, k = fnn.dense(x, params["q"]), fnn.dense(x, params["k"])
        return jnp.einsum("nqd,nkd->nqk", q, k)

    params = {
        "words": {"table": shape(50, 6)},
        "norm": {"scale": shape(6), "bias": shape(6)},
        "q": shape(6, 4),
        "k": shape(6, 4),
    }
    size = summary(attention, params, S((2, 3), jnp.int32))
    assert [(r.name, r.weights, r.biases, r.connections, r.multiply_adds) for r in size.layers] == [
        ("words", 300, 0, 36, 0),
        ("norm", 6, 6, 36, 0),
        ("q", 24, 0, 144, 144),
        ("k", 24, 0, 144, 144),
        ("dot_general", 0, 0, 0, 2 * 3 * 3 * 4),
    ]
    assert size.layers[-1].output == (2, 3, 3)
    assert "field" not in str(size)


@pytest.mark.parametrize("name", ["layer", "batch", "given", "group", "instance"])
def test_a_normalization_has_a_scale_for_every_unit(name: str) -> None:
    """Also where the scale meets the statistics before it meets x."""
    x, statistics = shape(2, 8, 8, 4), {"mean": shape(4), "var": shape(4)}

    def model(own: Any, x: Any, statistics: Any) -> Any:
        if name in ("batch", "given"):
            mean, var = fnn.batch_stats(x) if name == "batch" else statistics.values()
            return fnn.batch_norm(x, **own, mean=mean, var=var)
        if name == "group":
            return fnn.group_norm(x, **own, groups=2)
        return getattr(fnn, f"{name}_norm")(x, **own)

    layer = summary(model, {"scale": shape(4), "bias": shape(4)}, x, statistics).layers[-1]
    assert (layer.weights, layer.biases, layer.units, layer.connections) == (4, 4, 512, 512)


def test_what_the_receptive_field_counts() -> None:
    """Windows in full, also in the padding, but for taps left out; of a recurrence, every step."""
    cell = jax.eval_shape(lambda: fnn.init_lstm(jax.random.key(0), 3, 4))
    (layer,) = summary(lambda p, x: fnn.lstm(x, **p)[0], cell, shape(2, 5, 3)).layers
    assert layer.field == (5,)
    pooled = lambda p, x: fnn.global_avg_pool(fnn.conv(x, p))
    assert summary(pooled, shape(3, 3, 2, 2), shape(1, 8, 8, 2)).layers[-1].field == (10, 10)
    (layer,) = summary(lambda p, x: fnn.conv(x, p), shape(3, 3, 4, 4), shape(1, 1, 1, 4)).layers
    assert (layer.connections, layer.field) == (16, (1, 1))  # eight of nine taps meet only zeros


def test_a_single_number_may_depend_on_all() -> None:
    scaled = lambda p, x: fnn.conv(x / x.max(), p)
    (layer,) = summary(scaled, shape(3, 3, 1, 2), shape(1, 8, 9, 1)).layers
    assert layer.field == (8, 9)
    (total,) = summary(lambda p, x: fnn.logsumexp(x), {}, shape(3, 4)).layers
    assert (total.name, total.output) == ("logsumexp", ())


def test_a_factorization_reads_all_of_its_matrix() -> None:
    factor = lambda w, x: lax.linalg.cholesky(x, symmetrize_input=False) @ w
    assert summary(factor, shape(8, 4), shape(1, 8, 8)).layers[-1].field == (8,)


def test_the_receptive_field_of_folds() -> None:
    """By a computation of its own, and of several operands at once."""
    w, x = shape(3, 3, 1, 2), shape(1, 9, 8, 1)
    indices = lambda w, x: fnn.max_pool_indices(fnn.conv(x, w), 2)
    rows = summary(indices, w, x).layers
    assert [(r.name, r.output, r.field) for r in rows] == [
        ("params", (1, 9, 8, 2), (3, 3)),
        ("max_pool_indices", (1, 4, 4, 2), (4, 4)),
    ]
    facts = (1, 3, 2, 1), (1, 2, 1, 1), "VALID"
    pooled = lambda w, x: fnn.conv(lax.reduce_window(x, 0.0, both, *facts), w)
    assert summary(pooled, w, x).layers[0].field == (7, 4)
    pair = lambda a, b: (a[0] + b[1], a[1] + b[0])
    zeros = jnp.zeros((1, 9, 8, 1))
    row = lambda w, x: fnn.conv(lax.reduce((zeros, x), (0.0, 0.0), pair, (2,))[0], w)
    assert summary(row, shape(3, 1, 2), x).layers[0].field == (3, 8)
    apart = lambda w, x: lax.reduce_window(
        x, 0.0, both, (1, 3, 1), (1,) * 3, "VALID", base_dilation=(1, 2, 1)
    )  # the middle of 13 sums is over places 6 to 8 of 15
    then = lambda w, x: apart(w, x) @ w
    assert summary(then, shape(1, 2), shape(1, 8, 1)).layers[0].field == (2,)


COPIES = {  # a model, its window, and what that reads
    "channels": (lambda w, x: fnn.conv(jnp.tile(x, (1, 1, 1, 3)), w), (3, 3, 3, 1), (3, 3)),
    "one of three": (lambda w, x: fnn.conv(jnp.tile(x, (1, 3, 1, 1)), w), (3, 3, 1, 1), (3, 3)),
    "two of two": (lambda w, x: fnn.conv(jnp.tile(x, (1, 2, 1, 1)), w), (3, 3, 1, 1), (8, 3)),
    "stack": (
        lambda w, x: fnn.conv(jnp.stack([x.sum(1), x[:, 2]], 1)[:, 1], w),
        (3, 1, 1),
        (1, 3),
    ),
    "unstack": (lambda w, x: fnn.conv(jnp.unstack(x, axis=1)[2], w), (3, 1, 1), (1, 3)),
    "two of unstack": (
        lambda w, x: fnn.conv(sum(jnp.unstack(x, axis=1)[2:5:2]), w),
        (3, 1, 1),
        (3, 3),
    ),
    "columns": (  # (7, 2), (0, 3), (1, 3)
        lambda w, x: fnn.conv(x.reshape((1, 48, 1), order="F"), w),
        (3, 1, 1),
        (8, 2),
    ),
    "in place": (
        lambda w, x: fnn.conv(x.reshape((1, 8, 6, 1), order="F"), w),
        (3, 1, 1, 1),
        (3, 1),
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_the_receptive_field_of_copies(name: str) -> None:
    model, window, field = COPIES[name]
    assert summary(model, shape(*window), shape(1, 8, 6, 1)).layers[-1].field == field


MESH = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
AUTO = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
WHOLE = jax.NamedSharding(AUTO, jax.P())
PLAIN = {
    "tile": lambda x: jnp.tile(x, (1, 3)),
    "stack": lambda x: jnp.stack([x, x]),
    "unstack": jnp.unstack,
    "name": lambda x: checkpoint_name(x, "x"),
    "device_put": lambda x: jax.device_put(x, jax.devices()[0]),
    "sharding_constraint": lambda x: lax.with_sharding_constraint(x, WHOLE),
    "reshard": lambda x: jax.sharding.reshard(x, jax.NamedSharding(MESH, jax.P("data"))),
    "layout_constraint": lambda x: with_layout_constraint(x, Layout((1, 0))),
    "scatter": lambda x: x.at[0].set(1),
    "fnn_alone": read_alone,
}


@pytest.mark.parametrize("name", PLAIN)
def test_copies_are_no_arithmetic(name: str) -> None:
    move = PLAIN[name]
    assert re.search(rf" {name}\b", str(jax.make_jaxpr(move)(shape(2, 4))))
    assert summary(lambda p, x: move(x), {}, shape(2, 4)).flops == 0


def test_products_in_groups() -> None:
    """Every row meets the matrix of its own group."""
    groups = jnp.array([10, 20, 34], jnp.int32)
    (layer,) = (
        size := summary(lambda p, x: lax.ragged_dot(x, p, groups), shape(3, 32, 16), shape(64, 32))
    ).layers
    assert (layer.multiply_adds, layer.connections, layer.weights) == (32768, 32768, 1536)
    assert size.flops == 65536
    loss = lambda p, x: (lax.ragged_dot(x, p, groups) ** 2).sum()
    back = summary(jax.grad(loss), shape(3, 32, 16), shape(64, 32))  # a sum over rows in groups
    assert back.total["multiply_adds"] == 2 * 32768


def test_operations_with_insides_read_everything() -> None:
    """A solver, a callback, a kernel: here of a result of the shape of what they read."""
    x = shape(1, 8, 8)

    def turn(source: Any, target: Any) -> None:
        target[...] = source[...][:, ::-1]

    for function in (
        lambda x: jnp.linalg.solve(jnp.eye(8)[None], x),
        lambda x: jax.pure_callback(lambda x: x[:, ::-1], x, x),
        lambda x: pallas_call(turn, out_shape=x)(x),
    ):
        (*_, layer) = summary(lambda w, x, f=function: f(x) @ w, shape(8, 4), x).layers
        assert layer.field == (8,)


def test_a_long_way_to_places() -> None:
    """Of a gather: over 1,500 operations, and by 2^1500 paths."""

    def model(w: Any, x: Any, place: Any) -> Any:
        for _ in range(1500):
            place = place + place
        return fnn.conv(x[:, place], w)

    w, x = shape(1, 1, 1), shape(1, 12, 1)
    (layer,) = summary(model, w, x, S((2,), jnp.int32)).layers
    assert layer.field == (12,)
    (layer,) = summary(lambda w, x: model(w, x, jnp.zeros(2, jnp.int32)), w, x).layers
    assert layer.field == (1,)


def test_the_receptive_field_of_what_is_split() -> None:
    """As `fnn.glu` splits its channels; along a plane, each part where it lies."""
    gated = lambda p, x: fnn.conv(fnn.glu(fnn.conv(x, p["a"])), p["b"])
    rows = summary(gated, {"a": shape(3, 3, 1, 4), "b": shape(3, 3, 2, 1)}, shape(1, 32, 32, 1))
    assert [row.field for row in rows.layers] == [(3, 3), (3, 3), (5, 5)]
    assert json.loads(json.dumps(rows.layers[1].field)) == [3, 3]
    ends = lambda w, x: fnn.conv(sum(jnp.split(x, [4, 8], 1)[::2]), w)
    (row,) = summary(ends, shape(1, 1, 1), shape(1, 12, 1)).layers
    assert row.field == (9,)  # from place 2 of the first four to that of the last four
    assert json.dumps(row) == json.dumps([*row])


def test_operations_without_a_result_and_random_places() -> None:
    def model(w: Any, x: Any) -> Any:
        jax.debug.print("{} {}", x.mean(), w.mean())
        return fnn.dense(x[..., jax.random.randint(jax.random.key(0), (2,), 0, 4)], w)

    (*_, layer) = summary(model, shape(2, 3), shape(5, 6, 4)).layers
    assert (layer.weights, layer.output) == (6, (5, 6, 3))


def test_a_part_of_a_mesh_is_refused() -> None:
    mesh, whole = jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec()
    model = jax.shard_map(lambda w, x: x @ w, mesh=mesh, in_specs=whole, out_specs=whole)
    with pytest.raises(ValueError, match=r"analysis\.summary: model: got one inside jax.shard_map"):
        summary(model, shape(2, 3), shape(5, 2))


def test_the_receptive_field_of_a_unit_that_reads_nothing() -> None:
    """Zeros that a stride puts between, and padding that a shape cuts off."""
    params = {"a": shape(3, 3, 1, 1), "b": shape(1, 1, 1, 1)}

    def between(params: Any, x: Any) -> Any:
        return fnn.conv_transpose(fnn.conv(x, params["a"]), params["b"], stride=2)

    assert [r.field for r in summary(between, params, shape(1, 5, 5, 1)).layers] == [(3, 3), None]
    beside = lambda w, x: fnn.conv(x.reshape(1, 8, 1), w, padding=((16, 0),))
    (layer,) = summary(beside, shape(3, 1, 1), shape(1, 2, 4)).layers
    assert (layer.output, layer.field) == ((1, 22, 1), None)
    head = lambda w, x: fnn.flatten(x) @ w  # no example reads as one
    (layer,) = summary(head, shape(32, 2), shape(0, 8, 4, 1)).layers
    assert (layer.name, layer.field) == ("params", (8, 4))


def test_each_call_is_a_layer() -> None:
    """Also where one line, one shape or one loop makes several."""
    model = lambda p, x: fnn.max_pool(fnn.max_pool(x * p, 2, stride=1, padding=1)[:, 1:, 1:], 2)
    size = summary(model, shape(1, 1, 1, 2), shape(1, 8, 8, 2))
    assert [(r.name, r.output) for r in size.layers] == [
        ("params", (1, 8, 8, 2)),
        ("max_pool", (1, 9, 9, 2)),
        ("max_pool", (1, 4, 4, 2)),
    ]


def test_branches_and_loops_of_unknown_length() -> None:
    def model(params: Any, x: Any, size: Any) -> Any:
        return lax.cond(size > 0, lambda: x @ params["a"] @ params["b"], lambda: 0 * x)

    params = {"a": shape(3, 4), "b": shape(4, 3)}
    size = summary(model, params, shape(2, 3), S((), jnp.int32))
    assert size.total["multiply_adds"] == 2 * 2 * 12
    assert [layer.name for layer in size.layers] == ["a", "b"]

    def steps(w: Any, x: Any, size: Any) -> Any:
        several = lambda: lax.scan(lambda h, _: (h @ w[:, :3], None), x, length=5)[0]
        return lax.cond(size > 0, lambda: x @ w @ w.T, several)

    size = summary(steps, shape(3, 6), shape(2, 3), S((), jnp.int32))
    assert size.total["multiply_adds"] == 5 * 2 * 9  # more than 2 * 2 * 18

    scaled = lambda p, x: lax.cond(x.sum() > 0, lambda: x * p["s"], lambda: x)
    (layer,) = (size := summary(scaled, {"s": shape(1, 4)}, shape(3, 4))).layers
    assert (layer.weights, size.flops, size.unused) == (4, 12 + 11 + 1, ())  # the sum, and > 0

    def loop(w: Any, x: Any) -> Any:
        return lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)

    message = "fnn.analysis.summary: model: got a layer inside lax.while_loop; needed lax.scan"
    with pytest.raises(ValueError, match=message):
        summary(loop, shape(3, 3), shape(2, 3))
    wait = lambda w, x: lax.while_loop(lambda y: y.sum() < 9, lambda y: 2 * y, x @ w)
    assert summary(wait, shape(3, 3), shape(2, 3)).total["weights"] == 9


def test_what_another_branch_uses_is_used() -> None:
    def model(p: Any, x: Any) -> Any:
        inner = lambda p, x: lax.cond(x[0, 0] > 1, lambda: x + p["c"], lambda: x @ p["b"])
        return lax.cond(x.sum() > 0, inner, lambda p, x: x @ p["a"] @ p["a"], p, x)

    params = {"a": shape(3, 3), "b": shape(3, 3), "c": shape(1, 3), "d": shape(3)}
    size = summary(model, params, shape(2, 3))
    assert {layer.name for layer in size.layers} == {"a"}
    assert size.unused == ("d",)


def test_the_constants_of_a_model_are_not_kept() -> None:
    """They are gone with the model; the suite's collector is off."""

    def made() -> tuple[Any, Any]:
        constant = jnp.ones(5)
        return (lambda x: x + constant), weakref.ref(constant)

    model, constant = made()
    summary(model, jnp.ones(5))
    assert constant() is not None
    del model
    assert constant() is None


def test_arguments() -> None:
    def model(params: Any, x: Any, *, times: int, layer: Any) -> Any:
        for _ in range(times):
            x = layer(x, params)
        return x

    size = summary(model, jnp.ones((2, 2)), np.ones((1, 2), np.float32), times=3, layer=fnn.dense)
    assert [layer.weights for layer in size.layers] == [4, 0, 0]
    bare = summary(lambda p, x: fnn.dense(x, **p), dense(2, 3), shape(1, 2))
    assert [layer.name for layer in bare.layers] == ["b+w"]
    half = summary(lambda w, x: x @ w, S((2, 3), jnp.bfloat16), S((5, 2), jnp.bfloat16))
    assert half.total["bytes"] == 2 * 5 * 3
    assert summary(lambda p, x: x, {}, shape(2)).layers == ()
    small = str(summary(lambda w, x: x @ w, shape(4, 8), shape(11, 4))).splitlines()[-1]
    assert small.startswith("704 FLOP: 2 for a multiply-add")
    with pytest.raises(TypeError, match=r"analysis.summary: params\['w'\]: got float 1.0; needed"):
        summary(lambda p, x: x, {"w": 1.0}, shape(2))
    with pytest.raises(TypeError, match=r"analysis\.summary: model: got int 3; needed a function"):
        summary(3, {}, shape(2))
    alike = {"a": {"b": shape(2)}, "a/b": shape(1)}
    with pytest.raises(ValueError, match=r"analysis\.summary: params: got 2 arrays with the path"):
        summary(lambda p, x: x, alike, shape(2))
