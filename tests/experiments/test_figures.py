"""Figures 3, 4 and 7, and the numbers in the panels of Figure 5."""

import re

import numpy as np
from refusals import refusal_of

from adaptssr_plugin.experiments import SimilarityDistributions, draw_similarity
from adaptssr_plugin.experiments.figures.ablation import Bar, draw_ablation
from adaptssr_plugin.experiments.figures.robustness import Curve, draw_robustness
from benchmarks.support.plots import read_csv

LABELS = {"dataset": "tenrec-qba", "task": "age", "metric": "accuracy"}


def texts_of(path):
    """Every text that an SVG of matplotlib shows, in order: each stands in a comment."""
    found = re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))
    return [text.replace("&amp;", "&") for text in found]


def same_bytes(first, second):
    return [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# --- Figures 3 and 7 -------------------------------------------------------------------------------------------

NONE = [0.55, 0.552, 0.554]
ORIGINAL = Curve("cl4srec", "original", {0.9: [0.53, 0.54, 0.535], 0.1: [0.56, 0.562, 0.564], 0.5: [0.552] * 3})
RANKED = Curve("cl4srec", "AdaptSSR", {0.1: [0.57, 0.58], 0.9: [0.56, 0.56]})


def test_robustness_writes_the_points_and_their_summary(tmp_path):
    stem = tmp_path / "new" / "figure3.age"
    paths = draw_robustness([ORIGINAL, RANKED], stem, **LABELS, none=NONE, warm_up=[0.57, 0.58], tfidf=0.548)
    endings = [".png", ".svg", ".csv", "-summary.csv", "-summary.md"]
    assert [path.name for path in paths] == [f"figure3.age{ending}" for ending in endings]
    points = read_csv(paths[2])
    assert [list(line.values()) for line in points] == [
        ["0.1", "CL4SRec", "original", "56.2000", "0.2000", "3"],
        ["0.5", "CL4SRec", "original", "55.2000", "0.0000", "3"],
        ["0.9", "CL4SRec", "original", "53.5000", "0.5000", "3"],
        ["0.1", "CL4SRec", "AdaptSSR", "57.5000", "0.7071", "2"],
        ["0.9", "CL4SRec", "AdaptSSR", "56.0000", "0.0000", "2"],
        ["", "None", "", "55.2000", "0.2000", "3"],
        ["", "MLM warm-up only", "", "57.5000", "0.7071", "2"],
        ["", "TF-IDF + LR", "", "54.8000", "", "1"],
    ]
    assert list(points[0]) == ["rho", "method", "loss", "mean", "std", "n"]
    assert read_csv(paths[3]) == [
        {"method": "CL4SRec", "loss": "original", "n_rho": "3", "range_points": "2.7000", "gain_points": "-0.2333",
         "negative_share": "0.3333"},  # level with None is not below it
        {"method": "CL4SRec", "loss": "AdaptSSR", "n_rho": "2", "range_points": "1.5000", "gain_points": "1.5500",
         "negative_share": "0.0000"},
    ]  # fmt: skip
    markdown = paths[4].read_text(encoding="utf-8")
    assert "| CL4SRec | original (InfoNCE) | 2.70 | -0.23 | 1 of 3 |" in markdown
    assert "| CL4SRec | + AdaptSSR | 1.50 | +1.55 | 0 of 2 |" in markdown
    assert "age (accuracy); tenrec-qba, 2 to 3 seeds (mean ± std)." in markdown


def test_robustness_has_a_panel_for_each_method(tmp_path):
    curves = [ORIGINAL, RANKED, Curve("ccl", "original", RANKED.values), Curve("ccl", "AdaptSSR", RANKED.values)]
    texts = texts_of(draw_robustness(curves, tmp_path / "three", **LABELS, none=NONE, conditions="one pre-training")[1])
    assert texts.count("augmentation strength ρ") == 2
    assert {"CL4SRec", "CCL", "original (InfoNCE)", "+ AdaptSSR", "None (no pre-training)"} <= set(texts)
    assert "TF-IDF + LR" not in texts
    assert texts.count("+ AdaptSSR") == 1
    assert "Robustness to the augmentation strength: age (accuracy)" in texts
    assert "tenrec-qba, 2 to 3 seeds (mean ± std), one pre-training" in texts
    assert any(re.fullmatch(r"accuracy × 100 \(axis starts at 5[23]\.\d\)", text) for text in texts)
    one = texts_of(draw_robustness(curves[:2], tmp_path / "one", **LABELS, tfidf=0.5)[1])
    assert one.count("augmentation strength ρ") == 1
    assert "TF-IDF + LR" in one
    assert "None (no pre-training)" not in one


def test_robustness_says_nothing_of_a_cut_axis_that_starts_at_zero(tmp_path):
    low = Curve("ccl", "original", {0.1: [0.0], 0.9: [0.48], 0.5: [0.5]})
    _, svg, _, summary, markdown = draw_robustness([low], tmp_path / "low", **LABELS)
    texts = texts_of(svg)
    assert "accuracy × 100" in texts
    assert "tenrec-qba, one seed" in texts
    assert list(read_csv(summary)[0].values()) == ["CCL", "original", "3", "50.0000", "", ""]
    assert "| CCL | original (InfoNCE) | 50.00 | - | - |" in markdown.read_text(encoding="utf-8")


def test_robustness_is_the_same_each_time(tmp_path):
    first, again = (draw_robustness([ORIGINAL], tmp_path / name, **LABELS, none=NONE) for name in ("a", "b"))
    assert same_bytes(first, again)


# --- Figure 4 --------------------------------------------------------------------------------------------------

BARS = [
    Bar("AdaptSSR", [0.57, 0.58]),
    Bar("w/o ranking", [0.55, 0.56]),
    Bar("λ per batch", [0.5749, 0.5749], "variants"),
    Bar("None", [0.54], "comparison"),
]
LAMBDAS = {
    "validation": {1.0: [0.59, 0.59], 0.5: [0.59, 0.59], 0.0: [0.56, 0.57]},
    "test": {0.0: [0.57, 0.57], 0.5: [0.55, 0.56], 1.0: [0.56, 0.56]},
}


def test_ablation_writes_bars_and_the_lambda_curve(tmp_path):
    paths = draw_ablation(BARS, tmp_path / "f4", **LABELS, lambdas=LAMBDAS)
    assert [path.name for path in paths] == ["f4.png", "f4.svg", "f4.csv", "f4-lambda.csv"]
    assert [list(line.values()) for line in read_csv(paths[2])] == [
        ["AdaptSSR", "paper", "57.5000", "0.7071", "2", ""],
        ["w/o ranking", "paper", "55.5000", "0.7071", "2", "-3.48"],
        ["λ per batch", "variants", "57.4900", "0.0000", "2", "-0.02"],
        ["None", "comparison", "54.0000", "", "1", "-6.09"],
    ]
    curve = read_csv(paths[3])
    assert [(line["lambda"], line["split"]) for line in curve] == [
        (constant, split) for split in ("validation", "test") for constant in ("0", "0.5", "1")
    ]
    assert (curve[0]["mean"], curve[5]["mean"]) == ("56.5000", "56.0000")


def test_ablation_shows_values_groups_and_choice(tmp_path):
    texts = texts_of(draw_ablation(BARS, tmp_path / "f4", **LABELS, lambdas=LAMBDAS)[1])
    order = [text for text in texts if text in {bar.label for bar in BARS}]
    assert order == [bar.label for bar in BARS]
    assert "57.50±0.71" in texts
    assert "55.50±0.71  (−3.5 %)" in texts
    assert "57.49±0.00  (+0.0 %)" in texts  # not −0.0
    assert "54.00  (−6.1 %)" in texts
    assert {"the paper's Figure 4", "additional variants", "for comparison", "level of AdaptSSR"} <= set(texts)
    # .5 and 1 tie on validation data, and the smaller counts; the test data would say 0.
    assert {"best on validation: λ = 0.5", "adaptive λ (test)", "constant λ"} <= set(texts)
    assert "tenrec-qba, 1 to 2 seeds (mean ± std)" in texts
    # Smallest value less its std 54, largest 58.2: cut a good third of that below.
    assert "accuracy × 100 (axis starts at 52)" in texts


def test_ablation_without_a_curve_or_other_groups(tmp_path):
    paths = draw_ablation(BARS[:2], tmp_path / "f4", **LABELS, conditions="one pre-training seed")
    texts = texts_of(paths[1])
    assert len(paths) == 3
    assert "tenrec-qba, 2 seeds (mean ± std), one pre-training seed" in texts
    assert not {"constant λ", "the paper's Figure 4", "for comparison"} & set(texts)
    assert same_bytes(paths, draw_ablation(BARS[:2], tmp_path / "b", **LABELS, conditions="one pre-training seed"))


def test_ablation_does_not_cut_what_starts_near_zero(tmp_path):
    texts = texts_of(draw_ablation([Bar("a", [0.01]), Bar("b", [0.5])], tmp_path / "f4", **LABELS)[1])
    assert "accuracy × 100" in texts


def test_ablation_refuses_a_label_twice(tmp_path):
    line = "bars: expected each label once, got AdaptSSR twice"
    assert refusal_of(draw_ablation, [BARS[0], BARS[0]], tmp_path / "figure", **LABELS) == line
    assert not list(tmp_path.iterdir())


# --- Figure 5 --------------------------------------------------------------------------------------------------


def test_similarity_panels_carry_overlap_and_separation(tmp_path):
    rng = np.random.default_rng(0)
    near, cropped, far = (rng.normal(mean, 0.1, 300).clip(-1, 1) for mean in (0.8, 0.5, 0.0))
    panel = SimilarityDistributions(near, cropped, far, 0.6, 0.6)
    paths = draw_similarity({"AdaptSSR": panel, "None": panel}, tmp_path / "f5")
    texts, numbers = texts_of(paths[1]), panel.numbers()
    for name, key in (("overlap", "overlap"), ("separation (AUC)", "separation")):
        shown = f"{name}: masked {numbers['masked'][key]:.2f}, cropped {numbers['cropped'][key]:.2f}"
        assert texts.count(shown) == 2
