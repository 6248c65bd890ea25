"""Pre-training methods as recipes: views, objective and defaults (the rows of the paper's Table 2).

A method is one file that registers it and one YAML file with its defaults; ``definitions/duorec.py`` is short.
"""

from .definitions import adaptssr, ccl, cl4srec, clue, coserec, duorec, idicl, none, peterrec, ptum
from .recipe import Recipe, presets, recipe
from .registry import Method, available, register, unregister, view_methods

__all__ = [
    "Method",
    "Recipe",
    "adaptssr",
    "available",
    "ccl",
    "cl4srec",
    "clue",
    "coserec",
    "duorec",
    "idicl",
    "none",
    "peterrec",
    "presets",
    "ptum",
    "recipe",
    "register",
    "unregister",
    "view_methods",
]
