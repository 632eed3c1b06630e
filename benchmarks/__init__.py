"""Benchmarks: each prints ratios against a rival or a limit measured in the same run."""
