"""``adaptssr compare``: keys of cells, tuning on validation values, order and sharing of work, and the whole path."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from command_cases import call_command, invoke
from compare_cases import AGE, TINY, Found, Note, Pretended, key_of, plan_of, put
from core_only import ROOT, run_python
from refusals import refusal_of
from safetensors.torch import load_file
from training_cases import write_profiled_dataset

from adaptssr_plugin.downstream import paired
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.compare import compare, packaged_plans, read_plan
from adaptssr_plugin.experiments.compare.cells import (
    Baselines,
    FineTuning,
    Pretraining,
    check_ready,
    load_data,
    warm_up_of,
)
from adaptssr_plugin.experiments.compare.grid import TUNED, WARM_UP, Grid, Row, strength
from adaptssr_plugin.experiments.compare.plan import TaskSpec
from adaptssr_plugin.experiments.compare.running import Part, part_of, run_cells
from adaptssr_plugin.experiments.compare.store import Store
from adaptssr_plugin.experiments.records import read_records
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.user_model.pretrain import pretrain
from benchmarks.support.plots import read_csv

# --- plans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaged_plans())
def test_packaged_plans_are_sound(name):
    plan = read_plan(name)
    assert {"none", "adaptssr"} <= set(plan.methods)
    assert plan.recipe("adaptssr", True).warm_start == "mlm"


def test_the_corpora_with_all_methods():
    for name in ("tenrec-qba", "ml-100k"):
        assert len(read_plan(name).methods) == 10
        assert read_plan(name).temperatures == (0.05, 0.1, 0.2, 0.5, 1.0)
        assert read_plan(name).lambdas == tuple(round(step / 10, 1) for step in range(11))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: x", "dataset: expected in the plan, got none"),
        ("[1]", "expected"),
        ("{name: x, dataset: ml-100k, tasks: age}", "tasks: expected a list, got 'age'"),
        ("{name: x, dataset: ml-100k, tasks: [{age: 5}]}", "tasks: expected a name, or a name with a list of bins"),
        ("{name: x, dataset: ml-100k, tasks: [age], seeds: 0}", "seeds: expected a positive integer, got 0"),
        ("{name: x, dataset: ml-100k, tasks: [age], splits: 0}", "splits: expected a positive integer, got 0"),
        (
            "{name: x, dataset: ml-100k, tasks: [age], label_curve: [1]}",
            "label_curve: expected an integer of at least 2",
        ),
        ("{name: x, dataset: ml-100k, tasks: [age], strengths: [1.0]}", "strengths: expected numbers in (0, 1)"),
        ("{name: x, dataset: ml-100k, tasks: [age], methods: [bert]}", "method: expected one of"),
        ("{name: x, dataset: ml-100k, tasks: [age], options: {epoch: 1}}", "epoch: expected an option of a recipe"),
        ("{name: x, dataset: ml-100k, tasks: [age], seed: 1}", "seed: expected a field of a plan"),
    ],
)
def test_wrong_plans_are_refused(tmp_path, text, line):
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    assert line in refusal_of(read_plan, str(path))


def test_unknown_plan():
    with pytest.raises(InputError, match=r"^plan: expected one of .*smoke.* or a YAML file, got 'nothing'$"):
        read_plan("nothing")


# --- keys -----------------------------------------------------------------------------------------------------


def fine_tuning(plan, method="adaptssr", seed=0, **options):
    return Row("row", plan.recipe(method, True, **options), 2).cells([AGE])[seed]


def test_a_changed_option_touches_only_what_depends_on_it():
    plan = plan_of()
    before = fine_tuning(plan)
    after = fine_tuning(plan, ft_learning_rate=0.1)
    assert key_of(before) != key_of(after)
    assert key_of(before.start) == key_of(after.start)
    after = fine_tuning(plan, learning_rate=0.1)
    assert key_of(before) != key_of(after)
    assert key_of(before.start) != key_of(after.start)
    assert key_of(before.start.needs()) == key_of(after.start.needs())
    after = fine_tuning(plan, mlm_epochs=7)
    assert key_of(before.start.needs()) != key_of(after.start.needs())
    linear = {"ft_tune": "linear"}
    assert key_of(fine_tuning(plan, **linear)) == key_of(fine_tuning(plan, **linear, ft_learning_rate=0.1))


def test_methods_share_a_warm_up_and_nothing_else():
    plan = plan_of()
    starts = [fine_tuning(plan, method).start for method in ("adaptssr", "cl4srec", "duorec", "peterrec", "ccl")]
    assert len({key_of(start) for start in starts}) == 5
    assert len({key_of(start.needs()) for start in starts}) == 1
    assert starts[0].needs().needs() is None
    assert fine_tuning(plan, "none").start is None
    scratch = Row("row", plan.recipe("cl4srec", False), 2).start(0)
    assert scratch.needs() is None


def test_keys_know_corpus_seed_task_and_kind():
    plan = plan_of()
    cell = fine_tuning(plan)
    others = [
        fine_tuning(plan, seed=1),
        FineTuning(cell.start, TaskSpec("gender"), cell.recipe, 0),
        FineTuning(None, AGE, cell.recipe, 0),
        Baselines(AGE, cell.recipe),
    ]
    assert len({key_of(one) for one in [cell, *others]}) == 5
    assert cell.key("another corpus") != key_of(cell)


def test_results_from_before_repeated_splits_stand():
    """The keys of cells.jsonl of the first split, as they were."""
    plan = plan_of()
    for cell in (fine_tuning(plan), Baselines(AGE, plan.recipe("none", False))):
        assert not {"split", "lsa"} & set(cell.spec())
        other = dataclasses.replace(cell, split=1)
        assert other.spec() == {**cell.spec(), "split": 1}
        assert key_of(other) != key_of(cell)
    lines = (ROOT / "benchmarks/results/compare/tenrec-qba/cells.jsonl").read_text(encoding="utf-8").splitlines()
    line = next(one for one in map(json.loads, lines) if one["kind"] == "baselines")
    plan = read_plan("tenrec-qba")
    assert Baselines(plan.tasks[0], plan.recipe("none", False)).key(line["corpus"]) == line["key"]


@pytest.mark.parametrize(("tune", "runs"), [("all", {"none": 5, "clue": 5}), ("linear", {"none": 5, "clue": 3})])
def test_every_split_has_all_runs_that_differ(tune, runs):
    for method, count in runs.items():
        row = Row("row", plan_of().recipe(method, True, ft_tune=tune), 5, 3, splits=4)
        cells = row.cells([AGE])
        assert len({key_of(cell) for cell in cells}) == len(cells) == 4 * count
        assert {cell.split for cell in cells} == {0, 1, 2, 3}


def test_seeds_of_pre_training_take_turns():
    row = Row("row", plan_of().recipe("cl4srec", True), seeds=5, pretrain_seeds=3)
    assert [row.start(seed).recipe.seed - row.recipe.seed for seed in range(5)] == [0, 1, 2, 0, 1]
    assert len({key_of(cell) for cell in row.cells([AGE])}) == 5


# --- tuning ---------------------------------------------------------------------------------------------------


def test_nothing_is_tuned_before_the_first_values_are_there():
    grid = Grid(plan_of(methods=("none", "cl4srec")), Pretended())
    assert [(row.name, row.settled) for row in grid.table(controlled=True)] == [("None", True), ("CL4SRec", False)]
    temperatures = {cell.recipe.temperature for cell in grid.cells if cell.recipe.method == "cl4srec"}
    assert temperatures == {0.05, 0.1, 0.2, 0.5, 1.0}
    assert grid.later > 0
    untuned = Grid(plan_of(methods=("none", "cl4srec")), Pretended())
    assert [row.name for row in untuned.table(controlled=False)] == ["None", "CL4SRec"]
    assert untuned.later == 0


def test_temperature_then_strength_are_chosen_by_validation_values():
    def valid(one):
        return 0.5 - abs(one.temperature - 0.2) - abs(one.mask_ratio - 0.7)

    grid = Grid(plan_of(methods=("cl4srec",)), Pretended(valid))
    [row] = grid.table(controlled=True)
    assert row.chosen == {"temperature": 0.2, "rho": 0.7}
    assert (row.recipe.mask_ratio, row.recipe.reorder_ratio, row.recipe.crop_ratio) == (0.7, 0.7, 0.3)
    assert grid.later == 0
    # The strength that the method comes with is a candidate too, and then nothing is said to be chosen.
    grid = Grid(plan_of(methods=("cl4srec",)), Pretended(lambda one: -abs(one.mask_ratio - 0.6)))
    assert grid.table(controlled=True)[0].chosen.keys() == {"temperature"}


def test_test_values_have_no_say():
    plan, valid = plan_of(methods=("clue",)), lambda one: one.temperature
    chosen = [Grid(plan, Pretended(valid, test)).table(controlled=True)[0].chosen for test in (0.0, 1.0)]
    assert chosen == [{"temperature": 1.0}] * 2


def test_a_task_of_several_metrics_counts_by_the_one_that_epochs_are_chosen_by(monkeypatch):
    """The lines of cells have their metrics in alphabetical order."""
    plan = plan_of(methods=("cl4srec",))
    values = {"HR@10": 0.1, "MRR": 0.2, "accuracy": 0.3}
    monkeypatch.setattr(Pretended, "get", lambda self, cell: {"valid": values, "test": values})
    grid = Grid(plan, Pretended())
    assert grid.values([fine_tuning(plan, "cl4srec")], "valid") == [0.3]


def test_the_tuned_row_chooses_a_scale():
    plan = plan_of(methods=("adaptssr",), scales=(1, 10))
    rows = Grid(plan, Pretended(lambda one: one.scale - one.mask_ratio)).table(controlled=True)
    assert [row.name for row in rows] == ["AdaptSSR", WARM_UP, TUNED]
    assert rows[0].recipe.scale == 1
    assert rows[2].chosen == {"scale": 10, "rho": 0.1}


def test_further_rows_are_in_the_controlled_tables_and_in_reidentification():
    plan = plan_of(methods=("none", "adaptssr"), rows={"InfoNCE, τ = .1": {"loss": "infonce", "temperature": 0.1}})
    grid = Grid(plan, Pretended(lambda one: 0.5))
    names = ["None", "AdaptSSR", "MLM warm-up only", "InfoNCE, τ = .1"]
    assert [row.name for row in grid.table(controlled=True)] == names
    assert [row.name for row in grid.table(controlled=False)] == ["None", "AdaptSSR"]
    own = grid.reidentification()["InfoNCE, τ = .1"][0].start.recipe
    assert own == plan.recipe("adaptssr", True, loss="infonce", temperature=0.1, history="older")


def test_strength_is_a_share_that_is_changed():
    assert strength("cl4srec", 0.3) == {"mask_ratio": 0.3, "reorder_ratio": 0.3, "crop_ratio": 0.7}
    assert strength("ccl", 0.3) == {"fill_ratio": 0.3}
    assert sorted(strength("coserec", 0.3).values()) == [0.3, 0.3, 0.3, 0.3, 0.7]
    assert strength("duorec", 0.3) == {}


def test_curves_of_a_method_differ_in_nothing_but_the_loss():
    grid = Grid(plan_of(methods=("none", "coserec", "ccl")), Pretended(lambda one: one.temperature))
    points = {(method, label, rho): row.recipe for method, label, rho, row in grid.robustness()}
    assert len(points) == 2 * 2 * 5
    for (method, label, rho), one in points.items():
        assert one.loss == ("infonce" if label == "original" else "adaptssr")
        other = points[method, "original", rho]
        assert dataclasses.replace(one, loss=other.loss, temperature=other.temperature) == other
        assert one.warm_start == "mlm"


def test_curves_of_reidentification_choose_the_temperature_that_finds_most():
    """At the method's own strength; the ranking has the scale and the negatives of the plan's AdaptSSR."""
    plan = plan_of(methods=("none", "cl4srec"), preset="recommended", options={}, figure_seeds=2)
    own = plan.recipe("cl4srec", True)
    grid = Grid(plan, Found(lambda one: 1 - abs(one.temperature - 0.2) if one.mask_ratio == own.mask_ratio else 0.0))
    points = {(label, rho): cells for _, label, rho, cells in grid.robustness_of_reidentification()}
    assert len(points) == 2 * 5
    for (label, rho), cells in points.items():
        recipes = [cell.start.recipe for cell in cells]
        assert [one.seed for one in recipes] == [own.seed, own.seed + 1]
        one = recipes[0]
        assert (one.history, one.views, one.mask_ratio, one.crop_ratio) == (
            "older",
            "operators",
            rho,
            round(1 - rho, 6),
        )
        loss = (
            (one.loss, one.temperature, one.negatives) if label == "original" else (one.loss, one.scale, one.negatives)
        )
        assert loss == (("infonce", 0.2, "auto") if label == "original" else ("adaptssr", 10.0, 0.1))


def test_linear_curves_are_over_pretrainings_and_all_splits():
    plan = plan_of(methods=("none", "cl4srec"), figure_seeds=2, linear_splits=3).linear()
    rows = [row for *_, row in Grid(plan, Pretended(lambda one: 0.5)).robustness()]
    assert {(row.runs, row.splits, row.pretrain_seeds) for row in rows} == {(2, 3, 2)}


def test_ablation_takes_the_constant_of_the_best_validation_value():
    def valid(one):
        return 1 - abs(one.lambda_value - 0.3) if one.lambda_mode == "const" else 0.0

    groups, lambdas = Grid(plan_of(), Pretended(valid)).ablation()
    assert [row.name for row in groups["paper"]] == [
        "AdaptSSR", "w/o hard negatives", "w/o adaptive fusion (λ = 0.3)", "w/o ranking (InfoNCE)",
    ]  # fmt: skip
    assert groups["paper"][2].recipe == lambdas[0.3].recipe
    warm_up = groups["comparison"][0]
    assert warm_up.start(0) == Row("full", groups["paper"][0].recipe, 1).start(0).needs()


# --- running --------------------------------------------------------------------------------------------------


def done(folder):
    path = folder / "order.txt"
    return path.read_text(encoding="utf-8").split() if path.exists() else []


def test_finished_cells_are_not_computed_again(tmp_path):
    plan, cells = plan_of(), [Note("a"), Note("b")]
    assert run_cells(plan, Store(tmp_path, "x"), lambda: (cells, 0), show_progress=False) == 2
    cells.append(Note("c"))
    assert run_cells(plan, Store(tmp_path, "x"), lambda: (cells, 0), show_progress=False) == 1
    assert done(tmp_path) == ["a", "b", "c"]
    # On another corpus they are other cells.
    assert run_cells(plan, Store(tmp_path, "y"), lambda: (cells, 0), show_progress=False) == 3


def test_what_was_finished_before_a_failure_is_kept(tmp_path):
    plan, cells = plan_of(), [Note("a"), Note("b", fails=True), Note("c")]
    with pytest.raises(InputError, match=r"^b: expected to work, got this$"):
        run_cells(plan, Store(tmp_path, "x"), lambda: (cells, 0), show_progress=False)
    cells[1] = Note("b")
    assert run_cells(plan, Store(tmp_path, "x"), lambda: (cells, 0), show_progress=False) == 2
    assert done(tmp_path) == ["a", "b", "c"]


def test_several_processes(tmp_path):
    names = [f"n{number}" for number in range(5)]
    store = Store(tmp_path, "x")
    assert run_cells(plan_of(), store, lambda: ([Note(name) for name in names], 0), jobs=2, show_progress=False) == 5
    assert sorted(done(tmp_path)) == names


def test_a_killed_process_ends_the_run_with_one_line(tmp_path):
    cells = [Note("a"), Note("b", dies=True)]
    with pytest.raises(InputError, match=r"^jobs: expected processes that live, got one that was killed"):
        run_cells(plan_of(), Store(tmp_path, "x"), lambda: (cells, 0), jobs=2, show_progress=False)
    cells[1] = Note("b")
    run_cells(plan_of(), Store(tmp_path, "x"), lambda: (cells, 0), show_progress=False)
    assert set(done(tmp_path)) == {"a", "b"}


ENDLESS = """
from pathlib import Path
from compare_cases import Note, plan_of
from adaptssr_plugin.experiments.compare.running import run_cells
from adaptssr_plugin.experiments.compare.store import Store
if __name__ == "__main__":
    cells = [Note("a", waits=True), Note("b", waits=True)]
    run_cells(plan_of(), Store(Path(__file__).parent, "x"), lambda: (cells, 0), jobs=2, show_progress=False)
"""


@pytest.mark.slow
def test_processes_end_with_a_run_that_is_killed(tmp_path):
    (tmp_path / "endless.py").write_text(ENDLESS, encoding="utf-8")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    with subprocess.Popen([sys.executable, tmp_path / "endless.py"], env={**os.environ, "PYTHONPATH": path}) as run:
        workers = wait_for(lambda: [int(file.stem) for file in tmp_path.glob("*.pid")], 2)
        run.kill()
    assert wait_for(lambda: [worker for worker in workers if not alive(worker)], 2) == workers


def wait_for(found, number, seconds=180):
    """Ask until there are so many."""
    until = time.monotonic() + seconds
    while len(found()) < number and time.monotonic() < until:
        time.sleep(0.1)
    return found()


def alive(process):
    """Whether a process runs; one that has ended may wait for a parent to notice."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return False


def test_parts_share_everything_out_once(tmp_path):
    cells = [Note(f"n{number}") for number in range(20)]
    for number in (1, 2, 3):
        run_cells(plan_of(), Store(tmp_path / str(number), "x"), lambda: (cells, 0), 1, Part(number, 3), False)
    parts = [done(tmp_path / str(number)) for number in (1, 2, 3)]
    assert sorted(name for part in parts for name in part) == sorted(cell.name for cell in cells)
    assert all(parts)


def test_runs_of_one_model_stay_on_one_machine():
    plan = plan_of()
    cells = Row("row", plan.recipe("cl4srec", True), 6).cells([AGE, TaskSpec("gender")])
    takers = {tuple(Part(number, 3).takes(cell, "x") for number in (1, 2, 3)) for cell in cells}
    assert [sum(taker) for taker in takers] == [1]


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "a/b", "²/3", "1/", ""])
def test_wrong_parts_are_refused(text):
    with pytest.raises(InputError, match=r"^part: expected I/N"):
        part_of(text)


# --- the file of cells ----------------------------------------------------------------------------------------


def seconds_of(folder, name):
    found = Store(folder, "x").get(Note(name))
    return None if found is None else found["seconds"]


FOREIGN = [b"", b"{", b"[]", b'{"key": "x"}', b'{"key": 1, "result": {}, "conditions": {}}', b"\xff", b"[" * 99999]


@pytest.mark.parametrize("content", FOREIGN, ids=lambda content: repr(content[:20]))
def test_a_damaged_line_is_refused(tmp_path, content):
    for name in ("a", "b"):
        put(tmp_path, name)
    path = tmp_path / "cells.jsonl"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\n" + content + b"\n", 1))
    with pytest.raises(InputError, match=r"^output: line 2 of .*cells\.jsonl is damaged or foreign; remove it, and"):
        Store(tmp_path, "x")


def test_a_line_that_was_broken_off_is_computed_again(tmp_path):
    for name in ("a", "b"):
        put(tmp_path, name, 1.0)
    path = tmp_path / "cells.jsonl"
    whole = path.read_bytes()
    first = whole.splitlines(keepends=True)[0]
    for end in range(len(first), len(whole) - 1):
        path.write_bytes(whole[:end])
        assert (seconds_of(tmp_path, "a"), seconds_of(tmp_path, "b")) == (1.0, None)
    put(tmp_path, "c", 2.0)
    assert path.read_bytes().startswith(first)
    assert [seconds_of(tmp_path, name) for name in "abc"] == [1.0, None, 2.0]
    path.write_bytes(whole[:-1])  # whole, but for its end
    put(tmp_path, "c", 2.0)
    assert [seconds_of(tmp_path, name) for name in "abc"] == [1.0, 1.0, 2.0]


def test_files_of_several_machines_are_concatenated(tmp_path):
    for folder, value in (("one", 1.0), ("two", 2.0)):
        put(tmp_path / folder, "shared", value)
        put(tmp_path / folder, folder, value)
    whole = b"".join((tmp_path / folder / "cells.jsonl").read_bytes() for folder in ("one", "two"))
    (tmp_path / "cells.jsonl").write_bytes(whole)
    assert [seconds_of(tmp_path, name) for name in ("one", "two", "shared")] == [1.0, 2.0, 2.0]


PUTTING = """
import os, sys
from pathlib import Path
from compare_cases import put
children = []
for run in range(3):
    children.append(os.fork())
    if children[-1] == 0:
        for number in range(30):
            put(Path(sys.argv[1]), f"{run}-{number}-{'long' * 2000}")
        os._exit(0)
print([os.waitpid(child, 0)[1] for child in children])
"""


def test_several_runs_add_to_one_file(tmp_path):
    assert run_python("-c", PUTTING, tmp_path).stdout == "[0, 0, 0]\n"
    store = Store(tmp_path, "x")
    names = [f"{run}-{number}-{'long' * 2000}" for run in range(3) for number in range(30)]
    assert all(store.get(Note(name)) for name in names)
    assert len((tmp_path / "cells.jsonl").read_bytes().splitlines()) == 90


# --- before and within training -------------------------------------------------------------------------------


def test_a_wrong_task_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"^field: expected a column of ml-100k.user"):
        check_ready(plan_of(tasks=(TaskSpec("hair"),)))


def test_a_shared_warm_up_changes_nothing(tmp_path):
    """The model of a cell is that of one uninterrupted run of the same recipe, to the last bit."""
    plan = plan_of()
    cell = Pretraining(plan.recipe("adaptssr", True, ft_epochs=5))
    fingerprint = load_data(plan).fingerprint
    for one in (cell.needs(), cell):
        one.compute(plan, tmp_path)
    pretrain(plan.source(), recipe("adaptssr", "paper", TINY), tmp_path / "whole", show_progress=False)
    shared = load_file(tmp_path / cell.key(fingerprint) / "model.safetensors")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    assert shared.keys() == whole.keys()
    assert all(shared[name].equal(whole[name]) for name in whole)
    assert cell.needs().recipe == warm_up_of(cell.recipe)


PLAIN = ("Majority class", "TF-IDF + LR", "LSA + LR")

# --- the command ----------------------------------------------------------------------------------------------


def test_smoke(tmp_path):
    """Every table and figure on ml-100k; given again, nothing is computed, and the files are the same."""
    words = ["compare", "--smoke", "--output", str(tmp_path), "--set", "use_gpu=False", "--quiet"]
    assert invoke(*words).exit_code == 0
    names = [f"table-{table}.{suffix}" for table in ("2-paper", "2-controlled", "3") for suffix in ("md", "csv", "tex")]
    names += [f"reidentification.{suffix}" for suffix in ("md", "csv", "tex")]
    names += ["records-paper.csv", "records-controlled.csv", "records-reidentification.csv", "tuning.csv"]
    drawn = ("3", "3-linear", "3-reidentification", "7", "5")
    names += [f"figure-{name}.{suffix}" for name in drawn for suffix in ("png", "svg", "csv")]
    names += [f"figure-4-{task}.png" for task in ("gender", "age")]
    assert [name for name in names if not (tmp_path / name).is_file()] == []
    panels = dict.fromkeys(line["panel"] for line in read_csv(tmp_path / "figure-5.csv"))
    assert list(panels) == [WARM_UP, "PeterRec", "CL4SRec", "AdaptSSR", TUNED]
    records = read_csv(tmp_path / "records-controlled.csv")
    rows = {record["method"] for record in records}
    assert rows == {*PLAIN, "None", "PeterRec", "CL4SRec", "AdaptSSR", TUNED, WARM_UP}
    taus = {record["tau"] for record in records if record["method"] == "CL4SRec"}
    assert taus in ({"0.2"}, {"1.0"})
    assert all(0 <= float(record["value"]) <= 1 for record in records)
    assert {record["computed_on"].partition(" (")[0] for record in records} == {"CPU"}
    before = {path: path.read_bytes() for path in tmp_path.glob("table-*")}
    cells = (tmp_path / "cells.jsonl").read_bytes()
    assert all("seconds" in json.loads(line)["result"] for line in cells.splitlines())
    assert not list(tmp_path.glob("*.txt"))
    again = invoke(*words, "--figure", "3")  # drawing takes seconds
    assert "\n0 cells computed" in again.output
    assert "variants.md" in again.output
    assert cells == (tmp_path / "cells.jsonl").read_bytes()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_linear_reading_over_splits_with_a_curve_over_labels(tmp_path):
    """Of a plan; that all labels of the curve give what the table says shows that both read the same vectors."""
    plan = plan_of(
        options={**TINY, "ft_tune": "linear"}, methods=("none", "adaptssr"), splits=2, label_curve=(40, 9999, None),
        strengths=(), temperatures=(), pretrain_seeds=2,
    )  # fmt: skip
    done = compare(plan, tmp_path, ("controlled",), show_progress=False)
    assert done.unfinished == 0
    assert "2 random splits, seeds 2023 to 2024" in done.tables["controlled"]
    assert "corrected resampled t-test" in done.tables["controlled"]
    assert all((tmp_path / f"labels.{suffix}").stat().st_size for suffix in ("png", "svg", "csv", "md"))
    of_table, of_curve = (read_records(tmp_path / f"{name}.csv") for name in ("records-controlled", "labels-records"))
    assert {one.method for one in of_table} == {*PLAIN, "None", "AdaptSSR", WARM_UP}

    def values(records, labels):
        return sorted((one.method, one.split, one.split_seed, one.seed or 0, one.value) for one in records
                      if one.labels == labels)  # fmt: skip

    assert values(of_table, None) == values(of_curve, None)
    assert len(values(of_curve, 40)) == len(values(of_curve, None)) > 0
    assert {one.labels for one in of_curve} == {40, None}
    assert compare(plan, tmp_path, ("controlled",), show_progress=False).computed == 0


def test_a_report_of_the_warm_up_alone(tmp_path):
    """As an interrupted comparison leaves it: no table has a row yet."""
    plan = plan_of(methods=("none", "adaptssr"), strengths=(), temperatures=())
    warm_up = Row("row", plan.recipe("adaptssr", True), 1).start(0).needs()
    run_cells(plan, Store(tmp_path, load_data(plan).fingerprint), lambda: ([warm_up], 0), 1, None, False)
    done = compare(plan, tmp_path, ("controlled",), show_progress=False, report_only=True)
    assert (done.computed, dict(done.tables)) == (0, {})


def test_labels_that_have_changed(tmp_path, monkeypatch):
    """The models stand, and so do results from before lines knew the labels; other results are computed again."""
    dataset = write_profiled_dataset(tmp_path / "small")
    plan = plan_of(dataset=str(dataset), tasks=(TaskSpec("gender"),), methods=("none", "peterrec"), seeds=1)

    def computed(folder):
        return compare(plan, tmp_path / folder, ("paper",), show_progress=False).computed

    before = computed("run")
    assert computed("run") == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "cells.jsonl").read_text().splitlines()]
    (tmp_path / "old").mkdir()
    old = [json.dumps({name: value for name, value in line.items() if name != "task"}) for line in lines]
    (tmp_path / "old" / "cells.jsonl").write_text("\n".join(old) + "\n")
    users = (dataset / "small.user").read_text()
    (dataset / "small.user").write_text(users.replace("u0\tF", "u0\tM").replace("u1\tM", "u1\tF"))
    monkeypatch.setattr("adaptssr_plugin.experiments.compare.cells._tasks", {})  # as in a new process
    assert computed("old") == 0
    assert computed("run") == before - sum(line["kind"] == "pretraining" for line in lines)
    assert computed("run") == 0


def test_reidentification_of_a_plan_without_tasks(tmp_path):
    """Rows over pre-trainings, each method against its own warm-up by the paired test; other tables need a task."""
    plan = plan_of(tasks=(), methods=("none", "adaptssr", "ccl"), pretrain_seeds=2)
    done = compare(plan, tmp_path, ("reidentification",), show_progress=False)
    assert (done.unfinished, list(done.tables)) == (0, ["reidentification"])
    assert {path.name for path in done.files} == {
        "reidentification.md", "reidentification.csv", "reidentification.tex", "records-reidentification.csv",
    }  # fmt: skip
    values = defaultdict(list)
    for record in read_records(tmp_path / "records-reidentification.csv"):
        values[record.method, record.metric].append(record.value)
    rows = {row: len(runs) for (row, metric), runs in values.items() if metric == "MRR"}
    plain = dict.fromkeys(("Chance", "TF-IDF cosine", "LSA cosine"), 1)
    assert rows == plain | dict.fromkeys(("Random encoder", WARM_UP, "AdaptSSR", "CCL"), 2)
    for row in ("AdaptSSR", "CCL"):
        own, start = (values[name, "HR@10"] for name in (row, WARM_UP))
        gain = 100 * (statistics.fmean(own) - statistics.fmean(start))
        line = next(one for one in done.tables["reidentification"].splitlines() if one.startswith(f"{row} against"))
        assert f"HR@10 {gain:+.2f} (p {paired(own, start):.3f})" in line
    recipes = [json.loads(line)["spec"] for line in (tmp_path / "cells.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = [spec.get("start", spec)["options"] for spec in recipes if "start" in spec or "options" in spec]
    assert {options["history"] for options in trained} == {"older"}
    again = compare(plan, tmp_path, ("reidentification",), show_progress=False)
    assert again.computed == 0
    assert again.tables == done.tables
    assert "ft_" not in done.tables["reidentification"]  # where nothing is fine-tuned
    line = "tasks: expected one or more for any table or figure but reidentification, got none"
    assert refusal_of(compare, plan, tmp_path, ("controlled",)) == line
    assert refusal_of(compare, plan, tmp_path, (), (4,)) == line


def test_a_report_computes_nothing(tmp_path):
    words = ["compare", "ml-100k", "--output", str(tmp_path), "--set", "use_gpu=False", "--report-only", "--variants"]
    done = invoke(*words)
    assert done.exit_code == 0
    assert "\n0 cells computed" in f"\n{done.output}"
    assert "cells are left for other machines or a later run" in done.output
    assert not (tmp_path / "cells.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["compare"], "plan: expected a plan, got none"),
        (["compare", "ml-100k", "--smoke"], "plan: expected a plan or --smoke, and not both"),
        (["compare", "mine"], "plan: expected one of"),
        (["compare", "ml-100k", "--part", "3"], "part: expected I/N"),
        (["compare", "tenrec-qba", "--dataset", "nowhere"], "dataset"),
        (["compare", "tafeng", "--figure", "7", "--dataset", "ml-100k"], "figure: expected a second task"),
    ],
)
def test_wrong_calls_get_one_line(words, line, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = call_command(capfd, *words)
    assert (status, error.count("\n")) == (2, 1)
    assert line in error
    assert not list(Path().iterdir())
