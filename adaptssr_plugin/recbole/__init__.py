"""RecBole 1.2.1 as this package uses it: the only package here that imports recbole."""

from adaptssr_plugin.recbole.requirements import require_recbole

require_recbole()  # before RecBole is imported below: if it is missing, the error says what to type

from recbole.config import Config  # noqa: E402

from adaptssr_plugin.recbole.compat.atomic_files import atomic_columns  # noqa: E402
from adaptssr_plugin.recbole.compat.config import build_config  # noqa: E402
from adaptssr_plugin.recbole.compat.patches import compat_patches, import_quick_start, tensorboard_into  # noqa: E402
from adaptssr_plugin.recbole.compat.profiles import ProfileLabels, profile_labels  # noqa: E402
from adaptssr_plugin.recbole.compat.user_sequences import UserSequences, load_user_sequences  # noqa: E402
from adaptssr_plugin.recbole.entry_points.installing import install, installed, uninstall  # noqa: E402
from adaptssr_plugin.recbole.entry_points.run import load_data_and_model, run_recbole  # noqa: E402

__all__ = [
    "Config",
    "ProfileLabels",
    "UserSequences",
    "atomic_columns",
    "build_config",
    "compat_patches",
    "import_quick_start",
    "install",
    "installed",
    "load_data_and_model",
    "load_user_sequences",
    "profile_labels",
    "run_recbole",
    "tensorboard_into",
    "uninstall",
]
