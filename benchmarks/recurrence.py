"""Recurrence: fnn's LSTM and GRU, the peers', PyTorch's; in jit and inside scan."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fnn
from benchmarks import recurrent_reference
from benchmarks.programs import contestants, with_gradient
from benchmarks.session import Job, Session
from benchmarks.timing import Contestant, Row, race

BLOCKS = {"lstm": 4, "gru": 3}  # of columns


class Case(NamedTuple):
    """One layer over n sequences, without a state before the first step."""

    kind: str
    n: int
    time: int
    f: int
    units: int

    @property
    def name(self) -> str:
        return f"{self.kind.upper()} {self.n} x {self.time} x {self.f}, {self.units} units"


SIZES = (
    (64, 128, 64, 256),
    (16, 32, 16, 64),
    (8, 2000, 32, 128),
    (128, 28, 28, 128),
    (1, 500, 80, 320),
)
CASES = tuple(Case(kind, *sizes) for kind in BLOCKS for sizes in SIZES)
QUICK = (Case("lstm", *SIZES[1]), Case("gru", *SIZES[1]))


def arrays(case: Case, rng: np.random.Generator) -> tuple[jax.Array, ...]:
    """Fresh random x, wx, wh, b, and a cotangent g of the outputs, as float32."""
    columns = BLOCKS[case.kind] * case.units
    shapes = (
        (case.n, case.time, case.f),
        (case.f, columns),
        (case.units, columns),
        (columns,),
        (case.n, case.time, case.units),
    )
    scales = (1.0, case.f**-0.5, case.units**-0.5, 1.0, 1.0)
    drawn = [rng.standard_normal(s, np.float32) * a for s, a in zip(shapes, scales, strict=True)]
    return tuple(jnp.asarray(a, jnp.float32) for a in drawn)


def work(case: Case) -> dict[str, dict[str, float]]:
    """Return the least arithmetic and traffic that the layer needs, by measure."""
    weights = (case.f + case.units) * BLOCKS[case.kind] * case.units
    flops = 2.0 * case.n * case.time * weights
    moved = case.n * case.time * (case.f + case.units) + weights
    return {
        "forward": {"flops": flops, "bytes": 4.0 * moved},
        "gradient": {"flops": 3 * flops, "bytes": 8.0 * moved},
    }


def ours(kind: str, suffix: str) -> Callable[..., jax.Array]:
    layer = getattr(fnn, kind + suffix)
    return lambda *args: layer(*args)[0]


def take_part(case: Case, args: tuple[jax.Array, ...], session: Session) -> list[Contestant]:
    """Return all contestants of a case; the plain scan only in jit."""
    found: list[Contestant] = []
    for suffix, places in (("", ("jit", "scan")), ("_scan", ("jit",))):
        fn, name = ours(case.kind, suffix), f"fnn.{case.kind}{suffix}"
        found += contestants(name, fn, args[:-1], "forward", places)
        found += contestants(name, with_gradient(fn), args, "gradient", places)
    if session.peers:
        peers = importlib.import_module("benchmarks.peers.recurrent")
        for peer in peers.JAX[case.kind]:
            own = (args[0], *peer.weights(*args[1:-1]))
            entered = contestants(peer.name, peer.run, own, "forward")
            both = with_gradient(peer.run)
            entered += contestants(peer.name, both, (*own, args[-1]), "gradient")
            found += [c._replace(prepare=shown(c.prepare, peer.back)) for c in entered]
        found += peers.pytorch(case.kind, *args)
    return found


def shown(prepare: Callable[[int], Any], back: Callable[..., Any]) -> Callable[[int], Any]:
    """Prepare a peer whose gradients come in its own layout."""

    def show(outputs: Any) -> Any:
        if not isinstance(outputs, tuple):
            return outputs
        y, dx, *gradients = outputs
        return (y, dx, *back(*map(np.asarray, gradients)))

    return lambda units: prepare(units)._replace(show=show)


def measure(case: Case, session: Session) -> list[Row]:
    args = arrays(case, session.rng(case.name))
    want = recurrent_reference.gradient(case.kind, *args)
    rows = race(
        take_part(case, args, session), {"forward": want[0], "gradient": want}, session.budget
    )
    least, facts = work(case), {"case": case.name, "steps": case.time}
    return [facts | row | least[row["measure"]] for row in rows]


def jobs(session: Session) -> Iterator[Job]:
    for case in QUICK if session.quick else CASES:
        yield case.name, functools.partial(measure, case, session)
