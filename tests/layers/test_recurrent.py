"""Recurrent layers against loops over examples and steps, in every option; and wrong calls."""

import contextlib
import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import fnn
from fnn.layers.recurrent import WITH_SLOPE
from tests.check import check, close
from tests.oracles import recurrent as loops

N, TIME, F, UNITS = 3, 5, 2, 4
BLOCKS = {"rnn": 1, "lstm": 4, "gru": 3}
ORACLES: dict[str, Any] = {"rnn": loops.rnn, "lstm": loops.lstm, "gru": loops.gru}
SOME = np.array([5, 0, 3], np.int32)


def arrays(kind: str, extra: bool, rng: np.random.Generator, sizes: Any = None) -> list[Any]:
    """x, wx, wh, b, and then bh of a GRU or the peepholes of an LSTM; the state's parts last."""
    n, time, f, units = sizes or (N, TIME, F, UNITS)
    columns = BLOCKS[kind] * units
    shapes = [(n, time, f), (f, columns), (units, columns), (columns,)]
    if extra:
        shapes.append((units,) if kind == "gru" else (3, units))
    shapes += [(n, units)] * (2 if kind == "lstm" else 1)
    scale = [1.0, 1.0, units**-0.5, *[1.0] * 9]
    return [rng.standard_normal(s) * a for s, a in zip(shapes, scale, strict=False)]


def results(kind: str, f: Any) -> Any:
    """A function of arrays, the state's parts last, whose results are one array."""

    def call(*args: Any, **config: Any) -> Any:
        parts = 2 if kind == "lstm" else 1
        state = args[-2:] if parts == 2 else args[-1]
        found = f(*args[:-parts], state=state, **config)
        np_or_jnp: Any = jnp if isinstance(found[0], jax.Array) else np
        return np_or_jnp.concatenate([a.ravel() for a in jax.tree.leaves(found)])

    return call


OPTIONS: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "rnn": ("rnn", False, {"lengths": SOME}),
    "rnn reverse": ("rnn", False, {"reverse": True}),
    "lstm": ("lstm", False, {}),
    "lstm reverse": ("lstm", False, {"lengths": SOME, "reverse": True}),
    "lstm peephole": ("lstm", True, {"lengths": SOME}),
    "gru": ("gru", True, {"lengths": SOME}),
    "gru reverse": ("gru", False, {"reverse": True}),
    "gru before": ("gru", True, {"lengths": SOME, "reverse": True, "reset": "before"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_value_and_gradients_against_the_oracle(name: str) -> None:
    kind, extra, config = OPTIONS[name]
    args = arrays(kind, extra, np.random.default_rng(zlib.crc32(name.encode())))
    args = [a.astype(np.float32) for a in args]
    fn, oracle = results(kind, getattr(fnn, kind)), results(kind, ORACLES[kind])
    check(fn, oracle, *args, length=TIME * (F + UNITS), batch=False, **config)


def test_an_activation_of_ones_own() -> None:
    x, wx, wh, b, h = (a.astype(np.float32) for a in arrays("rnn", False, np.random.default_rng(0)))
    y, _ = fnn.rnn(x, wx, wh, b, state=h, activation=lambda z: jnp.sin(z) / 2)
    want = loops.rnn(*map(np.float64, (x, wx, wh, b)), state=h, activation=lambda z: np.sin(z) / 2)
    close(y, want[0], length=F + UNITS)


@pytest.mark.parametrize("kind", BLOCKS)
def test_fuzz(kind: str) -> None:
    """Sizes, lengths and options at random: value against the loops, gradient against the scan."""
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    for trial in range(4):
        sizes = tuple(int(s) for s in rng.integers((1, 1, 1, 1), (5, 9, 12, 7)))
        args = [a.astype(np.float32) for a in arrays(kind, kind == "gru", rng, sizes)]
        config: dict[str, Any] = {"reverse": bool(rng.integers(2))}
        if trial % 2:
            config["lengths"] = rng.integers(0, sizes[1] + 1, sizes[0])
        if trial > 1:
            config["remat"] = int(rng.integers(1, sizes[1] + 2))
        fn, plain = (results(kind, getattr(fnn, kind + s)) for s in ("", "_scan"))
        want = results(kind, ORACLES[kind])(
            *map(np.float64, args), **{k: v for k, v in config.items() if k != "remat"}
        )
        g = rng.standard_normal(want.shape).astype(np.float32)

        length = sizes[1] * (sizes[2] + sizes[3])
        y, got, scanned = jax.jit(functools.partial(both, fn, plain, config))(args, g)
        close(y, want, length=length)
        scale = max(float(np.abs(b).max()) for b in scanned)
        for a, b in zip(got, scanned, strict=True):
            close(a, b, length=sizes[0] * length, scale=scale)


def both(fn: Any, plain: Any, config: dict[str, Any], args: Any, g: Any) -> tuple[Any, Any, Any]:
    """The value of fn, and the gradients of fn and of another that should have the same."""
    y, pull = jax.vjp(functools.partial(fn, **config), *args)
    _, other = jax.vjp(functools.partial(plain, **config), *args)
    return y, pull(g), other(g)


@pytest.mark.parametrize(
    ("kind", "options"), [*((kind, {}) for kind in BLOCKS), ("gru", {"reset": "before"})]
)
def test_the_cell_is_one_step(kind: str, options: dict[str, Any]) -> None:
    x, *rest = (a.astype(np.float32) for a in arrays(kind, kind != "rnn", np.random.default_rng(1)))
    parts = 2 if kind == "lstm" else 1
    weights, state = rest[:-parts], tuple(rest[-parts:]) if parts == 2 else rest[-1]
    cell = functools.partial(getattr(fnn, f"{kind}_cell"), **options)
    want, last = getattr(fnn, f"{kind}_scan")(x, *weights, state=state, **options)

    def step(state: Any, x: Any) -> Any:
        state = cell(x, *weights, state=state)
        return state, state[0] if parts == 2 else state

    got, y = lax.scan(step, state, np.swapaxes(x, 0, 1))
    close(np.swapaxes(y, 0, 1), want, length=F + UNITS)
    jax.tree.map(lambda a, b: close(a, b, length=F + UNITS), got, last)


@pytest.mark.parametrize("remat", [None, 2])
@pytest.mark.parametrize("kind", BLOCKS)
def test_axes_of_size_zero(kind: str, remat: int | None) -> None:
    fn = functools.partial(getattr(fnn, kind), remat=remat)
    sizes = ((0, 3, 2), (2, 0, 2), (2, 1, 0))
    rng = np.random.default_rng(0)
    cases = [[a.astype(np.float32) for a in arrays(kind, False, rng, (*s, 4))[:4]] for s in sizes]

    def value(x: Any, *weights: Any) -> Any:
        y, state = fn(x, *weights, lengths=jnp.zeros(x.shape[0], jnp.int32))
        return y.sum() + sum(s.sum() for s in jax.tree.leaves(state)), (y, state)

    gradient = jax.grad(value, (0, 1, 2, 3), has_aux=True)
    results = jax.jit(lambda cases: [gradient(*case) for case in cases])(cases)
    for (n, time, _), (grads, (y, state)) in zip(sizes, results, strict=True):
        assert y.shape == (n, time, 4)
        assert all(s.shape == (n, 4) for s in jax.tree.leaves(state))
        assert all(np.isfinite(g).all() for g in grads)


# Columns of wx, wh and b with which a layer of one unit adds to its state what comes in.
ADDING = {
    "rnn": ([1], [1], [0]),
    "lstm": ([0, 0, 1, 0], [0, 0, 0, 0], [9, 9, 0, 9]),
    "gru": ([0, 0, 1], [0, 0, 1], [9, -9, 0]),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_state_in_float32_through_half_precision(kind: str) -> None:
    """300 steps of a small push: a state in bfloat16 stops, one in float32 goes on."""
    x = np.full((1, 300, 1), 0.001, jnp.bfloat16)
    wx, wh, b = (np.array([row], jnp.bfloat16) for row in ADDING[kind])
    state: Any = np.zeros((1, 1), np.float32)
    state = (state, state) if kind == "lstm" else state
    half, last = getattr(fnn, kind)(x, wx, wh, b[0], state=state)
    assert half.dtype == jnp.bfloat16
    assert all(s.dtype == jnp.float32 for s in jax.tree.leaves(last))
    wide, _ = getattr(fnn, kind)(*(a.astype(np.float32) for a in (x, wx, wh, b[0])))
    close(half, wide)
    narrow, left = getattr(fnn, kind)(x, wx, wh, b[0])
    assert all(s.dtype == jnp.bfloat16 for s in jax.tree.leaves(left))
    assert abs(float(narrow[0, -1, 0]) - float(wide[0, -1, 0])) > 0.01


def test_bidirectional_runs_both_ways() -> None:
    rng = np.random.default_rng(2)
    x, *there = (a.astype(np.float32) for a in arrays("lstm", False, rng))
    _, *back = (a.astype(np.float32) for a in arrays("lstm", False, rng))
    names = ("wx", "wh", "b")
    params = [dict(zip(names, p, strict=False)) for p in (there, back)]
    state = ((there[3], there[4]), (back[3], back[4]))
    y, states = fnn.bidirectional(fnn.lstm, *params, x, state=state, lengths=SOME)
    for i, (p, s) in enumerate(zip(params, state, strict=True)):
        want, last = fnn.lstm(x, **p, state=s, lengths=SOME, reverse=i == 1)
        close(np.asarray(y)[..., i * UNITS : (i + 1) * UNITS], want)
        jax.tree.map(close, states[i], last)


def test_truncated_back_propagation_stops_where_the_state_is_cut() -> None:
    x, *weights = arrays("rnn", False, np.random.default_rng(0), (N, 6, F, UNITS))[:4]
    x, *weights = (a.astype(np.float32) for a in (x, *weights))

    def loss(x: Any, cut: bool) -> Any:
        _, state = fnn.rnn(x[:, :3], *weights)
        state = lax.stop_gradient(state) if cut else state
        return fnn.rnn(x[:, 3:], *weights, state=state)[0].sum()

    gradients = jax.jit(lambda x: [jax.grad(loss)(x, c) for c in (False, True)])
    whole, cut = map(np.asarray, gradients(x))
    assert (cut[:, :3] == 0).all()
    assert (whole[:, :3] != 0).all()
    close(cut[:, 3:], whole[:, 3:], length=F + UNITS)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("a_shape", [(N, TIME, F), (F,)])
def test_linear_recurrence(a_shape: tuple[int, ...], reverse: bool) -> None:
    rng = np.random.default_rng(3)
    shapes = ((N, TIME, F), a_shape, (N, F))
    args = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    check(
        lambda x, a, state, **c: fnn.linear_recurrence(x, a, state=state, **c),
        loops.linear,
        *args,
        length=TIME,
        batch=False,
        reverse=reverse,
    )


def test_a_linear_recurrence_over_a_symbolic_time_is_refused() -> None:
    n, time = jax.export.symbolic_shape("n, time")
    a = jnp.ones(3)
    for shape, fails in (((n, 4, 3), False), ((2, time, 3), True)):
        x = jax.ShapeDtypeStruct(shape, jnp.float32)
        traced = jax.export.export(jax.jit(lambda x: fnn.linear_recurrence(x, a)))
        said = r"fnn\.linear_recurrence: x: got float32\[2,time,3\]; needed a number, not a symbol"
        with pytest.raises(ValueError, match=said) if fails else contextlib.nullcontext():
            traced(x)


def test_the_gradient_of_a_factor_for_all_steps_is_summed_in_float32() -> None:
    """Two terms that cancel, neither of which is a float16."""
    x = jnp.array([[[6e4], [0]], [[6e4], [0]]], jnp.float16)

    def loss(a: Any) -> Any:
        h = fnn.linear_recurrence(x, a)[:, 1, 0].astype(jnp.float32)
        return (h * jnp.array([2.0, -2.0])).sum()

    assert jax.grad(loss)(jnp.zeros(1, jnp.float16)).tolist() == [0]


@pytest.mark.parametrize("time", [100, 1000, 10_000])
@pytest.mark.parametrize(("each", "most"), [(True, (2.5, 5.4)), (False, (1.25, 6.5))])
def test_the_memory_of_a_linear_recurrence_is_a_multiple_of_its_input(
    time: int, each: bool, most: tuple[float, float]
) -> None:
    x = jax.ShapeDtypeStruct((4, time, 8), jnp.float32)
    a = x if each else jax.ShapeDtypeStruct((8,), jnp.float32)
    gradient = jax.grad(lambda x, a: fnn.linear_recurrence(x, a).sum(), argnums=(0, 1))
    for function, times in zip((fnn.linear_recurrence, gradient), most, strict=True):
        memory = jax.jit(function).lower(x, a).compile().memory_analysis()
        assert memory.temp_size_in_bytes <= times * 4 * x.size


zeros = functools.partial(np.zeros, dtype=np.float32)
X, H = zeros((N, TIME, F)), zeros((N, UNITS))
WRONG: dict[str, tuple[str, Any, dict[str, Any], type[Exception], str]] = {
    "rank": ("lstm", X[0], {}, ValueError, r"x: got float32\[5,2\]; needed shape \(n, time, f\)"),
    "features": ("gru", X[..., :1], {}, ValueError, r"wx: .* needed shape \(1, 12\)"),
    "blocks": ("lstm", X, {"wh": zeros((4, 12))}, ValueError, r"wh: .*\(units, 4 units\)"),
    "bias": ("rnn", X, {"b": zeros(3)}, ValueError, r"b: .* needed shape \(4,\)"),
    "bh": ("gru", X, {"bh": zeros(12)}, ValueError, r"bh: .* needed shape \(4,\)"),
    "dtype": ("rnn", X, {"b": zeros(4, dtype=np.float16)}, TypeError, "b: .* the dtype of x"),
    "peephole": ("gru", X, {"peephole": zeros((3, 4))}, TypeError, "peephole: .* arguments"),
    "peephole shape": ("lstm", X, {"peephole": H[:2]}, ValueError, r"peephole: .* \(3, 4\)"),
    "state": ("rnn", X, {"state": H[:2]}, ValueError, r"state: .* needed shape \(3, 4\)"),
    "state dtype": ("gru", X, {"state": H.astype(np.float16)}, TypeError, "state: .* float32"),
    "no pair": ("lstm", X, {"state": H}, TypeError, r"state: .* the pair \(h, c\)"),
    "lengths dtype": ("rnn", X, {"lengths": zeros(N)}, TypeError, "lengths: .* integer"),
    "lengths shape": ("rnn", X, {"lengths": SOME[:2]}, ValueError, r"lengths: .* shape \(3,\)"),
    "lengths of text": ("gru", X, {"lengths": np.array(["a"] * N)}, TypeError,
                        "lengths: .* numbers"),
    "lengths of objects": ("rnn", X, {"lengths": np.array([None] * N)}, TypeError,
                           "lengths: .* numbers"),
    "lengths of floats": ("rnn", X, {"lengths": zeros(N) + 99}, TypeError, "lengths: .* integer"),
    "lengths of bools": ("rnn", X, {"lengths": zeros(N) > 0}, TypeError, "lengths: .* integer"),
    "lengths of times": ("rnn", X, {"lengths": SOME.astype("m8[s]")}, TypeError,
                         "lengths: .* numbers"),
    "lengths of keys": ("rnn", X, {"lengths": jax.random.split(jax.random.key(0), N)}, TypeError,
                        "lengths: .* numbers"),
    "lengths by step": ("rnn", X, {"lengths": np.full((N, TIME), 99)}, ValueError,
                        r"lengths: .* shape \(3,\)"),
    "too long": ("lstm", X, {"lengths": SOME + 1}, ValueError, "lengths: .* from 1 to 6; .* 0 to"),
    "negative": ("gru", X, {"lengths": SOME - 1}, ValueError, "lengths: .* from -1 to 4"),
    "remat": ("lstm", X, {"remat": 0}, ValueError, "remat: .* an int >= 1"),
    "activation": ("rnn", X, {"activation": jnp.sum}, ValueError,
                   r"activation: got one that makes float32\[\] of float32\[3,4\]; needed a func"),
    "softmax": ("rnn", X, {"activation": jax.nn.softmax}, ValueError,
                "activation: got one that takes no single number: .*; needed a function of each"),
    "flip": ("rnn", X, {"activation": lambda z: z[:, ::-1]}, ValueError,
             "activation: got one that takes no single number: .*; needed a function of each"),
    "of two": ("rnn", X, {"activation": lambda z, w: z}, ValueError,
               "activation: got one that takes no single number: .*; needed a function of each"),
    "bools": ("rnn", X, {"activation": lambda z: z > 0}, ValueError, r"activation: .* bool\[3,4\]"),
    "reset": ("gru", X, {"reset": "never"}, ValueError, "reset: .* 'after' or 'before'"),
    "kernel": ("lstm_scan", X, {"lengths": SOME + 1}, ValueError, "lengths: .* to 6"),
    "no GPU": ("lstm_cudnn", X, {}, ValueError, "x: .* on the cpu; .* GPU"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name: str) -> None:
    fn, x, given, kind, message = WRONG[name]
    columns = BLOCKS[fn.split("_")[0]] * UNITS
    weights = {"wx": zeros((F, columns)), "wh": zeros((UNITS, columns))}
    with pytest.raises(kind, match=rf"^fnn\.{fn}: {message}"):
        getattr(fnn, fn)(x, **{**weights, **given})


def test_wrong_calls_of_a_cell_and_of_the_linear_recurrence() -> None:
    w = zeros((UNITS, 4 * UNITS))
    with pytest.raises(ValueError, match=r"lstm_cell: x: .* needed shape \(n, f\)"):
        fnn.lstm_cell(X, w, w)
    with pytest.raises(TypeError, match=r"lstm_cell: state: .* pair"):
        fnn.lstm_cell(H, w, w, state=H)
    with pytest.raises(ValueError, match=r"rnn_cell: activation: got one that makes float32\[\]"):
        fnn.rnn_cell(H, w[:, :UNITS], w[:, :UNITS], activation=jnp.sum)
    with pytest.raises(ValueError, match=r"linear_recurrence: x: .* \(n, time, d\)"):
        fnn.linear_recurrence(zeros(F), X)
    with pytest.raises(ValueError, match=r"linear_recurrence: a: .* \(3, 5, 2\) or \(2,\)"):
        fnn.linear_recurrence(X, zeros(3))
    with pytest.raises(ValueError, match=r"linear_recurrence: state: .* \(3, 2\)"):
        fnn.linear_recurrence(X, zeros(F), state=H)
    with pytest.raises(TypeError, match=r"linear_recurrence: a: .* dtype of x"):
        fnn.linear_recurrence(X, zeros(F, dtype=np.float16))
    half, state = (zeros(s, dtype=np.float16) for s in (F, (N, F)))
    with pytest.raises(TypeError, match=r"state: got float16.* needed bfloat16 or float32 for x"):
        fnn.linear_recurrence(X.astype(jnp.bfloat16), half.astype(jnp.bfloat16), state=state)


GATED = {"wx": zeros((F, 12)), "wh": zeros((UNITS, 12))}
ASTRAY: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], str]] = {
    "no function": (3, (GATED, GATED, X), {}, "f: got int 3; needed a function such as fnn.gru"),
    "data first": (fnn.gru, (X, GATED, GATED), {}, r"forward: got float32.*; x stands last"),
    "no backward": (fnn.gru, (GATED, None, X), {}, "backward: got NoneType None; needed the dict"),
    "no state": (fnn.gru, (GATED, GATED, X), {"state": None}, "state: got None.*; needed the pair"),
    "one state": (fnn.gru, (GATED, GATED, X), {"state": (H,)}, "state: got tuple .* the pair"),
    "reverse": (fnn.gru, (GATED, GATED, X), {"reverse": True}, "reverse: got True; needed no such"),
}  # fmt: skip


@pytest.mark.parametrize("name", ASTRAY)
def test_wrong_calls_of_bidirectional(name: str) -> None:
    f, args, options, message = ASTRAY[name]
    with pytest.raises(TypeError, match=rf"^fnn\.bidirectional: {message}"):
        fnn.bidirectional(f, *args, **options)


@pytest.mark.parametrize("activation", [*WITH_SLOPE, jnp.sin])
def test_the_derivative_by_an_activation(activation: Any) -> None:
    x, w = (jnp.arange(6.0).reshape(2, 3, 1) - 2.5) / 5, jnp.ones((1, 1))

    def total(run: Any, w: Any) -> Any:
        return (run(x, w, -w, activation=activation)[0] ** 2).sum()

    got, want = (jax.grad(functools.partial(total, run))(w) for run in (fnn.rnn, fnn.rnn_scan))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    written = "name=run" in str(jax.make_jaxpr(functools.partial(total, fnn.rnn))(w))
    assert written == (activation is not jnp.sin)


@pytest.mark.parametrize(
    ("activation", "numpy"),
    [
        (lambda z: jax.pure_callback(np.sin, z, z, vmap_method="expand_dims"), np.sin),
        (lambda z: jnp.nextafter(z, jnp.zeros_like(z)), lambda z: z),
    ],
    ids=["callback", "no rule"],
)
def test_an_activation_that_cannot_be_differentiated(activation: Any, numpy: Any) -> None:
    """Its values are wanted alone."""
    x, w = jnp.ones((1, 2, 1)), jnp.ones((1, 1))
    close(fnn.rnn(x, w, 0 * w, activation=activation)[0], numpy(np.ones((1, 2, 1))))


def test_an_activation_that_joins_numbers_or_has_a_backward_rule_of_its_own() -> None:
    """Only large ones: by small ones it could not be told."""
    x, w, ct = 4e3 * jnp.arange(1.0, 5).reshape(4, 1, 1), jnp.ones((1, 1)), jnp.arange(4.0)
    clip = lambda z: z / jnp.maximum(1, jnp.abs(z).max() / 3e3)
    cut = jax.custom_vjp(jnp.tanh)
    cut.defvjp(lambda z: (jnp.tanh(z), z), lambda z, ct: (jnp.clip(ct, -1e5, 1e5) / 2,))
    for f in (clip, cut):
        slope = lambda run, f=f: jax.grad(
            lambda w: 1e6 * ct @ run(x, w, w, activation=f)[0].ravel()
        )
        np.testing.assert_array_equal(slope(fnn.rnn)(w), slope(fnn.rnn_scan)(w))


def test_an_activation_of_positive_numbers_while_nans_raise() -> None:
    x, w = jnp.ones((1, 2, 1)), jnp.ones((1, 1))
    with jax.debug_nans(True), jax.debug_infs(True):
        y = fnn.rnn(x, w, 0 * w, activation=lambda z: jnp.where(z > 0, jnp.log(z), z) + 1 / z)[0]
    assert y.ravel().tolist() == [1, 1]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_steep_activation_of_padded_steps(reverse: bool) -> None:
    """Behind the length its slope is infinite, and is not met, in no derivative."""
    x, one = jnp.array([[[4.6], [0.0]]]), jnp.ones((1, 1))

    @jax.jit
    def slopes(s: Any) -> Any:
        def of(x: Any, **lengths: Any) -> Any:
            steep = {"activation": lambda z: jnp.exp(s * z), "reverse": reverse, **lengths}
            first = jax.grad(lambda w: fnn.rnn(x, w, w * 0 + 1, **steep)[0].sum())
            return first(one), jax.grad(lambda w: first(w).sum())(one)

        return of(x, lengths=jnp.array([1])), of(x[:, :1])

    for got, want in zip(*slopes(1.0), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("remat", [2, 3, 4, 5])
def test_parts_of_the_time_without_jit(remat: int) -> None:
    x, *weights = (a.astype(np.float32) for a in arrays("lstm", False, np.random.default_rng(0)))
    x, weights = x[:, :4], weights[:3]
    want = fnn.lstm(x, *weights)[0]
    with jax.disable_jit():
        close(fnn.lstm(x, *weights, remat=remat)[0], want, length=F + UNITS)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_no_time_without_jit(kind: str) -> None:
    params = getattr(fnn, f"init_{kind}")(jax.random.key(0), 3, 4)
    x = jnp.ones((2, 0, 3))
    for options in ({}, {"remat": 2}, {"lengths": np.array([0, 0])}):
        want = getattr(fnn, kind)(x, **params, **options)
        with jax.disable_jit():
            got = getattr(fnn, kind)(x, **params, **options)
        jax.tree.map(np.testing.assert_array_equal, got, want)
        assert got[0].shape == (2, 0, 4)


def test_no_nan_where_lengths_are_right() -> None:
    x, *weights = (a.astype(np.float32) for a in arrays("lstm", False, np.random.default_rng(0)))
    with jax.disable_jit(), jax.debug_nans(True):
        fnn.lstm(x, *weights[:3], lengths=SOME)


@pytest.mark.parametrize("sharded", ["x", "state", "lengths"])
def test_one_sharded_operand_on_an_explicit_mesh(sharded: str) -> None:
    """The others are brought to its sharding, values and gradients."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    examples = jax.NamedSharding(mesh, jax.P("data"))
    rng = np.random.default_rng(0)
    for kind, units in (("rnn", 1), ("lstm", 5), ("gru", 1)):
        run, init = getattr(fnn, kind), getattr(fnn, f"init_{kind}")
        params = init(jax.random.key(0), 3, units)
        h = rng.normal(size=(8, units)).astype(np.float32)
        given = {
            "x": rng.normal(size=(8, 4, 3)).astype(np.float32),
            "state": (h, -h) if kind == "lstm" else h,
            "lengths": np.arange(8, dtype=np.int32) % 5,
        }

        def loss(params: Any, given: Any, run: Any = run) -> Any:
            return (run(**given, **params)[0] ** 2).sum()

        want = jax.grad(loss)(params, given)
        with jax.set_mesh(mesh):
            placed = given | {sharded: jax.device_put(given[sharded], examples)}
            got = jax.jit(jax.grad(loss))(params, placed)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, want)


def test_an_integer_state_is_read_as_floats() -> None:
    params = fnn.init_lstm(jax.random.key(0), 3, 2)
    x, zeros = jnp.ones((1, 2, 3)), jnp.zeros((1, 2), int)
    got, _ = fnn.lstm(x, **params, state=(zeros, zeros))
    np.testing.assert_array_equal(got, fnn.lstm(x, **params)[0])


@pytest.mark.parametrize("kind", BLOCKS)
def test_infinite_weights_meet_no_padding(kind: str) -> None:
    """At a real step they saturate; behind the length they meet zeros, and 0 inf is NaN."""
    x, w = jnp.ones((1, 2, 1)), jnp.ones((1, BLOCKS[kind]))
    run = lambda *w: getattr(fnn, kind)(x, *w, lengths=jnp.array([1]))[0].sum()
    for slope in jax.grad(run, (0, 1))(jnp.inf * w, w):
        np.testing.assert_array_equal(slope, 0)
