"""Table 3: what pre-training cost, in units that can be read, with repeats and conditions named."""

import csv
import io
import re
from dataclasses import replace

import pytest

from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments.efficiency import Efficiency, table_3

FIRST = Efficiency("adaptssr", 0.14, 0.07, 25.2, 390.0, 12, 512.0, "Xeon, 2 threads")
RUNS = [
    replace(
        FIRST, method="peterrec", hours=0.05, warm_up_hours=None, seconds_per_epoch=9.0, sequences_per_second=1234.5
    ),
    FIRST,
    replace(FIRST, hours=0.16, seconds_per_epoch=28.8, sequences_per_second=410.0, epochs_to_best=14),
]


def table_of(runs, footer=()):
    return table_3("tenrec-qba", runs, footer=footer)


DEFINITION = (
    "Training: wall-clock time of the method's own pre-training stage over all its epochs, validation excluded; "
    "warm-up apart. s/epoch and sequences/s are of that stage; peak memory is the accelerator's, without one the "
    "process's."
)


def test_text_table():
    assert table_of(RUNS, footer=["20 epochs."]).text() == (
        "Method    training (min)  warm-up (min)  s/epoch   sequences/s  epochs to best  peak memory (MB)\n"
        "------------------------------------------------------------------------------------------------\n"
        "PeterRec  3.00            -              9.00      1,234        12.0            512\n"
        "AdaptSSR  9.00±0.85       4.20±0.00      27.0±2.5  400±14       13.0±1.4        512±0\n"
        "\n"
        "Dataset: tenrec-qba. Device: Xeon, 2 threads.\n"
        f"{DEFINITION}\n"
        "Mean±standard deviation over repeats: PeterRec 1, AdaptSSR 2.\n"
        "20 epochs.\n"
    )


def test_markdown_and_latex_hold_the_same_cells():
    table = table_of(RUNS)
    markdown, latex = table.markdown().splitlines(), table.latex().splitlines()
    assert markdown[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert markdown[3] == "| AdaptSSR | 9.00±0.85 | 4.20±0.00 | 27.0±2.5 | 400±14 | 13.0±1.4 | 512±0 |"
    cells = " & ".join(markdown[3].strip("| ").split(" | ")).replace("±", "$\\pm$")
    assert f"{cells} \\\\" in latex
    assert "\\begin{tabular}{lrrrrrr}" in latex


def test_csv_is_in_hours_and_not_rounded_to_what_is_shown():
    peterrec, adaptssr = csv.DictReader(io.StringIO(table_of(RUNS).csv()))
    assert (peterrec["method"], peterrec["repeats"], peterrec["device"]) == ("PeterRec", "1", "Xeon, 2 threads")
    assert (peterrec["hours"], peterrec["hours_std"], peterrec["warm_up_hours"]) == ("0.05", "", "")
    assert (peterrec["sequences_per_second"], adaptssr["hours"], adaptssr["hours_std"]) == (
        "1234.5",
        "0.15",
        "0.0141421",
    )
    assert adaptssr["epochs_to_best"] == "13"


@pytest.mark.parametrize(
    ("hours", "heading", "cell"),
    [(1.54, "training (h)", "1.54"), (0.99, "training (min)", "59.4"), (0.016, "training (s)", "57.6")],
)
def test_the_unit_follows_the_shortest_training(hours, heading, cell):
    lines = table_of([replace(FIRST, hours=hours), replace(FIRST, method="ptum", hours=30)]).markdown().splitlines()
    assert lines[0].startswith(f"| Method | {heading} |")
    assert lines[3].startswith(f"| AdaptSSR | {cell} |")


def test_the_filler_of_ccl_stands_apart():
    table = table_of([FIRST, replace(FIRST, method="ccl", filler_hours=0.1)])
    assert [line.split("|")[4].strip() for line in table.markdown().splitlines()[:4]] == [
        "filler (min)",
        "---:",
        "6.00",
        "-",
    ]
    assert "validation excluded; warm-up and CCL's filler apart." in table.text()
    assert "One run of each method: no spread." in table.text()


def test_rows_stand_in_blocks_of_a_device():
    lines = table_of([*RUNS, replace(FIRST, device="H100")]).text().splitlines()
    assert [re.split("  +", line)[:2] for line in lines[:1] + lines[2:5]] == [
        ["Device", "Method"],
        ["Xeon, 2 threads", "PeterRec"],
        ["Xeon, 2 threads", "AdaptSSR"],
        ["H100", "AdaptSSR"],
    ]
    assert "repeats: Xeon, 2 threads PeterRec 1, Xeon, 2 threads AdaptSSR 2, H100 AdaptSSR 1." in lines[-1]
    elsewhere = table_of([FIRST, replace(FIRST, device="NVIDIA H100", hours=0.01)])
    assert elsewhere.markdown().startswith("| Device | Method | training (s) |")
    assert "\n| --- | --- | ---: |" in elsewhere.markdown()
    assert "Dataset: tenrec-qba. Compare times of one device only." in elsewhere.text()
    assert "| Xeon, 2 threads | AdaptSSR | 504 |" in elsewhere.markdown()  # no mean over devices


def test_equal_repeats_are_counted_once():
    assert "Mean±standard deviation over 3 repeats." in table_of([FIRST] * 3).text()


def test_what_no_run_has_gets_no_column():
    bare = replace(FIRST, warm_up_hours=None, epochs_to_best=None, peak_memory_mb=None)
    assert table_of([bare]).markdown().splitlines()[0] == "| Method | training (min) | s/epoch | sequences/s |"
    assert "validation excluded. s/epoch" in table_of([bare]).text()
    assert table_of([replace(FIRST, hours=0.0)]).markdown().splitlines()[2].startswith("| AdaptSSR | 0 |")


def test_wrong_runs_are_named():
    with pytest.raises(InputError, match="runs: expected at least one, got none"):
        table_of([])
    with pytest.raises(InputError, match=r"rows: expected to name every method among the runs, missing \['mine'\]"):
        table_of([replace(FIRST, method="mine")])
