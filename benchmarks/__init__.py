"""Benchmarks of fnn: one clock for run times, one file per subject, all verified first."""
