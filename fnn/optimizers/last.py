"""Optimizers whose updates must be added as they are, and what may go around them.

An average is of the params that the updates lead to; slow and master parameters stand beside them.
A transform behind them that changes the updates makes all of these wrong. What passes updates on,
from `chain` to `partition`, is of the kind of the optimizer inside.
"""

from typing import ClassVar

from fnn.checks import wrong
from fnn.optimizers.base import Optimizer, Transform


class Last(Optimizer):
    """An optimizer that must see its updates added as they are.

    Attributes:
        maker: the public function that makes it.
    """

    __slots__ = ()
    maker: ClassVar[str]


class Averaging(Last):
    """One with an average of the params that its updates lead to."""

    __slots__ = ()
    maker = "fnn.average"


class Watcher(Averaging):
    """The average alone, which changes no update, so that it may also stand behind a `Last`."""

    __slots__ = ()


class Slow(Last):
    """One with slow parameters beside the params."""

    __slots__ = ()
    maker = "fnn.lookahead"


class Master(Last):
    """One with master parameters beside the params."""

    __slots__ = ()
    maker = "fnn.with_master_weights"


def kind_around(*optimizers: Transform | None, own: type[Optimizer] = Optimizer) -> type[Optimizer]:
    """Return the kind of an optimizer that passes on the updates of these: theirs, or ``own``."""
    for kind in (Averaging, Slow, Master):
        if any(isinstance(optimizer, kind) for optimizer in optimizers):
            return kind
    return own


def refuse_last(name: str, optimizer: Transform, kind: type[Last] = Last) -> None:
    """Raise if public function ``name`` is given an optimizer of this kind."""
    if isinstance(optimizer, kind):
        maker = optimizer.maker
        if maker == f"fnn.{name}":
            needed = f"one {maker}"
        elif isinstance(optimizer, Averaging):
            needed = f"{maker} behind it: fnn.chain(fnn.{name}(...), {maker}())"
        else:
            needed = f"{maker} outside, around fnn.{name}(...)"
        raise wrong(name, "optimizer", f"one that ends with {maker}", needed)
