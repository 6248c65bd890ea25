"""Throughput and memory on your own machine: ``python -m benchmarks loss``."""
