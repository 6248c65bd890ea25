"""What is registered, what the page on methods says of it, and a method of one's own in one file and one yaml."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from core_only import ROOT
from example_cases import import_example
from refusals import refusal_of
from training_cases import TINY, write_profiled_dataset

from adaptssr_plugin import methods
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import Method, Recipe, available, presets, recipe, register, unregister, view_methods
from adaptssr_plugin.methods.options.declaring import read_yaml
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.methods.registry import defaults_of, method_named
from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain

FOLDER = Path(methods.__file__).parent
PAGE = (FOLDER / "METHODS.md").read_text(encoding="utf-8")
TEN = ["adaptssr", "ccl", "cl4srec", "clue", "coserec", "duorec", "idicl", "none", "peterrec", "ptum"]


def rows(heading, columns):
    """The cells of the tables with so many columns under a heading of the page."""
    (section,) = [part for part in PAGE.split("\n## ")[1:] if part.startswith(heading)]
    found = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    return [cells for cells in found if len(cells) == columns and not set("".join(cells)) <= {"-"}]


def quoted(cell):
    return re.findall(r"`([^`]+)`", cell)


# --- what is registered ---------------------------------------------------------------------------------------------


def test_the_rows_of_the_papers_table():
    assert available() == TEN
    assert set(TEN) - set(view_methods()) == {"none", "peterrec", "ptum"}
    assert [name for name in TEN if method_named(name).needs_filler] == ["ccl"]


@pytest.mark.parametrize("name", TEN)
def test_a_method_is_one_file_and_one_yaml(name):
    source = (FOLDER / "definitions" / f"{name}.py").read_text(encoding="utf-8")
    assert getattr(methods, name).METHOD is method_named(name)
    assert "\nEvidence: " in source or name == "none"
    assert len(source.splitlines()) < 100
    assert set(read_yaml(defaults_of(name))) <= {field.name for field in dataclasses.fields(Recipe)}


@pytest.fixture
def own():
    yield Method("own", "ours", views=lambda _options, _source: None, defaults=FOLDER / "defaults" / "clue.yaml")
    unregister("own")


def test_register_and_unregister(own):
    assert register(own) is own
    assert "own" in available()
    assert "own" in view_methods()
    assert recipe("own").loss == "infonce"
    with pytest.raises(InputError, match=r"^method: expected a new name, got 'own', which is registered already$"):
        register(own)
    unregister("own")
    unregister("own")
    assert available() == TEN
    with pytest.raises(InputError, match=r"^method: expected one of adaptssr, ccl, .*, got 'own'$"):
        method_named("own")


def test_views_and_a_stage_at_once_are_refused(own):
    with pytest.raises(InputError, match=r"^method: expected views or a stage of 'own', got both$"):
        register(dataclasses.replace(own, stage=lambda *_: None))
    assert "own" not in available()


# --- presets that differ from method to method ---------------------------------------------------------------------


ORIGINAL = read_yaml(FOLDER / "presets" / "original.yaml")


@pytest.mark.parametrize("name", sorted(ORIGINAL))
def test_a_method_gets_its_own_part_of_a_preset(name):
    made = recipe(name, "original")
    assert {option: getattr(made, option) for option in ORIGINAL[name]} == ORIGINAL[name]
    others = {option for part in ORIGINAL.values() for option in part} - set(ORIGINAL[name])
    assert all(getattr(made, option) == getattr(recipe(name), option) for option in others)
    assert recipe(name, "original", {"temperature": 0.2}).temperature == 0.2
    assert stage_plans(made)[-1].name == name


@pytest.mark.parametrize("name", sorted(set(TEN) - set(ORIGINAL)))
def test_a_method_without_a_part_is_refused(name):
    message = f"preset: expected another one for {name}, got original, which is for cl4srec, coserec, duorec, ccl"
    assert refusal_of(recipe, name, "original") == message


def test_a_preset_may_have_options_for_all_and_parts(tmp_path, monkeypatch):
    module = importlib.import_module("adaptssr_plugin.methods.recipe")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mixed.yaml").write_text("epochs: 3\ndim: 8\nclue: {epochs: 4}\n")
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    assert presets() == ["mixed"]
    options = [(recipe(name, "mixed").epochs, recipe(name, "mixed").dim) for name in ("clue", "adaptssr")]
    assert options == [(4, 8), (3, 8)]


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_quotes_the_evidence_of_every_method():
    told = {quoted(name)[0]: evidence for name, evidence, _ in rows("What each method rests on", 3)[1:]}
    assert told == {name: method_named(name).evidence for name in TEN}


@pytest.mark.parametrize("name", TEN)
def test_the_page_calls_a_reconstruction_what_the_method_calls_one(name):
    text = {quoted(row[0])[0]: " ".join(row) for row in rows("What each method rests on", 3)[1:]}[name]
    source = (FOLDER / "definitions" / f"{name}.py").read_text(encoding="utf-8")
    assert ("reconstruction" in text) == ("reconstruction" in source)


def test_the_page_has_the_values_of_both_presets():
    table = rows("`--preset paper` beside", 5)
    told = {
        quoted(option)[0]: (quoted(paper)[0], quoted(code)[0])
        for _, _, paper, code, option in table
        if quoted(option) and quoted(option)[0] in recipe().__dataclass_fields__ and len(quoted(paper)) == 1
    }
    paper, code = recipe(), recipe(preset="official_code")
    assert told == {name: (str(getattr(paper, name)), str(getattr(code, name))) for name in told}
    assert set(code.departures()) <= set(told)  # whatever differs is there
    assert len(told) == 33


def test_the_page_says_what_each_row_is_about():
    numbers = set()
    for row in rows("`--preset paper` beside", 5):
        for first, last in re.findall(r"(\d+)(?:–(\d+))?", row[0]):
            numbers |= set(range(int(first), int(last or first) + 1))
            assert len(row[1]) > 4
    assert numbers == set(range(1, 55))
    preset = (FOLDER / "presets" / "official_code.yaml").read_text(encoding="utf-8")
    assert {int(number) for number in re.findall(r"# rows? (\d+)", preset)} <= numbers  # its comments point there


def test_the_page_has_the_values_of_the_original_code():
    told = {quoted(name)[0]: values for name, values in rows("`--preset original`", 2)[1:]}
    expected = {
        name: ", ".join(f"`{option}: {value}`" for option, value in part.items()) for name, part in ORIGINAL.items()
    }
    assert told == expected


def test_the_page_names_no_option_that_does_not_exist():
    names = {field.name for field in dataclasses.fields(Recipe)}
    words = {word.partition(":")[0] for word in quoted(PAGE) if re.fullmatch(r"[a-z]+_[a-z_]+(: \S+)?", word)}
    assert words - names == {"official_code"}


# --- a method of one's own ------------------------------------------------------------------------------------------


@pytest.fixture
def own_method():
    """The example, imported as a user would: it registers itself."""
    yield import_example("own_method")
    unregister("halves")


@pytest.mark.parametrize("loss", ["infonce", "adaptssr"])
def test_the_example_is_a_method_like_any_other(own_method, tmp_path, loss):
    assert own_method.METHOD in [method_named(name) for name in available()]
    assert set(read_yaml(ROOT / "examples" / "own_method.yaml")) == {"warm_start", "loss", "crop_ratio"}
    made = recipe("halves", options={**TINY, "loss": loss, "warm_start": "mlm"})
    assert recipe("halves").crop_ratio == made.crop_ratio == 0.5
    assert recipe("halves").warm_start == "none"
    assert [plan.name for plan in stage_plans(made)] == ["mlm", "halves"]
    source = Source(str(write_profiled_dataset(tmp_path / "small")), {"use_gpu": False})
    model = pretrain(source, made, tmp_path / "run", show_progress=False)
    assert [stage.name for stage in model.stages] == ["mlm", "halves"]
    assert not torch.equal(model.encoder.items.weight, model.warm_up.items.weight)


def test_the_views_of_the_example_are_the_older_and_the_newer_part(own_method):
    item_seq = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [8, 0, 0, 0, 0]])
    lengths = torch.tensor([5, 2, 1])
    first, second, _ = own_method.OlderAndNewer(0.5)(item_seq, lengths)
    assert first.item_seq.tolist() == [[1, 2, 3, 0, 0], [6, 0, 0, 0, 0], [8, 0, 0, 0, 0]]
    assert second.item_seq.tolist() == [[3, 4, 5, 0, 0], [7, 0, 0, 0, 0], [8, 0, 0, 0, 0]]
    assert first.item_seq_len.tolist() == second.item_seq_len.tolist() == [3, 1, 1]
