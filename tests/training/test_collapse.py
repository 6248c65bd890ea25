"""A collapse is told from what only looks like one, and the command says so."""

import pytest
import torch
from command_cases import invoke, words_of
from training_cases import TRAINING, batch_of, encoder_of, some_views, streams, write_profiled_dataset

from adaptssr_plugin import AdaptSSRLoss
from adaptssr_plugin.training import PairwiseStage, collapse_note

COLLAPSED = {"sim_implicit": 0.9974, "sim_hardest_negative": 0.9968}


def test_the_sentence_has_both_cosines():
    note = collapse_note(COLLAPSED)
    assert note.startswith("user vectors have collapsed: the nearest other user of a batch is at a cosine of 0.997")
    assert "\n" not in note


@pytest.mark.parametrize(
    "change",
    [
        {"sim_hardest_negative": 0.97},  # near, as in a cone, and still apart
        {"sim_implicit": 0.9999, "sim_hardest_negative": 0.985},  # near, but dropout is nearer
        {"sim_hardest_negative": float("nan")},
    ],
)
def test_no_collapse(change):
    assert collapse_note({**COLLAPSED, **change}) == ""


def test_numbers_that_do_not_tell():
    assert collapse_note({"loss": 0.7}) == collapse_note({"sim_implicit": 1.0}) == ""


@pytest.mark.parametrize("collapsed", [True, False])
def test_what_a_stage_logs(collapsed):
    """Every user in one direction, by items and positions that say nothing; or weights that tell users apart."""
    encoder = encoder_of(dropout=0.01)
    if collapsed:
        with torch.no_grad():
            encoder.items.weight[:] = 0.1 * torch.arange(8)
            encoder.positions[:] = 0
            encoder.items.mask[:] = 0.1 * torch.arange(8)
    logs = PairwiseStage(encoder, some_views(), AdaptSSRLoss()).step(batch_of(3, 8, 5, 9), streams()).logs
    assert bool(collapse_note({name: float(value) for name, value in logs.items()})) == collapsed


@pytest.mark.parametrize("least", [0.98, -2.0])
def test_the_command_says_so(tmp_path, monkeypatch, least):
    monkeypatch.setattr("adaptssr_plugin.training.collapse._NEAR", least)
    monkeypatch.setattr("adaptssr_plugin.training.collapse._ROOM", 2.0)
    dataset = write_profiled_dataset(tmp_path / "data")
    words = ["pretrain", "--dataset", dataset, "--output", tmp_path / "run", "--set", "use_gpu=False"]
    done = invoke(*words, *words_of(TRAINING), "--n-heads", 1, "--quiet")
    assert ("adaptssr: user vectors have collapsed" in done.output) == (least < 0)
    assert "mlm: user vectors" not in done.output
