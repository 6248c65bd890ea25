"""Pre-training methods as recipes: views, objective and defaults (the rows of the paper's Table 2)."""

from .recipe import Recipe, available, presets, recipe

__all__ = ["Recipe", "available", "presets", "recipe"]
