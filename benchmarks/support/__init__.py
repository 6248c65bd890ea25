"""What the benchmarks share: timing, plots, summaries and the code that they compare with."""
