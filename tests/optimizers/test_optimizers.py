"""Optimizers: the same path as optax, PyTorch, ONNX and the texts, step by step."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from onnx.backend.test.case.node import adagrad as onnx_adagrad
from onnx.backend.test.case.node import adam as onnx_adam
from onnx.backend.test.case.node import momentum as onnx_momentum

import fnn
from tests.oracles import optimizers as oracle
from tests.recorded.record_torch_optimizers import FILE, STEPS

wave = fnn.schedules.cosine(1e-3, STEPS)
optax_wave = optax.cosine_decay_schedule(1e-3, STEPS)


def with_momentum(schedule: Any) -> Any:
    """optax's way to put the learning rate inside the velocity."""
    return optax.chain(optax.scale_by_learning_rate(schedule), optax.trace(0.9))


# Every optimizer and option that optax has: fnn's, optax's.
PAIRS: dict[str, tuple[Any, Any]] = {
    "sgd": (fnn.sgd(1e-3), optax.sgd(1e-3)),
    "sgd, schedule": (fnn.sgd(wave), optax.sgd(optax_wave)),
    "momentum": (fnn.momentum(1e-4), optax.sgd(1e-4, 0.9)),
    "momentum, schedule": (fnn.sgd(wave, momentum=0.5), optax.sgd(optax_wave, 0.5)),
    "rate inside": (fnn.momentum(lambda t: wave(t) / 4, rate_inside=True),
                    with_momentum(lambda t: optax_wave(t) / 4)),
    "nesterov": (fnn.nesterov(lambda t: wave(t) / 4), optax.sgd(lambda t: optax_wave(t) / 4, 0.9,
                                                                nesterov=True)),
    "adagrad": (fnn.adagrad(0.1), optax.adagrad(0.1)),
    "adagrad, options": (fnn.adagrad(0.1, initial=0.0, eps=1e-3),
                         optax.adagrad(0.1, initial_accumulator_value=0.0, eps=1e-3)),
    "rmsprop": (fnn.rmsprop(1e-3), optax.rmsprop(1e-3)),
    "rmsprop, outside": (fnn.rmsprop(1e-3, eps=0.1, eps_in_root=False, initial=0.5),
                         optax.rmsprop(1e-3, eps=0.1, eps_in_sqrt=False, initial_scale=0.5)),
    "rmsprop, centered": (fnn.rmsprop(1e-3, centered=True, eps=1.0),
                          optax.rmsprop(1e-3, centered=True, eps=1.0)),
    "rmsprop, momentum": (fnn.rmsprop(wave, momentum=0.5), optax.rmsprop(optax_wave, momentum=0.5)),
    "rmsprop, all": (
        fnn.rmsprop(wave, decay=0.8, eps=1e-3, centered=True, bias_correction=True, momentum=0.5,
                    nesterov=True),
        optax.rmsprop(optax_wave, 0.8, 1e-3, centered=True, bias_correction=True, momentum=0.5,
                      nesterov=True)),
    "adadelta": (fnn.adadelta(0.5, decay=0.8, eps=1e-3), optax.adadelta(0.5, 0.8, 1e-3)),
    "adam": (fnn.adam(1e-2), optax.adam(1e-2)),
    "adam, options": (fnn.adam(wave, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-2),
                      optax.adam(optax_wave, 0.8, 0.9, 1e-3, 1e-2)),
    "adamw": (fnn.adamw(wave, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-2, weight_decay=0.1),
              optax.adamw(optax_wave, 0.8, 0.9, 1e-3, 1e-2, weight_decay=0.1)),
    "amsgrad": (fnn.amsgrad(1e-2), optax.amsgrad(1e-2)),
    "amsgrad, raw": (fnn.amsgrad(1e-2, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-2, correct_mean=False,
                                 correct_square="never"),
                     optax.amsgrad(1e-2, 0.8, 0.9, 1e-3, 1e-2, bias_correction_mu=False,
                                   bias_correction_nu=False)),
    "adamax": (fnn.adamax(1e-2, b1=0.8, b2=0.9, eps=1e-3), optax.adamax(1e-2, 0.8, 0.9, 1e-3)),
    "nadam": (fnn.nadam(1e-2, b1=0.8, b2=0.9, eps=1e-3, eps_root=1e-2),
              optax.nadam(1e-2, 0.8, 0.9, 1e-3, 1e-2)),
    "nadamw": (fnn.adamw(1e-2, nesterov=True, weight_decay=0.1),
               optax.nadamw(1e-2, weight_decay=0.1)),
    "radam": (fnn.radam(1e-3), optax.radam(1e-3)),
    "radam, options": (fnn.radam(1e-3, b1=0.8, b2=0.99, eps=1e-3, eps_root=1e-2, threshold=7.0,
                                 nesterov=True),
                       optax.radam(1e-3, 0.8, 0.99, 1e-3, 1e-2, 7.0, nesterov=True)),
    "lion": (fnn.lion(1e-3, b1=0.8, b2=0.9, weight_decay=0.1),
             optax.lion(1e-3, 0.8, 0.9, weight_decay=0.1)),
    "muon": (fnn.muon(1e-2, weight_decay=0.1, rest_rate=0.5, eps=1e-12),
             optax.contrib.muon(1e-2, weight_decay=0.1, adam_weight_decay=0.2, eps=1e-12,
                                adam_learning_rate=5e-3)),
    "muon, options": (fnn.muon(1e-2, momentum=0.8, iterations=3, nesterov=False, b1=0.8, b2=0.9,
                               eps=1e-12),
                      optax.contrib.muon(1e-2, ns_steps=3, beta=0.8, nesterov=False, eps=1e-12,
                                         adam_b1=0.8, adam_b2=0.9)),
}  # fmt: skip
# What is the same for vectors alone: for matrices, eps is relative to the largest number.
VECTORS = {
    "muon, eps": (fnn.muon(1e-2, eps=1e-3), optax.contrib.muon(1e-2, eps=1e-3)),
}


def run(optimizers: list[Any], params: Any, gradient: Any, keep: int = 1) -> list[Any]:
    """Trajectories of all optimizers at once: one program, one scan, one trace."""
    traces = []

    def step(carry: Any, _: Any) -> Any:
        traces.append(1)
        points, states = carry
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *points)
        grads = jax.vmap(gradient)(stacked)
        moved = []
        for i, (optimizer, x, state) in enumerate(zip(optimizers, points, states, strict=True)):
            own = jax.tree.map(lambda g, i=i: g[i], grads)
            updates, state = optimizer.update(own, state, x)
            moved.append((jax.tree.map(jnp.add, x, updates), state))
        return tuple(zip(*moved, strict=True)), points

    @jax.jit
    def program(points: Any, states: Any) -> Any:
        return lax.scan(step, (points, states), length=STEPS + 1)[1]

    points = tuple(params for _ in optimizers)
    states = jax.jit(lambda params: tuple(o.init(params) for o in optimizers))(params)
    paths = program(points, states)
    assert len(traces) == 1
    return [jax.tree.map(lambda x: np.asarray(x)[::keep], path) for path in paths]


def apart(got: Any, want: Any) -> float:
    """Largest difference of two trajectories, each number relative to the path that it takes."""
    return max(
        float((np.abs(g - w).max(0) / np.abs(w).max(0)).max())
        for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    )


def reference(p: Any) -> Any:
    return jnp.stack(oracle.gradient(p))


def assert_same(names: Any, got: list[Any], want: list[Any]) -> None:
    errors = {n: apart(g, w) for n, g, w in zip(names, got, want, strict=True)}
    assert all(e <= 1e-6 for e in errors.values()), {n: e for n, e in errors.items() if e > 1e-6}


# What optax calls otherwise.
RENAMED = {
    "correct_mean": "bias_correction_mu",
    "eps_in_root": "eps_in_sqrt",
    "initial": {"adagrad": "initial_accumulator_value", "rmsprop": "initial_scale"},
    "decay": {"adadelta": "rho", "rmsprop": "decay"},
    "momentum": {"muon": "beta"},
    "iterations": "ns_steps",
    "b1": {"muon": "adam_b1"},
    "b2": {"muon": "adam_b2"},
}


def test_defaults_are_those_of_optax() -> None:
    compared = 0
    for name in ("sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamw", "amsgrad", "adamax",
                 "nadam", "radam", "lion", "muon"):  # fmt: skip
        theirs = inspect.signature(getattr(optax, name, None) or optax.contrib.muon).parameters
        for key, mine in inspect.signature(getattr(fnn, name)).parameters.items():
            other = RENAMED.get(key, key)
            other = other if isinstance(other, str) else other.get(name, key)
            if key != "learning_rate" and other in theirs:
                assert mine.default == (theirs[other].default or type(mine.default)()), (name, key)
                compared += 1
    assert compared == 55


@functools.cache
def reference_paths() -> list[Any]:
    """Of fnn's optimizers, then of optax's."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # which optax relies on
        mine, theirs = zip(*(PAIRS | VECTORS).values(), strict=True)
        return run([*mine, *theirs], jnp.asarray(oracle.START), reference)


def test_optax_on_the_reference_systems() -> None:
    paths, pairs = reference_paths(), PAIRS | VECTORS
    assert all(np.isfinite(path).all() and np.ptp(path, 0).min() > 1e-3 for path in paths)
    assert_same(pairs, paths[: len(pairs)], paths[len(pairs) :])


def test_optax_on_a_cnn() -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        rng = np.random.default_rng(0)
        x, y = jnp.asarray(rng.standard_normal((4, 5, 5, 1))), jnp.asarray([0, 1, 2, 1])
        params = {
            "conv": {"w": rng.standard_normal((3, 3, 1, 2)), "b": np.zeros(2)},
            "head": {"w": rng.standard_normal((50, 3)) / 7},
        }

        def loss(params: Any) -> Any:
            hidden = jnp.tanh(fnn.conv_lax(x, **params["conv"])).reshape(4, -1)
            logits = jax.nn.log_softmax(hidden @ params["head"]["w"])
            return -logits[jnp.arange(4), y].mean()

        mine, theirs = zip(*PAIRS.values(), strict=True)
        paths = run([*mine, *theirs], jax.tree.map(jnp.asarray, params), jax.grad(loss), 20)
        assert_same(PAIRS, paths[: len(PAIRS)], paths[len(PAIRS) :])


def test_pytorch() -> None:
    """PyTorch's defaults and its conventions, one argument away from ours."""
    ours = {
        "sgd": fnn.sgd(1e-3),
        "momentum": fnn.sgd(1e-4, momentum=0.9),
        "nesterov": fnn.sgd(1e-4, momentum=0.9, nesterov=True),
        "l2": fnn.chain(fnn.l2(0.1), fnn.sgd(1e-4, momentum=0.9)),
        "adagrad": fnn.adagrad(0.1, initial=0.0, eps=1e-10, eps_in_root=False),
        "rmsprop": fnn.rmsprop(1e-2, decay=0.99, eps_in_root=False),
        "rmsprop_centered": fnn.rmsprop(1e-2, decay=0.99, eps_in_root=False, centered=True),
        "rmsprop_momentum": fnn.rmsprop(
            1e-3, decay=0.99, eps_in_root=False, momentum=0.9, rate_inside=False
        ),
        "adadelta": fnn.adadelta(1.0),
        "adam": fnn.adam(0.1),
        "adamw": fnn.adamw(0.1, weight_decay=0.01),
        "amsgrad": fnn.amsgrad(0.1, correct_square="after"),
        "adamax": fnn.adamax(0.1),
        "nadam": fnn.nadam(0.1, momentum_decay=0.004),
        "radam": fnn.radam(1e-3, eps=1e-3, eps_before_correction=True),
    }
    recorded = np.load(FILE)
    assert set(recorded) - {"version"} == set(ours)
    with jax.enable_x64(True):
        paths = run(list(ours.values()), jnp.asarray(oracle.START), reference, 10)
    assert_same(ours, paths, [recorded[name] for name in ours])


def test_A2_B9_B10_E1_E3_E5_E6_E7_E8_texts() -> None:
    """The formulas that the courses print, each with the conventions that they print it with.

    Steps are small enough not to bounce across Rosenbrock's valley, where rounding would grow. A
    large epsilon shows on which side of a root it stands.
    """
    f = functools.partial

    def inverse(t: int) -> float:
        return 1e-3 / t

    def root(t: int) -> float:
        return 1e-3 / np.sqrt(t)

    cases = {
        "descent": (fnn.sgd(1e-3), f(oracle.descent, eta=1e-3)),
        "eta / t": (fnn.sgd(fnn.schedules.power(1e-3, -1)), f(oracle.decayed, rate=inverse)),
        "eta / sqrt(t)": (fnn.sgd(fnn.schedules.power(1e-3, -0.5)), f(oracle.decayed, rate=root)),
        "eta a^t": (
            fnn.sgd(fnn.schedules.exponential(1e-3 * 0.99, 0.99)),
            f(oracle.decayed, rate=lambda t: 1e-3 * 0.99**t),
        ),
        "ball": (fnn.momentum(1e-4, 1 - 10 * 0.01), f(oracle.ball, friction=10.0, e=0.01)),
        "velocity": (
            fnn.momentum(fnn.schedules.power(1e-3, -0.5), 0.8, rate_inside=True),
            f(oracle.velocity, mu=0.8, rate=root),
        ),
        "nesterov": (
            fnn.nesterov(fnn.schedules.power(1e-3, -0.5), 0.8, rate_inside=True),
            f(oracle.nesterov, mu=0.8, rate=root),
        ),
        "adagrad": (
            fnn.adagrad(0.4, initial=0.0, eps=1e-2, eps_in_root=False),
            f(oracle.adagrad, eta=0.4, eps=1e-2),
        ),
        "rmsprop": (
            fnn.rmsprop(1e-3, eps=1e-2),
            f(oracle.rmsprop, eta=1e-3, gamma=0.9, eps=1e-2),
        ),
        "adadelta": (
            fnn.adadelta(decay=0.9, eps=1e-2),
            f(oracle.adadelta, rho=0.9, eps=1e-2),
        ),
        "adam": (fnn.adam(0.1, eps=1e-2), f(oracle.adam, eta=0.1, b1=0.9, b2=0.999, eps=1e-2)),
    }
    with jax.enable_x64(True):
        paths = run([ours for ours, _ in cases.values()], jnp.asarray(oracle.START), reference)
    want = [loop(oracle.START, oracle.gradient, STEPS) for _, loop in cases.values()]
    assert_same(cases, paths, want)


def test_rate_inside_or_outside_the_velocity() -> None:
    """One path for a constant rate, two under a schedule."""
    sgd: Any = lambda rate, momentum, **options: fnn.sgd(rate, momentum=momentum, **options)
    for make in (fnn.momentum, fnn.nesterov, sgd):
        for rate, same in ((1e-4, True), (wave, False)):
            ours = [make(rate, 0.5, rate_inside=inside) for inside in (False, True)]
            with jax.enable_x64(True):
                outside, inside = run(ours, jnp.asarray(oracle.START), reference)
            assert (apart(inside, outside) < 1e-10) == same
            assert same or apart(inside, outside) > 1e-3


def test_one_compiled_step_called_from_python() -> None:
    """The same 200 points as inside the scan, from one trace."""
    traces = []
    mine = [optimizer for optimizer, _ in PAIRS.values()]

    @jax.jit
    def step(points: Any, states: Any) -> Any:
        traces.append(1)
        moved = []
        for optimizer, x, state in zip(mine, points, states, strict=True):
            updates, state = optimizer.update(reference(x), state, x)
            moved.append((x + updates, state))
        return tuple(zip(*moved, strict=True))

    with jax.enable_x64(True):
        start = jnp.asarray(oracle.START)
        states = jax.jit(lambda start: tuple(o.init(start) for o in mine))(start)
        points = (start,) * len(mine)
        for _ in range(STEPS):
            points, states = step(points, states)
    assert len(traces) == 1
    inside = reference_paths()[: len(mine)]
    errors = [apart(np.asarray(p)[None], path[-1:]) for p, path in zip(points, inside, strict=True)]
    assert max(errors) <= 1e-6, {n: e for n, e in zip(PAIRS, errors, strict=True) if e > 1e-6}


def onnx_step(optimizer: Any, x: Any, g: Any, moments: dict[str, Any], t: int) -> Any:
    state = optimizer.init(jnp.asarray(x))
    inner = jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "moments"))[0]
    inner = inner._replace(step=jnp.int32(t - 1), moments=jax.tree.map(jnp.asarray, moments))
    state = (*state[:-1], inner) if type(state) is tuple else inner
    updates, state = optimizer.update(jnp.asarray(g), state, jnp.asarray(x))
    return x + np.asarray(updates), (state[-1] if type(state) is tuple else state).moments


@jax.enable_x64(True)
def test_onnx() -> None:
    """The reference functions of ONNX's Adam, Adagrad and Momentum cases, at their inputs."""
    x, g = np.array([1.2, 2.8]), np.array([-0.94, -2.5])
    v, h = np.array([1.7, 3.6]), np.array([0.1, 0.1])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12)
    l2 = fnn.l2(0.001)
    for t in (1, 7):
        want = onnx_adam.apply_adam(0.1, t, x, g, v, h, 0.001, 0.0, 0.95, 0.85, 1e-2)
        adam = fnn.adam(0.1, b1=0.95, b2=0.85, eps=1e-2, eps_before_correction=True)
        got, moments = onnx_step(fnn.chain(l2, adam), x, g, {"mu": v, "nu": h}, t)
        for a, b in zip((got, moments["mu"], moments["nu"]), want, strict=True):
            close(a, b)
        want = onnx_adagrad.apply_adagrad(0.1, t - 1, x, g, h, 0.001, 1e-5, 0.1)
        adagrad = fnn.adagrad(0.1 / (1 + 0.1 * (t - 1)), eps=1e-5, eps_in_root=False)
        got, moments = onnx_step(fnn.chain(l2, adagrad), x, g, {"sum_of_squares": h}, t)
        close(got, want[0])
        close(moments["sum_of_squares"], want[1])
    for nesterov, apply in ((False, onnx_momentum.apply_momentum),
                            (True, onnx_momentum.apply_nesterov)):  # fmt: skip
        want = apply(0.1, 0, x, g, v, 0.001, 0.95, 1.0)
        sgd = fnn.sgd(0.1, momentum=0.95, nesterov=nesterov)
        got, moments = onnx_step(fnn.chain(l2, sgd), x, g, {"trace": v}, 1)
        close(got, want[0])
        close(moments["trace"], want[1])
