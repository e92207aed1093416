"""Kernels of recurrence.

Read `form` first: what a cell and a kernel are, and what surrounds every one of them (lengths,
precision, memory). Then `cells`, the formulas of RNN, LSTM and GRU, and the kernels: `scan`, the
loop as it is; `written`, whose derivative is written out; `cudnn`, the library of NVIDIA's cards.
The layers run `written`, unless asked for another. Imports the ground only.
"""
