"""The source of a run's behaviours: a dataset, and how RecBole reads it."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.config import Config

from ...errors import InputError, MissingDatasetError
from ..compat.config import build_config
from ..compat.safe_config import as_option
from .trainer import UserModel

# RecBole's options that would have no effect, because recipes have their own.
_OPTIONS_OF_A_RECIPE = {
    "MAX_ITEM_LIST_LENGTH": "max_len",
    "clip_grad_norm": "clip_grad_norm",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "seed": "seed",
    "stopping_step": "stopping_step",
    "train_batch_size": "batch_size",
}


@dataclass(frozen=True)
class Source:
    """The source of behaviours.

    Attributes:
        dataset: a RecBole dataset by name, or a folder with its atomic files.
        options: RecBole's own options (columns, filters, split, device, AMP …).
        config_files: RecBole's YAML files, or mappings of options.
        advice: added to the error if there is no such dataset.
    """

    dataset: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config_files: Sequence[str | Mapping[str, Any]] = ()
    advice: str = ""

    def config(self, max_len: int = 100) -> Config:
        """Make RecBole's config; errors as :func:`build_config`, and for options that belong to a recipe."""
        for name in self.options:
            if name in _OPTIONS_OF_A_RECIPE:
                raise InputError(
                    f"{name}: expected among the options of the recipe, as {_OPTIONS_OF_A_RECIPE[name]}, "
                    "got it among RecBole's"
                )
        try:
            return build_config(
                UserModel, self.dataset, {"MAX_ITEM_LIST_LENGTH": max_len, **self.options}, self.config_files
            )
        except MissingDatasetError as error:
            raise MissingDatasetError(f"{error}{self.advice and f'; {self.advice}'}") from None

    def options_and_files(self, config: Config) -> dict[str, Any]:
        """Return RecBole's options with those of the YAML files, which ``config`` has read."""
        read = config.file_config_dict.items()
        # In a file, options of a recipe have no effect.
        of_files = {name: as_option(value) for name, value in read if name not in _OPTIONS_OF_A_RECIPE}
        return {**of_files, **self.options}

    def located(self, config: Config) -> "Source":
        """Say where ``config`` has found the dataset, so that a model finds it from any working directory.

        ml-100k stays a name: it lies where RecBole is installed.
        """
        if self.dataset == "ml-100k":
            return self
        return dataclasses.replace(self, dataset=str(Path(config["data_path"]).absolute()))

    @property
    def name(self) -> str:
        """Name of the dataset, without its folder."""
        return Path(self.dataset).name

    @classmethod
    def of_model(
        cls,
        folder: Path,
        card: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        config_files: Sequence[str] = (),
        advice: str = "",
    ) -> "Source":
        """Recreate the source of a finished run.

        Args:
            folder: of its model.
            card: of its model.
            options: override those of the run.
            config_files: likewise; ``options`` override them.
            advice: what to do if the dataset has moved.

        Raises:
            InputError: a card without this information.
        """
        dataset, before = card.get("dataset"), card.get("recbole_options", {})
        files = card.get("recbole_config_files", [])  # of runs whose card does not yet contain the files' contents
        if not (isinstance(dataset, str) and isinstance(before, Mapping) and isinstance(files, list)):
            raise InputError(f"model: expected one from adaptssr pretrain, got another model.json in {folder}")
        advice = f"the model in {folder} was trained on it{advice and f', and {advice}'}"
        return cls(dataset, options or {}, [*map(str, files), before, *config_files], advice)
