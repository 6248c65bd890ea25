"""Every result that the README quotes stands in a file of benchmarks/results, rounded as printed.

Results are the numbers in tables, but for those of ``NO_RESULTS``, and numbers with a unit in the text. A number is
looked for in the files that its section links to, in a table on the lines of them that carry the row's label.
"""

import csv
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from core_only import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"

# First headings of tables that show no results.
NO_RESULTS = {"Option": "defaults of options", "Paper": "where things are"}

# Columns of the CSV files that say how something was measured; their numbers prove nothing.
CONDITIONS = {"processor", "cores", "threads", "device", "python", "torch", "packages", "commit", "seed", "repeats"}
CONDITIONS |= {"computed_on", "warm_up", "numpy", "recbole", "pandas", "machine", "round", "q20_ms", "q80_ms"}

NUMBER = r"(?<![\w.,])[-+−]?\d[\d,]*(?:\.\d+)?(?![\w.]*\w)"
# What a number with this unit may be multiplied by: files have ms, MB and fractions.
UNITS = {"×": (1,), "times": (1,), "points": (1,), "ms": (1,), "MB": (1,), "hours": (1,), "minutes": (1,)}
UNITS |= {"%": (1, 100), "s": (1, 1e-3), "seconds": (1, 1e-3), "GB": (1, 1e-3)}


class Claim(NamedTuple):
    """A number of the README: where, in which row of a table, with which unit, and the files it may come from."""

    section: str
    label: str
    number: str
    unit: str
    sources: tuple[Path, ...]

    def __str__(self):
        return f"{self.section}: {self.number} {self.unit}".strip()


class Line(NamedTuple):
    """A line of a result file: what a row may be called by, and the numbers in it."""

    labels: frozenset[str]
    numbers: tuple[float, ...]


# --- what the README says ------------------------------------------------------------------------------------


def claims(text):
    """Every result that the text quotes."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for section in re.split(r"^(?=#+ )", text, flags=re.MULTILINE):
        title = section.partition("\n")[0].lstrip("# ")
        sources = linked(section) or everything()
        for is_table, lines in groupby(section.splitlines(), lambda line: line.startswith("|")):
            yield from (of_table if is_table else of_prose)(list(lines), title, sources)


def of_table(lines, title, sources):
    head, _, *rows = map(cells_of, lines)
    if head[0] in NO_RESULTS:
        return
    for label, *cells in rows:
        for cell in cells:
            for number in re.findall(NUMBER, cell):
                yield Claim(title, plain(label), number, "", sources)


def of_prose(lines, title, sources):
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", " ".join(" ".join(lines).split()))
    units = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
    for number, unit in re.findall(rf"({NUMBER}) ({units})(?!\w)", prose):
        yield Claim(title, "", number, unit, sources)


def cells_of(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def plain(cell):
    """A cell without what only says how it looks: ``4,096`` and ``**AdaptSSR**`` as the files have them."""
    cell = re.sub(r"[*`\\]", "", cell).strip().casefold()
    return cell.replace(",", "") if re.fullmatch(r"[\d,]+", cell) else cell


# --- what the files say --------------------------------------------------------------------------------------


def everything():
    """The files that commands wrote; the page in benchmarks/results is written by hand."""
    found = sorted(path for ending in ("csv", "md") for path in RESULTS.rglob(f"*.{ending}"))
    return tuple(path for path in found if path != RESULTS / "README.md")


def linked(section):
    """The files that a section links to, with what lies beside them: of the same stem, or in the same folder."""
    files = []
    for link in re.findall(r"\]\((benchmarks/results/[^)#]+)\)", section):
        path = ROOT / link
        if path.parent != RESULTS:
            files += [file for file in everything() if path.parent in file.parents]
        elif path.name != "README.md":
            files += [file for file in everything() if re.match(rf"{re.escape(path.stem)}(-|\.)", file.name)]
    return tuple(dict.fromkeys([*files, RESULTS / "targets.md"])) if files else ()


@cache
def lines_of(path):
    """The lines of a CSV or Markdown file with the numbers that they prove."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [line_from(cells_of(line)) for line in text.splitlines()]
    head, *rows = csv.reader(text.splitlines())
    kept = [i for i, name in enumerate(head) if name not in CONDITIONS]
    return [line_from([row[i] for i in kept]) for row in rows]


def line_from(cells):
    numbers = [value(number) for cell in cells for number in re.findall(NUMBER, re.sub(r"[×*]", " ", cell))]
    numbers += [float(cell) for cell in cells if re.fullmatch(r"-?[\d.]+e[-+]?\d+", cell)]
    # "step, L = 256" is of the row 256.
    named = [number for cell in cells for number in re.findall(r"= ([\d,]+\b)", cell)]
    return Line(frozenset(map(plain, [*cells, *named])), tuple(numbers))


def value(number):
    return float(number.replace(",", "").replace("−", "-"))


def found(claim):
    """Whether one of the claim's files has the number, or one that rounds to it."""
    lines = [line for path in claim.sources for line in lines_of(path)]
    of_row = [line for line in lines if claim.label in line.labels] if claim.label else lines
    decimals = len(claim.number.partition(".")[2])
    close = 0.5 * 10**-decimals * (1 + 1e-9)
    factors = UNITS.get(claim.unit, (1,))
    return any(
        abs(number * factor - value(claim.number)) <= close
        for line in of_row or lines
        for number in line.numbers
        for factor in factors
    )


CLAIMS = list(dict.fromkeys(claims(TEXT)))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim} {claim.label}".strip())
def test_every_result_in_the_readme_stands_in_a_file(claim):
    assert found(claim), f"no file of {[path.name for path in claim.sources]} has it"


def test_there_are_results_to_look_for():
    assert len(CLAIMS) > 50
    assert {"Results", "Speed and memory"} <= {claim.section for claim in CLAIMS}


def test_tables_without_results_are_still_in_the_readme():
    headings = {cells_of(line)[0] for line in TEXT.splitlines() if line.startswith("|")}
    assert NO_RESULTS.keys() <= headings


README = """
# Speed

It is 8.8 times as fast, in 10.4 ms, with `--batch 9 ms` and 943 users ([a](b/9%20s)), 7.4 s and 65.3 %.

| B | ours, ms | theirs |
| ---: | --- | --- |
| 4,096 | 232.2 | **2,129.5±3.0** (9.2 ×) |

| Option | Default |
| --- | --- |
| `ratio` | 0.6 |
"""


def test_the_test_sees_what_it_looks_for():
    assert [(claim.label, claim.number, claim.unit) for claim in claims(README)] == [
        ("", "8.8", "times"),
        ("", "10.4", "ms"),
        ("", "7.4", "s"),
        ("", "65.3", "%"),
        ("4096", "232.2", ""),
        ("4096", "2,129.5", ""),
        ("4096", "3.0", ""),
        ("4096", "9.2", ""),
    ]


@pytest.mark.parametrize(
    ("label", "number", "unit", "expected"),
    [
        ("4096", "232.2", "", True),
        ("4096", "232.1", "", False),
        ("4096", "232", "", True),
        ("512", "232.2", "", False),  # in the file, but in another row
        ("4096", "9.2", "", True),  # of a line whose text says so
        ("none", "-24.97", "", True),
        ("none", "24.97", "", False),
        ("", "7.4", "s", True),
        ("", "7.4", "ms", False),
        ("", "65", "%", True),
        ("", "13", "times", False),  # the version of Python
        ("a row by another name", "9.9", "", True),
    ],
)
def test_a_number_is_found_in_its_row_and_unit_only(tmp_path, label, number, unit, expected):
    results, words = tmp_path / "loss.csv", tmp_path / "targets.md"
    results.write_text("B,median_ms,share,python\n4096,232.16,,3.13\n512,9.9e0,0.653,3.13\n,7412.2,,3.13\n")
    words.write_text("| What | Measured |\n| --- | --- |\n| loss, B = 4,096 | 9.171× |\n| **None** | -24.97 |\n")
    assert found(Claim("Speed", label, number, unit, (results, words))) is expected
