"""Activity and norms against NumPy, and the reference systems A3, B6 and D2."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from fnn.analysis import activity, first_nonfinite, gradients_at, norms, watch, watched
from tests.check import close


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


FORMULAS = {  # value and derivative, in NumPy
    "identity": (fnn.identity, lambda z: z, lambda z: np.ones_like(z)),
    "relu": (fnn.relu, lambda z: np.maximum(z, 0), lambda z: 1.0 * (z > 0)),
    "sigmoid": (fnn.sigmoid, sigmoid, lambda z: sigmoid(z) * sigmoid(-z)),
    "tanh": (fnn.tanh, np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "hard_tanh": (fnn.hard_tanh, lambda z: np.clip(z, -1, 1), lambda z: 1.0 * (np.abs(z) < 1)),
}


def oracle(z: np.ndarray, f: Any, slope: Any, bound: float, bins: int, limits: Any) -> Any:
    y = f(z)
    low, high = limits or (y.min(), y.max())
    count, edges = np.histogram(np.clip(y, low, high), bins, (low, high))
    dead = np.mean([np.all(unit <= 0) for unit in y.reshape(len(y), -1).T])
    saturated = np.mean(np.abs(slope(z)) < bound)
    return y.mean(), y.std(), dead, saturated, count / y.size, edges


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("limits", [None, (-0.75, 0.5)])
def test_activity(name: str, limits: Any) -> None:
    act, f, slope = FORMULAS[name]
    z = (4 * np.random.default_rng(0).standard_normal((6, 5, 7))).astype(np.float32)
    got = activity({"h": z}, act, bound=0.1, bins=7, limits=limits)["h"]
    want = oracle(z.astype(np.float64), f, slope, 0.1, 7, limits)
    for a, b in zip(got, want, strict=True):
        close(a, b, length=z.size)


def test_a_second_call_traces_nothing() -> None:
    z = {"whole": jnp.arange(6).reshape(3, 2), "half": jnp.ones((3, 2), jnp.bfloat16)}
    first = activity(z, fnn.relu, limits=(0.0, 1.0))
    with jax.no_tracing():
        again = activity(z, fnn.relu, limits=(0.0, 1.0))
    assert first["half"].mean == again["half"].mean == 1


def test_activity_composes() -> None:
    z = np.random.default_rng(1).standard_normal((4, 3, 8, 6)).astype(np.float32)

    def report(x: Any) -> Any:
        return activity({"a": x[0], "b": x[1]}, {"a": fnn.tanh, "b": fnn.relu})

    each = [report(x) for x in z]
    stacked, mapped = jax.jit(
        lambda z: (lax.scan(lambda carry, x: (carry, report(x)), 0, z)[1], jax.vmap(report)(z))
    )(z)
    for got in (stacked, mapped):
        jax.tree.map(lambda g, *e: close(g, np.stack(e), length=64), got, *each)
    time_first = activity({"a": z[:, 0]}, axis=1)["a"]
    assert float(time_first.dead) == np.mean(np.all(z[:, 0] <= 0, axis=1))
    both = activity({"a": z[:, 0]}, axis=[0, 1])["a"]  # type: ignore[arg-type]  # as a tuple
    assert float(both.dead) == np.mean(np.all(z[:, 0] <= 0, axis=(0, 1)))
    half = activity({"a": z[0].astype(jnp.bfloat16)})["a"]
    assert {x.dtype for x in half} == {jnp.dtype(jnp.float32)}
    with jax.enable_x64(True):
        assert {x.dtype for x in activity({"a": np.ones((2, 2))})["a"]} == {jnp.dtype(np.float64)}


def test_activity_at_the_edges() -> None:
    z = np.array([[np.inf, -np.inf, np.nan, 0.0, 1.0]], np.float32)
    got = activity({"h": z}, bins=2)["h"]
    np.testing.assert_allclose(got.histogram, [2 / 5, 2 / 5])  # NaN nowhere, infinities at the ends
    np.testing.assert_allclose(got.edges, [0, 0.5, 1])
    np.testing.assert_allclose(got.dead, 2 / 5)  # -inf and 0, not NaN
    assert np.isnan(got.mean)
    same = activity({"h": np.full((3, 2), 7, np.float32)}, bins=4)["h"]
    np.testing.assert_allclose(same.histogram, [1, 0, 0, 0])
    counts = activity({"h": np.array([[1, 2], [3, -4]])})["h"]
    assert (float(counts.mean), counts.mean.dtype) == (0.5, jnp.float32)
    assert activity({"h": np.zeros((0, 3), np.float32)})["h"].histogram.shape == (20,)
    for bound in (np.float32(0.5), np.float64(0.5)):  # a number of any kind
        jax.jit(lambda b: activity({"h": np.float32([[1, 1]])}, fnn.tanh, bound=b))(bound)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_activity_of_any_size(size: float) -> None:
    """No square overflows, or vanishes where the deviation does not."""
    z = np.random.default_rng(2).standard_normal((64, 8)).astype(np.float32)
    one = activity({"h": z})["h"]
    got = activity({"h": np.float32(size) * z})["h"]
    for name in ("mean", "std"):
        close(np.asarray(getattr(got, name)) / np.float32(size), getattr(one, name), length=z.size)
    np.testing.assert_array_equal(got.histogram, one.histogram)


def test_activity_of_the_largest_numbers() -> None:
    z = np.float32([[-3e38, 3e38], [-3e38, 3e38]])
    got = activity({"h": z}, bins=2)["h"]
    assert (float(got.mean), float(got.std)) == (0, float(z[0, 1]))
    assert got.histogram.tolist() == [0.5, 0.5]
    sums = activity({"h": z}, lambda z: jnp.abs(z))["h"]  # of more than a float32 can be
    assert (float(sums.mean), float(sums.std)) == (float(z[0, 1]), 0)
    wide = activity({"h": np.float32([[-2e38, 0, 1e38]])}, bins=2, limits=[-3e38, 3e38])["h"]
    np.testing.assert_allclose(wide.histogram, [1 / 3, 2 / 3], rtol=1e-6)
    far = activity({"h": z}, bins=2, limits=(-1e-30, 1e-30))["h"]
    assert far.histogram.tolist() == [0.5, 0.5]
    assert np.isposinf(activity({"h": np.float32([[np.inf, 1]])})["h"].mean)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto])
def test_meshes(kind: Any) -> None:
    mesh = jax.make_mesh((1, 1), ("a", "b"), axis_types=(kind,) * 2)
    z = np.arange(6, dtype=np.float32).reshape(2, 3)
    want = activity({"h": z})["h"]
    with jax.set_mesh(mesh):
        for spec in (jax.P("a"), jax.P(None, "b"), jax.P("a", "b")):
            sharded = jax.device_put(z, jax.NamedSharding(mesh, spec))
            jax.tree.map(close, activity({"h": sharded})["h"], want)
            seen = watched(lambda x: watch(x, "x"))(sharded)["x"]
            assert seen.sharding.is_equivalent_to(sharded.sharding, 2)


def test_B6_saturated_and_dead_units() -> None:
    """Units made to be dead or saturated, counted per layer from what a network marks."""
    bias = [-9, -9, 0, 0, 0, 9, 9, 9], [-9, -1, 9, 9]
    first = {"w": np.full((3, 8), 1 / 3, np.float32), "b": np.float32(bias[0])}
    second = {"w": np.full((8, 4), 1 / 8, np.float32), "b": np.float32(bias[1])}
    params = {"first": first, "second": second}
    x = np.random.default_rng(0).uniform(-1, 1, (64, 3)).astype(np.float32)

    def model(params: Any, x: Any) -> Any:
        x = fnn.sigmoid(watch(fnn.dense(x, **params["first"]), "first"))
        return fnn.sigmoid(watch(fnn.dense(x, **params["second"]), "second"))

    values = watched(model)(params, x)
    dead = {name: float(report.dead) for name, report in activity(values, fnn.relu).items()}
    assert dead == {"first": 2 / 8, "second": 2 / 4}
    report = activity(values, fnn.sigmoid, bound=0.01, bins=10, limits=(0, 1))
    saturated = {name: float(layer.saturated) for name, layer in report.items()}
    assert saturated == {"first": 5 / 8, "second": 3 / 4}
    ends = {name: np.asarray(layer.histogram)[[0, 9]] for name, layer in report.items()}
    np.testing.assert_allclose(ends["first"], [2 / 8, 3 / 8])
    np.testing.assert_allclose(ends["second"], [1 / 4, 2 / 4])


DEPTH, WIDTH = 8, 64


def deep(params: Any, x: Any) -> Any:
    """Fully connected, tanh, the sums s_l marked in a scan over the layers."""
    return lax.scan(lambda h, w: (jnp.tanh(watch(h @ w, "s")), None), x, params)[0]


def test_A3_variance_by_depth() -> None:
    """Var(s_l) shrinks below Xavier's scale, is kept by it, and is amplified above it."""
    keys = jax.random.split(jax.random.key(0), DEPTH)
    params = np.asarray(jax.vmap(lambda key: fnn.init_dense(key, WIDTH, WIDTH)["w"])(keys))
    assert params.var() == pytest.approx(2 / (WIDTH + WIDTH), rel=0.03)
    x = 0.1 * np.random.default_rng(1).standard_normal((256, WIDTH)).astype(np.float32)

    @jax.jit
    def stds(params: Any) -> Any:
        values = watched(deep)(params, x)["s"]
        return jax.vmap(lambda s: activity({"s": s})["s"].std)(values)

    kept, small, large = (np.asarray(stds(np.float32(s) * params)) for s in (1, 0.5, 2))
    assert 0.7 < kept[-1] / kept[0] <= 1.05
    np.testing.assert_allclose(small[1:] / small[:-1], 0.5, rtol=0.1)
    assert large[-1] > 5 * large[0]


def test_D2_gradients_vanish_by_depth() -> None:
    """Width 1, W = 1/2, b = 0, x = 1, y = 0: below 2^-(L-l), in truth about 8^-(L-l)."""
    layers = 10
    params = [{"w": np.float32([[0.5]]), "b": np.float32([0])} for _ in range(layers)]

    def loss(params: Any, x: Any) -> Any:
        for layer in params:
            x = fnn.sigmoid(fnn.dense(x, **layer))
        return ((0 - x) ** 2).sum()

    grads = jax.jit(jax.grad(loss))(params, np.float32([[1]]))
    report = norms(params, grads, grads)
    by_layer = np.array([report[f"{i}/w"].gradient for i in range(layers)])
    z = [1.0]
    for _ in range(layers):
        z.append(float(sigmoid(0.5 * z[-1])))
    want = [  # the product of w sigmoid' over the layers behind, in float64
        2 * z[-1] * z[i] * np.prod([a * (1 - a) for a in z[i + 1 :]]) * 0.5 ** (layers - 1 - i)
        for i in range(layers)
    ]
    np.testing.assert_allclose(by_layer, want, rtol=1e-5)
    distance = np.arange(layers)[::-1]
    assert (by_layer <= 2 * 2.0**-distance).all()
    rates = by_layer[2:] / by_layer[1:-1]
    assert ((rates > 7.5) & (rates < 9)).all()
    marked = gradients_at(lambda x: (watch(x, "first") * 0.5**layers).sum())(np.float32([1]))
    assert marked["first"].tolist() == [0.5**layers]


def test_D2_gradients_by_layer_over_training() -> None:
    """Over 40 steps, the first layer's over the last's: small for sigmoid, not for ReLU."""
    train, _ = fnn.data.digits()
    x, labels = fnn.flatten(train.x[:80]), train.y[:80]
    pairs = list(itertools.pairwise([64, 16, 16, 16, 16, 16, 10]))
    keys = jax.random.split(jax.random.key(0), len(pairs))
    he = fnn.initializers.he_normal()
    params = [fnn.init_dense(k, *pair, weights=he) for k, pair in zip(keys, pairs, strict=True)]

    def shares_of(act: Any) -> Any:
        def loss(params: Any) -> Any:
            h = x
            for layer in params[:-1]:
                h = act(fnn.dense(h, **layer))
            return fnn.cross_entropy(fnn.dense(h, **params[-1]), labels).mean()

        def step(params: Any, _: Any) -> Any:
            grads = jax.grad(loss)(params)
            updates = jax.tree.map(lambda g: -0.05 * g, grads)
            report = norms(params, grads, updates)
            first, last = (report[f"{i}/w"].gradient for i in (0, len(pairs) - 1))
            return jax.tree.map(jnp.add, params, updates), first / last

        return lax.scan(step, params, length=40)[1]

    for act, low, high in ((fnn.sigmoid, 0, 1 / 50), (fnn.relu, 1 / 4, 4)):
        shares = np.quantile(jax.jit(shares_of, static_argnums=0)(act), [0.1, 0.9])
        assert low < shares[0] <= shares[1] < high


def test_norms() -> None:
    rng = np.random.default_rng(0)
    params = {"conv": {"w": rng.standard_normal((3, 4)), "b": np.zeros(4)}, "list": [np.ones(2)]}
    grads = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)
    updates = jax.tree.map(lambda g: -0.1 * g, grads)
    args = jax.tree.map(lambda x: np.asarray(x, np.float32), (params, grads, updates))
    got = jax.jit(norms)(*args)
    assert got.keys() == {"conv/w", "conv/b", "list/0"}
    norm = np.linalg.norm
    for path, w, g, u in [
        ("conv/w", params["conv"]["w"], grads["conv"]["w"], updates["conv"]["w"]),
        ("list/0", params["list"][0], grads["list"][0], updates["list"][0]),
    ]:
        want = norm(w), norm(g), norm(u), norm(u) / norm(w)
        for a, b in zip(got[path], want, strict=True):
            close(a, b, length=12)
    assert got["conv/b"].ratio == np.inf
    zero = norms(*[{"b": np.zeros(2, np.float32)}] * 3)["b"]
    assert [float(x) for x in zero] == [0, 0, 0, 0]
    tiny = {"b": np.float32([3e-30, 4e-30]), "w": np.ones(2, np.float32)}  # no square is seen
    small = norms(tiny, tiny, tiny)["b"]
    close(np.asarray(small.weight) / np.float32(5e-30), 1, length=2)
    half = norms(*[np.ones(2, jnp.bfloat16)] * 3)
    assert list(half) == ["params"]
    assert half["params"].weight.dtype == jnp.float32
    pair = jax.jit(jax.vmap(norms))(*jax.tree.map(lambda x: np.stack([x, 2 * x]), args))
    close(pair["conv/w"].gradient, [norm(grads["conv"]["w"]) * s for s in (1, 2)], length=12)


def test_first_nonfinite() -> None:
    good = {"a": np.ones(2), "b": np.array([1e30, 1e-30]), "c": np.zeros((0, 3))}
    good = {name: x.astype(np.float32) for name, x in good.items()}
    assert first_nonfinite(norms(good, good, good)) is None  # though 1e30^2 overflows
    for value in (np.nan, np.inf, -np.inf):
        bad = {**good, "b": np.float32([1, value])}
        for place in range(3):
            args = [good] * 3
            args[place] = bad
            assert first_nonfinite(norms(*args)) == "b"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: activity(x), r"fnn.analysis.activity: values: got float32\[2,3\]; needed"),
        (lambda x: activity({"h": x}, bins=0), "fnn.analysis.activity: bins: got 0; needed"),
        (lambda x: activity({"h": x}, bound=0), "fnn.analysis.activity: bound: got 0; needed"),
        (lambda x: activity({"h": x}, limits=(1, 0)), r"activity: limits: got \(1, 0\); needed"),
        (lambda x: activity({"h": x}, limits=5), "activity: limits: got 5; needed a pair"),
        (lambda x: activity({"h": x}, limits=(-np.inf, np.inf)), "limits: got .* finite numbers"),
        (lambda x: activity({"h": x}, limits=(0, 1e39)), "limits: got .* finite numbers"),
        (
            lambda x: activity({"h": x}, limits=(1, 1 + 1e-9)),
            "limits: got .* low < high, in float32",
        ),
        (lambda x: activity({"h": x}, axis=0.5), "analysis.activity: axis: got 0.5; needed an int"),
        (lambda x: activity({"h": x}, axis=2), r"fnn.analysis.activity: h: got float32\[2,3\]"),
        (lambda x: activity({"h": x}, axis=(0, -2)), r"activity: h: got .* \(0, -2\), .* once"),
        (lambda x: activity({"h": [1.0]}), "fnn.analysis.activity: h: got list"),
        (lambda x: activity({"h": x}, {}), "fnn.analysis.activity: activation: got NoneType"),
        (
            lambda x: activity({"h": np.ones((2, 4), np.float32)}, fnn.glu),
            r"analysis.activity: activation: got float32\[2,2\]; needed .* float32\[2,4\]",
        ),
        (
            lambda x: activity({"h": x}, lambda z: z > 0),
            r"activation: got bool\[2,3\]; needed",
        ),
        (lambda x: activity({"h": x}, lambda z: (z, z)), "activation: got tuple .*; needed"),
        (lambda x: norms({"a": x}, {"a": x[0]}, {"a": x}), r"analysis.norms: grads\['a'\]: got"),
        (lambda x: norms({"a": x}, {"a": x}, {"b": x}), r"analysis.norms: updates\['a'\]: got not"),
        (
            lambda x: norms([np.arange(2, dtype=np.int32)], [x], [x]),
            r"analysis.norms: params\[0\]: got int32",
        ),
        (
            lambda x: norms(*[{"a/b": x, "a": {"b": x}}] * 3),
            "fnn.analysis.norms: params: got 2 arrays with the path 'a/b'; needed one",
        ),
        (lambda x: jax.jit(lambda x: first_nonfinite(norms(x, x, x)))(x), "report: got a traced"),
        (lambda x: first_nonfinite({"a": x}), r"nonfinite: report: got dict .*; needed what"),
        (lambda x: first_nonfinite([1]), r"first_nonfinite: report: got list \[1\]; needed what"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(np.ones((2, 3), np.float32))
