"""Every road reads an atomic file in the same way, or refuses it in one line that names file and line."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from corpus_cases import named
from file_cases import HEADER, Dataset, datasets, expected_histories, expected_labels
from hypothesis import HealthCheck, Phase, given, settings
from recbole.data import create_dataset, data_preparation
from recbole_cases import MeanOfItems

from adaptssr_plugin.cli.main import main
from adaptssr_plugin.corpus import open_corpus, read_interactions
from adaptssr_plugin.corpus.formats.atomic_converter import convert_interactions
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.describe import describe, label_statistics
from adaptssr_plugin.recbole import build_config, installed, load_user_sequences, profile_labels
from adaptssr_plugin.recbole.recommender.config import RunConfig
from adaptssr_plugin.recbole.user_model.finetune import whole_histories
from adaptssr_plugin.recbole.user_model.source import Source

FILES = int(os.environ.get("ADAPTSSR_FILES", "120"))  # ten thousand, once: ADAPTSSR_FILES=10000
ALL = {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user"}  # nothing held out
PLACE = re.compile(r"^.*d\.(inter|user), line \d+: [^\n]+$", re.DOTALL)


def core(folder):
    return named(read_interactions(folder / "d.inter"))


def converted(folder):
    """The histories of a converted corpus, and its labels, which fine-tuning on it would use."""
    with tempfile.TemporaryDirectory() as output:
        corpus = Path(output) / "d"
        convert_interactions(folder / "d.inter", corpus, show_progress=False)
        histories = named(open_corpus(corpus))
        return histories, tuning_labels(corpus, histories) if (corpus / "d.user").exists() else {}


def fine_tuning(folder):
    return named(whole_histories(build_config(MeanOfItems, str(folder))))


def pre_training(folder):
    """With nothing held out, as ``describe`` reads a dataset too."""
    return named(load_user_sequences(build_config(MeanOfItems, str(folder), {"eval_args": ALL})).corpus)


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch):
    """RecBole reads options from the command line, pytest's too."""
    monkeypatch.setattr("sys.argv", ["pytest"])


def recboles_rows(folder):
    """The rows on which ``run`` trains, validates and tests: for each user the histories with targets of each part."""
    with installed():
        config = RunConfig("SASRec", str(folder), None, {"topk": [1]})  # of two items, say
        dataset = create_dataset(config)
        found = {}
        for number, part in enumerate(data_preparation(config, dataset)):
            rows = part.dataset[range(len(part.dataset))] if len(part.dataset) else None
            for row in range(len(part.dataset)):
                user, length = dataset.id2token("user_id", int(rows["user_id"][row])), int(rows["item_length"][row])
                ids = [*rows["item_id_list"][row, :length].tolist(), int(rows["item_id"][row])]
                of_user = found.setdefault(str(user), ([], [], []))
                of_user[number].append([str(dataset.id2token("item_id", item)) for item in ids])
    return found


def refusal(read, folder):
    """The one line in which a road refuses a file; None if it reads it."""
    try:
        read(folder)
    except InputError as error:
        return str(error)
    return None


def recboles_labels(folder):
    """What a RecBole model is given as a feature of each user."""
    with installed():
        columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "sex"]}
        dataset = create_dataset(RunConfig("SASRec", str(folder), None, {"load_col": columns}))
        feature = dataset.user_feat
        users, labels = feature["user_id"].tolist(), feature["sex"].astype(int).tolist()
        named = [[str(dataset.id2token(field, number)) for number in ids] for field, ids in
                 (("user_id", users), ("sex", labels))]  # fmt: skip
    return {user: label for user, label in zip(*named, strict=True) if "[PAD]" not in (user, label)}


def statistics(folder, users):
    return label_statistics(build_config(MeanOfItems, str(folder)), np.array(sorted(users)))


def described(folder):
    return describe(Source(str(folder))).statistics


def tuning_labels(folder, users):
    """The label that fine-tuning has for each user; None if there are fewer than two classes."""
    tokens = np.array(sorted(users))
    try:
        found = profile_labels(build_config(MeanOfItems, str(folder)), tokens, "sex")
    except InputError as error:
        if str(error).startswith("field: "):
            return None
        raise
    return {str(tokens[row]): found.classes[label] for row, label in zip(found.rows, found.labels, strict=True)}


@given(datasets())
@settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
def test_histories_and_labels(data: Dataset):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "d"
        folder.mkdir()
        (folder / "d.inter").write_bytes(data.inter.encode())
        (folder / "d.user").write_bytes(data.user.encode())
        expected = expected_histories(data.rows)
        message = check_histories(folder, expected)
        check_labels(folder, data, expected, message)


def check_histories(folder, expected):
    """Compare every road that reads histories; gives the line in which all refuse the file."""
    message = refusal(core, folder)
    assert (message is None) == (expected is not None), message
    if message is not None:
        assert PLACE.match(message), message
        for road in (fine_tuning, pre_training, recboles_rows, described):
            assert refusal(road, folder) == message
        return message
    assert core(folder) == fine_tuning(folder) == expected
    if all(len(history) < 2 for history in expected.values()):
        for road in (pre_training, recboles_rows, described):
            assert "expected a user with two interactions or more" in refusal(road, folder)
        return None
    assert pre_training(folder) == expected
    found = recboles_rows(folder)
    assert found.keys() == {user for user, history in expected.items() if len(history) > 1}
    for user, (training, validation, test) in found.items():  # each row is longer than the one before
        history, held = expected[user], held_out(expected[user])
        assert training + validation + test == [history[:length] for length in range(2, len(history) + 1)]
        assert (len(validation), len(test)) == (held // 2, min(held, 1))
    trained = named(load_user_sequences(build_config(MeanOfItems, str(folder))).corpus)
    assert trained == {user: history[: len(history) - held_out(history)] for user, history in expected.items()}
    return None


def held_out(history):
    """How many of a user's newest behaviours RecBole's default split keeps: two, if two others are left."""
    return min(2, max(len(history) - 2, 0))


def check_labels(folder, data, histories, message):
    """Compare every road that reads labels; ``message`` is that in which all refuse the interactions."""
    users = {user for user, *_ in data.rows or ()}
    labels = expected_labels(data.labels)
    refused = refusal(lambda folder: statistics(folder, users), folder)
    assert (refused is None) == (labels is not None), refused
    assert refusal(converted, folder) == (message or refused)
    if refused is not None:
        assert PLACE.match(refused), refused
        assert refusal(lambda folder: tuning_labels(folder, ["a"]), folder) == refused
        if message is None:
            assert refusal(recboles_labels, folder) == refused
        return
    own = {user: label for user, label in labels.items() if user in users}
    classes = set(own.values())
    (counted,) = statistics(folder, users)
    assert (counted.rows, counted.classes) == (len(own), len(classes))
    for_tuning = own if len(classes) > 1 else None
    assert tuning_labels(folder, users) == for_tuning
    if message is not None:
        return
    assert converted(folder) == (histories, for_tuning)
    if {user for user, _ in data.labels} & users:  # RecBole keeps users with a line in both files
        assert {user: label for user, label in recboles_labels(folder).items() if user in users} == own
    if any(len(history) > 1 for history in histories.values()):
        whole = described(folder)
        lengths = [len(history) for history in histories.values()]
        items = {item for history in histories.values() for item in history}
        assert (whole.sequences, whole.behaviours, whole.items) == (len(histories), sum(lengths), len(items))
        assert whole.labels == (counted,)


def test_the_first_of_several_faults_is_named(tmp_path):
    """Every road reads other columns first, and names the same line."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.inter").write_text("\t".join(HEADER) + "\nplain\ta\t3\t1\nplain\tb\t3\t2\nplain\tc\t3\t3\n")
    (tmp_path / "d" / "d.user").write_text("user_id:token\tsex:token\nplain\t[PAD]\n[PAD]\tX\n")
    refused = refusal(lambda folder: statistics(folder, ["plain"]), tmp_path / "d")
    assert refused == f"{tmp_path / 'd' / 'd.user'}, line 2: sex: expected a token, got [PAD], the name of the padding"
    assert {refusal(road, tmp_path / "d") for road in (converted, recboles_labels)} == {refused}


def test_features_of_items(tmp_path):
    """Tokens of a .item file, and what stands in its lists."""
    names = ['"open', "NA", "None", "007", " a", 'shut"', "漢字", "nan"]
    inter = "".join(f"u{user}\t{item}\t{time}\n" for user in range(3) for time, item in enumerate(names))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + inter)
    lines = [f"{item}\t{names[-1 - place]}\tNA {item.strip()}  null\t{place}" for place, item in enumerate(names)]
    header = "item_id:token\tkind:token\ttags:token_seq\tprice:float"
    (tmp_path / "d" / "d.item").write_text("\n".join([header, *lines[:-1], f"{names[-1]}\t\t\tNA"]) + "\n")
    with installed():
        columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "kind", "tags", "price"]}
        dataset = create_dataset(RunConfig("SASRec", str(tmp_path / "d"), None, {"load_col": columns}))
        feature = dataset.item_feat.set_index("item_id")
        for place, name in enumerate(names[:-1]):
            row = feature.loc[dataset.token2id("item_id", name)]
            assert dataset.id2token("kind", int(row["kind"])) == names[-1 - place]
            assert dataset.id2token("tags", row["tags"]).tolist() == ["NA", name.strip(), "null"]
            assert row["price"] == place
        last = feature.loc[dataset.token2id("item_id", "nan")]
        assert (int(last["kind"]), list(last["tags"])) == (0, [])
        assert last["price"] == pytest.approx(np.mean(range(len(names) - 1)))  # RecBole's filling


BEFORE = "\t".join(HEADER) + "\nu\ta\t3\t1\n"
ODD_FILES = {
    BEFORE + "u\tb\t3\t\n": ", line 3: timestamp: expected a number, got ''",
    BEFORE + "u\tb\t3\tnoon\n": ", line 3: timestamp: expected a number, got 'noon'",
    BEFORE + f"u\tb\t3\t{10**400}\n": f", line 3: timestamp: expected a number, got '{10**79}'",
    BEFORE + "u\tb\t3\n": ", line 3: expected 4 values separated by tabs, got 3",
    BEFORE + "u\t\t3\t2\n": ", line 3: item_id: expected a token, got an empty cell",
    BEFORE + "u\tb\t3\tnoon\nu\t\t3\t4\n": ", line 3: timestamp: expected a number, got 'noon'",  # and line 4
    BEFORE + "u\t\t3\tnoon\n": ", line 3: item_id: expected a token, got an empty cell",  # and its time
    BEFORE.replace("timestamp:float", "timestamp:token"): (
        ", line 1: expected timestamp to be of type float, got timestamp:token"
    ),
}


@pytest.mark.parametrize(("odd", "complaint"), ODD_FILES.items(), ids=ODD_FILES.values())
def test_every_command_says_the_same_of_an_odd_file(tmp_path, capsys, monkeypatch, odd, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.inter").write_text(odd + "".join(f"v\ti{time}\t3\t{time}\n" for time in range(5)))
    for command in (
        ["pretrain", "--dataset", "d", "--output", "run", "--quiet"],
        ["run", "SASRec", "d", "--epochs=1", "--ssl_loss=adaptssr", "--show_progress=False"],
        ["describe", "d"],
        ["convert", "recbole", "d", "--corpus", "--output", "corpus", "--quiet"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        said = capsys.readouterr().err.strip().splitlines()
        assert ended.value.code == 2
        assert said[-1].endswith(f"d.inter{complaint}"), command
        assert not any("Traceback" in line for line in said)
    assert not (tmp_path / "run" / "model.json").exists()
