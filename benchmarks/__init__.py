"""Benchmarks of fnn: one clock, one file per subject, every contestant verified first."""
