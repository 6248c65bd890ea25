"""One thread for each worker of ``pytest -n``, and for the processes that its tests start.

Two that each take all cores wait for one another most of the time.
"""

import os
import sys

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

# Before any test imports RecBole itself, whose models switch autograd's anomaly mode on.
import adaptssr_plugin.recbole  # noqa: F401


@pytest.fixture(autouse=True, scope="session")
def no_look_at_the_processor():
    """Spare every run the second for which RecBole watches the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("psutil.cpu_percent", lambda *_, **__: 0.0)
        yield


@pytest.fixture
def untrained(monkeypatch):
    """See to it that no RecBole model is trained."""

    def fit(*_, **__):
        raise AssertionError("a run was begun")

    monkeypatch.setattr("adaptssr_plugin.recbole.recommender.trainer.RecommenderTrainer.fit", fit)


@pytest.fixture
def slice_here(tmp_path, monkeypatch):
    """Stand in a folder with the slice of ml-100k, without a command line, for tests of RecBole's entry points."""
    from run_cases import write_slice

    from adaptssr_plugin.recbole import uninstall

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x"])
    write_slice(tmp_path / "slice")
    yield
    uninstall()
