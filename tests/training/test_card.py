"""The card of a model: what is known of it is on it, and nothing else."""

import re

import numpy as np
import pytest
from training_cases import encoder_of

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.training import save_artefact
from adaptssr_plugin.training.card import model_card

SIZES = {"n_items": 5, "dim": 8, "max_len": 7, "ff_dim": 16}
CARD = {
    "dataset": "shop|floor",
    "recbole_options": {"eval_args": {"split": "LS"}},
    "users": 24,
    "recipe": {"method": "duorec", "preset": "paper", "epochs": 3, "seed": 11, "split_seed": 12, "ft_epochs": 5},
    "stages": [
        {
            "name": "ranking",
            "selected_epoch": 2,
            "history": [
                {"epoch": 1, "loss": 0.5, "valid_accuracy": 0.25},
                {"epoch": 2, "loss": 0.4, "valid_accuracy": 0.75},
                {"epoch": 3, "loss": 0.3, "valid_accuracy": 0.5},
            ],
        }
    ],
    "versions": {"torch": "9.9"},
    "finished": "2030-01-01T00:00:00Z",
}


def rows(text, section):
    """The rows of a section's table, without its head."""
    (body,) = re.findall(rf"^## {section}\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines[2:]]


def test_a_card_says_data_method_metrics_seeds_and_versions():
    text = model_card(SIZES, CARD)
    assert "# User model pre-trained by duorec on shop|floor\n" in text
    assert rows(text, "Data") == [
        ("dataset", r"shop\|floor"), ("users", "24"), ("items", "4"), ("RecBole's eval_args", "{'split': 'LS'}"),
    ]  # fmt: skip
    assert rows(text, "Method") == [("method", "duorec"), ("preset", "paper"), ("epochs", "3")]
    assert rows(text, "Encoder") == [(name, str(size)) for name, size in SIZES.items()]
    assert rows(text, "Metrics") == [("ranking, epoch 2 of 3", "valid_accuracy", "0.7500")]
    assert rows(text, "Seeds") == [("seed", "11"), ("split_seed", "12")]
    assert rows(text, "Versions") == [("torch", "9.9")]
    assert "Finished 2030-01-01T00:00:00Z." in text


@pytest.mark.parametrize("part", ["Method", "Metrics", "Seeds", "Versions"])
def test_what_is_not_known_is_left_out(part):
    text = model_card(SIZES, {})
    assert f"## {part}" not in text
    assert text.startswith("---\n")
    assert rows(text, "Data") == [("items", "4")]


def test_the_card_lies_beside_the_weights(tmp_path):
    tokens = np.array(["[PAD]", "a", "b", "c", "d"])
    written = save_artefact(tmp_path, encoder_of(UserEncoder, **SIZES), SIZES, CARD, tokens)
    assert tmp_path / "MODEL_CARD.md" in written
    text = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert text == model_card(SIZES, CARD)
    named = {name for name, _ in rows(text, "Files")}
    assert named == {path.name for path in written} - {"MODEL_CARD.md"}
