"""The examples as modules."""

import importlib.util

from core_only import ROOT


def import_example(name):
    """Import one as a user would."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
