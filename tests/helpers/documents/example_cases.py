"""The examples as modules."""

import importlib.util
from pathlib import Path

from core_only import ROOT


def import_example(name):
    """Import one as a user would."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHARES = r"^{}: implicit over augmented ([\d.]+), augmented over others ([\d.]+)$"


def ml_100k():
    (folder,) = importlib.util.find_spec("recbole").submodule_search_locations
    return Path(folder) / "dataset_example" / "ml-100k" / "ml-100k.inter"
