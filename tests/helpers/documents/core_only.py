"""Runs Python where torch, numpy and this package can be imported but nothing of the recbole extra."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

# Import names of what the recbole extra of setup.cfg installs, and of RecBole, which follows it.
EXTRA = {
    "recbole": "recbole",
    "pandas": "pandas",
    "scipy": "scipy",
    "scikit-learn": "sklearn",
    "tqdm": "tqdm",
    "pyyaml": "yaml",
    "colorlog": "colorlog",
    "colorama": "colorama",
    "tensorboard": "tensorboard",
    "thop": "thop",
    "tabulate": "tabulate",
    "plotly": "plotly",
    "texttable": "texttable",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "click": "click",
    "matplotlib": "matplotlib",
}

# The extra is as good as not installed: not found, rather than refused. torch itself asks for some of it and goes on
# without, so only what is asked for after torch counts.
PRELUDE = f"""
import sys

class Blocker:
    names = {sorted(EXTRA.values())}
    asked = []
    finders = list(sys.meta_path)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            self.asked.append(name)
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

blocker = Blocker()
sys.meta_path[:] = [blocker]
import numpy, torch
blocker.asked.clear()
"""


def run_python(*arguments, cwd=ROOT, **environment):
    """Run Python and return the finished process; warnings are not errors there, as for a user."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment},
        check=False,
    )


def run_with_core_only(code, *arguments, cwd=ROOT):
    """Run code, with ``sys.argv[1:]`` as given, behind the blocker (``blocker.asked``: what was asked for)."""
    return run_python("-c", PRELUDE + code, *arguments, cwd=cwd)
