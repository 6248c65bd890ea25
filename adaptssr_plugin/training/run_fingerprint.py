"""The run to which a checkpoint belongs, so that one of another run is not loaded by mistake."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError

_MAY_CHANGE = ("source",)  # where the data are: folders may move


class RunFingerprint:
    """What a stage of a run writes into all of its checkpoints to identify the run.

    Args:
        stage: its name.
        config: the options of the run, in named parts of plain values; the part ``source`` is kept but not compared.
        versions: of the software.
    """

    def __init__(self, stage: str, config: Mapping[str, Mapping[str, Any]], versions: Mapping[str, str]) -> None:
        self.stage = stage
        self.config = {part: dict(values) for part, values in config.items()}
        self.versions = dict(versions)

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {"stage": self.stage, "config": self.config, "versions": self.versions}

    def check(self, path: Path, state: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another stage or run; parts that this run does not have are not compared.

        Raises:
            InputError: a checkpoint of another one; the message names the first value that differs.
        """
        if state.get("stage") != self.stage or not {"state_dict", "config", "versions"} <= state.keys():
            raise InputError(f"checkpoint: expected one of stage {self.stage} in {path}, got another")
        for part, ours in self.config.items():
            theirs = ours if part in _MAY_CHANGE else state["config"].get(part, {})
            for name in {**ours, **theirs}:
                if ours.get(name) != theirs.get(name):
                    raise InputError(
                        f"checkpoint: {path} is of another run "
                        f"({name}: {theirs.get(name)!r} there, {ours.get(name)!r} here)"
                    )

    def changed_versions(self, state: Mapping[str, Any]) -> list[str]:
        """Return the names of the software whose version differs from that in a checkpoint."""
        there = state["versions"]
        return [name for name, version in self.versions.items() if there.get(name) != version]
