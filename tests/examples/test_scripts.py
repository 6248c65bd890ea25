"""The examples run, need no more than they say, and show what they say."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_cases import bare_root_logger, call_command
from core_only import ROOT, run_python, run_with_core_only
from example_cases import import_example, ml_100k

from adaptssr_plugin.cli.main import main

OWN_TRAINER = ROOT / "examples" / "own_trainer.py"
# With -c, the file that is run comes where its arguments would begin.
RUN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


def accuracies(output, when):
    line = re.search(rf"^{when}: +implicit over augmented ([\d.]+), augmented over others ([\d.]+)$", output, re.M)
    return np.array([float(line[1]), float(line[2])])


def test_own_trainer_learns_with_the_core_alone():
    """And then says that it finds no ml-100k by itself without RecBole."""
    again = f"{RUN}\nsys.argv[1:] = []; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = run_with_core_only(again, OWN_TRAINER, ml_100k(), "--epochs", 3, "--max-len", 15)
    message = "path: expected a file of sequences, since no RecBole is installed to take ml-100k from"
    assert (done.returncode, done.stderr) == (2, f"own_trainer: {message}\n")
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
    module = import_example("own_trainer")

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


# --- the examples of RecBole runs ------------------------------------------------------------------------------------

FLAG = ROOT / "examples" / "recbole_flag.yaml"
ROW = r"^{} +(?:[01]\.\d{{4}}±[01]\.\d{{4}} +){{4}}\d+\.\d\d$"


def test_the_flag_in_a_yaml_runs_by_the_command_in_it(tmp_path, monkeypatch, capfd):
    """Shortened: one epoch on the newest interactions of ml-100k, by a filter of RecBole's own."""
    (command,) = re.findall(r"^# +(adaptssr run .*)$", FLAG.read_text(encoding="utf-8"), re.MULTILINE)
    words = shlex.split(command.replace("examples/", f"{FLAG.parent}/"))[1:]
    shorter = ["--epochs=1", "--MAX_ITEM_LIST_LENGTH=5", "--val_interval={'timestamp':'[892500000,inf)'}"]
    shorter += ["--ssl_warmup_epochs=0", "--ssl_epochs=1"]
    monkeypatch.chdir(tmp_path)
    with bare_root_logger():
        status, out, err = call_command(capfd, *words, *shorter)
    assert status == 0, err
    assert re.search(r"^best valid +recall@10 [\d.]+, ndcg@10 [\d.]+$", out, re.MULTILINE)
    assert len(list((tmp_path / "saved").glob("SASRec-*-pretrained.pth"))) == 1
    assert re.search(r"^ssl: epoch 1/1, loss ", err, re.MULTILINE)


def test_the_flag_in_a_yaml_names_options_that_exist(capsys):
    main(["run", "SASRec", "ml-100k", "--show-config"])
    known, said = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(FLAG.read_text(encoding="utf-8"))
    assert said["ssl_loss"] == "adaptssr"
    assert said.keys() <= known.keys()


def test_swap_of_the_loss_on_a_file_of_sequences(swap, tmp_path, monkeypatch, capfd):
    draw = np.random.default_rng(0)
    lines = [f"user{row} " + " ".join(map(str, draw.integers(1, 40, draw.integers(4, 9)))) for row in range(40)]
    (tmp_path / "users.txt").write_text("\n".join(lines))
    words = "--sequences users.txt --users 30 --epochs 1 --seeds 1 --max-len 5"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["recbole_swap_cl.py", *words.split()])
    with bare_root_logger():
        swap.main()
    out = capfd.readouterr().out
    assert out.startswith("30 users, ")
    for name in ("SASRec", "CL4SRec, InfoNCE", "CL4SRec, AdaptSSR"):
        assert re.search(ROW.format(name), out, re.MULTILINE), out
    last = out.splitlines()[-1]
    assert re.fullmatch(r".+ is ahead of .+ by 0\.\d{4} test NDCG@10, on one seed, .+\.", last), last
    assert [path.name for path in tmp_path.iterdir()] == ["users.txt"]


@pytest.fixture(scope="module")
def swap():
    return import_example("recbole_swap_cl")


def test_swap_of_the_loss_reads_ml_100k_and_numbers_behaviours(swap, tmp_path):
    corpus = swap.read(None, 5)
    assert len(corpus) == 5
    assert len(swap.read(None, None)) == 943
    swap.write_atomic_files(corpus, tmp_path / "five")
    header, *rows = (tmp_path / "five" / "five.inter").read_text(encoding="utf-8").splitlines()
    assert header == "user_id:token\titem_id:token\ttimestamp:float"
    own = [row.split("\t") for row in rows if row.split("\t")[0] == corpus.user_tokens[2]]
    assert [item for _, item, _ in own] == corpus.item_tokens[corpus.history(2)].tolist()
    assert [int(time) for _, _, time in own] == list(range(len(corpus.history(2))))


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((0.10, 0.12), "B is ahead of A by 0.0900 test NDCG@10, more than the spread over seeds (0.0141)."),
        ((0.10, 0.40), "A is ahead of B by 0.0500 test NDCG@10, no more than the spread over seeds (0.2121)."),
        ((0.10,), "B is ahead of A by 0.1000 test NDCG@10, on one seed, which says nothing of the spread."),
    ],
)
def test_swap_of_the_loss_concludes(swap, others, expected):
    measure = ("test", "ndcg@10")
    runs = {"A": [{measure: value} for value in others], "B": [{measure: 0.2} for _ in others], "C": [{measure: 0.0}]}
    runs["C"] *= len(others)
    assert swap.conclusion(runs) == expected


def test_swap_of_the_loss_says_what_is_wrong_in_one_line(swap, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recbole_swap_cl.py", "--sequences", "missing.txt"])
    with pytest.raises(SystemExit) as leave:
        swap.main()
    assert leave.value.code == 2
    assert capsys.readouterr().err.startswith("recbole_swap_cl: missing.txt: expected a readable file")
