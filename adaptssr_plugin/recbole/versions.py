"""The versions of the software on which a result depends."""

import platform

import numpy as np
import recbole
import torch

from .. import __version__


def versions() -> dict[str, str]:
    """Return the versions of the packages on which a result depends."""
    return {
        "adaptssr_plugin": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # its class is a subclass of str, which a checkpoint may not hold
        "numpy": np.__version__,
        "recbole": recbole.__version__,
    }
