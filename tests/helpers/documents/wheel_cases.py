"""A wheel of the sources, and a fresh environment to install it in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from core_only import ROOT, run_python


def build_wheel(source, output, strays=()):
    """Build a wheel from a copy of the sources, in which files may lie about that do not belong into it."""
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("adaptssr_plugin", "tests", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for stray in strays:
        (source / stray).write_text("stray\n")
    done = run_python("-m", "build", "--wheel", "--no-isolation", "--outdir", output, source)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = output.iterdir()
    return built


class Environment:
    """A virtual environment that nothing is installed in yet, and from which the checkout cannot be imported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)

    def run(self, *words, cwd):
        """Run a command of the environment; gives the finished process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        path = f"{self.scripts}{os.pathsep}{os.environ['PATH']}"
        command = [shutil.which(str(words[0]), path=path), *map(str, words[1:])]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=cwd,
            env={**kept, "PATH": path, "PYTHONNOUSERSITE": "1", "PYTHONIOENCODING": "utf-8"},
            check=False,
        )

    def succeed(self, *words, cwd):
        """Run a command that has to succeed; gives what it prints."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def pip_install(self, *words, cwd):
        """Install by pip; what is not imported need not be compiled."""
        self.succeed("python", "-m", "pip", "install", "--quiet", "--no-compile", *words, cwd=cwd)
