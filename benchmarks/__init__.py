"""Benchmarks: triows and its rivals on the same work; run `python -m benchmarks`."""
