"""Training: one compiled step, or a whole run of them.

Imports the ground and the optimizers.
"""
