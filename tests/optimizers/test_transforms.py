"""Transforms and wrappers: against optax where it has them, their formulas where it has not."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fnn
from tests.optimizers.test_optimizer_state import ALL, nested

HALF = jnp.bfloat16


def tree(seed: int, dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(seed)
    return {
        "conv": {"w": jnp.asarray(rng.standard_normal((3, 2)), dtype), "b": None},
        "head": [jnp.asarray(rng.standard_normal(5), dtype), jnp.asarray(rng.normal(), dtype)],
    }


def walk(opt: Any, params: Any, steps: int = 20) -> Any:
    """Params and state after steps along gradients that depend on the params."""

    def step(carry: Any, t: Any) -> Any:
        params, state = carry
        grads = jax.tree.map(lambda x: 3 * jnp.sin(4 * x + t.astype(x.dtype)), params)
        updates, state = opt.update(grads, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), params

    return jax.jit(lambda p, s: lax.scan(step, (p, s), jnp.arange(steps))[0])(
        params, opt.init(params)
    )


def assert_same(got: Any, want: Any, rtol: float = 1e-12) -> None:
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol), got, want)


def w_mask(path: str) -> bool:
    return path.endswith("w")


OPTAX_MASK = {"conv": {"w": True, "b": None}, "head": [False, False]}
OPTAX = [
    optax.zero_nans(),
    optax.centralize(),
    optax.adaptive_grad_clip(0.5),
    optax.add_decayed_weights(0.1),
    optax.scale_by_rms(),
    optax.ema(0.5),
    optax.scale_by_trust_ratio(),
    optax.scale_by_schedule(lambda t: 1 / (2.0 + t)),
    optax.normalize_by_update_norm(),
    optax.masked(optax.clip_by_block_rms(0.5), OPTAX_MASK),
]
PAIRS = {
    "clip_by_global_norm": (
        fnn.chain(fnn.clip_by_global_norm(2.0), fnn.sgd(0.1)),
        optax.chain(optax.clip_by_global_norm(2.0), optax.sgd(0.1)),
    ),
    "clip_by_value": (
        fnn.chain(fnn.clip_by_value(0.5), fnn.adam(0.1)),
        optax.chain(optax.clip(0.5), optax.adam(0.1)),
    ),
    "l2": (
        fnn.chain(fnn.l2(0.3, mask=w_mask), fnn.adam(0.1)),
        optax.chain(optax.add_decayed_weights(0.3, OPTAX_MASK), optax.adam(0.1)),
    ),
    "add_weight_decay": (
        fnn.add_weight_decay(fnn.adam(0.1), 0.3, mask=w_mask),
        optax.adamw(0.1, weight_decay=0.3, mask=OPTAX_MASK),
    ),
    "freeze": (
        fnn.freeze(fnn.adamw(0.1), w_mask),
        optax.chain(optax.adamw(0.1), optax.transforms.freeze(OPTAX_MASK)),
    ),
    "optax in fnn": (
        fnn.chain(optax.clip(0.5), optax.trace(0.9), fnn.sgd(0.1)),
        optax.chain(optax.clip(0.5), optax.trace(0.9), optax.sgd(0.1)),
    ),
    "much of optax in fnn": (fnn.chain(*OPTAX, fnn.sgd(0.1)), optax.chain(*OPTAX, optax.sgd(0.1))),
    "fnn in optax": (
        optax.chain(fnn.clip_by_value(0.5), fnn.l2(0.3, mask=w_mask), fnn.adam(0.1)),
        optax.chain(optax.clip(0.5), optax.add_decayed_weights(0.3, OPTAX_MASK), optax.adam(0.1)),
    ),
    "fnn masked by optax": (
        optax.masked(fnn.adam(0.1), OPTAX_MASK),
        optax.masked(optax.adam(0.1), OPTAX_MASK),
    ),
}


@pytest.mark.parametrize(("mine", "theirs"), PAIRS.values(), ids=PAIRS)
def test_optax(mine: Any, theirs: Any) -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # which optax relies on
        got, want = (walk(opt, tree(0))[0] for opt in (mine, theirs))
        assert_same(got, want, 1e-9)
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0.1, got, tree(0))
        assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize("name", ["optax.chain", "fnn.chain"])
def test_every_optimizer_between_optax_transforms(name: str) -> None:
    """Clipped before and halved after, as it is alone on the clipped gradient."""
    chain = {"optax.chain": optax.chain, "fnn.chain": fnn.chain}[name]
    params = {"w": jnp.array([[2.0, -3.0], [0.5, 1.0]]), "b": None}
    grads, clipped = ({"w": jnp.array(g).reshape(2, 2), "b": None}
                      for g in ([4.0, -0.25, -9.0, 0.5], [1.0, -0.25, -1.0, 0.5]))  # fmt: skip

    @jax.jit
    def steps() -> Any:
        found = []
        for opt in ALL.values():
            inside = chain(optax.clip(1.0), opt, optax.scale(0.5))
            state, own = inside.init(params), opt.init(params)
            for _ in range(2):
                updates, state = inside.update(grads, state, params)
                want, own = opt.update(clipped, own, params)
            found.append((updates["w"], 0.5 * want["w"]))
        return found

    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        for opt, (got, want) in zip(ALL, steps(), strict=True):
            assert np.abs(want).min() > 0, opt
            np.testing.assert_allclose(got, want, rtol=1e-5, err_msg=opt)


def test_accumulate_is_optax_multi_steps() -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        theirs = optax.MultiSteps(optax.adam(0.1), 4, accumulator_dtype=jnp.float64)
        got, want = (walk(o, tree(0))[0] for o in (fnn.accumulate(fnn.adam(0.1), 4), theirs))
        assert_same(got, want, 1e-9)


@pytest.mark.parametrize("wrap", [fnn.accumulate, fnn.lookahead])
def test_a_count_beyond_an_int32_waits_for_ever(wrap: Any) -> None:
    opt, x = wrap(fnn.sgd(0.5), 10**10), jnp.ones(2)
    updates, state = jax.jit(opt.update)(x, opt.init(x), x)
    assert int(state.step) == 1
    assert updates.tolist() == ([0, 0] if wrap is fnn.accumulate else [-0.5, -0.5])


@pytest.mark.parametrize(("k", "calls", "last"), [(8, 6, 7), (2, 1, 4)])
@pytest.mark.parametrize("wrap", [fnn.accumulate, fnn.lookahead])
def test_a_run_goes_on_with_another_k(wrap: Any, k: int, calls: int, last: int) -> None:
    """With 4: what has lasted longer ends at once, and all gradients of a mean count alike."""
    x = jnp.zeros(1)
    state = wrap(fnn.sgd(0.5), k).init(x)
    for n in range(1, last + 1):
        opt = wrap(fnn.sgd(0.5), k if n <= calls else 4)
        updates, state = opt.update(jnp.array([float(n)]), state, x)
    step = (1 + last) / 2 if wrap is fnn.accumulate else last / 2  # half of the way
    np.testing.assert_allclose(updates, -0.5 * step, rtol=1e-6)
    assert int(state.step) == 0


def test_lookahead_is_optax_lookahead() -> None:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        params, (steps, k, rate) = tree(0), (10, 5, 0.3)
        got, state = walk(fnn.lookahead(fnn.adam(0.1), k, slow_rate=rate), params, steps)
        opt = optax.lookahead(optax.adam(0.1), k, rate)
        pair = optax.LookaheadParams.init_synced(params)
        theirs = opt.init(pair)

        @jax.jit
        def step(t: Any, theirs: Any, pair: Any) -> Any:
            grads = jax.tree.map(lambda x: 3 * jnp.sin(4 * x + t), pair.fast)
            updates, theirs = opt.update(grads, theirs, pair)
            return theirs, optax.apply_updates(pair, updates)

        for t in range(steps):
            theirs, pair = step(t, theirs, pair)
        assert_same(got, pair.fast, 1e-9)
        assert_same(state.slow, pair.slow, 1e-9)


def test_clipping_is_exact_below_the_limit_and_finite_at_zero() -> None:
    grads = {"a": jnp.array([0.6], HALF), "b": jnp.array([0.8])}
    same, _ = fnn.clip_by_global_norm(2.0).update(grads, ())
    assert_same(same, grads)
    assert same["a"].dtype == HALF
    zero = jax.tree.map(jnp.zeros_like, grads)
    assert_same(fnn.clip_by_global_norm(2.0).update(zero, ())[0], zero)
    many = jnp.full(4096, 1.0, HALF)  # a norm of 64, where a bfloat16 sum would stick at 16
    np.testing.assert_allclose(
        np.float32(fnn.clip_by_global_norm(32.0).update(many, ())[0]), 0.5, rtol=1e-2
    )


def test_polyak_average_is_the_mean_of_the_iterates() -> None:
    opt, x, iterates = fnn.chain(fnn.adam(0.1), fnn.average()), jnp.array([1.0, -2.0]), []
    state = opt.init(x)
    for _ in range(7):
        updates, state = opt.update(jnp.sin(x), state, x)
        x = x + updates
        iterates.append(x)
    np.testing.assert_allclose(fnn.averaged(state), jnp.stack(iterates).mean(0), rtol=1e-6)


def test_nothing_stands_behind_an_average() -> None:
    """It would add gradients, or updates that others change after it, to the params."""
    message = r"^fnn.chain: transforms\[0\]: got fnn.average; needed it last, behind all"
    for behind in (fnn.adam(0.1), optax.scale(0.5)):
        with pytest.raises(ValueError, match=message):
            fnn.chain(fnn.average(), behind)


def test_two_averages_stand_at_the_end() -> None:
    """Neither changes an update, so that both see what is added."""
    opt, x = fnn.chain(fnn.sgd(1.0), fnn.average(), fnn.average(0.5)), jnp.array([8.0])
    _, (_, mean, moving) = opt.update(jnp.array([2.0]), opt.init(x), x)
    assert (mean.average.tolist(), moving.average.tolist()) == ([6.0], [7.0])


def test_nothing_stands_behind_an_average_inside() -> None:
    inside = fnn.chain(fnn.sgd(1.0), fnn.average())
    for chain in (inside, fnn.chain(fnn.clip_by_value(1.0), inside), fnn.chain(inside)):
        fnn.chain(chain, fnn.average())
        with pytest.raises(ValueError, match=r"^fnn.chain: transforms\[0\]: got fnn.average; need"):
            fnn.chain(chain, optax.scale(0.5))
    message = r"^fnn.add_weight_decay: optimizer: got one that ends with fnn.average; needed fnn.a"
    with pytest.raises(ValueError, match=message):
        fnn.add_weight_decay(inside, 0.5)
    fnn.chain(fnn.add_weight_decay(fnn.sgd(1.0), 0.5), fnn.average())


def test_exponential_average() -> None:
    opt, x = fnn.chain(fnn.sgd(1.0), fnn.average(0.75)), jnp.array([8.0])
    state = opt.init(x)
    want = 8.0
    for _ in range(5):
        updates, state = opt.update(jnp.array([1.0]), state, x)
        x = x + updates
        want = 0.75 * want + 0.25 * float(x[0])
    np.testing.assert_allclose(fnn.averaged(state), [want], rtol=1e-6)


def test_accumulated_steps_are_the_whole_batch_s() -> None:
    """k gradients of parts give the step of their mean, with one buffer of the gradients' size."""
    plain, params = fnn.adam(fnn.schedules.power(0.1, -1)), tree(0, np.float32)
    opt = fnn.accumulate(plain, 3)
    state, update = opt.init(params), jax.jit(opt.update)
    assert fnn.count(state) == fnn.count(plain.init(params)) + fnn.count(params) + 1  # and a step
    parts = [tree(seed, np.float32) for seed in (1, 2, 3)]
    for part in parts[:2]:
        updates, state = update(part, state, params)
        assert not any(np.any(u) for u in jax.tree.leaves(updates))
    updates, state = update(parts[2], state, params)
    mean = jax.tree.map(lambda *g: sum(g) / 3, *parts)
    want, plain_state = jax.jit(plain.update)(mean, plain.init(params))
    assert_same(updates, want, 1e-5)
    assert float(fnn.learning_rate(state)) == float(fnn.learning_rate(plain_state))
    assert not any(np.any(m) for m in jax.tree.leaves(state.mean))


@pytest.mark.parametrize("kind", ["Explicit", "Manual"])
def test_accumulate_on_a_mesh(kind: str) -> None:
    """Where types say how arrays are sharded, a step that waits has those of one that does not."""
    optimizer, x = fnn.accumulate(fnn.adamw(0.1), 2), jnp.ones((2, 3))
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType[kind.replace("Manual", "Auto")],))

    def two(x: Any) -> Any:
        (first, state), found = optimizer.update(x, optimizer.init(x), x), []
        found.append(first)
        return [*found, optimizer.update(x, state, x)[0]]

    spread = P("d")
    on = jax.shard_map(two, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=True)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, spread))
        got = jax.jit(on if kind == "Manual" else two)(placed)
    assert_same(got, two(x), 1e-6)


@pytest.mark.parametrize("spread", [P("d"), P()], ids=["varying", "replicated"])
@pytest.mark.parametrize(
    "optimizer",
    [
        fnn.newton(),
        fnn.newton(dense_up_to=0),
        fnn.diagonal_newton(samples=2, key=jax.random.key(0)),
        fnn.with_loss_scale(fnn.adam(0.1)),
        fnn.with_loss_scale(fnn.accumulate(fnn.adam(0.1), 2)),
    ],
    ids=["newton", "conjugate_gradients", "diagonal_newton", "with_loss_scale", "accumulate"],
)
def test_what_calls_the_loss_on_manual_axes(optimizer: Any, spread: P) -> None:
    """In a scan, where a step returns what varies as what it was given, and examples always do."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    params, x = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[2.0, 1.0], [1.0, 3.0]])
    step = fnn.make_step(lambda w, x: (x * w**4).sum(), optimizer)

    def run(params: Any, x: Any) -> Any:
        start = params, optimizer.init(params)
        return jax.lax.scan(lambda carry, _: (step(*carry, x)[:2], None), start, length=3)[0][0]

    on = jax.shard_map(run, mesh=mesh, in_specs=(spread, P("d")), out_specs=spread)
    assert_same(jax.jit(on)(params, x), jax.jit(run)(params, x), 1e-6)


def test_accumulate_offers_the_mean_as_the_gradient() -> None:
    def update(grads: Any, state: Any, params: Any = None, *, grad: Any) -> Any:
        return grad, state

    opt, x = fnn.accumulate(fnn.Optimizer(lambda params: (), update), 2), jnp.zeros(1)
    state = opt.init(x)
    for part in (1.0, 3.0):
        g = jnp.array([part])
        updates, state = opt.update(g, state, x, grad=g)
    assert updates.tolist() == [2.0]


@pytest.mark.parametrize(
    "asking",
    [
        fnn.newton(),
        fnn.diagonal_newton(),
        fnn.with_loss_scale(fnn.sgd(0.1)),
        fnn.freeze(fnn.newton(), lambda path: path == "b"),
    ],
    ids=["newton", "diagonal_newton", "with_loss_scale", "of a part"],
)
def test_accumulate_refuses_what_asks_for_the_loss(asking: Any) -> None:
    """That of the last batch is not the loss whose gradient the mean is."""
    start = {"a": jnp.zeros(()), "b": jnp.zeros(())}

    def step(k: int) -> Any:
        opt, params = fnn.accumulate(asking, k), jax.tree.map(jnp.copy, start)
        loss = lambda p, batch: batch * ((p["a"] - 1) ** 2 + (p["b"] - 1) ** 2) / 2
        return fnn.make_step(loss, opt)(params, opt.init(params), jnp.array(3.0))[0]

    message = r"^fnn\.accumulate: optimizer: got one that calls value_fn, the loss of the last"
    with pytest.raises(ValueError, match=message):
        step(2)
    assert step(1)["a"] > 0


def test_accumulate_keeps_the_dtypes_of_a_state() -> None:
    """Of gradients in float32, as `with_loss_scale` hands them on, optax makes float32 moments."""
    opt, w = fnn.with_loss_scale(fnn.accumulate(optax.adam(0.5), 2)), jnp.ones(3, jnp.float16)
    loss = lambda w, batch: (w.astype(jnp.float32) * batch).sum()
    step, state = fnn.make_step(loss, opt), opt.init(w)
    with jax.numpy_dtype_promotion("standard"):  # which optax relies on
        for _ in range(2):
            w, state, _ = step(w, state, jnp.ones(3))
    np.testing.assert_allclose(w, np.float16(0.5), rtol=1e-3)


def test_accumulate_sums_half_precision_in_single() -> None:
    opt, x = fnn.accumulate(fnn.sgd(1.0), 512), jnp.zeros(1, HALF)
    x, _ = walk_constant(opt, x, jnp.ones(1, HALF), 512)
    assert x.tolist() == [-1.0]
    assert x.dtype == HALF


def walk_constant(opt: Any, x: Any, g: Any, steps: int) -> Any:
    def step(carry: Any, _: Any) -> Any:
        x, state = carry
        updates, state = opt.update(g, state, x)
        return (x + updates, state), None

    return jax.jit(lambda x, s: lax.scan(step, (x, s), length=steps)[0])(x, opt.init(x))


def test_master_weights_follow_float32() -> None:
    """Steps below half a unit in the last place are lost without a master copy, not with it."""
    x, g, steps = jnp.array([1.0, -2.0, 300.0], HALF), jnp.array([1.0, 1.0, -1.0], HALF), 400
    alone, _ = walk_constant(fnn.adam(1e-3), x, g, steps)
    assert (alone == x).all()
    moved, state = walk_constant(fnn.with_master_weights(fnn.adam(1e-3)), x, g, steps)
    want, single = walk_constant(
        fnn.adam(1e-3), x.astype(jnp.float32), g.astype(jnp.float32), steps
    )
    assert_same(state.master, want)
    assert_same(state.inner.moments, single.moments)
    assert (moved == want.astype(HALF)).all()
    assert (moved.dtype, state.master.dtype) == (HALF, jnp.float32)


def test_a_master_beyond_the_range_of_its_params() -> None:
    """Takes them to the end of the range, also where one update is beyond it, and back again."""
    opt, x = fnn.with_master_weights(fnn.sgd(4.0)), jnp.array([6e4], jnp.float16)
    state, seen = opt.init(x), []
    for g in (-2500.0, 7500.0, 5e4, 0.0, -5e4, 0.0, jnp.inf):
        updates, state = opt.update(jnp.array([g], jnp.float16), state, x)
        x = x + updates
        seen.append(float(x[0]))
    # The master: 7e4, 4e4, -1.6e5 twice, 4e4 twice, -inf.
    assert seen == [65504, 40000, -25504, -65504, 0, 40000, -np.inf]


def test_a_line_search_on_master_weights() -> None:
    """The gradient at its start, the extra argument ``grad``, is in float32 as the others are."""
    opt, w = fnn.with_master_weights(optax.lbfgs()), jnp.ones(2, HALF)
    loss = lambda w, batch: ((w.astype(jnp.float32) - batch) ** 2).sum()
    step, state = fnn.make_step(loss, opt), opt.init(w)
    for _ in range(3):
        w, state, _ = step(w, state, jnp.array([2.0, -3.0]))
    assert w.tolist() == [2.0, -3.0]


def test_chain_hands_on_the_extra_arguments_that_each_takes() -> None:
    seen = {}

    def all_of_them(grads: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        seen["all"] = extra
        return grads, state

    def one(grads: Any, state: Any, params: Any = None, *, value: Any) -> Any:
        seen["one"] = value
        return grads, state

    def none(grads: Any, state: Any, params: Any = None) -> Any:
        return grads, state

    chain = fnn.chain(*[fnn.Optimizer(lambda p: (), u) for u in (all_of_them, one, none)])
    wrapped = fnn.accumulate(fnn.add_weight_decay(fnn.chain(chain, fnn.sgd(0.1)), 0.1), 1)
    whole = optax.chain(optax.GradientTransformationExtraArgs(*wrapped))
    x = jnp.ones(1)
    whole.update(x, whole.init(x), x, value=3.0, other=4.0)
    assert seen == {"all": {"value": 3.0, "other": 4.0}, "one": 3.0}


def test_masks_are_functions_of_the_path() -> None:
    params = nested(jnp.float32)
    seen: list[str] = []
    fnn.l2(1.0, mask=lambda path: not seen.append(path)).update(params, (), params)
    assert seen == ["a/w", "b/0/first", "b/0/second/0", "b/1/c"]
    opt = fnn.freeze(fnn.sgd(1.0), lambda path: path == "b/0/second/0")
    frozen, _ = opt.update(params, opt.init(params))
    assert not frozen["b"][0].second[0].any()
    assert frozen["b"][0].first.all()


def test_a_mask_that_selects_nothing_is_a_mistake() -> None:
    x = {"w": jnp.ones(2)}
    for opt, name in (
        (fnn.l2(0.1, mask=lambda path: path == "kernel"), "l2"),
        (fnn.adamw(0.1, mask=lambda path: path == "kernel"), "adamw"),
        (fnn.lion(0.1, mask=lambda path: path == "kernel"), "lion"),
        (fnn.muon(0.1, mask=lambda path: path == "kernel"), "muon"),
        (fnn.flat(fnn.adamw(0.1, mask=lambda path: path == "w")), "adamw"),
    ):
        message = rf"fnn.{name}: mask: got no leaf selected; needed true for one or more of"
        with pytest.raises(ValueError, match=message):
            opt.update(x, opt.init(x), x)


WRAPPERS = {
    "chain": (lambda opt: fnn.chain(fnn.clip_by_value(1.0), opt), r"transforms\[1\]"),
    "accumulate": (lambda opt: fnn.accumulate(opt, 2), "optimizer"),
    "lookahead": (fnn.lookahead, "optimizer"),
    "with_master_weights": (fnn.with_master_weights, "optimizer"),
    "with_loss_scale": (fnn.with_loss_scale, "optimizer"),
    "flat": (fnn.flat, "optimizer"),
    "add_weight_decay": (lambda opt: fnn.add_weight_decay(opt, 0.1), "optimizer"),
    "partition": (lambda opt: fnn.partition({"a": opt, "b": None}, str), r"optimizers\['a'\]"),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.parametrize("opt", [fnn.adam, 5], ids=["function", "number"])
def test_what_is_no_optimizer_is_refused_at_once(name: str, opt: Any) -> None:
    wrap, argument = WRAPPERS[name]
    needed = r"needed an object with init and update, such as fnn.adam\(1e-3\) or fnn.Optimizer\("
    with pytest.raises(TypeError, match=rf"^fnn.{name}: {argument}: got .*; {needed}"):
        wrap(opt)


def test_a_mask_that_is_no_function() -> None:
    """Such as optax's, a tree of bools."""
    for make, message in (
        (lambda: fnn.adamw(0.1, mask={"w": True}), r"adamw: mask: got dict {'w': True}"),
        (lambda: fnn.l2(0.1, mask="w"), "l2: mask: got str 'w'"),
    ):
        needed = "needed a function of a leaf's path, or None; to optax.inject_hyperparams name it "
        with pytest.raises(TypeError, match=rf"^fnn.{message}; {needed}among static_args"):
            make()


@pytest.mark.parametrize("found", [{"w": True}, 0, None, np.array([True, False]), jnp.array(True)])
@pytest.mark.parametrize("name", ["adamw", "l2", "freeze", "trees.select", "l1_penalty"])
def test_a_mask_that_returns_no_bool(name: str, found: Any) -> None:
    """Such as optax's masks, which are functions of params."""
    params, mask = {"w": jnp.ones(2), "b": jnp.ones(1)}, lambda path: found
    state = fnn.adam(0.1).init(params)
    call = {
        "adamw": lambda: fnn.adamw(0.1, mask=mask).update(params, state, params),
        "l2": lambda: fnn.l2(0.1, mask=mask).update(params, (), params),
        "freeze": lambda: fnn.freeze(fnn.sgd(0.1), mask).init(params),
        "trees.select": lambda: fnn.trees.select(params, mask),
        "l1_penalty": lambda: fnn.l1_penalty(params, mask=mask),
    }[name]
    message = rf"^fnn.{name}: mask: got .* for 'b'; needed True or False for the path of a leaf; bo"
    with pytest.raises(TypeError, match=message):
        call()


def test_a_mask_may_return_numpy_s_bool() -> None:
    params = {"w": jnp.ones(2), "b": jnp.ones(1)}
    kept = fnn.trees.select(params, lambda path: np.bool_(path == "w"))
    assert jax.tree.leaves(fnn.paths(kept)) == ["w"]


def test_functions_that_take_other_arguments_are_refused_at_once() -> None:
    pair: Any = lambda path, x: True
    calls: dict[str, Callable[[], Any]] = {
        "freeze: mask": lambda: fnn.freeze(fnn.sgd(0.1), pair),
        "partition: part": lambda: fnn.partition({"w": None}, pair),
        "adamw: mask": lambda: fnn.adamw(0.1, mask=pair),
        "l2: mask": lambda: fnn.l2(0.1, mask=pair),
        "trees.select: mask": lambda: fnn.trees.select({}, pair),
        "l1_penalty: mask": lambda: fnn.l1_penalty({"w": jnp.ones(1)}, mask=pair),
        "adam: learning_rate": lambda: fnn.adam(fnn.schedules.cosine),
        "newton: learning_rate": lambda: fnn.newton(lambda: 0.1),
        "schedules.delay: schedule": lambda: fnn.schedules.delay(fnn.schedules.linear, 5),
    }
    for place, call in calls.items():
        one = place.split()[1]
        with pytest.raises(TypeError, match=rf"^fnn.{place}: got {one}\(.*; needed {one}\(\w+\)$"):
            call()


@pytest.mark.parametrize("clip", [fnn.clip_by_value(0.5), fnn.clip_by_global_norm(0.5)])
@pytest.mark.parametrize("bad", [jnp.array([3, -4]), jnp.array([3j, 4.0])])
def test_clipping_of_other_numbers(clip: Any, bad: Any) -> None:
    message = r"fnn\.clip_by_\w+: grads\['w'\]: got \w+\[2\]; needed floating-point numbers"
    with pytest.raises(TypeError, match=message):
        clip.update({"w": bad}, ())


needing = {
    "l2": fnn.l2(0.1),
    "add_weight_decay": fnn.add_weight_decay(fnn.sgd(0.1), 0.1),
    "adamw": fnn.adamw(0.1),
    "average": fnn.average(),
    "lookahead": fnn.lookahead(fnn.sgd(0.1)),
    "with_master_weights": fnn.with_master_weights(fnn.sgd(0.1)),
}


@pytest.mark.parametrize("name", needing)
def test_params_are_needed_and_like_the_gradients(name: str) -> None:
    opt, x = needing[name], {"w": jnp.ones(2)}
    state = opt.init(x)
    with pytest.raises(ValueError, match=rf"fnn.{name}: params: got None; needed the parameters"):
        opt.update(x, state)
    with pytest.raises(ValueError, match=rf"fnn.{name}: grads\['w'\]: got float32\[3\]"):
        opt.update({"w": jnp.ones(3)}, state, x)


def test_other_errors() -> None:
    for make in (fnn.accumulate, fnn.lookahead):
        with pytest.raises(ValueError, match=rf"fnn.{make.__name__}: k: got 0; needed an int >= 1"):
            make(fnn.sgd(0.1), 0)
    with pytest.raises(ValueError, match=r"fnn.average: decay: got 1.0; needed a number in"):
        fnn.average(1.0)
    x = jnp.ones(1)
    two = fnn.chain(fnn.sgd(0.1), fnn.sgd(0.1))
    with pytest.raises(ValueError, match=r"fnn.chain: state: got 3 parts; needed the 2 that init"):
        two.update(x, ((), (), ()))
    with pytest.raises(ValueError, match=r"fnn.chain: state: got a State; needed the 2 that init"):
        two.update(x, fnn.sgd(0.1).init(x))
    with pytest.raises(ValueError, match=r"fnn.chain: state: got a dict; needed the 2 that init"):
        two.update(x, {})
    mean = fnn.average()
    with pytest.raises(
        ValueError, match=r"fnn.average: state.average: got float32\[2\]; needed the"
    ):
        mean.update(x, mean.init(jnp.ones(2)), x)
    decayed = fnn.add_weight_decay(optax.sgd(0.1), 0.1)
    with pytest.raises(ValueError, match=r"fnn.add_weight_decay: state: got 0 leaves"):
        decayed.update(x, decayed.init(x), x)
