"""Kernels: the operations that exist more than once, each algorithm in a file of its own.

A folder for each of convolution, pooling and recurrence: ``form`` says what a kernel supplies and
one file per algorithm supplies it. Of convolution and pooling ``rule`` picks one from static facts.
Imports the ground only.
"""
