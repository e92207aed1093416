"""Optimizers: pairs ``(init, update)`` of pure functions, as in optax.

Reading order: `base`, what all share; by growing complexity `descent`, `adaptive`, `adam`, `muon`,
`newton`; then what goes around them: `last`, what may not, `transforms`, `parts`, `wrappers`,
`flat`; and `schedules` for the learning rate. Imports the ground and the analysis.
"""
