"""The examples run, need no more than they say, and show what they say."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from core_only import ROOT, run_python, run_with_core_only

OWN_TRAINER = ROOT / "examples" / "own_trainer.py"
# With -c, the file that is run comes where its arguments would begin.
RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def ml_100k():
    (folder,) = importlib.util.find_spec("recbole").submodule_search_locations
    return Path(folder) / "dataset_example" / "ml-100k" / "ml-100k.inter"


def accuracies(output, when):
    line = re.search(rf"^{when}: +implicit over augmented ([\d.]+), augmented over others ([\d.]+)$", output, re.M)
    return np.array([float(line[1]), float(line[2])])


def test_own_trainer_learns_with_the_core_alone():
    arguments = (OWN_TRAINER, ml_100k(), "--epochs", 3, "--max-len", 15)
    done = run_with_core_only(RUN, *arguments)
    assert done.returncode == 0, done.stderr
    before, after = accuracies(done.stdout, "before"), accuracies(done.stdout, "after")
    assert ((before > 0.3) & (before < 1)).all()
    assert after.sum() > before.sum() + 0.01
    assert after[1] > before[1]
    epochs = re.findall(r"^epoch (\d): loss ([\d.]+), λ ([\d.]+)$", done.stdout, re.MULTILINE)
    assert [int(epoch) for epoch, _, _ in epochs] == [1, 2, 3]
    assert float(epochs[-1][1]) < float(epochs[0][1])
    assert all(0 < float(mean_lambda) < 1 for _, _, mean_lambda in epochs)


def test_own_trainer_finds_ml_100k_without_importing_recbole():
    """Untrained, so that both lines are the same: the same views and dropout masks each time."""
    code = f"{RUN}\nprint([name for name in sys.modules if name.startswith('recbole')])"
    done = run_python("-c", code, OWN_TRAINER, "--epochs", 0, "--max-len", 5)
    assert done.returncode == 0, done.stderr
    assert accuracies(done.stdout, "before").tolist() == accuracies(done.stdout, "after").tolist()
    assert done.stdout.endswith("[]\n")


@pytest.fixture
def own_trainer(monkeypatch):
    """The example as a module, and a way to call it with arguments."""
    spec = importlib.util.spec_from_file_location("own_trainer", OWN_TRAINER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["own_trainer.py", *map(str, arguments)])
        module.main()

    return call


def test_own_trainer_reads_a_line_per_user(own_trainer, tmp_path, capsys):
    draw = np.random.default_rng(0)
    lines = [f"user{row} " + " ".join(map(str, draw.integers(1, 40, draw.integers(1, 9)))) for row in range(61)]
    (tmp_path / "users.txt").write_text("\n".join(lines))
    # 55 users train: of batches of 18 one user is left over, with nobody to be compared with.
    own_trainer(tmp_path / "users.txt", "--epochs", 1, "--batch-size", 18, "--device", "cpu")
    output = capsys.readouterr().out
    assert accuracies(output, "before").shape == accuracies(output, "after").shape == (2,)
    assert "nan" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.txt"], "missing.txt: expected a readable file, got No such file or directory"),
        (["few.txt"], "users: expected 20 of them and 3 in a batch, got 2 and 64"),
    ],
)
def test_own_trainer_says_what_is_wrong_in_one_line(own_trainer, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("few.txt").write_text("a 1 2\nb 3\n")
    with pytest.raises(SystemExit) as leave:
        own_trainer(*arguments)
    assert leave.value.code == 2
    assert capsys.readouterr().err == f"own_trainer: {message}\n"


def test_own_trainer_without_a_path_and_without_recbole():
    done = run_with_core_only(RUN, OWN_TRAINER)
    message = "path: expected a file of sequences, since no RecBole is installed to take ml-100k from"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"own_trainer: {message}\n")
