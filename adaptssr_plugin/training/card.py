"""The model card of a pre-trained model: data, method, metrics, seeds and versions, for people who find its files."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# The most important options of a recipe; model.json has all.
_METHOD = ("method", "preset", "loss", "history", "warm_start", "mlm_epochs", "epochs", "learning_rate", "batch_size",
           "dropout")  # fmt: skip
_SEEDS = ("seed", "split_seed", "valid_share")
_FILES = {
    "model.safetensors": "the weights",
    "model.json": "sizes of the encoder, all options, metrics of every epoch, versions",
    "items.json": "the token of every item id, the padding first",
}
_USE = """\
Vectors of users, including new ones (`adaptssr embed --help` lists the forms of input):

    adaptssr embed DIR --input users.parquet --output vectors.parquet

The weights alone, with safetensors and torch, or as a graph that torch runs by itself:

    weights = safetensors.torch.load_file("DIR/model.safetensors")
    adaptssr export DIR --output encoder.pt2
"""


def model_card(encoder_arguments: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """Write the card as Markdown.

    Args:
        encoder_arguments: of the encoder, ``n_items`` included.
        card: how it was made, as in ``model.json``; missing parts are left out.
    """
    recipe, dataset = card.get("recipe", {}), card.get("dataset")
    by, on = f" by {recipe['method']}" if "method" in recipe else "", f" on {dataset}" if dataset else ""
    data = {"dataset": dataset, "users": card.get("users"), "items": int(encoder_arguments["n_items"]) - 1}
    filters = {f"RecBole's {name}": value for name, value in card.get("recbole_options", {}).items()}
    parts = [
        "---\nlibrary_name: adaptssr-plugin\ntags: [recommender-systems, user-modelling, self-supervised]\n---",
        f"# User model pre-trained{by}{on}",
        "Maps a user's behaviours, oldest first, to a vector. Trained without labels; for the intended use see the "
        "paper, AdaptSSR (NeurIPS 2023). The vectors carry what these users' behaviours reveal, including their "
        "biases; nobody has examined these for this model.",
        *_section("Data", _table(("", ""), {**data, **filters}.items())),
        *_section("Method", _table(("Option", "Value"), _chosen(recipe, _METHOD))),
        *_section("Encoder", _table(("Size", "Value"), encoder_arguments.items())),
        *_section("Metrics", _metrics(card.get("stages", ()))),
        *_section("Seeds", _table(("", ""), _chosen(recipe, _SEEDS))),
        *_section("Versions", _table(("", ""), card.get("versions", {}).items())),
        *([f"Finished {card['finished']}."] if "finished" in card else []),
        *_section("Files", _table(("File", "What it holds"), _FILES.items())),
        *_section("Use", _USE.rstrip()),
    ]
    return "\n\n".join(parts) + "\n"


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", text] if text else []


def _chosen(recipe: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, Any]]:
    return [(name, recipe[name]) for name in names if name in recipe]


def _metrics(stages: Sequence[Mapping[str, Any]]) -> str:
    """Show the validation numbers of the selected epoch of every stage."""
    rows = []
    for stage in stages:
        numbers = stage["history"][stage["selected_epoch"] - 1]
        rows += [
            (f"{stage['name']}, epoch {stage['selected_epoch']} of {len(stage['history'])}", name, f"{value:.4f}")
            for name, value in numbers.items()
            if name.startswith("valid_")
        ]
    return _table(("Stage", "Measured on validation users", ""), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """Make a Markdown table of rows; "" without any."""
    lines = [" | ".join(_cell(value) for value in row) for row in rows if row[-1] is not None]
    if not lines:
        return ""
    return "\n".join(f"| {line} |" for line in (" | ".join(head), " | ".join(["---"] * len(head)), *lines))


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
