"""Data that comes in batches: from a list, a loader, a generator, or a function of the epoch.

A thread reads the batches, stacks as many as one call of the compiled program takes, and moves them
to the device while the call before is running. It reads ahead within an epoch, never beyond: what
is changed after the last report of an epoch, such as the order of a sampler, counts in the next.
"""

import atexit
import contextvars
import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from queue import SimpleQueue
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checks import (
    attribute,
    check_alive_array,
    check_arrays,
    check_takes,
    describe,
    wrong,
)
from fnn.training.loop import Call, Place, epoch_keys
from fnn.training.report import Run

STACK = 2**22  # bytes of small batches that go into one call
MOST = 64  # and how many of them at most
AHEAD = 2  # calls whose batches are on the device before their turn
SETTINGS = (  # of JAX, each the name of its context manager and, after "jax_", of its option
    "enable_x64",
    "default_device",
    "default_prng_impl",
    "default_matmul_precision",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "debug_nans",
    "debug_infs",
    "threefry_partitionable",
    "disable_jit",
    "debug_key_reuse",
    "check_tracer_leaks",
    "enable_checks",
    "log_compiles",
)
Batches = Iterable[Any] | Callable[[int], Iterable[Any]]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["batches"], meta_fields=["whole", "size"]
)
@dataclasses.dataclass(frozen=True)
class Stacked:
    """``whole`` batches of ``size`` examples, stacked along a new first axis; a `Feed`."""

    batches: Any
    whole: int
    size: int
    rest: ClassVar[int] = 0

    def batch(self, i: Any, size: int) -> Any:
        """Return batch i."""
        del size
        return jax.tree.map(lambda x: x[i], self.batches)


def batch_calls(
    data: Batches, run: Run, epochs: int, every: int | None, left: threading.Event
) -> Generator[Call]:
    """Yield the calls of a run over batches, each of several batches of one shape.

    Args:
        data: as `fnn.train` takes it.
        run: where to begin.
        epochs: how many there are.
        every: steps between two reports, counted within the epoch; None for all of it.
        left: once it is set, nobody waits for what comes, and no further batch is read.
    """
    batch, step = run.batch, run.step
    for epoch in range(run.epoch, epochs):
        place = Place(epoch_keys(run.key, epoch)[1], batch, step)
        for call in _epoch_calls(data, epoch, place, every, left):
            yield call
            step += call.stop
        batch = 0


def _epoch_calls(
    data: Batches, epoch: int, place: Place, every: int | None, left: threading.Event
) -> Generator[Call]:
    """Yield the calls from this place on to the end of the epoch."""
    noise, done, step = place
    last = False
    batches = iter(_batches(data, epoch, left))
    taken = sum(1 for _ in itertools.islice(batches, done))
    for group, last in _groups(batches, done, every):
        feed, n = _stacked(group, every), len(group)
        place = Place(noise, done, step)
        done, step = done + n, step + n
        reports = last or (every is not None and done % every == 0)
        yield Call(feed, place, 0, n, epoch, n * feed.size, last, reports)
    if left.is_set():  # and not all was read
        return
    if taken < done and not last:
        needed = "at most the batches of an epoch of this data"
        raise wrong("train", "resume.batch", done, needed)
    if not done:
        needed = "at least one; what is read once, such as a generator, lasts for one epoch"
        raise wrong("train", "data", f"no batch in epoch {epoch + 1}", needed)


def _batches(data: Batches, epoch: int, left: threading.Event) -> Iterable[Any]:
    """Return the batches of an epoch, which end early once this is set."""
    batches: Any = data if isinstance(data, Iterable) else data(epoch)
    if not isinstance(batches, Iterable):
        got, needed = describe(batches), "an iterable of batches"
        raise wrong("train", f"data({epoch})", got, needed, TypeError)
    return itertools.takewhile(lambda _: not left.is_set(), batches)


def _groups(
    batches: Iterable[Any], done: int, every: int | None
) -> Iterator[tuple[list[Any], bool]]:
    """Yield lists of batches that go into one call, and whether the epoch ends with them."""
    group: list[Any] = []
    try:
        for batch in map(functools.partial(read_batch, "train"), batches):
            full = len(group) == _capacity(batch, every)
            due = every is not None and (done + len(group)) % every == 0
            if group and (full or due or kind_of(batch) != kind_of(group[0])):
                yield group, False
                done += len(group)
                group = []
            group.append(batch)
    except Exception:
        if group and every is not None and (done + len(group)) % every == 0:
            yield group, False  # whose report is due: what has been read is not lost
        raise
    if group:
        yield group, True


def read_batch(function: str, batch: Any) -> Any:
    """Return a batch as arrays; NumPy's are copied, as a loader may write into them again."""

    def read(path: Any, x: Any) -> Any:
        place = "a batch of data" + jax.tree_util.keystr(path)
        if isinstance(x, jax.Array):
            check_alive_array(function, place, x)
            return x
        try:
            array = x if isinstance(x, np.ndarray) else np.asarray(x)
        except Exception as error:
            needed = f"an array, or what np.asarray makes one of: {error}"
            raise wrong(function, place, describe(x), needed, TypeError) from None
        check_arrays(function, place, array)
        return np.array(array)  # a tensor shares memory

    batch = jax.tree.map_with_path(read, batch)
    if length(batch) == 0:
        got = ", ".join(map(describe, jax.tree.leaves(batch)))
        raise wrong(function, "a batch of data", got, "at least one example")
    return batch


def length(batch: Any) -> int | None:
    """Return how many examples a batch of arrays has, by its first; None where all are scalars."""
    return next((x.shape[0] for x in jax.tree.leaves(batch) if x.ndim), None)


def kind_of(tree: Any) -> Any:
    """Return that for which jit traces a program anew; types tell of sharding on explicit axes.

    The batches of one call have it in common.
    """
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(map(jax.typeof, leaves))


def _capacity(batch: Any, every: int | None) -> int:
    """Return how many batches like this one go into one call."""
    size: int = sum(x.nbytes for x in jax.tree.leaves(batch))
    return max(1, min(STACK // max(1, size), MOST, MOST if every is None else every))


def _stacked(group: list[Any], every: int | None) -> Stacked:
    """Stack a group on the device, filled up so that all groups have one shape."""
    most = _capacity(group[0], every)
    filled = group + group[-1:] * (most - len(group))

    def stack(*xs: Any) -> Any:
        return jnp.stack(xs) if isinstance(xs[0], jax.Array) else np.stack(xs)

    n = length(group[0])
    size = 1 if n is None else n
    return Stacked(jax.device_put(jax.tree.map(stack, *filled)), most, size)


def ahead(calls: Generator[Call], left: threading.Event) -> Generator[Call]:
    """Yield calls, which a thread makes ahead within an epoch; its errors are raised here.

    The thread has the caller's settings, mesh and context variables, which are kept by thread. It
    ends, and the generator with it, when this one does. By ``left`` the generator learns of that,
    as it may be reading many batches, which nobody waits for then. An error of its end, where this
    one is left before, is printed by Python.
    """
    # Queues alone: an interrupt leaves them whole, and may leave an executor's locks locked.
    made, wanted, begun = SimpleQueue[Any](), SimpleQueue[None](), SimpleQueue[None]()
    args = (_make, calls, _settings(), left, made, wanted, begun)
    run, name = contextvars.copy_context().run, "fnn.train reads data"
    thread = threading.Thread(target=run, args=args, name=name, daemon=True)

    def leave() -> None:
        left.set()
        wanted.put(None)
        begun.put(None)
        with suppress(RuntimeError):  # not begun, or this very one, where it collects garbage
            thread.join()

    atexit.register(leave)  # Python would stop a daemon at its work, and wait for others for ever
    try:
        thread.start()
        for _ in range(AHEAD - 1):
            wanted.put(None)
        while True:
            call, error = made.get()
            if error is not None:
                try:
                    raise error
                finally:
                    del error  # whose traceback keeps this frame, and so would keep itself
            if call is None:
                return
            if not call.ends_epoch:
                wanted.put(None)
            yield call
            if call.ends_epoch:
                begun.put(None)
    finally:
        if not left.is_set():  # as it is when Python ends, and has no `atexit` any more
            leave()
            atexit.unregister(leave)


def _make(
    calls: Generator[Call],
    settings: list[tuple[Callable[[Any], Any], Any]],
    left: threading.Event,
    made: SimpleQueue[Any],
    wanted: SimpleQueue[None],
    begun: SimpleQueue[None],
) -> None:
    """Make the calls with these settings: each pair is a call, or None at the end, and an error.

    The next one is made when it is wanted and, after the last of an epoch, when that has begun.
    """
    try:
        with ExitStack() as stack:
            for setting, value in settings:
                stack.enter_context(setting(value))
            for call in stack.enter_context(closing(calls)):
                following = begun if call.ends_epoch else wanted
                made.put((call, None))
                del call  # or it is kept while nothing is asked for
                following.get()
                if left.is_set():
                    return
        made.put((None, None))
    except BaseException as error:
        if left.is_set():
            raise
        made.put((None, error))


def _settings() -> list[tuple[Callable[[Any], Any], Any]]:
    """Return the settings and the mesh of this thread, by what sets each in another."""
    settings = [(getattr(jax, name), getattr(jax.config, f"jax_{name}")) for name in SETTINGS]
    mesh = jax.sharding.get_mesh()
    return settings if mesh.empty else [*settings, (jax.set_mesh, mesh)]


def check_iterable(function: str, data: Any) -> None:
    """Raise for arrays, those of other libraries too, which need a batch_size."""
    single = attribute(data, "shape") is not None and attribute(data, "dtype") is not None
    if single or isinstance(data, Mapping | tuple):
        what = describe(data) if single else f"a {type(data).__name__}"
        needed = f"an int, as data is {what}; an iterable of batches has none"
        raise wrong(function, "batch_size", None, needed)


def check_batches(data: Any, run: Run, epochs: int) -> None:
    """Raise unless data are batches that last for the run."""
    check_iterable("train", data)
    if not isinstance(data, Iterable) and not callable(data):
        needed = "arrays and a batch_size, an iterable of batches, or a function of the epoch"
        raise wrong("train", "data", describe(data), needed, TypeError)
    if not isinstance(data, Iterable):
        check_takes("train", "data", data, "epoch")
    if isinstance(data, Iterator) and (epochs > 1 or run.step > 0):
        needed = "what can be read from its start again: a list, a loader, or a function that takes"
        got = f"{describe(data)}, which can be read once"
        raise wrong("train", "data", got, f"{needed} the epoch and returns an iterable of batches")
