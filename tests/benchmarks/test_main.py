"""Every benchmark that the command lists can be started."""

import importlib

import pytest

from benchmarks.__main__ import ALL, BENCHMARKS


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_module_and_the_function_of_a_benchmark_exist(name):
    module, function, _ = BENCHMARKS[name]
    assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function))


def test_all_names_benchmarks():
    assert set(ALL) <= set(BENCHMARKS)
