"""RecBole's ``Config`` without the steps that change global state or evaluate text."""

import ast
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config

from ...errors import InputError

_PLAIN = (str, int, float, list, tuple, dict, bool, type(None))


class SafeConfig(Config):
    """A ``Config`` without side effects on the process.

    Differences from RecBole: a string is read as a Python literal or kept, never evaluated. The YAML loader,
    RecBole's lists of options and ``CUDA_VISIBLE_DEVICES`` are not changed (``gpu_id`` counts the devices that this
    process sees). ``use_gpu: False`` means the CPU. Make it inside ``compat_patches()``.
    """

    parameters: dict[str, list[str]]

    def _init_parameters_category(self) -> None:
        super()._init_parameters_category()
        # The lists are globals of RecBole, which adds a dataset's options to them (configurator.py:279).
        self.parameters = {category: list(names) for category, names in self.parameters.items()}

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        """Read 1e-3 as a number, as RecBole does, but in a class of ours (configurator.py:122 changes FullLoader)."""

        class Loader(yaml.SafeLoader):
            pass

        number = re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$")
        Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789."))
        return Loader

    def _load_config_files(self, file_list: list[str | Path | Mapping[str, Any]] | None) -> dict[str, Any]:
        """Read YAML files or mappings of options; strings in mappings are treated like those among all options."""
        merged: dict[str, Any] = {}
        for file in file_list or []:
            if isinstance(file, Mapping):
                merged.update(self._convert_config_dict(dict(file)))
                continue
            try:
                content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=self.yaml_loader)
            except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
                raise InputError(f"config_files: cannot read {file}: {one_line(error)}") from error
            if not isinstance(content, dict | None):
                raise InputError(f"config_files: expected option: value lines in {file}, got {type(content).__name__}")
            merged.update(content or {})
        return merged

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        """Read strings as literals; RecBole's own evaluates them (configurator.py:147)."""
        return literals(config_dict)

    def _init_device(self) -> None:
        """Choose the device without writing to CUDA_VISIBLE_DEVICES (configurator.py:484), and respect ``use_gpu``."""
        final = self.final_config_dict
        wanted = final["gpu_id"]
        wanted = ",".join(map(str, wanted)) if isinstance(wanted, tuple | list) else str(wanted)
        final.update(gpu_id=wanted, single_spec=True, local_rank=0, device=torch.device("cpu"))
        if not wanted or not final["use_gpu"] or not torch.cuda.is_available():
            return
        first, visible = wanted.split(",")[0].strip(), torch.cuda.device_count()
        if not first.isdecimal() or int(first) >= visible:
            raise InputError(f"gpu_id: expected a device from 0 to {visible - 1}, got {wanted!r}")
        final["device"] = torch.device("cuda", int(first))


def one_line(error: BaseException) -> str:
    """Return the message of an exception as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def as_option(value: Any) -> Any:
    """Return a value of a YAML file in the form it needs among options, where strings are read as literals."""
    return repr(value) if isinstance(value, str) and _literal(value) != value else value


def literals(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with their strings read as Python literals, as a config reads them."""
    return {name: _literal(value) if isinstance(value, str) else value for name, value in options.items()}


def _literal(text: str) -> Any:
    """Read a string as a Python literal, or as true or false; any other stays a string."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash in a path is not the caller's problem
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)
    return value if isinstance(value, _PLAIN) else text
