"""What the benchmarks must show is computed from their CSV files."""

import csv

import pytest

from benchmarks.support import summary


def write(path, columns, *rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns.split())
        writer.writerows(row.split() if isinstance(row, str) else row for row in rows)


@pytest.fixture
def folder(tmp_path):
    times = [
        [name, phase, size, median if phase == "full" else 1e9]
        for name, medians in {
            "AdaptSSRLoss": {128: 2, 512: 10, 4096: 100},
            "straightforward": {128: 4, 512: 49, 4096: 1200},
            "NT-Xent": {128: 1.6, 512: 30, 4096: ""},
            "bare product": {4096: 69.94},
        }.items()
        for size, median in medians.items()
        for phase in ("forward", "full")
    ]
    write(tmp_path / "loss.csv", "candidate phase B median_ms", *times)
    write(
        tmp_path / "loss-memory.csv", "candidate B added_mb exponent", "AdaptSSRLoss 4096 30 1.02",
        "AdaptSSRLoss 65536 1500 1.02", "straightforward 4096 1200 2.0",
    )  # fmt: skip
    write(
        tmp_path / "augment.csv", "candidate B L what median_ms",
        *(f"{name} {size} {length} {what} {ms}" for length in (100, 50) for what in ("pair", "mask")
          for name, size, ms in (("batched", 128, 1), ("per_user", 128, 3 if what == "pair" else 0.5),
                                 ("batched", 4096, 10), ("per_user", 4096, 29 if length == 50 else 10),
                                 ("batched", 16, 1), ("per_user", 16, 0.1))),
    )  # fmt: skip
    write(
        tmp_path / "step.csv", "candidate phase B L median_ms", "adaptssr full 128 100 10",
        "adaptssr augment 128 100 0.2", "usual_way full 128 100 65", "adaptssr augment 128 256 0.9",
        "cl4srec full 128 100 5", "adaptssr full 128 256 30", "cl4srec full 128 256 15.1",
    )  # fmt: skip
    write(
        tmp_path / "masked_items.csv", "candidate phase M n median_ms", "linear_cross_entropy full 1400 645972 100",
        "straightforward full 1400 645972 100", "linear_cross_entropy full 1400 4047 2",
    )  # fmt: skip
    return tmp_path


EXPECTED = [
    ("loss, full, against the straightforward form, B = 128", "≥ 1.8×", "2×", "yes"),
    ("loss, full, against the straightforward form, B = 512", "≥ 5×", "4.9×", "no"),
    ("loss, full, against the straightforward form, B = 4,096", "≥ 12×", "12×", "yes"),
    ("loss, full, against the common NT-Xent, B = 128", "≥ 0.8×", "0.8×", "yes"),
    ("loss, full, against the common NT-Xent, B = 512", "≥ 2×", "3×", "yes"),
    ("loss, full, against the common NT-Xent, B = 4,096", "≥ 4.5×", "", "not measured"),
    ("loss: share of the bare product, B = 4,096", "≥ 70.0 %", "69.9 %", "no"),
    ("loss memory: exponent of B, 4,096 to 65,536", "< 1.15", "1.02", "yes"),
    ("loss memory: added at B = 65,536", "< 1,500 MB", "1,500 MB", "no"),
    ("augmentation of a pair of views against per-user Python, L = 50, the least over B ≥ 128", "> 1×", "2.9×", "yes"),
    ("augmentation of a pair of views against per-user Python, L = 100, the least over B ≥ 128", "> 1×", "1×", "no"),
    ("augmentation's share of the AdaptSSR step, B = 128, L = 100", "≤ 2.0 %", "2.0 %", "yes"),
    ("augmentation's share of the AdaptSSR step, B = 128, L = 256", "≤ 2.0 %", "3.0 %", "no"),
    ("step against the usual way, L = 100", "≥ 6×", "6.5×", "yes"),
    ("step against the usual way, L = 256", "≥ 8×", "", "not measured"),
    (
        "masked-item head against the straightforward form, 1,400 × 645,972: memory",
        "< 0.25×", "", "not measured",
    ),
    ("masked-item head against the straightforward form, 1,400 × 645,972: time", "≤ 1×", "1×", "yes"),
    ("AdaptSSR step (four encodings) against the CL4SRec step (two), L = 100", "< 2×", "2×", "no"),
    ("AdaptSSR step (four encodings) against the CL4SRec step (two), L = 256", "< 2×", "1.987×", "yes"),
]  # fmt: skip


def test_a_hand_made_case(folder):
    assert [tuple(row.values()) for row in summary.check(folder)] == EXPECTED


def test_it_is_written_and_printed(folder, capsys):
    summary.run(folder)
    text = (folder / "targets.md").read_text(encoding="utf-8")
    assert text.splitlines()[2:] == [f"| {' | '.join(row)} |" for row in EXPECTED]
    assert text in capsys.readouterr().out


def test_an_empty_folder_has_measured_nothing(tmp_path):
    assert {row["holds"] for row in summary.check(tmp_path)} == {"not measured"}


def test_the_exponent_counts_from_4096_to_65536_alone(folder):
    write(
        folder / "loss-memory.csv",
        "candidate B added_mb exponent",
        "AdaptSSRLoss 256 3 1.02",
        ["AdaptSSRLoss", 65536, "", 1.02],
    )
    row = next(row for row in summary.check(folder) if "exponent" in row["name"])
    assert row["holds"] == "not measured"


def test_two_rows_of_one_case_are_not_chosen_from(folder):
    write(
        folder / "step.csv",
        "candidate phase B L median_ms",
        *["adaptssr full 128 100 1", "usual_way full 128 100 2"] * 2,
    )
    with pytest.raises(ValueError, match=r"expected one row at .*, got 2"):
        summary.check(folder)
