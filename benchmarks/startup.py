"""Start-up: what importing costs, and how long a fresh process takes to its first training step.

Whole processes are timed, from their start to their end; that of the interpreter is in every one.
"""

import functools
import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.session import Job, Session
from benchmarks.timing import Budget, Contestant, Program, Row, race

IMPORTS = {"jax": "import jax, jax.numpy", "fnn": "import fnn"}
PEER_IMPORTS = {
    "Flax NNX": "from flax import nnx",
    "Equinox": "import equinox",
    "Haiku": "import haiku",
    "PyTorch": "import torch",
}

# The small CNN from nothing to the end of its first step, as a user of each would start.
BATCH = """
import numpy as np
rng = np.random.default_rng(0)
batch = rng.standard_normal((128, 28, 28, 1), np.float32), rng.integers(0, 10, 128)
"""
FIRST_STEPS = {
    "fnn": """
import fnn, jax
from benchmarks.models import TASKS, loss
params, optimizer = TASKS["cnn"].init(jax.random.key(0)), fnn.adam(1e-3)
step = fnn.make_step(loss(TASKS["cnn"].logits), optimizer)
params, state, value = step(params, optimizer.init(params), batch)
print(float(value))
""",
    "plain JAX + optax": """
import jax
from benchmarks.peers import plain
def layer(key, *shape):
    return {"w": 0.05 * jax.random.normal(key, shape), "b": jax.numpy.zeros(shape[-1])}
k1, k2, k3, k4 = jax.random.split(jax.random.key(0), 4)
params = {"conv1": layer(k1, 3, 3, 1, 32), "conv2": layer(k2, 3, 3, 32, 64),
          "hidden": layer(k3, 3136, 128), "head": layer(k4, 128, 10)}
trainer = plain.make("cnn", params)
print(trainer.floats([trainer.step(trainer.put(batch))])[0])
""",
}


def process(name: str, measure: str, code: str) -> Contestant:
    """Return a contestant that runs code in a fresh interpreter; it prints one finite number."""

    def run() -> float:
        command = [sys.executable, "-W", "ignore", "-c", code]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def show(value: float) -> list[float]:
        return [float(np.isfinite(value))]

    return Contestant(name, measure, "process", lambda units: Program(run, show=show))


def measure(case: str, codes: dict[str, str], session: Session) -> list[Row]:
    found = [process(name, "process", code) for name, code in codes.items()]
    budget = Budget(1, 2) if session.quick else Budget(12, 9)
    return [{"case": case, **row} for row in race(found, {"process": [1.0]}, budget)]


def jobs(session: Session) -> Iterator[Job]:
    imports = IMPORTS | (PEER_IMPORTS if session.peers else {})
    codes = {name: f"{code}\nprint(1)" for name, code in imports.items()}
    yield "import", functools.partial(measure, "import", codes, session)
    codes = {name: BATCH + code for name, code in FIRST_STEPS.items()}
    yield "first step", functools.partial(measure, "first step of the small CNN", codes, session)
