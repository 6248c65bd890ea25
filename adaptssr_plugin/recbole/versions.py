"""What a result depends on, beside its inputs."""

import platform

import numpy as np
import recbole
import torch

from .. import __version__


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "adaptssr_plugin": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # of a class of its own, which a checkpoint may not hold
        "numpy": np.__version__,
        "recbole": recbole.__version__,
    }
