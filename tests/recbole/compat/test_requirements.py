import importlib.metadata
import subprocess
import sys

import pytest
import recbole

from adaptssr_plugin.errors import INSTALL
from adaptssr_plugin.recbole.requirements import require_recbole


def run_python(script, cwd):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_recbole_the_import_says_what_to_type(tmp_path):
    printed = run_python(
        """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocker = Blocker()
sys.meta_path.insert(0, blocker)
for blocker.blocked in ("recbole", "colorlog"):
    try:
        import adaptssr_plugin.recbole
    except ImportError as error:
        print(error)
import adaptssr_plugin.errors
""",
        tmp_path,
    )
    without_recbole, without_colorlog = printed.splitlines()
    assert "RecBole 1.2.1 is not installed" in without_recbole
    assert "No module named 'colorlog'" in without_colorlog
    for message in (without_recbole, without_colorlog):
        assert message.endswith(f"; {INSTALL}")


def test_another_recbole_is_refused(monkeypatch):
    monkeypatch.setattr(recbole, "__version__", "1.0.1")
    with pytest.raises(ImportError, match=r"expected RecBole 1\.2\.1, found 1\.0\.1; .*pip install") as refused:
        require_recbole()
    assert "\n" not in str(refused.value)


def test_pandas_3_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"pandas": "3.0.1"}.__getitem__)
    with pytest.raises(ImportError, match=r"expected pandas 2, found 3\.0\.1"):
        require_recbole()


def test_importing_changes_nothing(tmp_path):
    printed = run_python(
        """
import os, sys, warnings
import numpy, torch
sys.argv[1:] = ["--learning_rate=5"]
state = lambda: (
    {name for name, value in vars(numpy).items() if not isinstance(value, type(sys))} - {"__warningregistry__"},
    list(warnings.filters), torch.is_anomaly_enabled(), list(sys.argv),
    os.environ.get("CUDA_VISIBLE_DEVICES"), [name for name in sys.modules if name.split(".")[0] == "ray"],
    os.listdir("."), torch.initial_seed(), torch.get_num_threads(),
)
before = state()
import adaptssr_plugin.recbole
from recbole.utils import get_model
get_model("SASRec")
assert "recbole.model.sequential_recommender.sine" in sys.modules
print([(was, now) for was, now in zip(before, state(), strict=True) if was != now])
""",
        tmp_path,
    )
    assert printed.strip() == "[]"
