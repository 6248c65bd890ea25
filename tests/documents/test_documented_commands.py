"""The commands of the README and the guide, one after the other in one folder, with as little work as they allow.

Left to other tests: quickstart, the comparisons and the yaml (test_commands, test_compare*, test_run).
"""

import pytest
from command_cases import bare_root_logger
from document_cases import documented_commands, shortened, write_what_the_guide_has
from pyarrow import parquet

from adaptssr_plugin.cli.main import main

ELSEWHERE = {"quickstart", "compare", "compare-losses", "--config_files=examples/recbole_flag.yaml"}
COMMANDS = [words for words in documented_commands() if ELSEWHERE.isdisjoint(words)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run, with the reader's own files."""
    made = tmp_path_factory.mktemp("documented")
    write_what_the_guide_has(made)
    return made


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_runs(words, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    with bare_root_logger():
        main(shortened(words))
    assert "Traceback" not in capfd.readouterr().err
    for option in ("--output", "--items"):
        if option in words:
            assert (folder / words[words.index(option) + 1]).exists()


def test_they_leave_what_the_pages_say(folder):
    assert {words[0] for words in COMMANDS} >= {"pretrain", "finetune", "run", "convert", "embed", "export"}
    for run in ("adaptssr-run", "shop-run"):
        names = {path.name for path in (folder / run).iterdir()}
        assert names >= {"model.safetensors", "model.json", "items.json", "MODEL_CARD.md"}
    vectors = parquet.read_table(folder / "new-vectors.parquet")
    assert vectors["user_id"].to_pylist() == [f"user {row}" for row in range(9)]  # not the one without any known item
    assert len(list((folder / "saved").glob("SASRec-*-pretrained.pth"))) == 2  # each beside the run's checkpoint
    assert len(list((folder / "saved").glob("SASRec-*.pth"))) == 4
