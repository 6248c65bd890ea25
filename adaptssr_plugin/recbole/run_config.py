"""The ``Config`` of a RecBole run that knows the ``ssl_`` options."""

import copy
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recbole
import torch
from recbole.utils import EvaluatorType, InputType, ModelType

from ..errors import InputError
from ..methods.options import typed
from .atomic_files import locate
from .config import refuse_several_processes
from .safe_config import SafeConfig
from .settings import SelfSupervision, packaged_defaults, self_supervision

_RECBOLE_MODELS = Path(recbole.__file__).parent / "properties" / "model"
_ENUMS: dict[str, type[enum.Enum]] = {
    "MODEL_TYPE": ModelType,
    "MODEL_INPUT_TYPE": InputType,
    "eval_type": EvaluatorType,
}
# The options of a run beside those that begin with ssl_: their type, default and meaning.
RUN_OPTIONS: dict[str, tuple[type, Any, str]] = {
    "faster_layers": (
        bool,
        None,
        "Cheaper dropout masks, fused GELU and Adam, BERT4Rec's masking by whole batches: the same distributions from "
        "other random numbers. By default only where ssl_loss is set, so that nothing changes where it is not.",
    ),
    "pretrained": (str, "", "Weights to start from: a checkpoint, a .safetensors file or a folder of `pretrain`."),
    "resume": (str, "", "Checkpoint of the same model whose training goes on."),
    "trusted_files": (bool, False, "Load checkpoints that may execute code: only files that you made yourself."),
}


class RunConfig(SafeConfig):
    """RecBole's ``Config`` with all its sources (command line, ``config_dict``, yaml files) and the ``ssl_`` options.

    ``config_dict`` stays as it is. A sequential model trained by cross-entropy samples no negatives unless asked to
    (RecBole refuses its own default there). A class that extends one of RecBole's models has that model's defaults.
    """

    ssl: SelfSupervision
    internal_config_dict: dict[str, Any]

    def __init__(
        self, model: Any = None, dataset: Any = None, config_file_list: Any = None, config_dict: Any = None
    ) -> None:
        super().__init__(model, dataset, config_file_list, copy.deepcopy(dict(config_dict or {})))

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type[Any], str]:
        refuse_several_processes(self.external_config_dict)
        try:
            name, model_class, dataset = super()._get_model_and_dataset(model, dataset)
        except (ValueError, AttributeError):
            name = model or self.external_config_dict.get("model")
            raise InputError(
                f"model: expected the name of a RecBole model, spelt as in its table (SASRec, GRU4Rec, …), got {name!r}"
            ) from None
        self._folder: Path | None = None
        data_path = Path(str(self.external_config_dict.get("data_path", "dataset/")))
        if dataset != "ml-100k" and not (data_path / dataset).is_dir() and Path(dataset).is_dir():
            self._folder, dataset = locate(dataset, data_path, self.external_config_dict.get("benchmark_filename"))
        return name, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: type[Any], dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        if not (_RECBOLE_MODELS / f"{model}.yaml").is_file():
            own = self.internal_config_dict
            for base in model_class.__mro__[1:]:
                if (_RECBOLE_MODELS / f"{base.__name__}.yaml").is_file():
                    inherited = self._load_config_files([_RECBOLE_MODELS / f"{base.__name__}.yaml"])
                    self.internal_config_dict = {**inherited, **own}
                    break
        self.internal_config_dict.update(packaged_defaults("models", model))

    def _get_final_config_dict(self) -> dict[str, Any]:
        final: dict[str, Any] = super()._get_final_config_dict()
        by_cross_entropy = final["MODEL_TYPE"] == ModelType.SEQUENTIAL and final.get("loss_type") == "CE"
        if by_cross_entropy and "train_neg_sample_args" not in self.external_config_dict:
            final["train_neg_sample_args"] = None
        self.ssl = self_supervision(self.model, final)
        final.update(self.ssl.as_options() if self.ssl.active else {"ssl_loss": "none"})
        for name, (kind, default, _) in RUN_OPTIONS.items():
            value = final.get(name)
            final[name] = default if value is None else typed(name, value, kind)
        if final["faster_layers"] is None:
            final["faster_layers"] = self.ssl.active
        return final

    def _set_default_parameters(self) -> None:
        super()._set_default_parameters()
        if self._folder is not None:
            self.final_config_dict["data_path"] = str(self._folder)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> "RunConfig":
        """Make the config of a run again from :func:`plain`, with the device that this machine has.

        Raises:
            InputError: options that are none of a RecBole run, or a model that is not known here.
        """
        try:
            config = cls.__new__(cls)
            config._init_parameters_category()
            config.external_config_dict = {}
            config.final_config_dict = {
                name: _ENUMS[name][value] if name in _ENUMS else value for name, value in saved.items()
            }
            config.model, config.model_class, config.dataset = config._get_model_and_dataset(
                saved["model"], saved["dataset"]
            )
            config.ssl = self_supervision(config.model, config.final_config_dict)
            config._init_device()
            if config.dataset == "ml-100k":  # ships inside RecBole, which lay elsewhere on another machine
                config.final_config_dict["data_path"] = str(locate("ml-100k", "")[0])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"checkpoint: its options are not those of a RecBole run ({error})") from None
        # What concerned the beginning of that run.
        config.final_config_dict.update(pretrained="", resume="")
        return config


def plain(config: Any) -> dict[str, Any]:
    """Turn the options of a config into values that load with ``weights_only=True``."""
    return {name: _plain_value(value) for name, value in config.final_config_dict.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain_value(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)  # a number of numpy's, as hyperopt draws
