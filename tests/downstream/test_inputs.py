"""Inputs that end at a moment: prefixes, a model's item ids, two domains, files of pairs, and conversion."""

import numpy as np
import pytest

from adaptssr_plugin.corpus import BehaviourCorpus, read_interactions
from adaptssr_plugin.downstream import ColdRows, auc, cold_task, conversion_task, read_cold_rows, two_domains
from adaptssr_plugin.downstream.tasks.cold_files import write_cold_rows
from adaptssr_plugin.downstream.tasks.inputs import prefixes, renumbered
from adaptssr_plugin.errors import InputError


@pytest.fixture
def corpus():
    return BehaviourCorpus.from_lists(
        [[1, 2, 3, 4], [5], [2, 2, 1]], 7, user_tokens=["a", "b", "c"], item_tokens=["[PAD]", *"uvwxyz"]
    )


def histories(corpus):
    return [corpus.history(row).tolist() for row in range(len(corpus))]


def by_token(corpus, row):
    return corpus.item_tokens[corpus.history(row)].tolist()


# --- prefixes and ids ----------------------------------------------------------------------------------------------


def test_prefixes(corpus):
    found = prefixes(corpus, np.array([2, 0, 0, 1]), np.array([2, 4, 1, 1]))
    assert histories(found) == [[2, 2], [1, 2, 3, 4], [1], [5]]
    assert found.user_tokens.tolist() == ["c", "a", "a", "b"]
    assert found.n_items == 7
    assert len(prefixes(corpus, np.array([], dtype=np.int64), np.array([]))) == 0


@pytest.mark.parametrize("length", [0, 5, -1])
def test_prefixes_that_a_history_does_not_have(corpus, length):
    with pytest.raises(InputError, match=f"^lengths: expected 1 to 4 behaviours of user a, got {length}$"):
        prefixes(corpus, np.array([1, 0]), np.array([1, length]))


def test_renumbered_drops_what_the_model_does_not_know(corpus):
    tokens = np.array(["[PAD]", "new", "w", "u", "newer"])
    found, rows = renumbered(corpus, tokens)
    assert rows.tolist() == [0, 2]
    assert histories(found) == [[3, 2], [3]]
    assert found.user_tokens.tolist() == ["a", "c"]
    assert found.item_tokens.tolist() == tokens.tolist()
    same, rows = renumbered(corpus, corpus.item_tokens)
    assert histories(same) == histories(corpus)
    with pytest.raises(InputError, match=r"^dataset: its items are not those of the model, which knows none of them$"):
        renumbered(corpus, np.array(["[PAD]", "new"]))


# --- pairs ---------------------------------------------------------------------------------------------------------


def test_pairs_join_histories_by_name(corpus):
    rows = ColdRows(
        np.array(["c", "a", "a", "nobody", "a", "b", "a"]),
        np.array(["t2", "t9", "t2", "t1", "t9", "t5", "t3"]),
        np.array([2, 3, 3, 1, 1, 0, 1]),
    )
    task = cold_task("toys", rows, corpus)
    assert task.left_out == 3  # an unknown user, one without input, and (a, t9) again
    inputs = [by_token(task.inputs, row) for row in task.rows]
    assert list(zip(inputs, task.labels[task.targets].tolist(), strict=True)) == [
        (["v", "v"], "t2"),
        (["u", "v", "w"], "t9"),
        (["u", "v", "w"], "t2"),
        (["u"], "t3"),
    ]
    assert len(task.inputs) == 3  # the two pairs of one moment share a row
    users = task.user_of_row[task.rows].tolist()
    assert users[1] == users[2] == users[3] != users[0]
    assert task.size == "4 pairs of 2 users and 3 items in toys; 3 left out"


def test_pairs_for_a_model_that_does_not_know_all_items(corpus):
    rows = ColdRows(np.array(["a", "a", "c"]), np.array(["t", "s", "r"]), np.array([1, 3, 2]))
    task = cold_task("toys", rows, corpus, np.array(["[PAD]", "w", "v"]))
    assert [by_token(task.inputs, row) for row in task.rows] == [["v", "w"], ["v", "v"]]
    assert task.left_out == 1  # before t stands only what the model does not know
    assert task.inputs.item_tokens.tolist() == ["[PAD]", "w", "v"]


def test_pairs_without_lengths_are_rows_of_the_corpus(corpus):
    task = cold_task("toys", ColdRows(np.array(["c", "x", "a"]), np.array(["s", "s", "t"])), corpus)
    assert (task.inputs, task.rows.tolist(), task.left_out) == (None, [2, 0], 1)


@pytest.mark.parametrize("lengths", [None, np.array([1])])
def test_no_pair_left(corpus, lengths):
    with pytest.raises(InputError, match=r"^task: expected pairs of users with behaviours in toys, got none$"):
        cold_task("toys", ColdRows(np.array(["x"]), np.array(["t"]), lengths), corpus)


@pytest.mark.parametrize("lengths", [None, [3, 0, 12]])
def test_pairs_come_back_from_their_file(tmp_path, lengths):
    counts = None if lengths is None else np.array(lengths)
    rows = ColdRows(np.array(["ü", "b c", "7"]), np.array(["x", "x", "🎬"]), counts)
    write_cold_rows(tmp_path / "new" / "x.cold", rows)
    for found, given in zip(read_cold_rows(tmp_path / "new" / "x.cold"), rows, strict=True):
        assert np.array_equal(found, given) if given is not None else found is None


def test_columns_may_come_in_any_order_and_with_others(tmp_path):
    (tmp_path / "x.cold").write_text("a:float\tinput_length:float\ttarget_id:token\tuser_id:token\n1\t2.0\tt\tu\n\n")
    assert [column.tolist() for column in read_cold_rows(tmp_path / "x.cold")] == [["u"], ["t"], [2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a first line of name:type columns .*, got an empty one"),
        ("user_id:token\titem:token\nu\ti\n", "expected a column target_id, got user_id, item"),
        ("user_id:token\ttarget_id:token\n", "expected at least one line below the header, got none"),
        ("user_id:token\ttarget_id:token\nu\n", "line 2: expected 2 values separated by tabs, got 1"),
        (
            "user_id:token\ttarget_id:token\tinput_length:float\nu\tt\t1\nu\tt\t1.5\n",
            "line 3: expected input_length .*, got '1.5'",
        ),
        (
            "user_id:token\ttarget_id:token\tinput_length:float\nu\tt\t-1\n",
            "line 2: expected input_length to be a count, got '-1'",
        ),
        (b"\xff\xfe", "line 1: expected UTF-8 text, got other bytes"),
        (None, "expected a readable file, got No such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "x.cold"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"x.cold(: |, ){message}") as refused:
        read_cold_rows(path)
    assert "\n" not in str(refused.value)


# --- two domains ---------------------------------------------------------------------------------------------------

LINES = ["1 20 3 21 4 3 22", "2 5 30 6", "3 40 41", "4 7 8", "5 9 20 9 9"]  # toys to 10, games from 11


@pytest.fixture
def mix(tmp_path):
    path = tmp_path / "mix.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def literal_pairs(lines, is_target):
    """(user, target, source items before it), of a repeated target the first that has any."""
    found = {}
    for line in lines:
        user, *items = line.split()
        for place, item in enumerate(items):
            before = [one for one in items[:place] if not is_target(int(one))]
            if is_target(int(item)) and before:
                found.setdefault((user, item), before)
    return [(user, item, before) for (user, item), before in found.items()]


def read_pairs(task):
    names = task.inputs.user_tokens[task.rows].tolist()
    inputs = [by_token(task.inputs, row) for row in task.rows]
    return list(zip(names, task.labels[task.targets].tolist(), inputs, strict=True))


@pytest.mark.parametrize("target", ["low", "high"])
def test_pairs_of_two_domains_equal_the_literal_ones(mix, target):
    found = two_domains(mix, 10, target)
    expected = literal_pairs(LINES, lambda item: (item <= 10) == (target == "low"))
    assert read_pairs(found.task()) == expected
    if target == "low":
        assert expected == [("1", "3", ["20"]), ("1", "4", ["20", "21"]), ("2", "6", ["30"]), ("5", "9", ["20"])]


def test_the_source_domain_holds_no_target(mix):
    source = two_domains(mix, 10).source
    assert source.user_tokens.tolist() == ["1", "2", "3", "5"]  # user 4 has no game
    assert [by_token(source, row) for row in range(4)] == [["20", "21", "22"], ["30"], ["40", "41"], ["20"]]
    assert all(int(token) > 10 for token in source.item_tokens[1:])


def test_the_files_give_the_same_back(mix, tmp_path):
    found = two_domains(mix, 10)
    inter, cold = found.write(tmp_path / "mix")
    assert (inter.name, cold.name) == ("mix.inter", "mix.cold")
    source = read_interactions(inter)
    assert [by_token(source, row) for row in range(4)] == [by_token(found.source, row) for row in range(4)]
    again = cold_task("mix", read_cold_rows(cold), source)
    assert read_pairs(again) == read_pairs(found.task())


def test_a_larger_mix_equals_the_literal_pairs(tmp_path):
    random = np.random.default_rng(0)
    lines = [f"{user} " + " ".join(map(str, random.integers(1, 40, random.integers(1, 30)))) for user in range(60)]
    (tmp_path / "mix.txt").write_text("\n".join(lines))
    found = two_domains(tmp_path / "mix.txt", 25)
    assert read_pairs(found.task()) == literal_pairs(lines, lambda item: item <= 25)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("1 a b", {}, "mix.txt: expected items that are integers, got another"),
        ("1 3 4", {}, "boundary: expected items on both sides of it in .*, got 10"),
        ("1 20 4", {"boundary": 3}, "boundary: expected items on both sides of it in .*, got 3"),
        ("1 4 20", {}, "expected an item of the target domain behind one of the source domain, got none"),
        ("1 20 4", {"target": "toys"}, "target: expected low or high, got 'toys'"),
    ],
)
def test_files_that_are_no_two_domains(tmp_path, content, options, message):
    (tmp_path / "mix.txt").write_text(content)
    with pytest.raises(InputError, match=message) as refused:
        two_domains(tmp_path / "mix.txt", **{"boundary": 10, **options})
    assert "\n" not in str(refused.value)


# --- conversion ----------------------------------------------------------------------------------------------------


def buyers(n_users=400, seed=0, item=1, longest=60):
    """Histories of 1 to ``longest`` behaviours; long ones are likelier to have the item, and may have it twice."""
    random = np.random.default_rng(seed)
    lists = []
    for _ in range(n_users):
        history = random.integers(2, 30, random.integers(1, longest)).tolist()
        if random.random() < len(history) / (2 * longest):
            history.insert(int(random.integers(0, len(history) + 1)), item)
            history.append(item)
        lists.append(history)
    return BehaviourCorpus.from_lists(lists, 30)


def test_inputs_of_positives_end_before_the_item():
    corpus = buyers()
    task = conversion_task(corpus, "1", 20, 0)
    assert (task.name, task.kind, task.classes, task.metric_name) == ("convert:1", "binary", ("no", "yes"), "AUC")
    assert 1 not in task.inputs.items
    whole = {token: corpus.history(row).tolist() for row, token in enumerate(corpus.user_tokens)}
    for row, label in zip(task.rows, task.labels, strict=True):
        history, shown = whole[task.inputs.user_tokens[row]], task.inputs.history(row).tolist()
        assert history[: len(shown)] == shown
        assert (1 in history) == label
        if label:
            assert history[len(shown)] == 1
    expected = {token for token, history in whole.items() if 1 in history[1:] and history[0] != 1}
    assert set(task.inputs.user_tokens[task.labels == 1]) == expected
    assert len(set(task.inputs.user_tokens)) == len(task)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_len", [5, 20, 100])
def test_the_length_of_an_input_says_nothing(seed, max_len):
    corpus = buyers(seed=seed)
    task = conversion_task(corpus, "1", max_len, seed)
    assert (task.labels == 0).sum() > (task.labels == 1).sum()
    assert by_length(np.minimum(task.inputs.lengths, max_len), task.labels) == pytest.approx(0.5, abs=0.02)
    has_it = np.array([1 in corpus.history(row) for row in range(len(corpus))])
    assert by_length(corpus.lengths, has_it.astype(int)) > 0.6  # uncut, it would say much


def by_length(lengths, labels):
    """AUC of the length alone."""
    return auc(np.stack([np.zeros(len(lengths)), lengths], 1), labels)


def test_the_choice_is_the_seeds():
    first, again, other = (conversion_task(buyers(), "1", 20, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.inputs.items, again.inputs.items)
    assert first.inputs.user_tokens.tolist() != other.inputs.user_tokens.tolist()


def test_more_positives_than_negatives():
    corpus = BehaviourCorpus.from_lists([[2, 3, 1]] * 6 + [[4, 5, 6], [2], [3, 3]], 7)
    task = conversion_task(corpus, "1", 10, 0)
    assert (task.labels == 1).sum() == 6
    assert sorted(histories(task.inputs)[6:]) == [[3, 3], [4, 5]]  # the user with one behaviour reaches no length


@pytest.mark.parametrize(
    ("lists", "item", "message"),
    [
        ([[2, 1], [3]], "9", "item: expected the token of an item of the corpus, got '9'"),
        ([[2, 1], [3]], "[PAD]", r"item: expected the token of an item of the corpus, got '\[PAD\]'"),
        ([[1, 2], [3]], "1", "item: expected users with behaviours before '1' and users without it, got 0 and 1"),
        ([[2, 1], [3, 1]], "1", "item: expected users with behaviours before '1' and users without it, got 2 and 0"),
        ([[2, 3, 1], [3]], "1", "item: expected users without '1' with histories as long as those before it, got none"),
    ],
)
def test_items_that_make_no_task(lists, item, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        conversion_task(BehaviourCorpus.from_lists(lists, 4), item, 10, 0)
