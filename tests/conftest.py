"""Strict settings for every test: no silent promotion, and warnings are errors (pyproject.toml)."""

import contextlib
import ctypes
import functools
import gc
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Most tests ask what a program computes, not how fast: without expensive passes of LLVM, and by the
# emitters that XLA has since given up, it compiles in a third of the time. XLA's own passes run as
# always, and `users_passes` and `optimized` ask for the rest. Flags that are given win.
OLD_EMITTERS = jax.__version_info__ < (0, 11)
if OLD_EMITTERS:
    cheap = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{cheap} {os.environ.get('XLA_FLAGS', '')}"
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # in the processes that tests start as well

# No test here keeps compiled programs in files. JAX hashes each for the name of its file even so.
jax.config.update("jax_enable_compilation_cache", False)

# A core for each worker, or the threads of one disturb the other: 6 to 8 % of the time. XLA then
# compiles for one core. The doctests, the examples as commands and the benchmarks run on all cores.
if sys.platform == "linux" and "PYTEST_XDIST_WORKER" in os.environ:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"][2:]) % len(cores)]})

# Every program gets a context of MLIR, with all dialects: one for many programs saves 4 ms of each,
# a twentieth of the suite. A private name, there in JAX 0.10.0, 0.10.2 and 0.12.0.1; a JAX without
# it makes a context for each again.
contexts = functools.cache(lambda: None)
with contextlib.suppress(ImportError, AttributeError):
    from jax._src.interpreters import mlir

    mlir.make_ir_context = contexts = functools.cache(mlir.make_ir_context)

# JAX makes many objects that live long: looking through them again and again takes a tenth.
gc.disable()

# pytest --hypothesis-profile long tests/test_fuzz.py
settings.register_profile("long", max_examples=10_000)

# pytest -m quick: of every room the modules that compile little.
QUICK = {
    "": "fuzz functions house systems trees windows",
    "kernels/conv": "compiled",
    "kernels/pool": "compiled rule",
    "layers": "backprop_by_hand conv_systems dropout linear pooling_systems recurrent_systems",
    "losses": "landscape metrics",
    "analysis": "rates sizes time watching",
    "optimizers": "optimizer_systems parts schedules",
    "training": "evaluate training_systems trajectory",
    "data": "images shuffle",
    "weights": "checkpoint torch",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    quick = {tests / r / f"test_{name}.py" for r, names in QUICK.items() for name in names.split()}
    for item in items:
        if item.path in quick:
            item.add_marker("quick")
    own = [place for place, item in enumerate(items) if item.path == tests / "test_table.py"]
    for place, item in zip(own, sorted((items[i] for i in own), key=row_of), strict=True):
        items[place] = item


def row_of(item: pytest.Item) -> str:
    """Tests of a row of the table, and rows of a module, are neighbours: they share programs."""
    row = item.callspec.params.get("row") if hasattr(item, "callspec") else None
    return f"{row.fn.__module__} {row.name}" if row else ""


LIBC = ctypes.CDLL(None)
compiled = [0]  # programs, since they were dropped last


def count(event: str, *_: Any, **__: Any) -> None:
    compiled[0] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(count)


@pytest.fixture(autouse=True)
def programs() -> Iterator[None]:
    """Drop the programs now and then: those of the suite take gigabytes."""
    yield
    if compiled[0] > 300:
        compiled[0] = 0
        jax.clear_caches()
        contexts.cache_clear()
        gc.collect()
        if hasattr(LIBC, "malloc_trim"):  # glibc's keeps what is free
            LIBC.malloc_trim(0)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order(request: pytest.FixtureRequest) -> None:
    """Let a module's generator, `RNG`, begin every test by its name, not by the tests before."""
    generator = getattr(request.module, "RNG", None)
    if generator is not None:
        own = np.random.default_rng(zlib.crc32(request.node.name.encode()))
        generator.bit_generator.state = own.bit_generator.state


@pytest.fixture(scope="module")
def users_passes() -> Iterator[None]:
    """Let XLA make of a module's programs what it makes of a user's: for the text that it gives."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        if OLD_EMITTERS:  # a private name, there in all that have them: JAX 0.10.0 and 0.10.2
            from jax._src import compiler

            options_of = compiler.get_compile_options

            def default(*args: Any, **settings: Any) -> Any:
                options = options_of(*args, **settings)
                options.env_option_overrides += [("xla_cpu_use_fusion_emitters", "True")]
                return options

            patch.setattr(compiler, "get_compile_options", default)
        yield


@pytest.fixture(scope="module")
def optimized(users_passes: None) -> Iterator[None]:
    """Compile a module's programs as a user's, by LLVM as well: for numbers at the ends."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
