"""What must see its updates added as they are: which nests are refused, and what the others do."""

import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fnn


def is_b(path: str) -> bool:
    return path == "b"


def after(optimizer: Any) -> Any:
    return fnn.chain(optimizer, fnn.average())


SGD = fnn.sgd(0.2)
LAST = {
    "average": after(SGD),
    "lookahead": fnn.lookahead(SGD, 2),
    "with_master_weights": fnn.with_master_weights(SGD),
}
# What passes on the updates of the optimizer inside.
THROUGH = {
    "itself": lambda opt: opt,
    "chain": lambda opt: fnn.chain(fnn.clip_by_value(100.0), opt),
    "accumulate": lambda opt: fnn.accumulate(opt, 1),
    "with_loss_scale": fnn.with_loss_scale,
    "with_master_weights": fnn.with_master_weights,
    "flat": fnn.flat,
    "freeze": lambda opt: fnn.freeze(opt, is_b),
    "partition": lambda opt: fnn.partition(
        {"a": opt, "b": None}, lambda path: "b" if is_b(path) else "a"
    ),
}
OTHERS = ("flat", "freeze")  # show their optimizer other leaves, of which an average is refused
NESTS = [(n, t) for n in LAST for t in THROUGH if (n, t) not in {("average", o) for o in OTHERS}]


@pytest.mark.parametrize(("name", "through"), NESTS)
def test_nothing_changes_the_updates_behind(name: str, through: str) -> None:
    """Slow and master parameters, and an average, would follow params that there never were."""
    opt = THROUGH[through](LAST[name])
    with pytest.raises(ValueError, match=rf"^fnn.chain: transforms\[0\]: got fnn.{name}; needed"):
        fnn.chain(opt, optax.scale(0.5))
    for refuses in (lambda opt: fnn.add_weight_decay(opt, 0.5), fnn.lookahead):
        with pytest.raises(ValueError, match=f"optimizer: got one that ends with fnn.{name}; need"):
            refuses(opt)


@pytest.mark.parametrize(
    ("outer", "name", "advice"),
    [
        ("lookahead", "lookahead", "one fnn.lookahead"),
        ("lookahead", "with_master_weights", "fnn.with_master_weights outside, around {}(...)"),
        ("lookahead", "average", "fnn.average behind it: fnn.chain({}(...), fnn.average())"),
        ("add_weight_decay", "lookahead", "fnn.lookahead outside, around {}(...)"),
        ("freeze", "average", "fnn.average behind it: fnn.chain({}(...), fnn.average())"),
        ("flat", "average", "fnn.average behind it: fnn.chain({}(...), fnn.average())"),
    ],
)
def test_the_advice_can_be_followed(outer: str, name: str, advice: str) -> None:
    around = {
        **THROUGH,
        "lookahead": fnn.lookahead,
        "add_weight_decay": lambda opt: fnn.add_weight_decay(opt, 0.5),
    }[outer]
    needed = advice.format(f"fnn.{outer}")
    message = f"fnn.{outer}: optimizer: got one that ends with fnn.{name}; needed {needed}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        around(LAST[name])
    if not needed.startswith("one "):
        again = {"average": after, "lookahead": fnn.lookahead}.get(name, fnn.with_master_weights)
        again(around(SGD))


@pytest.mark.parametrize("name", LAST)
def test_a_chain_of_averages_is_as_silent_as_one(name: str) -> None:
    averages = fnn.chain(fnn.average(), fnn.average(0.5))
    opt = fnn.chain(LAST[name], fnn.chain(averages))
    state = opt.init(jnp.zeros(2))
    assert len(state[1][0]) == 2
    with pytest.raises(ValueError, match=r"^fnn.chain: transforms\[0\]: got fnn.average; needed"):
        fnn.chain(averages, SGD)
    fnn.chain(fnn.chain(), SGD)  # an empty one is none


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("through", [t for n, t in NESTS if n == "average"])
def test_an_average_is_of_all_leaves(name: str, through: str) -> None:
    """`averaged` would hold None for those that are frozen."""
    message = rf"^fnn.{name}: optimizer: got one that ends with fnn.average; needed fnn.average beh"
    with pytest.raises(ValueError, match=message):
        THROUGH[name](THROUGH[through](LAST["average"]))


def walk(opt: Any) -> Any:
    """Down the parabolas x^2 / 2 from 8; b stays where it began."""

    def loss(params: Any, batch: Any) -> Any:
        return (params["a"] ** 2 + batch * params["b"] ** 2).sum() / 2

    params = {"a": jnp.array([8.0, -8.0]), "b": jnp.zeros(2)}
    state, step, seen = opt.init(params), fnn.make_step(loss, opt), []
    for _ in range(4):
        params, state, _ = step(params, state, 1.0)
        seen.append(params["a"].tolist())
    return seen, state


@pytest.mark.parametrize(("name", "through"), [nest for nest in NESTS if nest[0] != "average"])
def test_what_passes_updates_on_goes_around_and_an_average_behind(name: str, through: str) -> None:
    """By steps of a fifth, and half of the way at each second."""
    plain, halfway = 8 * 0.8 ** np.arange(1, 5), np.array([6.4, 6.56, 5.248, 5.3792])
    want = halfway if name == "lookahead" else plain
    seen, state = walk(after(THROUGH[through](LAST[name])))
    np.testing.assert_allclose(seen, np.outer(want, [1, -1]), rtol=1e-6)
    averaged = fnn.averaged(state)
    np.testing.assert_allclose(averaged["a"], want.mean() * np.array([1, -1]), rtol=1e-6)
    assert averaged["b"].tolist() == [0, 0]


def test_master_weights_go_around_lookahead_and_weight_decay() -> None:
    for inside in (fnn.lookahead(SGD, 2), fnn.add_weight_decay(SGD, 1.0)):
        assert walk(fnn.with_master_weights(inside))[0] == walk(inside)[0]


def test_they_are_pairs_as_other_optimizers_are() -> None:
    for opt in LAST.values():
        assert opt == fnn.Optimizer(*opt)
        assert hash(opt) == hash(fnn.Optimizer(*opt))
        assert type(opt._replace(init=opt.init)) is type(opt)
        leaves, structure = jax.tree.flatten(opt)
        assert jax.tree.unflatten(structure, leaves) == opt
        kind = type(opt)
        again = pickle.loads(pickle.dumps(kind(walk, is_b)))
        assert (type(again), again) == (kind, (walk, is_b))
