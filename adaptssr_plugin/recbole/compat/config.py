"""A RecBole ``Config`` without side effects on the process, whose errors are one line."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.utils import ModelType

from adaptssr_plugin.corpus.formats.atomic import AtomicFile
from adaptssr_plugin.corpus.on_disk import corpus_name, is_corpus, is_unfinished_corpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole.compat.atomic_files import locate
from adaptssr_plugin.recbole.compat.patches import compat_patches
from adaptssr_plugin.recbole.compat.safe_config import SafeConfig, one_line


@compat_patches()
def build_config(
    model_class: type[Any],
    dataset: str,
    options: Mapping[str, Any] | None = None,
    config_files: Sequence[str | Path | Mapping[str, Any]] = (),
) -> Config:
    """Make the RecBole ``Config`` of a sequential model, with the defaults that a user model needs.

    Options override config files, these override this function's defaults (``MAX_ITEM_LIST_LENGTH`` 100, as in the
    paper; ``loss_type`` CE and therefore ``train_neg_sample_args`` None; utf-8; of the ``.inter`` file the columns of
    user, item, time and those that ``val_interval`` and ``threshold`` name), and these override RecBole's. Missing
    parts of ``eval_args`` are as for RecBole's sequential models: the last two items held out, ordered by time.

    Differences from RecBole: ``sys.argv`` is not read. A string among the options is read as a Python literal or kept,
    never evaluated. ``options`` and ``CUDA_VISIBLE_DEVICES`` are not changed (``gpu_id`` counts the devices that this
    process sees). ``use_gpu: False`` means the CPU. Columns are checked before anything is loaded.

    Args:
        model_class: a model class of RecBole's sequential type; its name becomes ``config["model"]``.
        dataset: ``ml-100k``, the name of a folder under the option ``data_path``, or a folder that contains
            ``<folder's name>.inter`` or else a single ``.inter`` file; or a folder that
            :func:`~adaptssr_plugin.corpus.open_corpus` reads, to which RecBole's options of datasets do not apply.
        options: RecBole's ``config_dict``.
        config_files: YAML files or mappings of options; later ones override earlier ones.

    Raises:
        MissingDatasetError: no such dataset.
        InputError: a wrong option, a missing column, an unreadable file.
    """
    if getattr(model_class, "type", None) != ModelType.SEQUENTIAL:
        raise InputError(f"model_class: expected a class with type = ModelType.SEQUENTIAL, got {model_class!r}")
    try:
        return _UserModelConfig(
            model=model_class,
            dataset=dataset,
            config_file_list=list(config_files),
            config_dict=copy.deepcopy(dict(options or {})),
        )
    except InputError:
        raise
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:  # RecBole's own checks of options
        raise InputError(f"options: {one_line(error)}") from error


class _UserModelConfig(SafeConfig):
    """The ``Config`` of a user model."""

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}

    def _get_model_and_dataset(self, model: type[Any], dataset: str) -> tuple[str, type[Any], str]:
        external = self.external_config_dict
        refuse_processes(external, "adaptssr pretrain --nproc's")
        parts = external.get("benchmark_filename")
        if parts is not None and (not parts or not isinstance(parts, list | tuple)):
            raise InputError(f"benchmark_filename: expected a list such as ['train', 'valid', 'test'], got {parts!r}")
        if is_corpus(dataset) or is_unfinished_corpus(dataset):
            self._folder, name = Path(dataset), corpus_name(dataset)
        else:
            self._folder, name = locate(dataset, external.get("data_path", "dataset/"), parts)
        return model.__name__, model, name

    def _get_final_config_dict(self) -> dict[str, Any]:
        """Apply our defaults between RecBole's and the caller's."""
        defaults = {"encoding": "utf-8", "MAX_ITEM_LIST_LENGTH": 100}
        final = {**self.internal_config_dict, **defaults, **self.external_config_dict}
        final.setdefault("loss_type", "CE")
        if isinstance(final["eval_args"], dict):  # otherwise RecBole fills in random order, and then refuses it
            final["eval_args"] = {**self.internal_config_dict["eval_args"], **final["eval_args"]}
        if final["loss_type"] == "CE" and "train_neg_sample_args" not in self.external_config_dict:
            final["train_neg_sample_args"] = None  # with CE RecBole refuses its own default of one negative
        return final

    def _set_default_parameters(self) -> None:
        super()._set_default_parameters()
        self.final_config_dict["data_path"] = str(self._folder)
        if is_corpus(self._folder):
            _refuse_options_of_datasets(self)
        else:
            _settle_columns(self)


def _refuse_options_of_datasets(config: Config) -> None:
    """Raise InputError for options about reading, filtering and splitting files, where RecBole reads none."""
    meaningless = {*config.parameters["Dataset"], "eval_args"} - {"MAX_ITEM_LIST_LENGTH"}
    for name in config.external_config_dict:
        if name in meaningless:
            folder = config["data_path"]
            raise InputError(f"{name}: expected with RecBole's files alone, got it with the corpus {folder}")


def refuse_processes(options: Mapping[str, Any], whose: str, number: int = 1) -> None:
    """Raise InputError if RecBole's options ask for more processes than there are: they start none.

    ``whose`` says in the message what does, and ``number`` is that of processes that train together.
    """
    for name, most in {"nproc": number, "world_size": number, "local_rank": number - 1}.items():
        value = options.get(name)
        if value is not None and not (isinstance(value, int) and value <= most):
            raise InputError(f"{name}: expected {most}, got {value!r}; several processes are {whose}")


def _settle_columns(config: Config) -> None:
    """Fill in ``load_col`` if the caller left it open, and check every column that it names.

    Raises:
        InputError: a file lacks a column that is named or that a sequential model needs, or the column's type is wrong.
    """
    final, external = config.final_config_dict, config.external_config_dict
    needed = _needed_columns(config)
    file = atomic_file(config, "inter")
    inter = file.columns
    for option in ("load_col", "unload_col", "val_interval", "threshold"):
        if not isinstance(final.get(option), Mapping | None):
            raise InputError(f"{option}: expected a mapping, got {final[option]!r}")
    given = external.get("load_col")
    if given is None and ("load_col" in external or external.get("unload_col")):
        final["load_col"] = None  # RecBole's value for: everything
    else:
        filters = [field for key in ("val_interval", "threshold") for field in final.get(key) or {} if field in inter]
        final["load_col"] = {"inter": list(dict.fromkeys([*needed, *filters])), **(given or {})}
    for field, (option, kind) in needed.items():
        if field not in inter:
            raise InputError(f"{option}: expected a column {field!r} in {file.path.name}, which has {', '.join(inter)}")
        file.check(field, kind)
    _check_load_col(config, needed)


def atomic_file(config: Config, suffix: str) -> AtomicFile:
    """Open one of the dataset's files: of files that are split beforehand the first."""
    if suffix == "inter" and config["benchmark_filename"]:
        suffix = f"{config['benchmark_filename'][0]}.inter"
    path = Path(config["data_path"]) / f"{config['dataset']}.{suffix}"
    return AtomicFile(path, config["field_separator"], config["encoding"])


def _needed_columns(config: Config) -> dict[str, tuple[str, str]]:
    """Columns of the .inter file that a sequential model needs: the option that names each, and its type."""
    needed = {
        config["USER_ID_FIELD"]: ("USER_ID_FIELD", "token"),
        config["ITEM_ID_FIELD"]: ("ITEM_ID_FIELD", "token"),
    }
    if not config["benchmark_filename"]:
        return {**needed, config["TIME_FIELD"]: ("TIME_FIELD", "float")}
    config["alias_of_item_id"] = aliases_of_items(config.final_config_dict)
    return {**needed, history_column(config.final_config_dict): ("benchmark_filename", "token_seq")}


def history_column(options: Mapping[str, Any]) -> str:
    """Return the column of histories in files that are split beforehand (``benchmark_filename``)."""
    return f"{options['ITEM_ID_FIELD']}{options['LIST_SUFFIX']}"


def aliases_of_items(options: Mapping[str, Any]) -> list[str]:
    """Return ``alias_of_item_id`` with the column of histories, to which RecBole would otherwise give separate ids."""
    shared = list(options.get("alias_of_item_id") or [])
    return shared if history_column(options) in shared else [*shared, history_column(options)]


def _check_load_col(config: Config, needed: Mapping[str, Any]) -> None:
    keys = {"inter": list(needed), "user": [config["USER_ID_FIELD"]], "item": [config["ITEM_ID_FIELD"]]}
    for suffix, fields in (config["load_col"] or {}).items():
        if fields == "*":
            continue
        if not isinstance(fields, list | tuple) or not all(isinstance(field, str) for field in fields):
            raise InputError(f"load_col: expected a list of columns for {suffix!r}, got {fields!r}")
        columns = atomic_file(config, suffix).columns
        for field in fields:
            if field not in columns:
                raise InputError(
                    f"load_col: expected columns of {config['dataset']}.{suffix} ({', '.join(columns)}), got {field!r}"
                )
        for field in keys.get(suffix, []):
            if field not in fields:
                raise InputError(f"load_col: expected {field!r} among the columns for {suffix!r}, got {list(fields)}")
    for field in (config["unload_col"] or {}).get("inter", []):
        if field in needed:
            raise InputError(f"unload_col: {field!r} is needed by a sequential model")
