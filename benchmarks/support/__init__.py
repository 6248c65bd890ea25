"""The common parts of the benchmarks: timing, plots, summaries, and the code that they compare with."""
