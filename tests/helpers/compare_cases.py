"""Cells and plans of compare that cost nothing."""

import dataclasses
import os
import signal
import time

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.compare.cells import Cell, FineTuning, Reidentification
from adaptssr_plugin.experiments.compare.plan import ComparePlan, TaskSpec
from adaptssr_plugin.experiments.compare.store import Store

ON_CPU = {"use_gpu": False}


TINY = {"max_len": 5, "mlm_epochs": 1, "epochs": 1, "ft_epochs": 1, "dim": 8, "n_heads": 1, "ff_dim": 8, "n_layers": 1}


AGE = TaskSpec("age", (18.0, 25.0))


def plan_of(**changes):
    values = {"name": "ml-100k", "dataset": "ml-100k", "tasks": (AGE,), "recbole": ON_CPU, "options": TINY, "seeds": 2}
    return ComparePlan(**{**values, "tuning_seeds": 1, **changes})


def key_of(cell):
    return cell.key("corpus")


class Pretended:
    """A store in which chosen cells are finished, with validation values from a function of their recipe."""

    fingerprint = "corpus"

    def __init__(self, valid=None, test=0.9):
        self.valid, self.test = valid, test

    def get(self, cell):
        if self.valid is None or not isinstance(cell, FineTuning):
            return None
        value = self.valid(cell.recipe)
        return None if value is None else {"valid": {"accuracy": value}, "test": {"accuracy": self.test}}


class Found:
    """A store in which all re-identifications are finished, with HR@10 from a function of the model's recipe."""

    fingerprint = "corpus"

    def __init__(self, hit_rate):
        self.hit_rate = hit_rate

    def get(self, cell):
        return {"metrics": {"HR@10": self.hit_rate(cell.start.recipe)}} if isinstance(cell, Reidentification) else None


@dataclasses.dataclass(frozen=True)
class Note(Cell):
    """A cell that notes that it was computed."""

    name: str
    fails: bool = False
    dies: bool = False
    waits: bool = False
    kind = "note"

    def spec(self):
        return {"name": self.name}

    def compute(self, plan, models):
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails:
            raise InputError(f"{self.name}: expected to work, got this")
        models.parent.mkdir(parents=True, exist_ok=True)
        with (models.parent / "order.txt").open("a", encoding="utf-8") as file:
            file.write(f"{self.name}\n")
        if self.waits:
            (models.parent / f"{os.getpid()}.pid").touch()
            time.sleep(600)
        return {"seconds": 0.1}


def put(folder, name, value=0.0):
    Store(folder, "x").put(Note(name), {"seconds": value}, {"jobs": 1})
