"""Optimizers: pairs ``(init, update)`` of pure functions, as in optax.

Reading order, by growing complexity: `descent`, `adaptive`, `adam`, `muon`, `newton`; then what
goes around them: `transforms`, `wrappers`, `flat`; and `schedules` for the learning rate. Imports
the ground and the analysis.
"""
