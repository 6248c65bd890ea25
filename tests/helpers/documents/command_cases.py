"""Commands that are called in the process of the tests."""

import logging
from contextlib import contextmanager

from click.testing import CliRunner

from adaptssr_plugin.cli.main import cli, main


def words_of(options):
    """Write options of a recipe as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def invoke(*words):
    """Run a command; gives click's result. What the user got wrong comes as it is raised."""
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def call_command(capfd, *words):
    """Run a command; gives its exit status, output and errors."""
    status = 0
    capfd.readouterr()
    try:
        main([str(word) for word in words])
    except SystemExit as leaving:
        status = leaving.code
    return status, *capfd.readouterr()


def assert_one_line(result, expected, status=2):
    """What call_command gave is this exit status and one line of errors that begins like this."""
    code, out, err = result
    assert (code, out) == (status, "")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    assert err.startswith(f"adaptssr: {expected}"), err


@contextmanager
def bare_root_logger():
    """Take pytest's handlers from the root logger, so that RecBole gives it its own, as outside of tests."""
    root = logging.getLogger()
    before, root.handlers[:] = list(root.handlers), []
    try:
        yield
        assert root.handlers == []
    finally:
        root.handlers[:] = before
