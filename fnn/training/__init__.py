"""Training: one compiled step, or a whole run of them.

Imports the ground and the optimizers. Read step, loop, arrays, run: a batch goes from `fnn.train`
through `fnn.training.run._reports` and `fnn.training.loop.advance` to `take_step`.
"""
