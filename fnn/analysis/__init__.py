"""Analysis: what a network does, read from its loss and its intermediate values.

Imports the ground, the layers and the losses; optimizers and training may import it.
"""
