"""The commands: what they print and write, and the one line that a wrong call gets."""

import csv
import dataclasses
import json
import re
import shutil
import warnings

import click
import pytest
import torch
from command_cases import assert_one_line, call_command, words_of
from recbole_cases import write_table
from training_cases import TRAINING, write_profiled_dataset

from adaptssr_plugin.cli.main import cli, main
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import Recipe, available
from adaptssr_plugin.recbole.user_model.pretrain import load_pretrained

SMALL = words_of(TRAINING)
ON_CPU = ["--set", "use_gpu=False", "--quiet"]
FINE = ["--ft-epochs", "2", "--ft-batch-size", "8", "--seeds", "2", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a dataset ``small`` and, in ``run``, a model pre-trained on it."""
    folder = tmp_path_factory.mktemp("place")
    write_profiled_dataset(folder / "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["pretrain", "--dataset", "small", "--output", "run", *SMALL, *ON_CPU])
    return folder


@pytest.fixture
def call(place, tmp_path, monkeypatch, capfd):
    """Run a command in a copy of the place; gives its exit status, output, errors."""
    folder = tmp_path / "place"
    shutil.copytree(place, folder)
    for name in ("run.json", "model.json"):  # where the dataset is
        text = (folder / "run" / name).read_text(encoding="utf-8")
        assert str(place / "small") in text
        (folder / "run" / name).write_text(text.replace(str(place / "small"), str(folder / "small")), encoding="utf-8")
    monkeypatch.chdir(folder)

    def run(*words):
        return call_command(capfd, *words)

    run.folder = folder
    return run


def pretrain(call, *words, dataset="small", output="new"):
    return call("pretrain", "--dataset", dataset, "--output", output, *SMALL, *ON_CPU, *words)


def stages_of(err):
    """What ``--quiet`` leaves: a line per stage, here by name."""
    return [line.partition(": ")[0] for line in err.splitlines()]


class TestHelp:
    @pytest.mark.parametrize("command", sorted(cli.commands))
    def test_names_every_option_and_explains_it(self, call, command):
        recipe = command in ("pretrain", "finetune", "quickstart")
        status, out, err = call(command, "--help-all" if recipe else "--help")
        assert (status, err) == (0, "")
        options = [one for one in cli.commands[command].params if isinstance(one, click.Option)]
        assert options
        for option in options:
            assert f"\n  {', '.join(option.opts)} " in out
            assert len(option.help) > 10
            assert option.help.split()[0] in out.split()

    @pytest.mark.parametrize("command", ["pretrain", "finetune", "quickstart"])
    def test_shows_the_common_options_unless_all_are_asked_for(self, call, command):
        outputs = [call(command, option)[1] for option in ("--help", "--help-all", "--help")]
        common, everything, again = (re.findall(r"^  (--[a-z-]+)", out, re.MULTILINE) for out in outputs)
        assert common == again
        assert set(common) < set(everything)
        assert len(common) <= 32
        assert "--help-all" in common

    @pytest.mark.parametrize("words", [["--help"], ["-h"], []])
    def test_of_all_commands(self, call, words):
        status, out, err = call(*words)
        assert (status, err) == (0, "")
        assert out.startswith("Usage: adaptssr")
        for command in cli.commands:
            assert f"\n  {command} " in out

    @pytest.mark.parametrize("words", [[], *([command] for command in sorted(cli.commands))], ids=" ".join)
    def test_fits_into_80_columns(self, call, words, monkeypatch):
        """What click does not wrap too: the examples, and the list of commands with a line for each."""
        monkeypatch.setenv("COLUMNS", "80")
        for option in (
            ("--help", "--help-all") if words in (["pretrain"], ["finetune"], ["quickstart"]) else ("--help",)
        ):
            lines = call(*words, option)[1].splitlines()
            assert len(lines) > 10
            assert [line for line in lines if len(line) > 80] == []
        if not words:
            listed = lines[lines.index("Commands:") + 1 :]
            assert [line.split()[0] for line in listed] == sorted(cli.commands)
            assert all(line.endswith(".") and not line.endswith("...") for line in listed)

    def test_every_option_of_a_recipe_is_on_the_command_line(self):
        options = {
            command: {option.name for option in cli.commands[command].params}
            for command in ("pretrain", "finetune", "quickstart")
        }
        names = {field.name for field in dataclasses.fields(Recipe)}
        fine = {name for name in names if name.startswith("ft_")}
        assert names - fine <= options["pretrain"]
        assert fine <= options["finetune"]
        assert names - {"method", "preset"} <= options["quickstart"]


class TestWrongCalls:
    """Each gives exit status 2 and one line, whatever a user got wrong."""

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["fly"], "No such command 'fly'"),
            (["pretrain"], "Missing option '--dataset'"),
            (["pretrain", "--dataset", "small"], "Missing option '--output'"),
            (["pretrain", "--datset", "small"], "No such option '--datset'"),
            (["pretrain", "small", "--dataset", "small", "--output", "new"], "Got unexpected extra argument (small)"),
            (["finetune"], "Missing argument 'DIR'"),
            (["finetune", "run"], "Missing option '--task'"),
            (
                ["finetune", "run", "--task", "gender", "--seeds", "0"],
                "Invalid value for '--seeds': 0 is not in the range",
            ),
            (["finetune", "run", "--task", "gender", "--ft-epochs", "few"], "Invalid value for '--ft-epochs'"),
            (["quickstart", "--splits", "1"], "Invalid value for '--splits': 1 is not in the range"),
            (["quickstart", "--ft-dropout", "1"], "ft_dropout: expected a number in [0, 1), got 1.0"),
        ],
    )
    def test_unknown_or_missing_words(self, call, words, expected):
        assert_one_line(call(*words), expected)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (
                ["--method", "bert"],
                f"method: expected one of {', '.join(available())}, got 'bert'",
            ),
            (
                ["--warm-start", "clue"],
                "warm_start: expected mlm, none or the folder of a finished pre-training, got 'clue'",
            ),
            (["--curriculum", "linear"], "curriculum: expected none or ratio_linear or scored, got 'linear'"),
            (["--curriculum", "scored"], "epochs: expected at least 5, one for each stage of curriculum scored, got 2"),
            (
                ["--method", "clue", "--preset", "original"],
                "preset: expected another one for clue, got original, which is",
            ),
            (["--preset", "fast"], "preset: expected one of official_code, original, paper, recommended, got 'fast'"),
            (["--loss", "bpr"], "loss: expected adaptssr or infonce, got 'bpr'"),
            (["--mask-ratio", "1.5"], "mask_ratio: expected a number in (0, 1], got 1.5"),
            (["--crop-ratio", "nan"], "crop_ratio: expected a number in (0, 1], got nan"),
            (["--mlm-ratio", "0"], "mlm_ratio: expected a number in (0, 1], got 0.0"),
            (["--epochs", "many"], "Invalid value for '--epochs'"),
            (["--embed-norm", "perhaps"], "Invalid value for '--embed-norm'"),
            (["--n-heads", "3"], "n_heads: expected a divisor of dim = 8, got 3"),
            (["--select", "epoch:3"], "select: expected one of the 2 epochs, got 'epoch:3'"),
            (["--dropout", "0"], "dropout: expected a number above 0"),
            (["--valid-share", "0.01"], "dataset: expected at least two users for training and two for validation"),
            (["--set", "enable_amp"], "--set: expected key=value, got 'enable_amp'"),
            (["--set", "=3"], "--set: expected key=value, got '=3'"),
            (["--set", "epochs=3"], "epochs: expected among the options of the recipe, as epochs"),
            (["--set", "learner=lion"], "learner: expected one of adam,"),
            (["--set", "nproc=2"], "nproc: expected 1, got"),
            (
                ["--set", "TIME_FIELD=when"],
                "TIME_FIELD: expected a column 'when' in small.inter, which has user_id, item_id",
            ),
            (
                ["--set", "load_col={'inter': ['user_id', 'item_id', 'stars']}"],
                "load_col: expected columns of small.inter",
            ),
            (["--set", "user_inter_num_interval=[99,inf)"], "dataset: "),
            (["--config", "no.yaml"], "config: cannot read no.yaml"),
            (["--recbole-config", "no.yaml"], "config_files: cannot read"),
        ],
    )
    def test_wrong_options_of_pretrain(self, call, words, expected):
        assert_one_line(pretrain(call, *words), expected)
        assert not (call.folder / "new" / "mlm" / "last.pt").exists()

    def test_wrong_files_of_options(self, call):
        (call.folder / "a.yaml").write_text("epochs: [")
        (call.folder / "b.yaml").write_text("mask_ratio: 1.5")
        (call.folder / "c.yaml").write_text("method: peterrec")
        assert_one_line(pretrain(call, "--config", "a.yaml"), "config: cannot read a.yaml: while parsing")
        assert_one_line(pretrain(call, "--config", "b.yaml"), "mask_ratio: expected a number in (0, 1], got 1.5")
        assert_one_line(
            pretrain(call, "--config", "c.yaml"), "method: expected 'adaptssr' as asked for, got 'peterrec'"
        )

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("no such", "dataset: expected ml-100k, a folder under data_path"),
            ("nothing", "dataset: expected nothing.inter or a single dataset of any name in"),
            ("header", "header/header.inter: expected at least one row below the header, got none"),
            ("zero", "zero/zero.inter: expected a first line of name:type columns"),
            ("timeless", "TIME_FIELD: expected a column 'timestamp' in timeless.inter, which has user_id, item_id"),
            ("userless", "USER_ID_FIELD: expected a column 'user_id' in userless.inter"),
            ("binary", "binary/binary.inter, line 1: expected UTF-8 text, got other bytes"),
            ("text", "text/text.inter, line 2: timestamp: expected a number, got 'noon'"),
            ("single", "dataset: expected a user with two interactions or more in single"),
            ("small/small.inter", "dataset: expected ml-100k, a folder under data_path"),
        ],
    )
    def test_datasets_that_are_none(self, call, name, expected):
        folder, header = call.folder, "user_id:token item_id:token timestamp:float"
        (folder / "nothing").mkdir()
        write_table(folder / "header" / "header.inter", header, [])
        write_table(folder / "timeless" / "timeless.inter", "user_id:token item_id:token", [("u", "i")])
        write_table(folder / "userless" / "userless.inter", "user:token item_id:token timestamp:float", [("u", "i", 1)])
        write_table(folder / "text" / "text.inter", header, [("u", "i", "noon"), ("u", "j", "night")])
        write_table(folder / "single" / "single.inter", header, [("u", "i", 1), ("v", "j", 2)])
        for empty, content in (("zero", b""), ("binary", b"\xff\xfe\x00")):
            (folder / empty).mkdir()
            (folder / empty / f"{empty}.inter").write_bytes(content)
        assert_one_line(pretrain(call, dataset=name), expected)

    def test_a_folder_of_another_run(self, call):
        assert_one_line(
            pretrain(call, "--epochs", "3", output="run"), "output: run holds another run (epochs: 2 there, 3 here)"
        )

    def test_an_output_that_is_a_file(self, call):
        (call.folder / "file").touch()
        assert_one_line(pretrain(call, output="file"), "output: expected a folder, got the file file")
        assert_one_line(pretrain(call, output="file/below"), "file/below: Not a directory")

    @pytest.mark.parametrize("file", ["mlm/last.pt", "adaptssr/last.pt", "mlm/best.pt"])
    def test_a_damaged_checkpoint(self, call, file):
        path = call.folder / "run" / file
        path.write_bytes(path.read_bytes()[:1000])
        (path.parent / "previous.pt").unlink()
        assert_one_line(
            pretrain(call, output="run"), f"checkpoint: expected one written by this package, got run/{file}, which"
        )

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["nowhere", "--task", "gender"], "model: expected a folder with model.safetensors, got nowhere"),
            (["small", "--task", "gender"], "model: expected a folder with model.safetensors, got small"),
            (["run", "--task", "height"], "field: expected a column of small.user (gender, job, age), got 'height'"),
            (["run", "--task", "user_id"], "field: expected a column of small.user (gender, job, age), got 'user_id'"),
            (["run", "--task", "gender", "--task", "gender"], "task: expected different columns, got gender, gender"),
            (
                ["run", "--task", "age", "--bins", "young,old"],
                "--bins: expected numbers such as 18,25,35, got 'young,old'",
            ),
            (["run", "--task", "age", "--bins", "30,20"], "bins: expected ascending numbers, got (30.0, 20.0)"),
            (["run", "--task", "age", "--bins", ""], "--bins: expected numbers such as 18,25,35, got ''"),
            (["run", "--task", "job", "--bins", "1"], "bins: expected 'job' to hold numbers, got 'a'"),
            (
                ["run", "--task", "gender", "--ft-learning-rate", "-1"],
                "ft_learning_rate: expected a positive number, got -1.0",
            ),
        ],
    )
    def test_wrong_calls_of_finetune(self, call, words, expected):
        assert_one_line(call("finetune", *words, "--quiet"), expected)

    @pytest.mark.parametrize("name", ["model.safetensors", "model.json", "items.json"])
    def test_a_damaged_model(self, call, name):
        path = call.folder / "run" / name
        path.write_bytes(path.read_bytes()[:-7])
        assert_one_line(call("finetune", "run", "--task", "gender", *FINE), "model: cannot read the files in run: ")

    def test_a_model_of_other_items(self, call):
        write_profiled_dataset(call.folder / "other", n_items=7)
        card = json.loads((call.folder / "run" / "model.json").read_text())
        card["dataset"] = str(call.folder / "other")
        (call.folder / "run" / "model.json").write_text(json.dumps(card))
        expected = "dataset: its items are not those that the model in run was pre-trained on (9 there, 7 here)"
        assert_one_line(call("finetune", "run", "--task", "gender", *FINE), expected)

    def test_a_dataset_without_profiles(self, call):
        (call.folder / "small" / "small.user").unlink()
        said = f"{call.folder}/small/small.user: expected a readable file, got No such file"
        assert_one_line(call("finetune", "run", "--task", "gender", *FINE), said)

    def test_divergence_is_no_fault_of_the_call_but_gives_one_line_too(self, call):
        result = pretrain(call, "--mlm-learning-rate", "1e30")
        place = "mlm: the loss was not finite at epoch 1, step 2, users u22, u17, u14, u2, u6 and 3 more"
        assert_one_line(result, f"{place}; last good checkpoint: none yet", status=1)

    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            (InputError("several\n  lines"), 2, "several lines"),
            (OSError(28, "No space left on device"), 2, "files: No space left on device"),
            (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
            (ImportError("adaptssr_plugin.recbole: type\n`pip install x`"), 2, "adaptssr_plugin.recbole: type `pip"),
        ],
    )
    def test_what_comes_from_below(self, call, monkeypatch, error, status, message):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("adaptssr_plugin.recbole.user_model.pretrain.pretrain", fail)
        assert_one_line(pretrain(call), message, status)

    def test_an_interrupt(self, call, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr("adaptssr_plugin.recbole.user_model.pretrain.pretrain", interrupt)
        assert pretrain(call) == (130, "", "\nadaptssr: interrupted\n")  # click ends the line that has the ^C

    def test_a_fault_of_our_own_keeps_its_traceback(self, call, monkeypatch):
        monkeypatch.setattr("adaptssr_plugin.recbole.user_model.pretrain.pretrain", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pretrain(call)


def files_named(out):
    return [line.strip() for line in out.split("Files:\n")[1].splitlines()]


class TestPretrain:
    def test_prints_the_selected_epochs_and_names_files_that_exist(self, call):
        status, out, err = pretrain(call)
        assert (status, stages_of(err)) == (0, ["mlm", "adaptssr"])
        lines = out.splitlines()
        assert lines[0].startswith("mlm: epoch ")
        assert "of 2 selected (valid_accuracy 0." in lines[0]
        assert lines[1].startswith("adaptssr: epoch ")
        assert "valid_order_accuracy 1." in lines[1]
        assert files_named(out) == ["new/model.safetensors", "new/model.json", "new/items.json"]
        assert all((call.folder / name).is_file() for name in files_named(out))
        assert {path.name for path in call.folder.iterdir()} == {"small", "run", "new"}

    def test_the_same_command_goes_on_and_ends_alike(self, call):
        before = (call.folder / "run" / "model.safetensors").read_bytes()
        shutil.rmtree(call.folder / "run" / "adaptssr")
        (call.folder / "run" / "model.safetensors").unlink()
        assert pretrain(call, output="run")[0] == 0
        assert (call.folder / "run" / "model.safetensors").read_bytes() == before

    def test_options_reach_the_recipe(self, call):
        (call.folder / "recipe.yaml").write_text("epochs: 1\nmask_ratio: 0.3\nembed_norm: false\n")
        words = "--config recipe.yaml --epochs 1 --method peterrec --dim 4 --embed-dropout false"
        assert pretrain(call, *words.split())[0] == 0
        card = json.loads((call.folder / "new" / "model.json").read_text())
        made = card["recipe"]
        assert (made["method"], made["mask_ratio"], made["embed_norm"], made["embed_dropout"]) == (
            "peterrec",
            0.3,
            False,
            False,
        )
        assert (made["epochs"], made["dim"], made["preset"]) == (1, 4, "paper")
        assert card["recbole_options"] == {"use_gpu": "False"}
        assert card["dataset"] == str(call.folder / "small")

    def test_a_folder_of_the_name_of_the_dataset(self, call, monkeypatch):
        """A name means the dataset under data_path, also beside the folder of the run, and from elsewhere."""
        write_profiled_dataset(call.folder / "dataset" / "shop")
        assert pretrain(call, dataset="shop", output="shop")[0] == 0
        assert pretrain(call, dataset="shop", output="shop")[::2] == (0, "")
        monkeypatch.chdir(call.folder.parent)
        assert call("embed", "place/shop", "--output", "users.parquet", "--quiet")[0] == 0

    def test_a_warm_start_says_what_it_knows_of_other_items(self, call):
        write_profiled_dataset(call.folder / "more", n_items=14)
        status, out, err = pretrain(call, "--warm-start", "run", dataset="more")
        assert (status, stages_of(err)) == (0, ["adaptssr"])
        assert re.match(
            r"warm start: 9 of 1\d items taken by token, [1-5] keep their initialisation\nadaptssr: epoch", out
        )
        assert pretrain(call, "--warm-start", "run", output="same")[1].startswith("adaptssr: epoch ")

    @pytest.mark.parametrize(("quiet", "shown"), [([], (1, 2, 3)), (["--quiet"], (3,))])
    def test_a_log_has_a_line_per_epoch(self, call, quiet, shown):
        """On standard error; with --quiet only the last one."""
        words = ["--set", "use_gpu=False", "--mlm-epochs", "3", "--epochs", "0", *quiet]
        status, out, err = call("pretrain", "--dataset", "small", "--output", "new", *SMALL, *words)
        assert status == 0
        assert " to go" not in out
        rest = r"loss \d+\.\d{4}, valid_accuracy \d\.\d{4}, \d+\.\d s, 0:00:0\d to go\n"
        assert re.fullmatch("".join(f"mlm: epoch {epoch}/3, {rest}" for epoch in shown), err), err


class TestFinetune:
    def test_end_to_end(self, call, monkeypatch):
        elsewhere = call.folder.parent
        monkeypatch.chdir(elsewhere)  # the model knows where its dataset is
        status, out, err = call("finetune", "place/run", "--task", "gender", "--task", "job", *FINE)
        assert status == 0
        assert re.fullmatch(r"fine-tuning: run 8/8, job, adaptssr, seed 1, \d+\.\d s, 0:00:00 to go\n", err)
        header, _, *rows = out.splitlines()
        assert header.split()[:2] == ["Method", "gender"]
        names = [row[:15].strip() for row in rows[:5]]
        assert names == ["Majority class", "TF-IDF + LR", "LSA + LR", "None", "AdaptSSR"]
        assert "±" in rows[4]
        assert files_named(out) == ["place/run/finetune-gender-job.csv", "place/run/finetune-gender-job.md"]
        assert all((elsewhere / name).is_file() for name in files_named(out))
        with (elsewhere / files_named(out)[0]).open(encoding="utf-8") as file:
            records = list(csv.DictReader(file))
        seeds = {(one["method"], one["task"], one["seed"]) for one in records if one["split"] == "test"}
        assert {("adaptssr", "gender", "0"), ("adaptssr", "job", "1"), ("none", "gender", "1")} <= seeds
        assert {path.name for path in elsewhere.iterdir()} == {"place"}
        assert (elsewhere / files_named(out)[1]).read_text(encoding="utf-8").startswith("|")

    def test_results_that_cannot_be_written_are_refused_before_the_training(self, call):
        """A file is named after its tasks, and names of files end somewhere."""
        users, name = call.folder / "small" / "small.user", 240 * "x"
        users.write_text(users.read_text().replace("gender:", f"{name}:"))
        status, out, err = call("finetune", "run", "--task", name, "--tune", "linear")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.endswith(": File name too long\n")

    def test_linear_reading_over_splits_and_labels(self, call):
        words = ["--tune", "linear", "--splits", "3", "--seeds", "2", "--labels", "8,12,9999,all", "--quiet"]
        status, out, err = call("finetune", "run", "--task", "gender", "--task", "job", *words)
        assert status == 0
        assert {line.partition(":")[0] for line in err.splitlines()} == {"fine-tuning"}  # last lines
        assert out.count("Nothing is fine-tuned") == 2
        assert "AdaptSSR against None" in out
        assert "corrected resampled t-test" in out
        files = [call.folder / name for name in files_named(out)]
        assert {path.suffix for path in files} == {".csv", ".md", ".png", ".svg"}
        assert all(path.stat().st_size for path in files)
        with (call.folder / "run/finetune-gender-job-linear-labels-records.csv").open(encoding="utf-8") as file:
            records = [one for one in csv.DictReader(file) if one["split"] == "test" and one["task"] == "job"]
        runs = {name: [one for one in records if one["method"] == name] for name in ("none", "adaptssr", "LSA + LR")}
        # three splits, and 8, 12 and all labels: from scratch two seeds, for the others nothing is random
        assert {name: len(some) for name, some in runs.items()} == {"none": 18, "adaptssr": 9, "LSA + LR": 9}
        assert {one["split_seed"] for one in records} == {"2023", "2024", "2025"}
        assert {one["labels"] for one in records} == {"8", "12", ""}
        curve = (call.folder / "run/finetune-gender-job-linear-labels.md").read_text(encoding="utf-8")
        assert next(line for line in curve.splitlines() if line.startswith("| job")).startswith(
            "| job (accuracy) | 8 | 12 |"
        )

    def test_without_baselines_and_scratch(self, call):
        words = ["--no-baselines", "--no-scratch", "--seeds", "1", "--ft-epochs", "1", "--quiet"]
        status, out, _ = call("finetune", "run", "--task", "age", "--bins", "20,40", *words)
        assert status == 0
        assert [row.split()[0] for row in out.splitlines()[2:3]] == ["AdaptSSR"]
        assert "TF-IDF" not in out

    def test_of_none_is_from_scratch(self, call):
        assert pretrain(call, "--method", "none")[0] == 0
        status, out, _ = call("finetune", "new", "--task", "gender", "--no-baselines", "--no-scratch", *FINE)
        assert status == 0
        assert out.splitlines()[2].startswith("None")

    QUICK = ("--task", "gender", "--no-baselines", "--no-scratch", "--seeds", "1", "--ft-epochs", "1", "--quiet")

    def test_of_a_dataset_that_has_moved(self, call):
        before = call("finetune", "run", *self.QUICK)
        (call.folder / "small").rename(call.folder / "elsewhere")
        assert_one_line(
            call("finetune", "run", *self.QUICK),
            "dataset: expected ml-100k, a folder under data_path ('dataset/') or the path of a folder that holds an "
            f".inter file, got '{call.folder}/small'; the model in run was trained on it, and --dataset says where it "
            "is now\n",
        )
        after = call("finetune", "run", "--dataset", "elsewhere", *self.QUICK)
        assert after[0] == 0, after[2]
        assert after[1] == before[1].replace("small: ", "elsewhere: ")
        (call.folder / "empty").mkdir()
        assert_one_line(
            call("finetune", "run", "--dataset", "empty", *self.QUICK),
            "dataset: expected empty.inter or a single dataset of any name in empty, found none\n",
        )
        write_profiled_dataset(call.folder / "other", n_items=6)
        assert_one_line(
            call("finetune", "run", "--dataset", "other", *self.QUICK),
            "dataset: its items are not those that the model in run was pre-trained on (9 there, 6 here)",
        )

    def test_the_model_keeps_what_recboles_yaml_files_said(self, call):
        """Strings that would be read as numbers among them; what a recipe has in their place is left out."""
        text = (call.folder / "small" / "small.inter").read_text().replace("user_id:", "1:")
        (call.folder / "small" / "small.inter").write_text(text)
        (call.folder / "a.yaml").write_text("USER_ID_FIELD: '1'\nepochs: 77\nuser_inter_num_interval: '[9,inf)'\n")
        (call.folder / "b.yaml").write_text("user_inter_num_interval: '[5,100]'\n")
        status, _, err = pretrain(call, "--recbole-config", "a.yaml", "--recbole-config", "b.yaml")
        assert status == 0, err
        card = json.loads((call.folder / "new" / "model.json").read_text())
        kept = {"USER_ID_FIELD": "'1'", "user_inter_num_interval": "'[5,100]'", "use_gpu": "False"}
        assert card["recbole_options"] == kept
        for name in ("a.yaml", "b.yaml"):
            (call.folder / name).unlink()
        (call.folder / "small").rename(call.folder / "elsewhere")
        (call.folder / "elsewhere" / "small.user").write_text(
            (call.folder / "elsewhere" / "small.user").read_text().replace("user_id:", "1:")
        )
        status, out, err = call("finetune", "new", "--dataset", "elsewhere", *self.QUICK)
        assert status == 0, err
        assert f"elsewhere: {card['users']} users" in out
        # A model from before had the names of the files, and their content was read again.
        card.update(recbole_options={"use_gpu": "False"}, recbole_config_files=[str(call.folder / "a.yaml")])
        (call.folder / "new" / "model.json").write_text(json.dumps(card))
        again = call("finetune", "new", "--dataset", "elsewhere", *self.QUICK)
        assert_one_line(again, f"config_files: cannot read {call.folder}/a.yaml: ")
        (call.folder / "a.yaml").write_text("USER_ID_FIELD: '1'\nuser_inter_num_interval: '[5,100]'\n")
        assert call("finetune", "new", "--dataset", "elsewhere", *self.QUICK)[:2] == (0, out)

    def test_says_the_same_twice(self, call):
        words = ["finetune", "run", "--task", "gender", "--no-baselines", *FINE]
        assert call(*words)[1] == call(*words)[1]


def test_quickstart_end_to_end(call):
    sizes = ["--max-len", "4", "--dim", "8", "--ff-dim", "16", "--mlm-epochs", "1", "--epochs", "1", "--ft-epochs", "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of scikit-learn, by version
        status, out, err = call("quickstart", "--output", "quick", "--splits", "2", "--quiet", *sizes)
    assert (status, stages_of(err)) == (0, ["mlm", "adaptssr", "fine-tuning", "fine-tuning"])
    first = out.splitlines()[0]
    assert first.startswith("Recipe of the quickstart, where it departs from the preset paper: ")
    assert "dim 8 (paper 64)" in first
    assert "mlm_epochs 1 (paper 20)" in first
    for word in ("gender (AUC)", "age (accuracy)", "re-identification (HR@10)", "Impr %"):
        assert word in out
    known = ("Maj", "TF-", "LSA", "None", "SVD", "MLM", "AdaptSSR  ", "Chance", "Random")
    starts = ["SVD start", "MLM warm-up only", "AdaptSSR"]
    rows = [line[:18].partition("  ")[0] for line in out.splitlines() if line.startswith(known)]
    assert rows == [
        "Majority class", "TF-IDF + LR", "LSA + LR", "None", *starts, "Chance", "TF-IDF cosine", "LSA cosine",
        "Random encoder", *starts, "None", "AdaptSSR",
    ]  # fmt: skip
    names = files_named(out)
    assert all((call.folder / name).stat().st_size > 0 for name in names)
    endings = {name.removeprefix("quick/") for name in names}
    assert {"linear.csv", "tables.md", "similarity.png", "similarity.svg", "model.safetensors"} <= endings
    assert {path.name for path in call.folder.iterdir()} == {"small", "run", "quick"}
    assert (call.folder / "quick" / "similarity.png").read_bytes().startswith(b"\x89PNG")
    model = load_pretrained(call.folder / "quick")
    assert (model.encoder.dim, model.encoder.max_len) == (8, 4)
    with (call.folder / "quick" / "records-linear.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert {one["torch"] for one in records} == {torch.__version__}
    found = {(one["method"], one["task"], one["split_seed"], one["split"]) for one in records}
    for method in ("none", "SVD start", "MLM warm-up only", "adaptssr"):
        for task in ("gender", "age"):
            assert {(method, task, seed, split) for seed in ("2023", "2024") for split in ("valid", "test")} <= found
