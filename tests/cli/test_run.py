"""``adaptssr run``: RecBole's syntax, what it prints and writes, the process left alone, one line for a wrong call."""

import logging
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from command_cases import assert_one_line, bare_root_logger, call_command
from run_cases import write_slice

from adaptssr_plugin.cli.run import Call, _in_training, parse, yaml_value
from adaptssr_plugin.cli.run import run as run_model
from adaptssr_plugin.errors import InputError

QUICK = ["--MAX_ITEM_LIST_LENGTH=10", "--epochs=1", "--show_progress=False", "--hidden_size=16", "--inner_size=16"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "slice"
    write_slice(folder, newest=25)
    return folder


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Run the command in an empty folder; gives exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with bare_root_logger():
            return call_command(capfd, "run", *words)

    return run


def shown(result):
    """Read the yaml that --show-config printed."""
    status, out, err = result
    assert (status, err) == (0, "")
    return yaml.safe_load(out)


class TestTraining:
    @pytest.mark.parametrize(
        ("model", "more"), [("SASRec", ["--ssl_loss=adaptssr", "--ssl_mode=joint"]), ("CL4SRec", [])]
    )
    def test_ends_with_results_and_a_checkpoint(self, call, data, tmp_path, model, more):
        status, out, err = call(model, data, *QUICK, *more)
        assert status == 0, err
        valid, test, checkpoint = out.splitlines()[-3:]
        for line, title in ((valid, "best valid"), (test, "test")):
            assert re.fullmatch(rf"{title} +(\w+@10 [01]\.\d{{4}}(, |$)){{5}}", line), line
        (written,) = (tmp_path / "saved").iterdir()
        assert checkpoint.split() == ["checkpoint", f"saved/{written.name}"]
        assert written.name.startswith(f"{model}-")

    def test_a_log_has_whole_lines_and_the_time_to_go(self, call, data):
        """Bars are for terminals; the stage before RecBole's own training has a line per epoch too."""
        words = [word for word in QUICK if not word.startswith(("--epochs", "--show_progress"))]
        words += ["--epochs=2", "--ssl_loss=infonce", "--ssl_mode=pretrain", "--ssl_epochs=1", "--ssl_warmup_epochs=0"]
        status, _, err = call("SASRec", data, *words)
        assert status == 0, err
        assert "\r" not in err
        assert re.search(r"^ssl: epoch 1/1, loss \d+\.\d{4}, valid_\w+ -?\d+\.\d{4}, .* to go$", err, re.MULTILINE), err
        left = re.findall(r"training.* \[.*train loss.*\], (\d of 2) epochs and 0:00:\d\d to go$", err, re.MULTILINE)
        assert left == ["1 of 2", "0 of 2"], err

    def test_is_the_same_as_the_function(self, call, data, monkeypatch):
        """The command line comes before the yaml, and a later yaml before an earlier one."""
        from adaptssr_plugin.recbole import run_recbole

        Path("first.yaml").write_text("seed: 1\nepochs: 3\nhidden_size: 8\nssl_loss: infonce\n")
        Path("second.yaml").write_text("seed: 5\nmetric_decimal_place: 6\n")
        status, out, err = call("SASRec", data, "--config_files=first.yaml second.yaml", *QUICK)
        assert status == 0, err
        monkeypatch.setattr(sys, "argv", ["python"])
        options = {"seed": 5, "ssl_loss": "infonce", "metric_decimal_place": 6}
        options |= {pair[2:].partition("=")[0]: pair.partition("=")[2] for pair in QUICK}
        with bare_root_logger():
            result = run_recbole(
                "SASRec",
                os.path.relpath(data),  # a relative folder is as good
                config_dict=options,
            )
        expected = ", ".join(f"{name} {value:.6f}" for name, value in result["test_result"].items())
        assert re.search(rf"^test +{expected}$", out, re.MULTILINE)

    def test_leaves_the_process_alone(self, call, data, tmp_path):
        root = logging.getLogger()
        before = sys.argv, list(sys.argv), sys.stdout, sys.stderr, list(root.handlers), root.level
        assert call("SASRec", data, *QUICK)[0] == 0
        assert call("SASRec", data, *QUICK, "--metrics=Foo")[0] == 2
        assert (sys.argv, list(sys.argv), sys.stdout, sys.stderr, list(root.handlers), root.level) == before
        assert Path.cwd() == tmp_path

    def test_resumes(self, call, data):
        assert call("SASRec", data, *QUICK)[0] == 0
        (first,) = Path("saved").iterdir()
        more = [pair.replace("epochs=1", "epochs=2") for pair in QUICK]
        status, out, err = call("SASRec", data, *more, f"--resume={first}")
        assert status == 0, err
        assert out.splitlines()[-1].split() == ["checkpoint", str(first)]

    def test_recboles_log_is_on_standard_error(self, call, data):
        """And nothing but it and a note; the results are on standard output."""
        status, out, err = call("SASRec", data.name, *QUICK, "--epohcs=5", f"--data_path={data.parent}")
        assert status == 0, err
        notes = [line for line in err.splitlines() if line.startswith("adaptssr:")]
        assert notes == ["adaptssr: epohcs: no option that RecBole or its defaults name; did you mean epochs?"]
        assert "epoch 0 training" in err
        assert [line.split()[0] for line in out.splitlines()] == ["best", "test", "checkpoint"]

    def test_a_fault_while_training_is_not_taken_for_a_wrong_option(self, call, data, monkeypatch):
        def broken(*_):
            raise ValueError("a fault of the package")

        monkeypatch.setattr("adaptssr_plugin.recbole.recommender.trainer.RecommenderTrainer._step", broken)
        with pytest.raises(ValueError, match="a fault of the package") as caught:
            call("SASRec", data, *QUICK)
        assert not isinstance(caught.value, InputError)
        assert _in_training(caught.value)


class TestShowConfig:
    def test_prints_the_options_and_their_meaning(self, call, data, tmp_path):
        status, out, _ = call("SASRec", data, "--show-config", "--ssl_loss=adaptssr", "--ssl_weight=0.25", *QUICK)
        assert status == 0
        options = yaml.safe_load(out)
        expected = {"ssl_loss": "adaptssr", "ssl_weight": 0.25, "epochs": 1, "hidden_size": 16, "faster_layers": True}
        assert expected.items() <= options.items()
        assert options["layer_norm_eps"] == 1e-12  # which yaml takes for text as Python writes it
        assert options["train_neg_sample_args"] is None
        meaning = "# Weight of the self-supervised loss in joint mode. Default: 0.1 (CoSeRec's code and DuoRec's)."
        assert f"{meaning}\nssl_weight: 0.25\n" in out
        keys = list(options)
        assert keys[0] == "ssl_loss"
        last = max(place for place, key in enumerate(keys) if key.startswith("ssl_"))
        assert last < keys.index("faster_layers") < keys.index("seed") < keys.index("epochs") < keys.index("topk")
        assert keys.index("topk") < keys.index("MAX_ITEM_LIST_LENGTH") < keys.index("hidden_size")
        assert not list(tmp_path.iterdir())  # nothing was trained

    @pytest.mark.parametrize("model", ["SASRec", "CL4SRec", "BERT4Rec", "BPR"])
    def test_is_a_config_file_of_the_same_run(self, call, data, model):
        """BPR is not sequential and samples negatives."""
        words = ("--MAX_ITEM_LIST_LENGTH=7", "--weight_decay=1e-8", "--topk=[5,10]")
        first = call(model, data, "--show-config", *words)
        Path("shown.yaml").write_text(first[1], encoding="utf-8")
        again = call(model, data, "--show-config", "--config_files=shown.yaml")
        assert again == first
        assert (shown(first)["weight_decay"], shown(first)["topk"]) == (1e-8, [5, 10])

    def test_defaults_of_a_model_and_of_a_method(self, call, data):
        contrastive = shown(call("CoSeRec", data, "--show-config"))
        assert (contrastive["ssl_loss"], contrastive["ssl_method"]) == ("infonce", "coserec")
        plain = shown(call("SASRec", data, "--show-config"))
        assert (plain["ssl_loss"], plain["faster_layers"]) == ("none", False)

    @pytest.mark.parametrize("words", [("SASRec",), ("CL4SRec",), ("DuoRec",), ("SASRec", "--ssl_method=coserec")])
    def test_the_default_that_it_names_is_the_one_that_applies(self, call, data, words):
        """Where a method or a model has another one than most runs, too."""
        out = call(words[0], data, "--show-config", *words[1:])[1]
        named = re.findall(r"Default:\s(?:# )?(\S+)[^:]*\.\n(ssl_\w+): (.+)", out)
        assert len(named) > 25
        for default, name, value in named:
            if f"--{name}=" not in "".join(words):
                assert default == str(yaml.safe_load(value)).replace("True", "true").replace("False", "false"), name
        assert (f"with model {words[0]}, otherwise" in out) == (words[0] != "SASRec")

    @pytest.mark.parametrize(
        "value",
        [1e-8, 1.5e300, -0.25, float("inf"), -float("inf"), 0, -3, True, None, "", "no", "1e-8", "ünï: \t#", [], {}],
    )
    def test_values_survive_yaml(self, value):
        nested = {"value": [value, {"deeper: #": value}]}
        read = yaml.safe_load(f"key: {yaml_value(nested)}")["key"]
        assert read == nested
        assert type(read["value"][0]) is type(value)

    def test_nan_survives_yaml(self):
        assert str(yaml.safe_load(yaml_value(float("nan")))) == "nan"

    def test_names_the_command(self, call):
        result = call("SASRec", "a name", "--show-config")
        assert result[1].startswith("# adaptssr run SASRec 'a name'\n")
        assert shown(result)["data_path"] == "dataset/"


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            ([], "Missing argument 'MODEL'"),
            (["SASRec"], "Missing argument 'DATASET'"),
            (["SASRec", "d", "epochs=5"], "options: expected --key=value after the model and the dataset, got 'ep"),
            (["SASRec", "d", "--epochs", "5"], "options: expected --key=value, got '--epochs'"),
            (["SASRec", "d", "-epochs=5"], "options: expected --key=value, got '-epochs=5'"),
            (["SASRec", "d", "--=5"], "options: expected --key=value, got '--=5'"),
            (["SASRec", "d", "--x=a=b"], "x: RecBole takes no value with = from a command line, got --x=a=b"),
            (["SASRec", "d", "--epochs=1", "--epochs=2"], "epochs: expected one value, got --epochs=1 and --epochs=2"),
            (["SASRec", "d", "--model=GRU4Rec"], "model: expected as the first two words of the command alone"),
            (["SASRec", "d", "--nproc=0"], "nproc: expected a positive integer, got '0'"),
            (["SASRec", "d", "--nproc", "2"], "options: expected --key=value"),
            (["SASRec", "d", "--world_size=1"], "world_size: expected nproc alone; processes on several machines are"),
            (["SASRec", "d", "--config_files='a b"], "config_files: expected file names separated by blanks"),
        ],
    )
    def test_of_syntax(self, call, words, expected):
        assert_one_line(call(*words), expected)

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("sasrec", "SASRec"), ("SASRek", "SASRec"), ("SasRec", "SASRec"), ("CoSerec", "CoSeRec"), ("zzz", None)],
    )
    def test_of_a_model_s_name(self, call, data, name, meant):
        result = call(name, data)
        assert_one_line(result, "model: expected ")
        assert f"got {name!r}" in result[2]
        assert ("did you mean" in result[2]) == (f"; did you mean {meant}" in result[2]) == (meant is not None)

    def test_of_a_model_that_needs_a_package(self, call, data, monkeypatch):
        monkeypatch.setitem(sys.modules, "lightgbm", None)  # as where it is not installed
        result = call("xgboost", data)
        assert_one_line(result, "model: xgboost cannot be imported: ")
        assert "did you mean" not in result[2]

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--ssl_los=adaptssr"], "ssl_los: expected one of "),
            (["--ssl_loss=foo"], "ssl_loss: expected adaptssr or infonce or none, got 'foo'"),
            (["--ssl_weight=much"], "ssl_weight: expected a number, got 'much'"),
            (["--faster_layers=maybe"], "faster_layers: expected true or false, got 'maybe'"),
            (["--TIME_FIELD=when"], "TIME_FIELD: expected a column 'when' in "),
            (["--USER_ID_FIELD=uid"], "USER_ID_FIELD: expected a column 'uid' in "),
            (["--load_col={'inter':['user_id','item_id','timestamp','price']}"], "load_col: expected a column 'price'"),
            (["--load_col={'inter':['user_id','item_id']}"], "load_col: expected 'timestamp' (TIME_FIELD) among the"),
            (["--benchmark_filename=['train','valid','test']"], "dataset: "),
            (["--config_files=missing.yaml"], "config_files: cannot read missing.yaml"),
            (["--config_files=list.yaml"], "config_files: expected option: value lines in list.yaml, got list"),
            (["--config_files=broken.yaml"], "config_files: cannot read broken.yaml: "),
            (["--metrics=Foo"], "metrics: expected one or several of AUC, "),
            (["--metrics=['Recall','AUC']"], "metrics: expected ranking metrics alone or value metrics (AUC, "),
            (["--valid_metric=5"], "valid_metric: expected one that metrics and topk ask for (Recall@10, MRR@10, "),
            (["--topk=20", "--valid_metric=MRR@10"], "valid_metric: expected one that metrics and topk ask for (Re"),
            (["--topk=ten"], "topk: expected a positive integer or a list of them, got 'ten'"),
            (["--topk=5,10"], "topk: expected a positive integer or a list of them, got (5, 10)"),
            (["--metrics=[]"], "metrics: expected one or several of AUC, "),
            (["--eval_args={'mode':'uni10'}"], "eval_args: expected the order TO for a sequential model, got none"),
            (["--eval_batch_size=0"], "eval_batch_size: expected a positive integer, got 0"),
            (["--train_batch_size=abc"], "train_batch_size: expected a positive integer, got 'abc'"),
            (["--learner=lion"], "learner: expected one of adam, adamw, sgd, "),
            (["--benchmark_filename=['train','test']"], "benchmark_filename: expected the parts for training, "),
            (["--repeatable=False"], "options: "),
            (["--pretrained=nowhere.pth"], "pretrained: expected an existing file, got 'nowhere.pth'"),
            (["--resume=nowhere.pth"], "resume: expected an existing file, got 'nowhere.pth'"),
        ],
    )
    def test_of_an_option(self, call, data, words, expected):
        Path("list.yaml").write_text("- 1\n")
        Path("broken.yaml").write_text("\tx: [\n")
        result = call("SASRec", data, *QUICK, *words)
        assert_one_line(result, expected)

    @pytest.mark.parametrize(
        ("word", "expected"),
        [
            ("--n_heads=7", "options: RecBole refuses the dataset or the options: "),
            ("--item_inter_num_interval=[900,inf)", "options: RecBole refuses the dataset or the options: "),
            ("--resume=broken.pth", "checkpoint: "),
            ("--topk=5000", "topk: expected "),
        ],
    )
    def test_of_an_option_that_is_refused_late(self, call, data, word, expected):
        """Once its log has begun, the line is the last."""
        Path("broken.pth").write_text("nothing")
        status, out, err = call("SASRec", data, *QUICK, word)
        assert (status, out) == (2, "")
        assert err.splitlines()[-1].startswith(f"adaptssr: {expected}"), err
        assert "epoch 0 training" not in err
        assert "Traceback" not in err

    @pytest.mark.parametrize(
        ("model", "reason"),
        [("HGN", "its user vector holds an embedding of the user's id"), ("BPR", "it is not a sequential model")],
    )
    def test_of_a_backbone(self, call, data, model, reason):
        result = call(model, data, "--ssl_loss=adaptssr")
        assert_one_line(result, f"ssl_loss: {model} cannot have one: ")
        assert reason in result[2]

    def test_of_a_dataset(self, call):
        result = call("SASRec", "ml-1mm")
        assert_one_line(result, "dataset: expected a folder of atomic files")
        assert "got 'ml-1mm'; did you mean ml-1m" in result[2]
        Path("empty").mkdir()
        assert_one_line(call("SASRec", "empty"), "dataset: ")

    def test_says_nothing_of_an_option_that_resembles_none(self, call, data):
        words = ["--my_own_models_option=3", "--show-config"]
        assert shown(call("SASRec", data, *words))["my_own_models_option"] == 3


def test_parse_takes_options_anywhere():
    words = ["--epochs=5", "SASRec", "--gpu_id=", "a=b", "--nproc=1"]
    assert parse(words, "a.yaml 'b c.yaml'") == Call(
        "SASRec", "a=b", ("--epochs=5", "--gpu_id="), ("a.yaml", "b c.yaml"), nproc=1
    )


class TestSeveralProcesses:
    """What they do is tested in test_recbole_data_parallel.py."""

    @pytest.fixture
    def started(self, monkeypatch):
        started = []
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        monkeypatch.setattr("adaptssr_plugin.training.launch.launch", lambda *call, **_: started.append(call))
        return started

    def test_the_command_starts_itself(self, call, data, started):
        assert call("SASRec", data, "--nproc=2", *QUICK)[0] == 0
        ((_, (function, asked), number),) = started
        assert (function, asked, number) == (run_model, Call("SASRec", str(data), tuple(QUICK), (), 2), 2)

    def test_what_is_wrong_is_said_before(self, call, data, started):
        assert_one_line(call("SASRec", data, "--nproc=2", "--ssl_loss=foo"), "ssl_loss: expected adaptssr or")
        assert_one_line(call("SASRec", "nowhere", "--nproc=2"), "dataset: expected a folder of atomic files")
        assert started == []

    def test_options_alone_start_none(self, call, data, started):
        assert "nproc" not in shown(call("SASRec", data, "--nproc=2", "--show-config"))
        assert started == []

    def test_not_under_torchrun(self, call, data, started, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert_one_line(call("SASRec", data, "--nproc=2"), "--nproc: expected 1 under torchrun, which starts processes")


def test_help_has_two_examples(call):
    status, out, err = call("--help")
    assert (status, err) == (0, "")
    assert "\n  adaptssr run SASRec ml-100k --ssl_loss=adaptssr --epochs=5\n" in out
    assert out.count("\n  adaptssr run ") == 3
