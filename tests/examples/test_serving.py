"""The examples of what comes after and around training: search, somebody else's trainer, several processes."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from core_only import ROOT, run_python
from document_cases import adaptssr_arguments, shell_commands
from example_cases import import_example
from pyarrow import parquet
from test_readme import refusal
from test_scripts import ml_100k

from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain

# --- embed_and_search ------------------------------------------------------------------------------------------------

SEARCH = ROOT / "examples" / "embed_and_search.py"


@pytest.fixture(scope="module")
def search():
    return import_example("embed_and_search")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What the example prints for a model of ml-100k that was hardly trained, and the model's folder."""
    options = {"mlm_epochs": 1, "mlm_learning_rate": 1e-2, "epochs": 1, "max_len": 4, "dim": 8, "ff_dim": 16}
    folder = tmp_path_factory.mktemp("search") / "model"
    pretrain(Source("ml-100k", {"use_gpu": False}), recipe("adaptssr", "paper", options), folder, False)
    done = run_python(SEARCH, folder, "--users", 2, "--neighbours", 3, "--films", 2)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_search_shows_neighbours_and_their_films(searched, search):
    output, folder = searched
    by = "faiss" if importlib.util.find_spec("faiss") else "torch"
    assert output.startswith(f"943 users, 8 numbers each, in {folder}/users.parquet; searched by {by}\n")
    shown = [output.strip().split("\n\n")[1 + number].splitlines() for number in range(2)]
    names, vectors = search.read_vectors(folder / "users.parquet")
    known = set(search.titles().values())
    assert len(known) > 1600
    for query, lines in enumerate(shown):
        cosines = vectors @ vectors[query]
        cosines[query] = -2
        best = np.sort(cosines)[::-1][:3]
        found = [re.fullmatch(r"  (-?[\d.]+)  user (\d+): (.+)", line).groups() for line in lines[1:]]
        assert [float(value) for value, _, _ in found] == pytest.approx(best, abs=1e-4)
        assert {user for _, user, _ in found} <= {*names} - {names[query]}
        films = [lines[0].partition(": ")[2], *(films for _, _, films in found)]
        assert {title for text in films for title in text.split("; ")} <= known
    last = re.search(r"([\d.]+) with the nearest user, ([\d.]+) with anybody\.$", output.strip())
    assert 0 < float(last[2]) < 1
    assert 0 < float(last[1]) < 1


def test_search_reads_what_the_command_writes(searched, search):
    names, vectors = search.read_vectors(searched[1] / "users.parquet")
    assert names == parquet.read_table(searched[1] / "users.parquet")["user_id"].to_pylist()
    assert vectors.shape == (943, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_search_in_torch_is_exact(search):
    vectors = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    products, places = search.nearest(vectors, vectors[:7], 5, use_faiss=False)
    scores = vectors[:7] @ vectors.T
    np.testing.assert_array_equal(places, np.argsort(-scores, axis=1)[:, :5])
    np.testing.assert_allclose(products, np.sort(scores, axis=1)[:, ::-1][:, :5], rtol=1e-5)


def test_shared_films(search):
    corpus = search.BehaviourCorpus.from_lists([[1, 2, 3, 1], [3, 4], [5]])
    assert search.shared_films(corpus, np.array([0, 0]), np.array([1, 2])) == pytest.approx((1 / 4 + 0) / 2)


# --- lightning_module ------------------------------------------------------------------------------------------------

LIGHTNING = ROOT / "examples" / "lightning_module.py"
SHARES = r"^{}: implicit over augmented ([\d.]+), augmented over others ([\d.]+)$"


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
def test_lightning_trains_the_module(tmp_path):
    arguments = (ml_100k(), "--epochs", 2, "--max-len", 10, "--accelerator", "cpu")
    done = run_python(LIGHTNING, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = (re.search(SHARES.format(when), done.stdout, re.MULTILINE) for when in ("before", "after"))
    assert float(after[2]) != float(before[2])
    assert all(0 < float(share) < 1 for found in (before, after) for share in found.groups())
    assert [*tmp_path.iterdir()] == []


def test_lightning_is_all_that_the_module_needs_beside_the_core():
    """The names that it takes from this package exist, whether lightning is installed or not."""
    text = LIGHTNING.read_text(encoding="utf-8")
    taken = re.findall(r"^from (adaptssr_plugin[\w.]*) import (.+)$", text, re.MULTILINE)
    assert len(taken) > 3
    for module, names in taken:
        assert {name.strip() for name in names.split(",")} <= set(dir(importlib.import_module(module)))
    others = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert others - {"adaptssr_plugin", "argparse", "importlib", "pathlib"} == {"lightning", "numpy", "torch"}


# --- distributed -----------------------------------------------------------------------------------------------------

DISTRIBUTED = ROOT / "examples" / "distributed.sh"


def test_the_script_calls_a_command_that_parses():
    text = DISTRIBUTED.read_text(encoding="utf-8").replace('"$processes"', "2").replace('"${@:2}"', "")
    words = next(words for words in shell_commands(text) if words[1:3] == ["-m", "torch.distributed.run"])
    assert words[3:6] == ["--standalone", "--nproc-per-node", "2"]
    arguments = adaptssr_arguments(["python", *words[words.index("-m", 3) :]])
    assert arguments[0] == "pretrain"
    assert refusal(arguments) is None
    assert subprocess.run(["bash", "-n", DISTRIBUTED], check=False).returncode == 0
    assert DISTRIBUTED.stat().st_mode & 0o111


def test_the_script_pre_trains_in_two_processes(tmp_path):
    sizes = {"--epochs": 1, "--mlm-epochs": 1, "--max-len": 4, "--dim": 8, "--ff-dim": 16}
    words = [DISTRIBUTED, 2, *(word for pair in sizes.items() for word in pair), "--set", "use_gpu=False", "--quiet"]
    # Nothing of the environment that the tests run in is found by name.
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": os.defpath}
    done = subprocess.run(
        [*map(str, words)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "adaptssr-distributed" / "model.safetensors").exists()
    assert done.stdout.count("Files:") == 1, "one of the processes speaks"
