"""Random calls of the public array functions against float64; invalid calls are refused.

A few dozen random calls in the suite; 10,000 with
``pytest --hypothesis-profile long tests/test_fuzz.py``.
"""

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import fnn
from tests.check import HALF, close
from tests.oracles import activations, conv, linear, losses, normalization, pooling, recurrent
from tests.table import ROWS, Row

LONG = settings.default is not None and settings.default.max_examples >= 10_000


def examples(of_each: int, tests: int) -> Any:
    """As many random calls in each of so many tests, or 10,000 together in the long profile."""
    return settings(
        max_examples=-(-10_000 // tests) if LONG else of_each,
        deadline=None,
        derandomize=not LONG,  # the suite is the same in every run
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class Call(NamedTuple):
    """A valid call, what computes the same in float64, and how long its sums are.

    Attributes:
        scale: the size of the largest term of a sum, where the sum itself may cancel.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...]
    config: dict[str, Any]
    oracle: Callable[..., Any]
    length: int = 1
    scale: float | None = None


class Draw:
    """Choices and arrays of one example."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.dtype = self.pick(jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        self.size = self.pick(1.0, 0.01, 8.0)

    def pick(self, *options: Any) -> Any:
        return self.data.draw(st.sampled_from(options))

    def array(self, x: Any) -> Any:
        return jax.device_put(np.asarray(x).astype(self.dtype))

    def real(self, *shape: int) -> Any:
        return self.array(self.size * self.rng.standard_normal(shape))

    def positive(self, *shape: int) -> Any:
        return self.array(self.rng.uniform(0.5, 2, shape))

    def shape(self, rank: int) -> tuple[int, ...]:
        return tuple(self.pick(1, 2, 3) for _ in range(rank))

    def mask(self, shape: tuple[int, ...]) -> Any:
        return self.pick(None, self.rng.random(shape) < 0.7)

    def maybe(self, x: Any) -> Any:
        return self.pick(None, x)


UNARY = tuple(n for n in activations.ORACLES if hasattr(fnn, n) and n != "celu")  # alpha is 2 there


def activation(d: Draw) -> Call:
    name, x = d.pick(*UNARY), d.real(*d.shape(2))
    return Call(getattr(fnn, name), (x,), {}, lambda x: activations.ORACLES[name](x)[0])


def configured(d: Draw) -> Call:
    x, a = d.real(*d.shape(2)), d.pick(0.25, 1.0, 3.0)
    fn, config, oracle = d.pick(
        (fnn.leaky_relu, {"negative_slope": a}, lambda x, **_: np.where(x > 0, x, a * x)),
        (fnn.elu, {"alpha": a}, lambda x, **_: activations._exponential(x, a, 1.0)[0]),
        (fnn.celu, {"alpha": a}, lambda x, **_: activations._exponential(x, a, a)[0]),
        (fnn.softplus, {"beta": a}, lambda x, **_: np.logaddexp(a * x, 0) / a),
        (fnn.squareplus, {"b": a}, lambda x, **_: (x + np.hypot(x, np.sqrt(a))) / 2),
        (fnn.hard_tanh, {"low": -a, "high": 2.0}, lambda x, **_: np.clip(x, -a, 2)),
        (fnn.gelu, {"approximate": True}, lambda x, **_: activations.gelu_tanh(x)[0]),
        (fnn.gelu, {"approximate": False},
         lambda x, **_: activations.gelu_exact(x.ravel())[0].reshape(x.shape)),
    )  # fmt: skip
    return Call(fn, (x,), config, oracle, scale=1 + float(np.abs(x).max()))


def gated(d: Draw) -> Call:
    if d.pick(True, False):
        x = d.real(2, 4)
        return Call(fnn.prelu, (x, d.real(4)), {}, lambda x, s: np.where(x > 0, x, s * x))
    axis = d.pick(0, -1)

    def halves(x: Any, axis: int) -> Any:
        a, b = np.split(x, 2, axis)
        return a * activations.sigmoid(b)[0]

    return Call(fnn.glu, (d.real(2, 4),), {"axis": axis}, halves)


def normalized(d: Draw) -> Call:
    shape = d.shape(3)
    x, where, axis = d.real(*shape), d.mask(shape), d.pick(0, 1, -1)
    fn = d.pick(fnn.softmax, fnn.log_softmax, fnn.logsumexp)

    def oracle(x: Any, axis: int, where: Any = None) -> Any:
        x = np.where(True if where is None else where, x, -np.inf)
        log_p = np.moveaxis(activations.log_softmax(np.moveaxis(x, axis, -1)), -1, axis)
        total = np.log(np.exp(x).sum(axis))
        return {"softmax": np.exp(log_p), "log_softmax": log_p, "logsumexp": total}[fn.__name__]

    scale = 1 + 2 * float(np.abs(x).max())
    return Call(fn, (x,), {"axis": axis, "where": where}, oracle, 3, scale)


def by_entry(d: Draw) -> Call:
    shape = d.shape(2)
    name = d.pick("squared_error", "absolute_error", "huber", "binary_cross_entropy", "hinge")
    x, y, where, config = d.real(*shape), d.real(*shape), d.mask(shape), {}
    if name == "huber":
        config = {"delta": d.pick(0.25, 1.0, 4.0)}
    if name == "binary_cross_entropy":
        y, config = d.array(d.rng.integers(0, 5, shape) / 4), {"pos_weight": d.pick(1.0, 3.0)}
    if name == "hinge":
        y = 2 * d.rng.integers(0, 2, shape) - 1

    def oracle(x: Any, y: Any, where: Any = None, **config: Any) -> Any:
        value = getattr(losses, name)(x, y, **config)[0]
        return value if where is None else np.where(where, value, 0)

    return Call(getattr(fnn, name), (x, y), {**config, "where": where}, oracle)


def of_classes(d: Draw) -> Call:
    n, k = d.pick(1, 3), d.pick(2, 5)
    x, labels = d.real(n, k), jax.device_put(d.rng.integers(0, k, n))
    soft, weights = d.array(d.rng.dirichlet(np.ones(k), n)), d.maybe(d.positive(k))
    scale, masked = 4 + 8 * float(np.abs(x).max()), d.pick({}, {"where": d.rng.random(n) < 0.5})
    fn, target, config, oracle = d.pick(
        (fnn.cross_entropy, labels,
         {"label_smoothing": d.pick(0.0, 0.25), "weights": weights, "ignore": d.pick(None, 0)},
         losses.cross_entropy),
        (fnn.cross_entropy, soft, {"where": d.maybe(d.rng.random((n, 1)) < 0.5)},
         losses.cross_entropy),
        (fnn.nll, labels, {"weights": weights, "ignore": d.pick(None, 1)}, losses.nll),
        (fnn.kl_divergence, soft, {}, losses.kl_divergence),
        (fnn.cosine_distance, d.real(n, k), {}, losses.cosine_distance),
        (fnn.accuracy, labels, masked,
         lambda x, y, where=True: (x.argmax(-1) == y) & where),
        (fnn.top_k_accuracy, labels, {"k": 2, **masked},
         lambda x, y, k, where=True: (ranks(x, y) < k) & where),
        (fnn.confusion_matrix, labels, masked, confusion),
        (fnn.perplexity, labels, {}, lambda x, y: np.exp(losses.cross_entropy(x, y).mean())),
    )  # fmt: skip
    if fn is fnn.perplexity:
        x = jnp.clip(x, -1, 1)
    return Call(fn, (x, target), config, oracle, k, scale)


def ranks(x: Any, labels: Any) -> Any:
    found = [np.argsort(-row, stable=True).tolist() for row in x]
    return np.array([row.index(label) for row, label in zip(found, labels, strict=True)])


def confusion(x: Any, labels: Any, where: Any = True) -> Any:
    counts = np.zeros((x.shape[-1], x.shape[-1]))
    np.add.at(counts, (labels, x.argmax(-1)), where)
    return counts


def penalty(d: Draw) -> Call:
    fn, term = d.pick((fnn.l1_penalty, np.abs), (fnn.l2_penalty, lambda w: w**2 / 2))
    return Call(fn, (d.real(*d.shape(2)),), {}, lambda w: term(w).sum(), 9)


def of_lines(d: Draw) -> Call:
    lead, i, o = d.shape(d.pick(1, 2)), d.pick(1, 3), d.pick(1, 2)
    if d.pick(True, False):
        x, w = d.real(*lead, i), d.real(i, o)
        scale = float(linear.dense(*(abs(np.float64(a)) for a in (x, w))).max()) + d.size
        return Call(fnn.dense, (x, w, d.maybe(d.real(o))), {}, linear.dense, i + 1, scale)
    if d.pick(True, False):
        ids = jax.device_put(d.rng.integers(-1, 5, lead))
        return Call(fnn.embed, (ids, d.real(4, o)), {}, linear.embed)
    return Call(fnn.flatten, (d.real(*lead, i),), {}, lambda x: x.reshape(len(x), -1))


CONVS = tuple(n for n in fnn.__all__ if n.startswith("conv") and n != "conv_matrix")


def convolution(d: Draw) -> Call:
    name, rank, groups = d.pick(*CONVS), d.pick(1, 2), d.pick(1, 2)
    winograd = "winograd" in name
    taps = tuple(d.pick(1, 2, 3) for _ in range(rank))
    config = {
        "stride": 1 if winograd else d.pick(1, 2),
        "dilation": d.pick(1, 2),
        "padding": d.pick("SAME", 4, [[5, 4]] * rank),
        "groups": groups,
    }
    spatial = tuple(d.pick(3, 4) for _ in range(rank))
    c_in, c_out = groups * d.pick(1, 2), groups * d.pick(1, 2)
    if name == "conv_transpose":
        config["padding"] = d.pick("SAME", 0)
        c_in, c_out = c_out, c_in
        x, w = d.real(2, *spatial, c_out), d.real(*taps, c_in // groups, c_out)
    else:
        x, w = d.real(2, *spatial, c_in), d.real(*taps, c_in // groups, c_out)

    def oracle(x: Any, w: Any, b: Any = None, **config: Any) -> Any:
        if name == "convolve":
            w = np.flip(w, tuple(range(rank)))
        return getattr(conv, name if name == "conv_transpose" else "conv")(x, w, b, **config)

    bound = oracle(*(abs(np.float64(a)) for a in (x, w)), **config).max(initial=0)
    b = d.maybe(d.real(c_in if name == "conv_transpose" else c_out))
    length = 64 if winograd or name in ("conv", "conv_fft") else int(np.prod(taps)) * c_in + 1
    fn = getattr(fnn, name)
    return Call(fn, (x, w, b), config, oracle, length, float(bound) + d.size)


POOLS = tuple(
    n for n in fnn.__all__ if re.fullmatch(r"(max|min|sum|avg|lp)_pool(_slices|_lax)?", n)
)


def pool(d: Draw) -> Call:
    name, rank = d.pick(*POOLS), d.pick(1, 2)
    kind = re.sub("_pool.*", "_pool", name)
    x = d.real(2, *(d.pick(4, 5) for _ in range(rank)), 2)
    config = {
        "window": tuple(d.pick(1, 2, 3) for _ in range(rank)),
        "stride": d.pick(None, 1, 2),
        "padding": d.pick("VALID", "SAME") if kind != "sum_pool" else "VALID",
        "ceil_mode": d.pick(True, False),
    }
    if kind == "lp_pool":
        config["p"] = d.pick(1, 2, 3)
    if kind == "avg_pool":
        config["count_include_pad"] = d.pick(True, False)
    scale = int(np.prod(config["window"])) * float(np.abs(x).max())
    return Call(getattr(fnn, name), (x,), config, getattr(pooling, kind), 9, scale)


def regions(d: Draw) -> Call:
    x, name = d.real(2, 4, 5, 2), d.pick("max", "avg")
    reduce = {"max": np.max, "avg": np.mean}[name]
    scale = float(np.abs(x).max())
    if d.pick(True, False):
        fn = getattr(fnn, f"global_{name}_pool")
        return Call(fn, (x,), {}, lambda x: reduce(x, (1, 2)), 20, scale)
    out = (d.pick(1, 2, 3), d.pick(1, 3, 5))

    def oracle(x: Any, out: Any) -> Any:
        blocks = [pooling.shares(i, o) for i, o in zip(x.shape[1:3], out, strict=True)]
        return pooling.by_blocks(x, blocks, lambda seen: reduce(seen, 0))

    return Call(getattr(fnn, f"adaptive_{name}_pool"), (x,), {"out": out}, oracle, 20, scale)


def norm(d: Draw) -> Call:
    x, c, eps = d.real(2, *d.shape(d.pick(1, 2)), 4), 4, {"eps": d.pick(1e-3, 0.1)}
    scale, bias = d.positive(c), d.real(c)
    fn, args, config = d.pick(
        (fnn.batch_norm, (scale, bias, bias, d.positive(c)), eps),
        (fnn.layer_norm, (scale, d.maybe(bias)), eps),
        (fnn.rms_norm, (scale,), eps),
        (fnn.group_norm, (scale, d.maybe(bias)), {"groups": d.pick(1, 2, 4), **eps}),
        (fnn.instance_norm, (scale, d.maybe(bias)), eps),
    )
    oracle = getattr(normalization, fn.__name__)
    return Call(fn, (x, *args), config, oracle, 64, 100 * (1 + d.size))


def recurrence(d: Draw) -> Call:
    name = d.pick("rnn", "lstm", "gru")
    n, time, f, units = d.pick(1, 2), d.pick(1, 3), d.pick(1, 2), d.pick(1, 2)
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[name]
    x, wx, wh = d.real(n, time, f), d.real(f, gates * units), d.real(units, gates * units)
    config = {"lengths": d.maybe(jax.device_put(d.rng.integers(0, time + 1, n))),
              "reverse": d.pick(True, False)}  # fmt: skip
    oracle = getattr(recurrent, name)
    return Call(getattr(fnn, name), (x, wx, wh, d.real(gates * units)), config, oracle, 4096, 1)


CASES = [activation, configured, gated, normalized, by_entry, of_classes, penalty, of_lines,
         convolution, pool, regions, norm, recurrence]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@examples(3, len(CASES))
@given(data=st.data())
def test_valid_calls(case: Callable[[Draw], Call], data: Any) -> None:
    with jax.enable_x64(True), np.errstate(all="ignore"):
        call = case(Draw(data))
        config = {k: v for k, v in call.config.items() if v is not None}
        got = jax.tree.leaves(call.fn(*call.args, **config))
        args, config = jax.tree.map(
            lambda a: np.asarray(a, np.float64) if is_float(a) else a, (call.args, config)
        )
        want = call.oracle(*(a for a in args if a is not None), **config)
        for a, b in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
            scale = call.scale
            if scale is not None and np.dtype(a.dtype) in HALF:  # computed wide, and rounded once
                scale = np.abs(b[np.isfinite(b)]).max(initial=0) + 1e-3 * scale
            close(a, b, length=call.length, scale=scale)


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(getattr(x, "dtype", bool), jnp.floating))


# Invalid calls: one argument of a row of the table is spoilt.

NOT_ARRAYS = [[1.0, 2.0], [[1]], "x", b"x", {"x": 1.0}, (1.0, 2.0), object(), np.array(["x"]),
              jnp.ones((4, 3), jnp.complex64), jax.random.key(0), print]  # fmt: skip
NOT_NUMBERS = ["1", [0.5], (1,), np.ones(2), 1j, True, {}, object(), float("nan"), None]
NOT_FLAGS = ["no", 0, 1.0, None, [True], (), {}, object(), jnp.array(True)]
NOT_OF_THIS_SHAPE = ["x", [1.0], {"x": 1.0}, object(), jax.random.key(0), np.ones(99, np.float32),
                     np.ones((7, 7, 7), np.float32), jnp.ones((), jnp.complex64)]  # fmt: skip
NOT_SIZES = [0, -1, 1.5, "2", True, (), [0], (1, 2, 3, 4, 5), (1.5,), {}, object()]
BAD: dict[str, list[Any]] = {
    **dict.fromkeys(("window", "stride", "dilation", "groups"), NOT_SIZES),
    "padding": ["FULL", "same", -1, 1.5, ((1,),), (1,) * 7, ((1, 2, 3),), {}, object(), True],
    "padding_mode": ["zero", 3, None, ("zeros",)],
    "output_padding": [-1, 1.5, "1", (1,) * 7, 99, object()],
    "spatial": [-1, 1.5, "5", (2,) * 5, object(), None],
    "out": NOT_SIZES,
    "blocks": [3, (1,), ((9,),), "x", object(), None],
    "reduce": ["median", 3, None],
    "k": [0, -1, 99, 1.5, "2", True, None],
    "p": [0, -1, "2", float("nan"), (2,), True, None],
    "axis": [7, -9, 1.5, "x", True, object()],
    "iterations": [-1, 1.5, "1", True, None],
    "ignore": [1.5, "x", True, (1,), object()],
    "padding_idx": [1.5, "x", True, (1,), object()],
    "where": ["x", [True], np.ones((9, 9), bool), 1.0, np.ones(1), object()],
    "mask": [3, "w", object()],
    "lengths": [[1], "x", np.ones((3, 3), int), np.ones(2), object()],
    "remat": [0, -1, 1.5, "1", object()],
    "reset": ["never", 3, None],
    "activation": [3, "tanh", None],
    "key": [0, 1.5, "0", [1, 2], np.ones(2), jax.random.split(jax.random.key(0)), object()],
    "label_smoothing": [-0.1, 1.5, "x", float("nan"), (0.1,), object()],
    "delta": [0, -1.0, *NOT_NUMBERS],
    "rate": [-0.1, 1.5, *NOT_NUMBERS],
    "eps": [-1.0, *NOT_NUMBERS],
    **dict.fromkeys(("weights", "pos_weight", "peephole", "state"), NOT_OF_THIS_SHAPE),
}


def is_complex(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.dtype == jnp.complex64


def wrong(row: Row) -> list[tuple[str, Any]]:
    """Every argument of a row's call with every value that it must not have."""
    parameters = list(inspect.signature(row.fn).parameters.values())
    arrays = [p.name for p in parameters[: len(row.args(np.random.default_rng(0)))]]
    bad_arrays = [b for b in NOT_ARRAYS if row.name != "flatten" or not is_complex(b)]
    found = [("no_such_argument", 1), *itertools.product(arrays, bad_arrays)]
    for p in parameters:
        if p.name not in arrays:
            by_kind = {float: NOT_NUMBERS, bool: NOT_FLAGS}.get(p.annotation, [])
            found += [(p.name, bad) for bad in BAD.get(p.name, by_kind)]
    return found


def spoilt(row: Row, name: str, bad: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a row's call with one of them spoilt."""
    args, config = list(row.args(np.random.default_rng(0))), dict(row.config)
    parameters = list(inspect.signature(row.fn).parameters)
    if name in parameters[: len(args)]:
        args[parameters.index(name)] = bad
    else:
        config[name] = bad
    return args, config


def said(row: Row, name: str, bad: Any) -> str:
    """The message by which a call is refused."""
    args, config = spoilt(row, name, bad)
    try:
        row.fn(*args, **config)
    except (ValueError, TypeError) as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_invalid_calls(row: Row) -> None:
    for name, bad in wrong(row):
        message = said(row, name, bad)
        assert re.match(rf"fnn\.{row.name}: {name}\b.*: got ", message), (name, bad, message)
