"""The table of variants: what is compared with what, on which rows."""

import csv
import dataclasses
import io

import pytest
from compare_cases import Pretended, plan_of
from refusals import refusal_of

from adaptssr_plugin.experiments.compare.grid import WARM_UP, Grid
from adaptssr_plugin.experiments.compare.plan import read_plan
from adaptssr_plugin.experiments.variants_table import Variant, variants_table

FIRST = Variant("AdaptSSR", "", {"age": [0.50, 0.52]}, {"age": [0.40, 0.44]})
OTHER = Variant("κ = 10", "scale 10.0", {"age": [0.53, 0.56]}, {"age": [0.45, 0.45]})


def test_gains_are_of_validation_rows():
    table = variants_table((FIRST, OTHER), {"age": "accuracy"}, ("a footer",))
    (first, other) = csv.DictReader(io.StringIO(table.csv()))
    assert (first["valid"], first["valid_gain"], first["valid_p"], first["test"]) == ("51.00", "0.00", "", "42.00")
    assert (other["valid"], other["valid_std"], other["valid_gain"], other["test"]) == (
        "54.50",
        "2.12",
        "3.50",
        "45.00",
    )
    assert float(other["valid_p"]) == pytest.approx(0.090, abs=5e-4)  # t = 3.5 / .5 with one degree of freedom
    assert table.text().splitlines()[-1] == "a footer"
    assert "| κ = 10 | scale 10.0 | 54.50±2.12 | +3.50 | 0.090 | 45.00±0.00 |" in table.markdown()
    assert "| AdaptSSR | - | 51.00±1.41 | - | - | 42.00±2.83 |" in table.markdown()
    assert r"54.50$\pm$2.12" in table.latex()


def test_one_run_has_neither_spread_nor_test():
    rows = [dataclasses.replace(one, valid={"age": [0.5]}, test={"age": [0.4]}) for one in (FIRST, OTHER)]
    table = variants_table(rows, {"age": "accuracy"})
    assert "| κ = 10 | scale 10.0 | 50.00 | +0.00 | - | 40.00 |" in table.markdown()


def test_variants_differ_from_the_controlled_comparison_by_their_options():
    variants = {"κ = 10": {"scale": 10}, "no warm-up": {"warm_start": "none"}}
    plan = dataclasses.replace(plan_of(), variants=variants, pretrain_seeds=2, ablation_seeds=3)
    grid = Grid(plan, Pretended(lambda one: one.scale))
    rows = {row.name: row for row in grid.variants()}
    assert list(rows) == ["AdaptSSR", WARM_UP, "κ = 10", "no warm-up"]
    controlled = plan.recipe("adaptssr", True)
    assert rows["AdaptSSR"].recipe == controlled
    assert rows["κ = 10"].recipe == dataclasses.replace(controlled, scale=10.0)
    assert rows["no warm-up"].recipe == dataclasses.replace(controlled, warm_start="none")
    assert rows["AdaptSSR"].start(1).needs() == rows[WARM_UP].start(1)
    assert {(row.seeds, row.pretrain_seeds) for row in rows.values()} == {(3, 2)}
    bars = grid.ablation()[0]["variants"]
    assert [row.recipe for row in bars] == [rows[name].recipe for name in variants]
    assert {row.pretrain_seeds for row in bars} == {1}


@pytest.mark.parametrize(
    ("variants", "line"),
    [
        (["scale"], "variants: expected options by name, got"),
        ({"mine": 3}, "variants: expected options by name for mine, got 3"),
        ({"mine": {"scale": -1}}, "scale: expected a positive number, got -1"),
        ({"mine": {"size": 1}}, "size: expected an option of a recipe"),
    ],
)
def test_wrong_variants_are_refused(variants, line):
    assert refusal_of(read_plan, "smoke", {"variants": variants}).startswith(line)
