"""The form of every error message: which function, which argument, what came, what was needed."""

from typing import Any


def wrong(
    function: str, argument: str, got: Any, needed: str, kind: type[Exception] = ValueError
) -> Exception:
    """Return the error to raise for a wrong call.

    >>> raise wrong("conv", "groups", 3, "a divisor of c_in = 4")
    Traceback (most recent call last):
    ...
    ValueError: fnn.conv: groups: got 3; needed a divisor of c_in = 4
    """
    return kind(f"fnn.{function}: {argument}: got {got}; needed {needed}")


def describe(x: Any) -> str:
    """Return dtype and shape of an array as one word, ``float32[8,28,28,1]``.

    >>> import numpy as np
    >>> describe(np.zeros((2, 3), np.float32))
    'float32[2,3]'
    """
    if not hasattr(x, "shape"):
        return f"{type(x).__name__} {x!r}"
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
