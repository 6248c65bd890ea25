"""The ``Config`` of a RecBole run with the ``ssl_`` options."""

import copy
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch
from recbole.utils import EvaluatorType, InputType, ModelType, get_model

from ...errors import InputError
from ...methods.options.declaring import typed
from ...training.processes import Processes
from ..compat.atomic_files import locate
from ..compat.config import aliases_of_items, history_column, refuse_processes
from ..compat.data_parallel import share_out
from ..compat.safe_config import SafeConfig, one_line
from .checks import settle_options
from .settings import SelfSupervision, packaged_defaults, self_supervision

_RECBOLE_MODELS = Path(recbole.__file__).parent / "properties" / "model"
_RECBOLE_CODE = Path(recbole.__file__).parent / "model"
_ENUMS: dict[str, type[enum.Enum]] = {
    "MODEL_TYPE": ModelType,
    "MODEL_INPUT_TYPE": InputType,
    "eval_type": EvaluatorType,
}
# The options of a run other than ssl_ ones: type, default and meaning.
RUN_OPTIONS: dict[str, tuple[type, Any, str]] = {
    "faster_layers": (
        bool,
        None,
        "Rows in groups of similar length, cross-entropy without all scores in memory, cheaper dropout masks, fused "
        "GELU and Adam, BERT4Rec's masking by whole batches: the same functions and distributions, with other rounding "
        "and random numbers. On by default only if ssl_loss is set, so that plain RecBole runs do not change.",
    ),
    "cuda_graphs": (
        bool,
        False,
        "Training steps of a sequential model with Adam or AdamW on a CUDA device are captured as graphs and replayed. "
        "Adam is one fused kernel, and rows are not grouped by length. The self-supervised loss leaves out up to an "
        "eighth of its rows, so that few numbers of rows occur. Not measured yet. Where steps cannot be "
        "captured, one line says so. Not for a model whose Python code changes from step to step.",
    ),
    "pretrained": (str, "", "Weights to start from: a checkpoint, a .safetensors file or a folder of `pretrain`."),
    "resume": (str, "", "Checkpoint of the same model, whose training is continued."),
    "trusted_files": (bool, False, "Load checkpoints that may execute code: only files that you made yourself."),
}


class RunConfig(SafeConfig):
    """RecBole's ``Config`` with all its sources (command line, ``config_dict``, YAML files) and the ``ssl_`` options.

    ``config_dict`` is not changed. A sequential model trained by cross-entropy samples no negatives unless asked to
    (RecBole refuses its own default there). A class that extends one of RecBole's models has that model's defaults.
    Validation uses RecBole's metric if ``metrics`` and ``topk`` include it, otherwise their first. If torch's default
    process group has several processes, all of them run together.
    """

    ssl: SelfSupervision
    internal_config_dict: dict[str, Any]

    def __init__(
        self, model: Any = None, dataset: Any = None, config_file_list: Any = None, config_dict: Any = None
    ) -> None:
        try:
            super().__init__(model, dataset, config_file_list, copy.deepcopy(dict(config_dict or {})))
        except InputError:
            raise
        except (ValueError, TypeError, NotImplementedError, RuntimeError, SyntaxError) as error:  # RecBole's own checks
            raise InputError(f"options: {one_line(error)}") from error
        processes = Processes(together=True)
        if processes.data_parallel:
            share_out(self, processes)

    def _load_variable_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        """Convert numpy numbers, which hyperopt draws, to Python's: they are saved in checkpoints."""
        options = super()._load_variable_config_dict(config_dict)
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the YAML loader, a class made at run time: RecBole's ``save_dataset`` pickles the config too."""
        return {name: value for name, value in vars(self).items() if name != "yaml_loader"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the YAML loader again."""
        self.__dict__.update(state, yaml_loader=self._build_yaml_loader())

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> tuple[str, type[Any], str]:
        external = self.external_config_dict
        started_by = "those of adaptssr run --nproc, or of the arguments of RecBole's own run"
        refuse_processes(external, started_by, Processes(together=True).number)
        for name, value in (("model", model), ("dataset", dataset)):
            if value is None and external.get(name) is None:
                raise InputError(f"{name}: expected one as an argument or among the options, got none")
        name, model_class = _found(external["model"] if model is None else model)
        parts = external.get("benchmark_filename")
        if parts is not None and not (isinstance(parts, list | tuple) and len(parts) == 3):
            raise InputError(
                "benchmark_filename: expected the parts for training, validation and test, such as "
                f"['train', 'valid', 'test'], got {parts!r}"
            )
        dataset = str(external["dataset"] if dataset is None else dataset)
        self._folder: Path | None = None
        data_path = Path(str(self.external_config_dict.get("data_path", "dataset/")))
        by_name = dataset == "ml-100k" or (Path(dataset).name == dataset and (data_path / dataset).is_dir())
        if not by_name and Path(dataset).is_dir():
            self._folder, dataset = locate(dataset, data_path, parts)
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
        sequential = final["MODEL_TYPE"] == ModelType.SEQUENTIAL
        column = _needed_column(final)
        if column is not None and "load_col" not in self.external_config_dict:
            columns = final["load_col"]["inter"]
            final["load_col"] = {**final["load_col"], "inter": list(dict.fromkeys([*columns, column]))}
        if column is not None and column == history_column(final):
            final["alias_of_item_id"] = aliases_of_items(final)
        if sequential and final.get("loss_type") == "CE" and "train_neg_sample_args" not in self.external_config_dict:
            final["train_neg_sample_args"] = None
        self.ssl = self_supervision(self.model, final)
        final.update(self.ssl.as_options() if self.ssl.active else {"ssl_loss": "none"})
        for name, (kind, default, _) in RUN_OPTIONS.items():
            value = final.get(name)
            final[name] = default if value is None else typed(name, value, kind)
        if final["faster_layers"] is None:
            final["faster_layers"] = self.ssl.active
        if final["pretrained"] and self.ssl.item_init == "svd":
            raise InputError(f"ssl_item_init: expected random beside pretrained {final['pretrained']!r}, got svd")
        settle_options(final, self.external_config_dict, self.model_class)
        return final

    def _set_default_parameters(self) -> None:
        super()._set_default_parameters()
        if self._folder is not None:
            self.final_config_dict["data_path"] = str(self._folder)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    @classmethod
    def restored(cls, saved: Mapping[str, Any], model: type[Any] | None = None) -> "RunConfig":
        """Make the config of a run again from :func:`plain`, with the device that this machine has.

        ``model`` is needed if RecBole does not find the class by name.

        Raises:
            InputError: options that are not those of a RecBole run, or an unknown model.
        """
        try:
            config = cls.__new__(cls)
            config._init_parameters_category()
            config.external_config_dict = {}
            config.final_config_dict = {
                name: _ENUMS[name][value] if name in _ENUMS else value for name, value in saved.items()
            }
            config.yaml_loader = config._build_yaml_loader()
            config.model, config.model_class = _found(saved["model"] if model is None else model)
            config.dataset = saved["dataset"]
            config.ssl = self_supervision(config.model, config.final_config_dict)
            config._init_device()
            if config.dataset == "ml-100k":  # it ships with RecBole, whose folder differs from machine to machine
                config.final_config_dict["data_path"] = str(locate("ml-100k", "")[0])
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"checkpoint: its options are not those of a RecBole run ({one_line(error)})") from None
        # Options about the start of that run.
        config.final_config_dict.update(pretrained="", resume="", ssl_item_init="random")
        return config


def _found(model: Any) -> tuple[str, type[Any]]:
    """Return name and class of a model, given by either.

    Raises:
        InputError: a name that RecBole's look-up does not find, or a class that is not a RecBole model.
    """
    found = model
    if isinstance(model, str):
        try:
            found = get_model(model)
        except (ValueError, AttributeError):
            found = None
        except ImportError as error:  # the look-up also tries models that need lightgbm and xgboost
            if any(path.stem == model.lower() for path in _RECBOLE_CODE.glob("*/*.py")):
                raise InputError(f"model: {model} cannot be imported: {one_line(error)}") from None
            found = None
    if not isinstance(found, type) or not isinstance(getattr(found, "type", None), ModelType):
        raise InputError(
            "model: expected the name of a RecBole model, spelt as in its table (SASRec, GRU4Rec, …), or a class that "
            f"extends one of RecBole's, got {model!r}"
        )
    return (model if isinstance(model, str) else found.__name__), found


def _needed_column(final: Mapping[str, Any]) -> str | None:
    """Return the column that RecBole's default ``load_col`` leaves out although RecBole sorts or splits by it."""
    sequential = final["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if final.get("benchmark_filename") is not None:
        return history_column(final) if sequential else None
    args = final["eval_args"] if isinstance(final["eval_args"], Mapping) else {}
    by_time = sequential or args.get("order") == "TO" or "TS" in (args.get("split") or ())
    return str(final["TIME_FIELD"]) if by_time else None


def plain(config: Any) -> dict[str, Any]:
    """Convert the options of a config to values that load with ``weights_only=True``."""
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
    if isinstance(value, np.generic | np.ndarray):  # before float: np.float64 is also a float
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
