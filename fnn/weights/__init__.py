"""Weights: parameters and runs in files.

Imports the ground only.
"""
