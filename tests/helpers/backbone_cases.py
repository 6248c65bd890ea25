"""RecBole's sequential models on a small slice of ml-100k: short runs, their outcomes, and the table of these.

``python tests/helpers/backbone_cases.py`` writes the table, ``adaptssr_plugin/recbole/MODELS.md``, anew.
"""

import contextlib
import dataclasses
import importlib
import pkgutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import run_cases

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import installed, load_data_and_model, run_recbole
from adaptssr_plugin.recbole.compat.patches import compat_patches
from adaptssr_plugin.recbole.recommender.backbones import item_embedding
from adaptssr_plugin.recbole.recommender.config import RunConfig
from adaptssr_plugin.recbole.recommender.joint import SelfSupervisedTerm, self_supervised_term

TABLE = Path(__file__).parents[2] / "adaptssr_plugin" / "recbole" / "MODELS.md"
BROKEN_MODELS = ("GRU4RecCPR", "SASRecCPR", "KSR")  # in RecBole's own run_recbole too
OWN_MODELS = ("CL4SRec", "CoSeRec", "DuoRec")
_COLUMNS = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]}

# What every run here shares; a model does not read what it has no use for.
STAGE = {"ssl_warmup_epochs": 0, "ssl_epochs": 1, "ssl_batch_size": 16}  # on whole users
SHORT = {
    "MAX_ITEM_LIST_LENGTH": 10,
    "epochs": 1,
    "train_batch_size": 256,
    "eval_batch_size": 256,
    "show_progress": False,
    "use_gpu": False,
    "state": "error",
    "embedding_size": 16,
    "hidden_size": 16,
    "inner_size": 32,
    "metrics": ["Recall", "MRR"],
    "topk": [10],
    "valid_metric": "MRR@10",
    "load_col": _COLUMNS,
}
# For models on a knowledge graph with vectors.
_KNOWLEDGE_GRAPH = {
    "load_col": _COLUMNS
    | {
        "kg": ["head_id", "relation_id", "tail_id"],
        "link": ["item_id", "entity_id"],
        "ent": ["ent_id", "ent_emb"],
        "rel": ["rel_id", "rel_emb"],
    },
    "additional_feat_suffix": ["ent", "rel"],
    "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
    "alias_of_entity_id": ["ent_id"],
    "alias_of_relation_id": ["rel_id"],
    "kg_embedding_size": 16,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
}
MORE = dict.fromkeys(("GRU4RecKG", "KSR"), _KNOWLEDGE_GRAPH)


def write_slice(folder, users=60, newest=16):
    """Write the first users of ml-100k with their newest interactions, and the items' classes, into a folder."""
    run_cases.write_slice(folder, users, newest)
    for suffix in ("item", "link", "kg"):
        header, *lines = run_cases.ML_100K.with_suffix(f".{suffix}").read_text(encoding="utf-8").splitlines()
        lines = lines[::20] if suffix == "kg" else lines  # a graph of 90,000 triples takes seconds to read
        (folder / f"{folder.name}.{suffix}").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    _write_vectors(folder, lines)
    return folder


def _write_vectors(folder, triples):
    """Write vectors of the knowledge graph's entities and relations, which ml-100k lacks: random ones."""
    random = np.random.default_rng(7)
    heads, relations, tails = zip(*(line.split("\t") for line in triples), strict=True)
    for suffix, tokens in (("ent", {*heads, *tails}), ("rel", {*relations})):
        header = f"{suffix}_id:token\t{suffix}_emb:float_seq"
        lines = [
            f"{token}\t" + " ".join(f"{value:.3f}" for value in random.normal(size=16)) for token in sorted(tokens)
        ]
        (folder / f"{folder.name}.{suffix}").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


@contextlib.contextmanager
def workplace(folder):
    """Stand in a folder that holds the slice, without a command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["x"])
        yield


def in_slice(**sizes):
    """Make a fixture: all tests of a module stand in a folder with the slice, as a user would."""

    @pytest.fixture(scope="module", autouse=True)
    def slice_of_ml_100k(tmp_path_factory):
        folder = tmp_path_factory.mktemp("slice_here")
        write_slice(folder / "slice", **sizes)
        with workplace(folder):
            yield

    return slice_of_ml_100k


def sequential_models():
    """Name every sequential model of RecBole, as its own look-up finds them, and those that are added."""
    with compat_patches():
        package = importlib.import_module("recbole.model.sequential_recommender")
        names = []
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            names += [name for name in vars(module) if name.lower() == found.name and name != found.name]
    return (*sorted(set(names) - set(OWN_MODELS), key=str.lower), *OWN_MODELS)


@run_cases.quiet_root()
def run(model, **options):
    """Run a model on the slice in the working directory; returns RecBole's result."""
    return run_recbole(model, "slice", config_dict=SHORT | MORE.get(model, {}) | options)


def made(model, **options):
    """Make a model on the slice in the working directory: config, training loader and model, and nothing trained."""
    with installed():
        quick_start = importlib.import_module("recbole.quick_start.quick_start")
        config = RunConfig(model, "slice", None, SHORT | MORE.get(model, {}) | options)
        quick_start.init_seed(config["seed"], config["reproducibility"])
        loader = quick_start.data_preparation(config, quick_start.create_dataset(config))[0]
        return config, loader, quick_start.get_model(model)(config, loader._dataset)


# --- the outcome of a model ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of a run with ``ssl_loss: adaptssr``, and of a step with ``infonce`` on what it left."""

    model: str
    works: bool
    own_dropout: bool = False
    without_padding: bool = False
    reason: str = ""

    def line(self):
        if not self.works:
            return f"| {self.model} | no | | | {self.reason} |"
        dropout = "its own" if self.own_dropout else "`ssl_dropout`"
        width = "without padding" if self.without_padding else "at full width"
        return f"| {self.model} | yes | {dropout} | {width} | |"


def outcome(model):
    """Train a model for an epoch, evaluate it and load its checkpoint; or say why it is refused."""
    with tempfile.TemporaryDirectory() as saved:
        try:
            run(model, ssl_loss="adaptssr", ssl_mode="pretrain", **STAGE, checkpoint_dir=f"{saved}/pretrain")
            result = run(model, ssl_loss="adaptssr", ssl_mode="joint", checkpoint_dir=f"{saved}/joint")
        except InputError as error:
            text = str(error)
            assert text.startswith(f"ssl_loss: {model} cannot have one: ")
            assert "\n" not in text
            return Outcome(model, False, reason=text.split(": ")[2])  # without torch's own words, if there are any
        assert set(result["test_result"]) == {"recall@10", "mrr@10"}
        (checkpoint,) = Path(saved, "joint").iterdir()
        with run_cases.quiet_root():
            config, trained, _, train_data, *_ = load_data_and_model(checkpoint)
    term = self_supervised_term(trained)
    _contrast_once(trained, term, config, train_data)
    encoder = term.stage.encoder
    return Outcome(model, True, encoder.drops_out, encoder.ignores_padding)


def _contrast_once(model, term, config, train_data):
    """Take a step's loss and gradient with ``infonce`` in the place of ``adaptssr``."""
    with installed():
        settings = dataclasses.replace(term.settings, loss="infonce")
        other = SelfSupervisedTerm(settings, model, config, train_data.dataset)
        model.train()
        loss = other.loss(next(iter(train_data)))
        loss.backward()
    assert loss.isfinite()
    assert item_embedding(model, other.stage.encoder.n_items).weight.grad.abs().sum() > 0


# --- the table -----------------------------------------------------------------------------------------------------

_HEAD = """# RecBole's sequential models with `ssl_loss`

Every sequential model of RecBole 1.2.1, and CL4SRec, CoSeRec and DuoRec, which it lacks. *Works*: a test trains the
model for an epoch on a small slice of ml-100k with `ssl_loss: adaptssr` in both modes, evaluates it, loads its
checkpoint, and takes a step with `ssl_loss: infonce`. All others, and every model that is not sequential (BPR, SGL,
NCL, …), are refused in one line with the reason given here. This table is written by
`python tests/helpers/backbone_cases.py`.

*Dropout*: what makes two encodings of one sequence differ: the model's own dropout at its default rate, or, where it
has none that is active, `ssl_dropout` on the item vectors, in self-supervised encodes only. *Rows*: whether rows are
encoded in groups of similar length without the padding behind them, which changes nothing but the time, or, where
padding has a part in the model's vector, at the full `MAX_ITEM_LIST_LENGTH`.

GRU4RecCPR, SASRecCPR and KSR do not run in RecBole's own `run_recbole` either. GRU4RecKG is tried with random vectors
of the knowledge graph that comes with ml-100k.

| Model | Works | Dropout | Rows | Why not |
| --- | --- | --- | --- | --- |
"""


def table(outcomes):
    """Give the text of the docs' table."""
    return _HEAD + "".join(f"{outcome.line()}\n" for outcome in outcomes)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, workplace(folder):
        write_slice(Path("slice"))
        TABLE.write_text(table(outcome(model) for model in sequential_models()), encoding="utf-8")
