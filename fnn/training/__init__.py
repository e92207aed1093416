"""Training: one compiled step, or a whole run of them; and what a model does on a data set.

Imports the ground and the optimizers. Read step, loop, arrays, stream, report, run: a batch goes
from `fnn.train` through `run._reports`, `loop.run_call` and `loop.advance` to `step.take_step`.
Then nonfinite, augment, evaluate, trajectory, sharding.
"""
