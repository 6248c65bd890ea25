"""Whose malloc is set so that freed memory goes back: that of a training command's own process, and nobody else's."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from adaptssr_plugin.cli import memory
from adaptssr_plugin.cli.main import cli

needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version") or not memory._has_huge_pages(),
    reason="a setting of glibc's malloc, which goes with huge pages",
)

# Blocks of growing size with something small behind each that stays, as a training step leaves them: freed, they are
# holes in the heap, which glibc keeps. The first is large enough for it to take the others from the heap.
PROBE = """
import json, sys
def megabytes(file, name):
    with open(f"/proc/self/{file}") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1e3
def probe():
    import torch
    before = megabytes("status", "RssAnon")
    first = torch.ones(7 << 20)  # 28 MiB
    del first
    blocks, small = [], []
    for number in range(20):
        blocks.append(torch.ones((5 << 18) + number * 5_000))  # from 5 MiB on
        small.append(torch.ones(10_000))
    huge = megabytes("smaps_rollup", "AnonHugePages")
    blocks.clear()
    print(json.dumps({"held": megabytes("status", "RssAnon") - before, "huge": huge}))
"""
COMMAND = """
from adaptssr_plugin import __main__ as program
from adaptssr_plugin.cli import main as commands
commands.main = probe
sys.argv = ["adaptssr", {!r}]
program.main()
"""
LIBRARY = "import adaptssr_plugin.cli.main, adaptssr_plugin.__main__, adaptssr_plugin.recbole.user_model.pretrain\n"
OURS = ("MALLOC_", "GLIBC_", "THP_")


def probed(program):
    """MB that a fresh process still has when its blocks of 110 MB are freed, and MB in huge pages before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run([sys.executable, "-c", PROBE + program], env=kept, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@needs_glibc
def test_a_training_command_gives_back_what_is_freed():
    found = probed(COMMAND.format("pretrain"))
    assert found["held"] < 20
    assert found["huge"] > 40


@needs_glibc
def test_nobody_else_is_changed():
    """By imports, or another command."""
    assert probed(LIBRARY + COMMAND.format("convert"))["held"] > 80


def test_every_command_that_trains_is_set_up():
    others = {"convert", "describe", "embed", "export", "reidentify"}
    assert {*memory.TRAINING} == cli.commands.keys() - others


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """A system with glibc and huge pages, whose calls of mallopt are noted and set nothing."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "1")  # as in a process that the command has started
    noted = []

    class Library:
        def mallopt(self, name, value):
            noted.append((name, value))
            return 1

    (tmp_path / "enabled").write_text("always [madvise] never\n")
    monkeypatch.setattr(memory, "_HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(sys, "platform", "linux")
    return noted


def test_both_thresholds_are_set(calls):
    assert memory.give_freed_memory_back()
    assert calls == [(-3, 4 << 20), (-1, 64 << 20)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "33554432"),
        ("MALLOC_TRIM_THRESHOLD_", "1000000"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
        ("THP_MEM_ALLOC_ENABLE", "0"),
    ],
)
def test_what_the_user_has_set_stays(calls, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not memory.give_freed_memory_back()
    assert (os.environ[name], calls) == (value, [])


@pytest.mark.parametrize("without", ["huge pages", "file", "glibc", "linux"])
def test_nothing_happens_elsewhere(calls, monkeypatch, without):
    if without == "huge pages":
        memory._HUGE_PAGES.write_text("always madvise [never]\n")
    elif without == "file":
        memory._HUGE_PAGES.unlink()
    elif without == "glibc":
        monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    else:
        monkeypatch.setattr(sys, "platform", "darwin")
    assert not memory.give_freed_memory_back()
    assert calls == []
