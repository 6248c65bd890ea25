"""Commands that are called in the process of the tests."""

from adaptssr_plugin.cli.main import main


def call_command(capfd, *words):
    """Run a command; gives its exit status, output and errors."""
    status = 0
    capfd.readouterr()
    try:
        main([str(word) for word in words])
    except SystemExit as leaving:
        status = leaving.code
    return status, *capfd.readouterr()
