"""Progress: bars on a terminal, lines that can be read in a log, one line with --quiet."""

import io
import re
import sys

import pytest

from adaptssr_plugin import progress
from adaptssr_plugin.progress import Progress


def work(show, reports):
    with Progress(4, "work", show, "B", done=1, reports=reports) as shown:
        assert shown.to_go() == "?"
        for step in range(3):
            shown.note("beside a bar")
            shown.update(1)
            if reports:
                shown.line(f"epoch {step}")


@pytest.mark.parametrize(
    ("show", "reports", "expected"),
    [
        (True, True, ["work: epoch 0", "work: epoch 1", "work: epoch 2"]),
        ("last", True, ["work: epoch 2"]),
        (False, True, []),
        (True, False, ["work: 100%, 0:00:00 to go"]),
        ("last", False, ["work: 100%, 0:00:00 to go"]),
        (False, False, []),
    ],
)
def test_a_log_gets_whole_lines(show, reports, expected, capsys):
    work(show, reports)
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", expected)
    assert "\r" not in err


def test_work_that_reports_nothing_has_a_line_every_ten_seconds(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress(100, "convert") as shown:
        for _ in range(4):
            shown.update(5)
    lines = capsys.readouterr().err.splitlines()
    assert [re.match(r"convert: (\d+)%, \d:\d\d:\d\d to go$", line)[1] for line in lines] == ["15", "20"]


def test_the_last_line_is_written_when_the_work_fails(capsys):
    with pytest.raises(KeyError), Progress(2, "work", "last", reports=True) as shown:
        shown.line("epoch 1") or {}["epoch 2"]
    assert capsys.readouterr().err == "work: epoch 1\n"


class Terminal(io.StringIO):
    """What a bar takes for a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("show", "expected"), [(True, r"(\rwork: .*)+100%.*epoch 2\S*\n"), ("last", "work: epoch 2\n"), (False, "")]
)
def test_a_terminal_has_a_bar(show, expected, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    work(show, True)
    assert re.fullmatch(expected, terminal.getvalue()), terminal.getvalue()
