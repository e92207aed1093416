"""How public functions are made, and what is checked before they compute."""

import doctest
import functools
import inspect
import itertools
import pickle
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, PRNGKeyArray

import fnn
from fnn import checks
from fnn.checks import BELOW_ONE
from fnn.functions import checked, jitted, takes_key, variant
from fnn.static import frozen
from tests import docs

FUNCTIONS = [
    getattr(fnn, name)
    for name in fnn.__all__
    if callable(getattr(fnn, name)) and getattr(fnn, name).__module__.split(".")[0] == "fnn"
]


def test_the_example_of_every_public_function_is_run() -> None:
    """The doctests that pytest collects are those of all public functions."""
    finder = doctest.DocTestFinder()
    modules = {sys.modules[thing.__module__] for thing in FUNCTIONS}
    found = {test.name for module in modules for test in finder.find(module) if test.examples}
    for thing in FUNCTIONS:
        if not inspect.isclass(thing):
            assert f"{thing.__module__}.{thing.__name__}" in found, thing.__name__


@pytest.mark.parametrize("thing", FUNCTIONS, ids=lambda thing: thing.__name__)
def test_a_public_function_is_a_plain_function_to_tools(thing: Any) -> None:
    assert pickle.loads(pickle.dumps(thing)) is thing
    if not inspect.isclass(thing):
        hints, signature = typing.get_type_hints(thing), inspect.signature(thing)
        assert set(signature.parameters) | {"return"} == set(hints)
        assert inspect.isfunction(thing)


class Kernel(typing.NamedTuple):
    name: str
    factor: int


def run(name: str, kernel: Kernel, x: jax.Array, *, twice: bool) -> jax.Array:
    assert type(twice) is bool, name
    return x * (kernel.factor * (1 + twice))


@jitted(static=("twice",))
def scaled(x: jax.Array, *, twice: bool = False) -> jax.Array:
    """Scale x.

    >>> 1
    1
    """
    return run("scaled", Kernel("auto", 1), x, twice=twice)


scaled_more = variant(scaled, run, Kernel("more", 3), "by more", example="jnp.zeros(2)")


def test_a_variant_is_the_base_by_another_kernel() -> None:
    assert scaled_more(jnp.ones(2)).tolist() == [3, 3]
    assert scaled_more(x=jnp.ones(2), twice=True).tolist() == [6, 6]
    assert scaled_more.__name__ == scaled_more.__qualname__ == "scaled_more"
    assert scaled_more.__module__ == scaled.__module__
    assert inspect.signature(scaled_more) == inspect.signature(scaled)
    assert str(inspect.getdoc(scaled_more)).startswith("Scale x, by more.\n\nReturns:")
    assert "got, want = (f(jnp.zeros(2)) for f in (fnn.scaled_more, fnn.scaled))" in str(
        scaled_more.__doc__
    )
    assert pickle.loads(pickle.dumps(scaled_more)) is scaled_more
    with pytest.raises(TypeError, match="twicee"):
        scaled_more(jnp.ones(2), twicee=True)


# What `jitted` does with each kind of argument.

TRACES: list[Any] = []


@jitted(static=("axes", "rule"), ranges={"rate": BELOW_ONE})
def layer(
    x: Float[Array, "n c"],
    key: PRNGKeyArray | None = None,
    *,
    rate: float = 0.5,
    size: float | Float[Array, " c"] = 1.0,
    axes: tuple[int, ...] = (1,),
    rule: Callable[[Any], Any] = jnp.tanh,
) -> Float[Array, "n c"]:
    """Return something that shows what the arguments are to the program."""
    TRACES.append((type(axes), [type(a) for a in axes]))
    return rule(x).sum(axes, keepdims=True) * x * rate * jnp.asarray(size, x.dtype).reshape(1, -1)


X = np.float32([[1, 2], [3, 4]])


def traces_of(call: Callable[[], Any]) -> int:
    before = len(TRACES)
    call()
    return len(TRACES) - before


def test_static_arguments_are_plain_values() -> None:
    assert traces_of(lambda: layer(X, axes=(0, 1))) == 1
    assert TRACES[-1] == (tuple, [int, int])
    for same in ([0, 1], (np.int64(0), np.int8(1)), np.array([0, 1]), [np.int32(0), 1]):
        assert traces_of(lambda same=same: layer(X, axes=same)) == 0
    with pytest.raises(TypeError, match=r"fnn\.layer: axes: got dict .*; needed numbers, strings"):
        layer(X, axes={0: 1})
    with pytest.raises(TypeError, match=r"fnn\.layer: rule: got int 3; needed a function"):
        layer(X, rule=3)
    with pytest.raises(TypeError, match=r"fnn\.layer: axes: got int32\[\]; needed a Python value"):
        layer(X, axes=jnp.int32(1))


def test_equal_lambdas_are_one_program_and_changed_ones_are_not() -> None:
    assert traces_of(lambda: [layer(X, rule=lambda x: x + 1) for _ in range(5)]) == 1
    for shift in (1.0, 2.0, 1.0):
        want = (X + shift).sum(1, keepdims=True) * X / 2
        np.testing.assert_allclose(layer(X, rule=lambda x, shift=shift: x + shift), want)
    # Numbers are the same by their bits: 0.0 == -0.0, and no NaN equals itself.
    for zero in (0.0, -0.0, 0j, complex(0, -0.0)):
        assert traces_of(lambda zero=zero: layer(X, rule=lambda x: x * (1 + abs(zero)))) == 1
    assert traces_of(lambda: [layer(X, rule=lambda x, n=float("nan"): x * n) for _ in "ab"]) == 1
    for sign in (0.0, -0.0):
        rule = lambda x, sign=sign: jnp.copysign(x, sign)
        want = np.copysign(X, sign).sum(1, keepdims=True) * X / 2
        np.testing.assert_array_equal(layer(X, rule=rule), want)
    box = [1.0]
    for shift in (1.0, 2.0):
        box[0] = shift
        want = (X + shift).sum(1, keepdims=True) * X / 2
        np.testing.assert_allclose(layer(X, rule=lambda x: x + box[0]), want)
    shifted = jax.tree_util.Partial(lambda x: x + box[0])
    alike = jax.custom_jvp(functools.partial(lambda x: x + box[0]))
    alike.defjvps(lambda t, y, x: t)
    for held, shift in itertools.product((shifted, alike), (1.0, 2.0)):
        box[0] = shift
        want = (X + shift).sum(1, keepdims=True) * X / 2
        np.testing.assert_allclose(layer(X, rule=lambda x, held=held: held(x)), want)


def test_a_value_that_is_reached_by_an_attribute_or_an_import_may_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: Any = types.ModuleType("settings")
    monkeypatch.setitem(sys.modules, "settings", settings)

    def helper(x: Any) -> Any:
        return x + vars(helper)["shift"]

    def imports(x: Any) -> Any:
        from settings import shift

        return x + shift

    def later(x: Any) -> Any:
        def inside(x: Any) -> Any:
            from settings import moved  # a name that stands nowhere else

            return x + moved

        return inside(x)

    class Moves:
        def __init__(self, shift: float) -> None:
            self.shift = shift

        def __call__(self, x: Any) -> Any:
            return x + self.shift

    moves = Moves(0.0)
    for shift in (1.0, 2.0):
        settings.shift = settings.moved = vars(helper)["shift"] = moves.shift = shift
        want = (X + shift).sum(1, keepdims=True) * X / 2
        for reached in (helper, imports, later):
            rule = lambda x, reached=reached: reached(x)
            np.testing.assert_allclose(layer(X, rule=rule), want)
        np.testing.assert_allclose(layer(X, rule=moves.__call__), want)


class Shift(NamedTuple):
    """A rule that cannot change."""

    by: float

    def add(self, x: Any) -> Any:
        return x + self.by

    def twice(self) -> Any:
        return Shift(2 * self.by)


def test_methods_of_what_cannot_change_are_one_program() -> None:
    assert traces_of(lambda: [layer(X, rule=Shift(3.0).add) for _ in range(5)]) == 1
    assert traces_of(lambda: layer(X, rule=Shift(4.0).add)) == 1

    def rule(shift: float) -> Any:
        shifts = Shift(shift), Shift(shift)
        return lambda x: shifts[0].add(shifts[1].add(x))

    assert traces_of(lambda: [layer(X, rule=rule(5.0)) for _ in range(5)]) == 1
    assert traces_of(lambda: layer(X, rule=rule(6.0))) == 1


TABLE = {"by": 1.0}


class Scaled(Shift):
    """What it gives is read from a table and from the class, and may change."""

    more = 0.0

    @property
    def by_table(self) -> float:
        return TABLE["by"]

    @staticmethod
    def table() -> float:
        return TABLE["by"]

    @classmethod
    def of_class(cls) -> float:
        return cls.more

    def __mul__(self, x: Any) -> Any:
        return x * TABLE["by"]


def executed(by_table: str) -> Any:
    """A function of a namespace without a name."""
    names: dict[str, Any] = {"TABLE": TABLE}
    exec(f"def scale(x): return x * {by_table}", names)
    return names["scale"]


class OfField(NamedTuple):
    """A property of a common name, and nothing else that reads the table."""

    by: float

    @property
    def field(self) -> float:
        return TABLE["by"]


@jax.vmap
def mapped(x: Any) -> Any:
    """A function of a library around one that reads the table."""
    return x * TABLE["by"]


SCALED, OWN, OF_FIELD = Scaled(0.0), Scaled(0.0), OfField(0.0)
NAMED = executed("TABLE['by']")
LIKE_SIN = functools.wraps(jnp.sin)(lambda x: x * TABLE["by"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda x: x * SCALED.by_table,
        lambda: lambda x: x * OF_FIELD.field,
        lambda: lambda x: x * SCALED.table(),
        lambda: lambda x: x * SCALED.of_class(),
        lambda: lambda x: SCALED * x,
        lambda: lambda x: x * vars(OWN)["by"],
        lambda: lambda x: x * globals()["BY"],
        lambda: lambda x: x * eval("BY"),
        lambda: lambda x: NAMED(x),
        lambda: lambda x: LIKE_SIN(x),
        lambda: lambda x: mapped(x),
    ],
    ids=[
        *("property", "field", "static", "class", "operator", "own"),
        *("globals", "eval", "exec", "wraps", "mapped"),
    ],
)
def test_what_may_change_is_read_at_every_call(make: Any) -> None:
    for by in (1.0, 2.0):
        TABLE["by"] = Scaled.more = vars(OWN)["by"] = globals()["BY"] = by
        got, want = (layer(X, rule=rule) for rule in (make(), lambda x, by=by: x * by))
        np.testing.assert_array_equal(got, want)


class Raises(dict[str, Any]):
    """Its attributes are its entries, and none else is."""

    __getattr__ = dict.__getitem__


def test_an_object_may_raise_for_an_unknown_attribute() -> None:
    settings = Raises(by=1.0)
    for by in (1.0, 2.0):
        settings["by"] = by
        got, want = (
            layer(X, rule=rule) for rule in (lambda x: x * settings.by, lambda x, by=by: x * by)
        )
        np.testing.assert_array_equal(got, want)
    one = jnp.ones((1, 1))
    said = r"fnn\.{}: got Raises \{{'by': 2.0\}}; needed {}"
    for place, needed, call in (
        ("layer: x", "an array, such", lambda: layer(settings)),
        ("rnn: x", "an array, such", lambda: fnn.rnn(settings, one, one)),
        ("hvp: loss", "a scalar array", lambda: fnn.hvp(lambda _: settings, one, one)),
        ("adam: params", "a floating-point array", lambda: fnn.adam(1e-3).init(settings)),
        (
            "init_dense: weights",
            "an init",
            lambda: fnn.init_dense(KEY, 1, 1, weights=lambda *_: settings),
        ),
        ("trees.global_norm: tree", "floating", lambda: fnn.trees.global_norm(settings)),
    ):
        with pytest.raises((TypeError, ValueError), match=said.format(place, needed)):
            call()
    assert fnn.trees.cast(settings, jnp.float16) is settings


def test_a_helper_of_many_helpers_is_walked_once() -> None:
    def size(facts: Any) -> int:
        return 1 + sum(map(size, facts)) if isinstance(facts, tuple) else 1

    def of(levels: int) -> int:
        both: Any = (jnp.sin, jnp.cos)
        for _ in range(levels):
            f, g = both
            both = (lambda x, f=f, g=g: f(x) + g(x)), (lambda x, f=f, g=g: f(x) - g(x))
        return size(frozen(both[0]).facts)

    one = of(5) - of(4)
    assert of(8) - of(7) == one


def test_functions_that_call_each_other_are_one_program() -> None:
    def make(shift: float) -> Any:
        even: Any = lambda n, x: odd(n - 1, x) if n else x
        odd: Any = lambda n, x: even(n - 1, x + shift) if n else x
        return lambda x: even(4, x) + even(2, x)

    assert traces_of(lambda: [layer(X, rule=make(0.5)) for _ in range(3)]) == 1
    assert traces_of(lambda: layer(X, rule=make(0.25))) == 1


def test_a_method_of_a_table_is_read_at_every_call() -> None:
    table = {"by": 1.0}
    get = table.get
    for by in (1.0, 2.0):
        table["by"] = by
        got, want = (
            layer(X, rule=rule) for rule in (lambda x: x * get("by"), lambda x, by=by: x * by)
        )
        np.testing.assert_array_equal(got, want)


def test_lambdas_of_a_function_of_fnn_are_one_program() -> None:
    relu = fnn.relu
    assert traces_of(lambda: [layer(X, rule=lambda x: relu(x)) for _ in range(5)]) == 1


def test_a_flag_is_a_bool() -> None:
    for flag, want in ((True, 2), (np.bool_(True), 2), (np.array(False), 1)):
        assert scaled(jnp.ones(()), twice=flag) == scaled_more(jnp.ones(()), twice=flag) / 3 == want
    for name, function in (("scaled", scaled), ("scaled_more", scaled_more)):
        for no_flag in ("no", 1, 0.0, None, [True]):
            said = rf"fnn\.{name}: twice: got .*; needed True or False"
            with pytest.raises(TypeError, match=said):
                function(jnp.ones(2), twice=no_flag)


FLAGS = [
    (name, function, p.name)
    for name, function in docs.public()
    if inspect.isfunction(function)
    for p in inspect.signature(function).parameters.values()
    if p.annotation is bool
]
KEY = jax.random.key(0)
REQUIRED = {
    "loss": lambda x, *_: (x**2).sum(),
    "params": jnp.ones(2),
    "optimizer": fnn.sgd(0.1),
    "data": jnp.ones(2),
    "epochs": 1,
    "key": KEY,
}


@pytest.mark.parametrize(
    ("name", "function", "flag"), FLAGS, ids=[f"{name}-{flag}" for name, _, flag in FLAGS]
)
def test_every_flag_is_a_bool(name: str, function: Any, flag: str) -> None:
    needed = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    ]
    others = {argument: REQUIRED.get(argument, 0.5) for argument in needed}
    for no_flag in ("no", 1, None):
        said = rf"^fnn\.{name}: {flag}: got .*; needed True or False$"
        with pytest.raises(TypeError, match=said):
            function(**{flag: no_flag}, **others)


def test_an_error_shows_a_function_as_it_was_given() -> None:
    x, zeros = jnp.ones((1, 4, 1)), fnn.initializers.zeros
    with pytest.raises(TypeError, match=r"^fnn\.init_lstm: bias: got function <function zeros"):
        fnn.init_lstm(KEY, 2, 3, bias=zeros)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ValueError, match=r"^fnn\.max_pool: window: got <function zeros"):
        fnn.max_pool(x, zeros)  # type: ignore[arg-type]  # what is refused


def test_numbers_are_held_to_their_range_and_may_be_traced() -> None:
    layer(X, rate=0.25)
    same = (0.25, np.float64(0.25), np.float16(0.25), np.array(0.25), 0)
    for value in same:
        assert traces_of(lambda value=value: layer(X, rate=value)) == 0
    assert fnn.huber(jnp.ones(()), jnp.zeros(()), delta=10**10) == 0.5  # more than an int32
    assert jax.jit(lambda r: layer(X, rate=r))(2.0).shape == X.shape  # a traced one is not known
    for value in (1, -0.1, np.nan, np.inf, jnp.float32(1)):
        with pytest.raises(ValueError, match=r"fnn\.layer: rate: got .*; needed a number in"):
            layer(X, rate=value)
    for value in (True, "1", None, [0.5], X, 1j):
        with pytest.raises(TypeError, match=r"fnn\.layer: rate: got .*; needed a number in"):
            layer(X, rate=value)


def test_arrays_are_read_and_nothing_else_is() -> None:
    for x64 in (False, True):
        with jax.enable_x64(x64):
            assert layer(np.array([[1, 2]])).dtype == (np.float64 if x64 else np.float32)
            assert layer(jnp.ones((1, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    times = np.ones((1, 2), "m8[s]"), np.ones((1, 2), "M8[s]"), np.timedelta64(3, "s")
    for wrong_x in (np.array(["x"]), np.array([object()]), jax.random.key(0), *times):
        with pytest.raises(TypeError, match=r"fnn\.layer: x: got .*; needed an array of numbers"):
            layer(wrong_x)
    for wrong_x in (X.tolist(), "x", None, {"x": X}, (X, X), jax.typeof(jnp.asarray(X))):
        with pytest.raises(TypeError, match=r"fnn\.layer: x: got .*; needed an array, such"):
            layer(wrong_x)
    for kind in (">f4", ">i4", np.longdouble, np.clongdouble):
        for held in (np.ones((1, 2), kind), np.ones((), kind)[()]):
            if held.dtype.isnative and held.dtype.itemsize <= 8 * (1 + (held.dtype.kind == "c")):
                continue  # NumPy makes such numbers native; or they are no longer on this machine
            said = rf"fnn\.layer: x: got .* of {held.dtype.str}; needed numbers that JAX can hold: "
            with pytest.raises(TypeError, match=said):
                layer(held)
    with pytest.raises(TypeError, match=r"fnn\.layer: x: got complex64\[1,1\]; needed real"):
        layer(jnp.ones((1, 1), jnp.complex64))
    np.testing.assert_array_equal(layer(X, size=2), layer(X, size=np.float32([2, 2])))
    with jax.disable_jit():
        assert fnn.softplus(1.0) == fnn.softplus(jnp.float32(1))
    assert fnn.relu(10**10) == np.float32(10**10), "more than an int32"
    for call in (
        lambda: fnn.relu(10**400),
        lambda: fnn.embed(10**10, X),
        lambda: fnn.cross_entropy(X[0], 10**10),
        lambda: fnn.binary_cross_entropy(X, X, pos_weight=10**400),
        lambda: fnn.elu(X, alpha=10**400),
    ):
        with pytest.raises(ValueError, match=r"^fnn\.\w+: \w+: got int 10.*; needed a number that"):
            call()
    with pytest.raises(TypeError, match=r"fnn\.layer: size: got list \[2, 2\]; needed an array"):
        layer(X, size=[2, 2])


LOGITS, IDS = np.ones((3, 4), np.float32), np.array([0, 1, 2])
MASKED = np.ma.masked_array(LOGITS, LOGITS > 0)


def deleted(x: Any) -> Any:
    """An array as it is after it was donated."""
    x = jnp.array(x)
    x.delete()
    return x


GONE, TREE = deleted(LOGITS), {"w": LOGITS}
SQUARES: Any = lambda params, *_: sum((x**2).sum() for x in jax.tree.leaves(params))
UNREADABLE: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    **{
        name: (lambda loss=loss: loss(LOGITS, IDS + 2**32), ValueError,
               rf"{name}: labels: got int64\[3\] from 4294967296 to 4294967298; needed .* int32")
        for name, loss in {
            "cross_entropy": fnn.cross_entropy, "nll": fnn.nll, "accuracy": fnn.accuracy,
            "top_k_accuracy": functools.partial(fnn.top_k_accuracy, k=4),
            "confusion_matrix": fnn.confusion_matrix, "perplexity": fnn.perplexity,
        }.items()
    },
    "one_label": (lambda: fnn.nll(LOGITS[0], np.int64(-(2**40))), ValueError,
                  r"nll: labels: got int64\[\] from -1099511627776 to -10.*; needed numbers that"),
    "unsigned": (lambda: fnn.embed(np.uint64([2**32]), LOGITS), ValueError,
                 r"embed: ids: got uint64\[1\] from 4294967296 to .*; needed .* fit uint32"),
    "argument_of_a_loss": (
        lambda: fnn.hvp(SQUARES, LOGITS, LOGITS, {"y": IDS - 2**40}), ValueError,
        r"hvp: args\[0\]\['y'\]: got int64\[3\] from -1099511627776"),
    "masked": (lambda: fnn.dense(MASKED, LOGITS.T), TypeError,
               r"dense: x: got a masked float32\[3,4\]; needed an array without a mask"),
    "masked_integers": (lambda: fnn.nll(LOGITS, np.ma.masked_array(IDS, IDS > 0)), TypeError,
                        r"nll: labels: got a masked int64\[3\]; needed an array without a mask"),
    "masked_mask": (lambda: fnn.softmax(LOGITS, where=MASKED > 0), TypeError,
                    r"softmax: where: got a masked bool\[3,4\]; needed an array without a mask"),
    "masked_params": (lambda: fnn.adam(1e-3).init({"w": MASKED}), TypeError,
                      r"adam: params\['w'\]: got a masked float32\[3,4\]; needed an array without"),
    "masked_tree": (lambda: fnn.hvp(SQUARES, {"w": MASKED}, TREE), TypeError,
                    r"hvp: params\['w'\]: got a masked float32\[3,4\]; needed an array without"),
    "donated": (lambda: fnn.dense(LOGITS, b=None, w=deleted(LOGITS.T)), ValueError,
                r"dense: w: got a deleted float32\[4,3\]; needed an array that was not donated"),
    "donated_key": (lambda: fnn.dropout(LOGITS, 0.5, deleted(jax.random.PRNGKey(0))), ValueError,
                    r"dropout: key: got a deleted uint32\[2\]; needed an array that was not"),
    "donated_tree": (lambda: fnn.hvp(SQUARES, TREE, {"w": GONE}), ValueError,
                     r"hvp: v\['w'\]: got a deleted float32\[3,4\]; needed"),
    "donated_argument": (
        lambda: fnn.hvp(lambda w, a: (w["w"] ** 2 * a[1]).sum(), TREE, TREE, [IDS, GONE]),
        ValueError, r"hvp: args\[0\]\[1\]: got a deleted float32\[3,4\]; needed"),
    "donated_penalty": (lambda: fnn.l2_penalty({"w": GONE}, mask=lambda path: True), ValueError,
                        r"l2_penalty: params\['w'\]: got a deleted float32\[3,4\]; needed"),
    "donated_params": (lambda: fnn.adam(1e-3).init({"w": GONE}), ValueError,
                       r"adam: params\['w'\]: got a deleted float32\[3,4\]; needed"),
    "a_list_of_donated": (lambda: fnn.relu([GONE]), TypeError,
                          "relu: x: got <list that cannot be shown>; needed an array, such"),
    "words": (lambda: fnn.hvp(SQUARES, {"w": "relu"}, TREE), TypeError,
              r"hvp: params\['w'\]: got str 'relu'; needed an array of numbers"),
    "words_in_an_argument": (lambda: fnn.hvp(SQUARES, TREE, TREE, np.array(["a"])), TypeError,
                             r"hvp: args\[0\]: got <U1\[1\]; needed an array of numbers"),
    "words_of_statistics": (
        lambda: fnn.running_stats("x", fnn.batch_stats(LOGITS), decay=0.9), TypeError,
        "running_stats: running: got str 'x'; needed"),
    "objects_to_gather": (
        lambda: fnn.sharding.gather({"w": np.array([None])}), TypeError,
        r"gather: tree\['w'\]: got object\[1\]; needed an array of numbers"),
}  # fmt: skip


def test_the_gradient_of_integers_is_taken_where_arrays_are() -> None:
    """JAX gives them an array of NumPy, of a dtype without numbers."""
    gradient = jax.grad(lambda n: n * 1.0, allow_int=True)(3)
    assert gradient.dtype == jax.dtypes.float0
    found = fnn.hvp(lambda w, g: (w**2).sum(), jnp.ones(2), jnp.ones(2), gradient)
    assert found.tolist() == [2, 2]
    fnn.sharding.place({"n": gradient}, jax.make_mesh((1,), ("data",)))


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_no_program_can_take_is_named(name: str) -> None:
    call, kind, message = UNREADABLE[name]
    with pytest.raises(kind, match=f"^fnn.{message}") as caught:
        call()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


LARGE: Any = tuple(range(10**5))
LEAVES: Any = {f"layer{i}": np.ones(1, np.float32) for i in range(500)}
IMAGE, TAPS = np.ones((1, 4, 4, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
LONG: dict[str, Callable[[], Any]] = {
    "check_int": lambda: fnn.init_dense(KEY, LARGE, 1),
    "an_int_of_too_many_digits": lambda: fnn.init_dense(KEY, -(10**5000), 1),
    "a_number_of_too_many_digits": lambda: fnn.adam(10**5000),
    "check_one_of": lambda: fnn.gru(IMAGE[0], LOGITS, LOGITS, reset="x" * 10**5),  # type: ignore[arg-type]  # refused
    "check_axis": lambda: fnn.glu(LOGITS, axis=LARGE),
    "stride": lambda: fnn.max_pool(IMAGE, 2, stride=LARGE),
    "padding": lambda: fnn.max_pool(IMAGE, 2, padding=LARGE),
    "padding_mode": lambda: fnn.conv(IMAGE, IMAGE[0], padding_mode="x" * 10**5),
    "spatial": lambda: fnn.output_size(("x",) * 10**5, 2),  # type: ignore[arg-type]  # refused
    "layers": lambda: fnn.receptive_field((9,), [dict.fromkeys(LARGE)]),  # type: ignore[arg-type]  # refused
    "window": lambda: fnn.init_conv(KEY, LARGE, 1, 1),
    "blocks": lambda: fnn.partition_pool(IMAGE, LARGE, "max", axis=1),
    "name": lambda: fnn.analysis.watch(LOGITS, LARGE),
    "dtype": lambda: fnn.trees.cast(LEAVES, LARGE),
    "freeze": lambda: fnn.freeze(fnn.sgd(0.1), lambda path: False).init(LEAVES),
    "adamw": lambda: fnn.adamw(0.1, mask=lambda path: False).update(
        LEAVES, fnn.adamw(0.1).init(LEAVES), LEAVES),
    "l2_penalty": lambda: fnn.l2_penalty(LEAVES, mask=lambda path: False),
    "partition": lambda: fnn.partition(
        dict.fromkeys(LEAVES), lambda path: LARGE[0] * path).init({"w": LOGITS}),
    "from_torch": lambda: fnn.weights.from_torch(LEAVES, {}),
    "from_torch_without": lambda: fnn.weights.from_torch({}, {n: (n, "dense") for n in LEAVES}),
    "to_torch": lambda: fnn.weights.to_torch(LEAVES, {}),
    "rule": lambda: fnn.weights.to_torch({}, {"fc": LARGE}),
    "image": lambda: fnn.weights.to_torch({}, {"fc": ("fc", "conv", LARGE)}),
    "structure": lambda: fnn.trees.cast(LEAVES, LEAVES),  # type: ignore[arg-type]  # refused
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_a_message_is_short(name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^fnn\.") as caught:
        LONG[name]()
    first, *_ = str(caught.value).split("\n")
    assert len(first) < 400, first[:1000]


HUGE = 2**70
TOO_LARGE: dict[str, Callable[[], Any]] = {
    "conv: stride": lambda: fnn.conv(IMAGE, TAPS, stride=HUGE),
    "conv_lax: dilation": lambda: fnn.conv_lax(IMAGE, TAPS, dilation=(1, HUGE)),
    "conv_transpose: stride": lambda: fnn.conv_transpose(IMAGE, TAPS, stride=HUGE),
    "max_pool: window": lambda: fnn.max_pool(IMAGE, HUGE, padding="SAME"),
    "avg_pool: padding": lambda: fnn.avg_pool(IMAGE, 2, padding=HUGE),
    "sum_pool: padding": lambda: fnn.sum_pool(IMAGE, 2, padding=((0, 1), (0, HUGE))),
    "init_dense: d_out": lambda: fnn.init_dense(KEY, 1, HUGE),
    "init_embed: vocabulary": lambda: fnn.init_embed(KEY, HUGE, 1),
    "init_conv: window": lambda: fnn.init_conv(KEY, (1, HUGE), 1, 1),
    "init_gru: units": lambda: fnn.init_gru(KEY, 1, HUGE),
    "init_norm: shape": lambda: fnn.init_norm((HUGE,)),
    "spectral_norm: iterations": lambda: fnn.spectral_norm(LOGITS, LOGITS[0], iterations=HUGE),
    "analysis.activity: bins": lambda: fnn.analysis.activity({"h": LOGITS}, bins=HUGE),
    "analysis.rate_range: steps": lambda: fnn.analysis.rate_range(
        SQUARES, LOGITS, fnn.sgd, IDS, batch_size=1, key=KEY, steps=HUGE),
    "analysis.spectral_density: samples": lambda: fnn.analysis.spectral_density(
        SQUARES, LOGITS, key=KEY, samples=HUGE),
    "hutchinson_diagonal: samples": lambda: fnn.hutchinson_diagonal(
        SQUARES, LOGITS, key=KEY, samples=HUGE),
    "diagonal_newton: samples": lambda: fnn.diagonal_newton(samples=HUGE, key=KEY),
    "trajectory: steps": lambda: fnn.trajectory(SQUARES, LOGITS, fnn.sgd(0.1), HUGE),
}  # fmt: skip


@pytest.mark.parametrize("place", TOO_LARGE)
def test_a_size_or_a_count_that_no_program_holds_is_refused(place: str) -> None:
    message = rf"^fnn\.{place}: got .*1180591620717411303424.*; needed .*at most 2,147,483,647"
    with pytest.raises(ValueError, match=message):
        TOO_LARGE[place]()


def test_more_products_than_there_are_numbers_are_all_of_them() -> None:
    ends = fnn.extreme_eigenvalues(SQUARES, LOGITS[0], key=KEY, iterations=HUGE)
    np.testing.assert_allclose(ends.largest, 2, rtol=1e-6)


def test_integers_of_64_bits_that_fit_are_read() -> None:
    for ids in (IDS, IDS.astype(np.uint64), np.int64(2), np.array([], np.int64)):
        assert fnn.embed(ids, LOGITS).dtype == np.float32
    assert fnn.nll(LOGITS, np.array([2**31 - 1, -(2**31), 0])).shape == (3,)
    assert fnn.relu(np.array([2**40])) == 2.0**40, "read as a float"
    with jax.enable_x64(True):
        assert np.isnan(fnn.nll(LOGITS, IDS + 2**32)).all()


def test_a_key_is_one_key() -> None:
    for key in (jax.random.key(0), jax.random.PRNGKey(0), jax.random.key(0, impl="rbg"), None):
        layer(X, key)
    for wrong_key in (0, 0.5, X, jax.random.split(jax.random.key(0))):
        with pytest.raises(TypeError, match=r"fnn\.layer: key: got .*; needed one random key"):
            layer(X, wrong_key)


def test_a_function_without_a_signature_takes_no_key() -> None:
    assert not takes_key(functools.partial(max))


def test_an_argument_of_an_unknown_name_is_refused_with_the_known_ones() -> None:
    known = "x, key, rate, size, axes, rule"
    with pytest.raises(TypeError, match=rf"fnn\.layer: axis: got .*one of the arguments {known}$"):
        layer(X, axis=1)

    @checked
    def choose(x: Float[Array, "..."], *, rate: float = 0.5) -> Any:
        return x if rate > 0.2 else -x  # in Python: nothing is compiled

    assert float(choose(np.float32(3), rate=0.1)) == -3
    with pytest.raises(TypeError, match=r"fnn\.choose: rate: got str '1'; needed a number"):
        choose(X, rate="1")
    with pytest.raises(TypeError, match=r"fnn\.choose: rat: got .*one of the arguments x, rate"):
        choose(X, rat=1)


def test_more_arguments_by_position_than_have_a_place_are_refused() -> None:
    x = np.ones((1, 4, 4, 1), np.float32)
    needed = r"at most 2 \(x, window\), and stride, padding, dilation, ceil_mode by name"
    with pytest.raises(
        TypeError, match=rf"^fnn\.max_pool: arguments: got 4 by .*; needed {needed}$"
    ):
        fnn.max_pool(x, 2, 2, "SAME")  # type: ignore[misc]  # what is refused
    with pytest.raises(
        TypeError, match=r"^fnn\.relu: arguments: got 2 .*; needed at most 1 \(x\)$"
    ):
        fnn.relu(x, 2)  # type: ignore[call-arg]  # what is refused


# The checks that more than one file needs.


@pytest.mark.parametrize(
    ("check", "good", "bad", "message"),
    [
        (checks.check_int, [(2, 2), (np.int8(3), 2)], [(1, 2), (2.0, 2), (True, 1)], "an int >= "),
        (checks.check_int, [(-5,)], [(1.5,), ("1",), (None,)], "an int$"),
        (checks.check_one_of, [("a", ("a", "b"))], [("c", ("a",)), (1, ("1",))], "'"),
        (checks.check_number, [(1,), (np.float32(2),)], [], ""),
        (checks.check_number, [(2, checks.POSITIVE)], [(0, checks.POSITIVE)], "a number > 0"),
        (checks.check_number, [(1, checks.FRACTION)], [(1.1, checks.FRACTION)], r"in \[0, 1\]"),
        (checks.check_number, [(0, checks.BELOW_ONE)], [(1, checks.BELOW_ONE)], r"in \[0, 1\)"),
    ],
)  # fmt: skip
def test_checks(check: Any, good: Any, bad: Any, message: str) -> None:
    for arguments in good:
        check("layer", "name", *arguments)
    for arguments in bad:
        with pytest.raises(ValueError, match=rf"^fnn\.layer: name: got .*; needed .*{message}"):
            check("layer", "name", *arguments)


def test_a_loss_is_one_number() -> None:
    assert float(checks.check_scalar("train", jnp.float32(2))) == 2
    for value in (jnp.ones(2), 3.0, None):
        with pytest.raises(ValueError, match=r"fnn\.train: loss: got .*; needed a scalar array"):
            checks.check_scalar("train", value)


def test_a_loss_may_reach_any_array() -> None:
    mutable = np.ones(2)  # may change between calls, so that the function equals itself only

    def helper(x: Any) -> Any:
        return x @ mutable.astype(np.float32)

    for _ in range(2):
        assert fnn.hvp(lambda x: helper(x) ** 2, jnp.ones(2), jnp.ones(2)).tolist() == [4.0, 4.0]
    mutable[:] = 2
    assert fnn.hvp(lambda x: helper(x) ** 2, jnp.ones(2), jnp.ones(2)).tolist() == [16.0, 16.0]


class Still:
    @staticmethod
    def __call__(path: str) -> bool:
        return "w" in path


class OfClass:
    @classmethod
    def __call__(cls, path: str) -> bool:
        return "w" in path


class Held:
    """Its `__call__` is an object that is called, without itself."""

    __call__ = Still()


class Bare:
    """An object that raises whatever it likes for an attribute that it lacks."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)

    def __call__(self, path: str) -> bool:
        return "w" in path


@pytest.mark.parametrize(
    "mask", [Still(), OfClass(), Held(), Bare()], ids=lambda x: type(x).__name__
)
def test_a_function_may_be_any_object_that_is_called(mask: Any) -> None:
    assert fnn.trees.select({"w": 1.0, "b": 2.0}, mask) == {"b": None, "w": 1.0}


@pytest.mark.parametrize("kind", [Still, OfClass])
def test_an_object_of_other_inputs_is_named(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"fnn.make_step: loss: got .*path.*; needed loss"):
        fnn.make_step(kind(), fnn.sgd(0.1))


def test_no_path_is_written_before_an_array_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    keystr = jax.tree_util.keystr
    monkeypatch.setattr(jax.tree_util, "keystr", lambda path: written.append(path) or keystr(path))
    checks.check_arrays("make_step", "batch", {"x": np.ones(3), "y": [jnp.ones(3), 1.0]})
    assert not written
    with pytest.raises(TypeError, match=r"fnn.make_step: batch\['y'\]\[1\]: got str") as caught:
        checks.check_arrays("make_step", "batch", {"x": np.ones(3), "y": [jnp.ones(3), "a"]})
    assert caught.value.__context__ is None


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("nothing to show")


def test_what_cannot_be_shown_is_named_by_its_type() -> None:
    with pytest.raises(TypeError, match=r"relu: x: got <Silent that cannot be shown>; needed an"):
        fnn.relu(Silent())
    digits = r"init_dense: d_in: got <int that cannot be shown>; needed an int >="
    with pytest.raises(ValueError, match=digits):
        fnn.init_dense(KEY, -(10**5000), 1)


def test_a_size_is_shown_as_it_was_given() -> None:
    for padding in (((2**40, 0), (0, 0)), 2**40):
        message = re.escape(
            f"max_pool: padding: got {padding}; needed ints of at most 2,147,483,647"
        )
        with pytest.raises(ValueError, match=message):
            fnn.max_pool(IMAGE, 2, padding=padding)
    with pytest.raises(ValueError, match=r"max_pool: window: got 1099511627776; needed"):
        fnn.max_pool(IMAGE, 2**40)
