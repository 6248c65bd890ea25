"""Records, Table 2, and what its seeds allow one to say."""

import csv
import io
import math
from dataclasses import replace

import pytest

from adaptssr_plugin.downstream.significance import (
    accuracy_standard_error,
    auc_standard_error,
    paired,
    paired_interval,
    shown_decimals,
    welch,
)
from adaptssr_plugin.downstream.splits import SPLIT_OVERLAP
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.experiments import (
    PAPER_ROWS,
    Record,
    paper_name,
    read_records,
    seed_uncertainty,
    table_2,
    write_records,
)
from adaptssr_plugin.experiments.tables import PLAIN_BASELINES, Column, best_baseline_footer, latex_text
from benchmarks.support.plots import read_csv

FULL = Record(
    "ml-100k", "age", "adaptssr", "paper", "mlm", 0.6, 0.1, 3, "accuracy", "test", 0.1 + 0.2, 4, 17, 12.25, 512.5
)
BARE = Record("ml-100k", "age", "Majority class", None, None, None, None, None, "accuracy", "test", 1 / 3)


def results(task, metric, method, values, dataset="ml-100k"):
    return [
        Record(dataset, task, method, "paper", "mlm", None, None, seed, metric, "test", value)
        for seed, value in enumerate(values)
    ]


def test_records_come_back_from_csv_unchanged(tmp_path):
    odd = replace(BARE, task='a "quoted", name', method="naïve\nbayes", value=1e-17)
    path = write_records(tmp_path / "new" / "results.csv", [FULL, BARE, odd], {"torch": "2.4, cpu"})
    assert read_records(path) == [FULL, BARE, odd]
    lines = read_csv(path)
    assert list(lines[0])[:3] == ["dataset", "task", "method"]
    assert list(lines[0])[-2:] == ["labels", "torch"]
    assert [line["torch"] for line in lines] == ["2.4, cpu"] * 3
    assert lines[1]["seed"] == ""


def test_records_of_several_machines_say_which(tmp_path):
    path = write_records(tmp_path / "results.csv", [FULL, BARE], [{"torch": "2.13"}, {"torch": "2.11", "gpu": "yes"}])
    assert read_records(path) == [FULL, BARE]
    assert [(line["torch"], line["gpu"]) for line in read_csv(path)] == [("2.13", ""), ("2.11", "yes")]
    with pytest.raises(InputError, match="further: expected columns for each of 2 records, got 1"):
        write_records(path, [FULL, BARE], [{"torch": "2.13"}])


def test_records_name_what_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="records: expected a CSV file, found none at"):
        read_records(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"further: expected names other .* got \['seed'\]"):
        write_records(tmp_path / "x.csv", [FULL], {"seed": "1"})
    path = write_records(tmp_path / "results.csv", [FULL])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(",512.5", ",much"), encoding="utf-8")
    with pytest.raises(InputError, match=r"peak_mem: expected float in line 2 of .*results.csv, got 'much'"):
        read_records(path)
    path.write_text(text.replace("best_epoch,", "epoch,"), encoding="utf-8")
    with pytest.raises(InputError, match=r"missing \['best_epoch'\]"):
        read_records(path)
    path.write_text(text.replace(repr(0.1 + 0.2), ""), encoding="utf-8")
    with pytest.raises(InputError, match="value: expected float in line 2"):
        read_records(path)


def test_methods_are_written_as_in_the_paper():
    assert [paper_name(name) for name in ("cl4srec", "AdaptSSR", "NONE", "TF-IDF + LR")] == [
        "CL4SRec",
        "AdaptSSR",
        "None",
        "TF-IDF + LR",
    ]
    assert " ".join(PAPER_ROWS) == "None PeterRec PTUM CLUE CCL IDICL CL4SRec CoSeRec DuoRec AdaptSSR"


RECORDS = [
    *results("gender", "AUC", "adaptssr", [0.76, 0.75, 0.77]),
    *results("gender", "AUC", "none", [0.74, 0.73, 0.75]),
    *results("age", "accuracy", "adaptssr", [0.38, 0.40, 0.39]),
    *results("age", "accuracy", "none", [0.39, 0.38, 0.37]),
    *results("age", "accuracy", "TF-IDF + LR", [0.3968]),
    replace(FULL, split="valid", value=0.99),
]
ROWS = ("TF-IDF + LR", *PAPER_ROWS)


def test_text_table():
    assert table_2(RECORDS, ROWS, footer=["Three seeds."]).text() == (
        "Method       gender (AUC)  Impr %  age (accuracy)  Impr %\n"
        "---------------------------------------------------------\n"
        "TF-IDF + LR  -             -       39.68*          +4.42\n"
        "None         74.00±1.00    -       38.00±1.00      -\n"
        "AdaptSSR     76.00±1.00*   +2.70   39.00±1.00      +2.63\n"
        "\n"
        "Three seeds.\n"
    )


def test_markdown_table():
    assert table_2(RECORDS, ROWS, footer=["Three seeds.", "One split."]).markdown() == (
        "| Method | gender (AUC) | Impr % | age (accuracy) | Impr % |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| TF-IDF + LR | - | - | **39.68** | +4.42 |\n"
        "| None | 74.00±1.00 | - | 38.00±1.00 | - |\n"
        "| AdaptSSR | **76.00±1.00** | +2.70 | 39.00±1.00 | +2.63 |\n"
        "\nThree seeds.\n"
        "\nOne split.\n"
    )


def test_latex_table():
    table = table_2(RECORDS, ROWS, footer=["100 % of R&D_users; p < .01†"])
    assert table.latex() == (
        "% needs the package booktabs\n"
        "\\begin{tabular}{lrrrr}\n"
        "\\toprule\n"
        "Method & gender (AUC) & Impr \\% & age (accuracy) & Impr \\% \\\\\n"
        "\\midrule\n"
        "TF-IDF + LR & - & - & \\textbf{39.68} & $+4.42$ \\\\\n"
        "None & 74.00$\\pm$1.00 & - & 38.00$\\pm$1.00 & - \\\\\n"
        "AdaptSSR & \\textbf{76.00$\\pm$1.00} & $+2.70$ & 39.00$\\pm$1.00 & $+2.63$ \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\par\\smallskip\n"
        "{\\footnotesize\n"
        "100 \\% of R\\&D\\_users; p $<$ .01$^\\dagger$\\par\n"
        "}\n"
    )
    assert "footnotesize" not in table_2(RECORDS, ROWS).latex()


def test_latex_escapes_every_sign_that_it_would_obey():
    assert latex_text("a_b#1 {50 %} $x~y^2 \\z") == (
        "a\\_b\\#1 \\{50 \\%\\} \\$x\\textasciitilde{}y\\textasciicircum{}2 \\textbackslash{}z"
    )
    records = results("age_10 & more", "accuracy", "none", [0.5, 0.5])
    assert "& age\\_10 \\& more (accuracy) &" in table_2(records).latex()


def test_summary_csv():
    lines = list(csv.reader(io.StringIO(table_2(RECORDS, ROWS).csv())))
    assert lines == [
        ["dataset", "task", "metric", "method", "runs", "mean", "std", "impr"],
        ["ml-100k", "gender", "AUC", "None", "3", "74.00", "1.00", ""],
        ["ml-100k", "gender", "AUC", "AdaptSSR", "3", "76.00", "1.00", "2.70"],
        ["ml-100k", "age", "accuracy", "TF-IDF + LR", "1", "39.68", "", "4.42"],
        ["ml-100k", "age", "accuracy", "None", "3", "38.00", "1.00", ""],
        ["ml-100k", "age", "accuracy", "AdaptSSR", "3", "39.00", "1.00", "2.63"],
    ]


def test_rows_stand_in_the_papers_order_whatever_the_order_of_the_records():
    records = [one for name in ("duorec", "adaptssr", "ptum", "none") for one in results("t", "AUC", name, [0.5])]
    assert table_2(records).rows == ("None", "PTUM", "DuoRec", "AdaptSSR")


def test_impr_and_best_follow_the_printed_means():
    records = [
        *results("T2", "accuracy", "none", [0.53526]),
        *results("T2", "accuracy", "cl4srec", [0.544051]),
        *results("T2", "accuracy", "adaptssr", [0.54414]),
    ]
    table = table_2(records)
    column = Column("ml-100k", "T2", "accuracy")
    assert f"{table.improvement('AdaptSSR', column):.2f}" == "1.64"
    assert table.best(column) == {"CL4SRec", "AdaptSSR"}  # both print as 54.41
    assert math.isnan(table.improvement("None", column))


def test_columns_below_one_percent_show_three_digits():
    records = [
        *results("toys", "NDCG@10", "none", [0.00371, 0.00375]),
        *results("toys", "NDCG@10", "cl4srec", [0.00451, 0.00455]),
        *results("toys", "NDCG@10", "adaptssr", [0.004214, 0.004226]),
        *results("age", "accuracy", "none", [0.5, 0.51]),
        *results("age", "accuracy", "adaptssr", [0.005, 0.005]),
    ]
    table = table_2(records)
    assert [line.split() for line in table.text().splitlines()[2:]] == [
        ["None", "0.373±0.003", "-", "50.50±0.71*", "-"],
        ["CL4SRec", "0.453±0.003*", "+21.45", "-", "-"],
        ["AdaptSSR", "0.422±0.001", "+13.14", "0.50±0.00", "-99.01"],
    ]
    assert "toys,NDCG@10,AdaptSSR,2,0.422,0.001,13.14" in table.csv()
    below, *_ = best_baseline_footer(records)
    assert below.startswith("toys (NDCG@10): AdaptSSR 0.422 below the best baseline CL4SRec 0.453: −6.84 %,")
    assert [shown_decimals(means) for means in ([0.1], [0.00999], [0.01, math.nan], [0.0005], [0.0], [])] == [
        2, 3, 2, 4, 2, 2,
    ]  # fmt: skip


def test_no_improvement_without_the_baseline_row():
    table = table_2(results("t", "AUC", "adaptssr", [0.5, 0.6]))
    assert table.text().splitlines()[-1].split() == ["AdaptSSR", "55.00±7.07*", "-"]


def test_columns_name_the_dataset_where_there_are_two():
    records = results("age", "accuracy", "none", [0.4]) + results("age", "accuracy", "none", [0.5], dataset="tenrec")
    assert "| ml-100k age (accuracy) | Impr % | tenrec age (accuracy) |" in table_2(records).markdown()


def test_tables_refuse_what_they_would_have_to_guess():
    with pytest.raises(InputError, match=r"rows: expected to name every method .* missing \['TF-IDF \+ LR'\]"):
        table_2(RECORDS)
    with pytest.raises(InputError, match="expected one test value for None, ml-100k age accuracy, seed 1, got two"):
        table_2([*RECORDS, replace(RECORDS[10], preset="official_code")], ROWS)
    with pytest.raises(InputError, match="records: expected at least one with split test, got none"):
        table_2([replace(FULL, split="valid")])


OURS, BEST = [0.571, 0.569, 0.574], [0.564, 0.566, 0.561]
TESTS = "p: two-sided t-tests over seeds; † significant at .01."


def test_footer_compares_with_the_best_baseline_and_with_plain_ones():
    records = [
        *results("age", "accuracy", "adaptssr", OURS),
        *results("age", "accuracy", "none", [0.55, 0.54, 0.55]),
        *results("age", "accuracy", "cl4srec", BEST),
        replace(BARE, dataset="ml-100k", method="TF-IDF + LR", value=0.548),
    ]
    assert f"{welch(OURS, BEST):.3f}" == "0.020"
    assert f"{paired(OURS, BEST):.2f}" == "0.12"
    assert f"{paired(OURS, [0.548] * 3):.3f}" == "0.004"
    assert best_baseline_footer(records) == [
        "age (accuracy): AdaptSSR 57.13 against the best baseline CL4SRec 56.37: +1.35 %, Welch p = .020, "
        "paired p = .12",
        "age (accuracy): AdaptSSR 57.13 against TF-IDF + LR 54.80: +4.25 %, one-sample p = .004†",
        TESTS,
    ]


def test_footer_says_where_the_method_lies_below_or_level():
    records = [
        *results("age", "accuracy", "adaptssr", BEST),
        *results("age", "accuracy", "cl4srec", [value + 0.1 for value in BEST]),
        *results("gender", "AUC", "adaptssr", BEST),
        *results("gender", "AUC", "duorec", BEST),
    ]
    assert best_baseline_footer(records) == [
        "age (accuracy): AdaptSSR 56.37 below the best baseline CL4SRec 66.37: −15.07 %, Welch p < .001†, "
        "paired p < .001†",
        "gender (AUC): AdaptSSR 56.37 level with the best baseline DuoRec 56.37: +0.00 %, Welch p = 1.00, "
        "paired p = 1.00",
        TESTS,
    ]


def test_footer_makes_no_test_that_the_seeds_do_not_allow():
    one = results("age", "accuracy", "adaptssr", [0.57]) + results("age", "accuracy", "none", [0.55, 0.56])
    assert best_baseline_footer(one) == [
        "age (accuracy): AdaptSSR 57.00 against the best baseline None 55.50: +2.70 %, one seed, no test"
    ]
    other = results("age", "accuracy", "adaptssr", OURS) + results("age", "accuracy", "none", [0.55])
    assert best_baseline_footer(other)[0].endswith(": +3.87 %, one seed of the baseline, no test")
    apart = [*results("age", "accuracy", "adaptssr", OURS)]
    apart += [replace(record, method="none", seed=record.seed + 2, value=0.5) for record in apart]
    assert best_baseline_footer(apart)[0].endswith("p < .001†, no paired test (fewer than two seeds in common)")


def test_footer_pairs_by_seed_and_not_by_order():
    ours = results("age", "accuracy", "adaptssr", OURS)
    theirs = results("age", "accuracy", "none", BEST)[::-1]
    assert best_baseline_footer([*ours, *theirs])[0].endswith("paired p = .12")


def test_footer_takes_only_rows_named_and_not_excluded_for_baselines():
    records = [
        *results("age", "accuracy", "adaptssr", OURS),
        *results("age", "accuracy", "AdaptSSR, λ = 0", [0.6, 0.6, 0.6]),
        *results("age", "accuracy", "clue", [0.4, 0.5, 0.4]),
        *results("age", "accuracy", "none", [0.3, 0.4, 0.3]),
        *results("job", "accuracy", "none", [0.3, 0.4, 0.3]),
    ]
    rows = [*PAPER_ROWS, "AdaptSSR, λ = 0"]
    assert "best baseline CLUE" in best_baseline_footer(records)[0]
    assert "below the best baseline AdaptSSR, λ = 0 60.00" in best_baseline_footer(records, among=rows)[0]
    assert "best baseline CLUE" in best_baseline_footer(records, among=rows, excluded=rows[-1:])[0]
    assert "best baseline None" in best_baseline_footer(records, excluded=["clue"])[0]
    assert len(best_baseline_footer(records)) == 2  # no line for the task that AdaptSSR has no value on
    assert best_baseline_footer(records[-1:]) == []


def test_plain_baselines_are_named_as_where_they_are_measured():
    from adaptssr_plugin.experiments.task_runs import LSA, MAJORITY, POPULARITY, TFIDF

    assert set(PLAIN_BASELINES) == {MAJORITY, TFIDF, LSA, POPULARITY}


def over_splits(method, values):
    """Records of ``values[split][seed]``, splits in an order of their own for each method."""
    made = [
        replace(one, split_seed=2023 + split)
        for split, of_seeds in enumerate(values)
        for one in results("age", "accuracy", method, of_seeds)
    ]
    return made if method == "none" else made[::-1]


def test_over_splits_means_of_seeds_are_paired_by_split():
    ours, theirs = [[0.61, 0.63], [0.55, 0.56], [0.7, 0.66]], [[0.58], [0.54], [0.62]]
    records = [*over_splits("adaptssr", ours), *over_splits("none", theirs)]
    pairs = [sum(values) / 2 for values in ours], [value for (value,) in theirs]
    table = table_2(records)
    assert table.summaries["AdaptSSR", Column("ml-100k", "age", "accuracy")].n == 6
    p, tests = f"{paired(*pairs, SPLIT_OVERLAP):.2f}".removeprefix("0"), best_baseline_footer(records)
    assert tests[0].endswith(f"%, 3 splits, p = {p}")
    assert tests[1] == (
        "p: two-sided, the corrected resampled t-test over splits, which share users (Nadeau and Bengio, 2003); "
        "† significant at .01."
    )
    interval = paired_interval(*pairs, overlap=SPLIT_OVERLAP)
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in interval[1:])
    sentence, closing = seed_uncertainty(records, COUNTS)
    assert sentence == (
        f"age (accuracy): AdaptSSR against None +3.8 points (95 % interval {low} to {high}, 3 splits): "
        "not distinguishable from no effect."
    )
    assert closing.startswith("The intervals are those of the corrected resampled t-test")
    apart = [replace(one, split_seed=one.split_seed + 9) for one in over_splits("none", theirs)]
    assert best_baseline_footer([*over_splits("adaptssr", ours), *apart])[0].endswith(
        "no test (fewer than two splits in common)"
    )


def test_files_from_before_repeated_splits_are_read(tmp_path):
    path = write_records(tmp_path / "records.csv", [FULL])
    with path.open(encoding="utf-8", newline="") as file:
        head, values = list(csv.reader(file))
    assert head[-2:] == ["split_seed", "labels"]
    path.write_text("\n".join(",".join(line[:-2]) for line in (head, values)), encoding="utf-8")
    assert read_records(path) == [FULL]


# 190 test users: 55 and 135.
COUNTS = {"gender": [55, 135], "age": [30, 60, 100]}


def sentences(task, metric, ours, theirs):
    records = results(task, metric, "adaptssr", ours) + results(task, metric, "none", theirs)
    return seed_uncertainty(records, COUNTS)


def test_a_difference_within_the_spread_is_no_effect():
    ours, theirs = [0.76, 0.73, 0.78, 0.72, 0.75], [0.73, 0.75, 0.74, 0.73, 0.73]
    sentence, closing = sentences("gender", "AUC", ours, theirs)
    interval = paired_interval(ours, theirs)
    assert interval.low < 0 < interval.high
    assert f"{100 * auc_standard_error(0.736, 135, 55):.1f}" == "3.7"
    assert sentence == (
        "gender (AUC): AdaptSSR against None +1.2 points (95 % interval −2.0 to +4.4, paired over 5 seeds): not "
        "distinguishable from no effect; the 190 test users leave each value uncertain by ±3.7 points (standard "
        "error after Hanley and McNeil)."
    )
    assert "the split of the users and the pre-trained model are the same for every seed" in closing


@pytest.mark.parametrize(("sign", "word"), [(1, "gain"), (-1, "loss")])
def test_a_steady_but_small_difference_is_not_shown_for_other_users(sign, word):
    theirs = [0.38, 0.39, 0.40]
    ours = [value + sign * step for value, step in zip(theirs, [0.02, 0.021, 0.019], strict=True)]
    sentence = sentences("age", "accuracy", ours, theirs)[0]
    error = 100 * max(accuracy_standard_error(0.39, 190), accuracy_standard_error(0.39 + sign * 0.02, 190))
    assert f": a {word} beyond what these seeds vary by, on these test users; not shown for others" in sentence
    assert f"±{error:.1f} points (binomial standard error)." in sentence


def test_a_difference_beyond_both_errors_is_called_a_gain():
    sentence = sentences("age", "accuracy", [0.60, 0.61, 0.62], [0.38, 0.39, 0.40])[0]
    assert "+22.0 points" in sentence
    assert "a gain beyond what these seeds vary by and beyond the error of the test sample" in sentence


def test_the_bar_for_other_users_is_both_errors_together():
    # One accuracy of 190 users at .4 has an error of 3.55 points, a difference at most 5.0: 9.8 points are needed.
    for gain, enough in ((0.095, False), (0.105, True)):
        ours = [0.35 + gain] * 3
        sentence = sentences("age", "accuracy", ours, [0.35] * 3)[0]
        assert ("not shown for others" not in sentence) is enough


def test_only_shared_seeds_are_compared():
    sentence = sentences("age", "accuracy", [0.41, 0.42, 0.9], [0.40, 0.40])[0]
    assert "+1.5 points (95 % interval −4.9 to +7.9, paired over 2 seeds)" in sentence


def test_one_seed_or_none_allows_nothing():
    sentence = sentences("age", "accuracy", [0.41], [0.40])[0]
    assert "+1.0 points with one seed: no spread to judge it by, and the 190 test users" in sentence
    lonely = seed_uncertainty(results("age", "accuracy", "none", [0.4]), COUNTS)[0]
    assert lonely.endswith("no seed that both were run with, so nothing to compare.")


def test_spread_refuses_unknown_test_sets():
    with pytest.raises(InputError, match=r"test_counts: expected an entry for task job, got \['age', 'gender'\]"):
        sentences("job", "accuracy", [0.4, 0.5], [0.4, 0.5])
    with pytest.raises(InputError, match="test_counts: expected two classes for the AUC of age, got 3"):
        sentences("age", "AUC", [0.4, 0.5], [0.4, 0.5])
    mixed = results("age", "accuracy", "none", [0.4]) + results("age", "accuracy", "none", [0.5], dataset="tenrec")
    with pytest.raises(InputError, match=r"records: expected one dataset, got \['ml-100k', 'tenrec'\]"):
        seed_uncertainty(mixed, COUNTS)
