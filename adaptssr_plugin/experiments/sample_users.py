"""Sample users and their augmented sequences, as in the paper's Figures 1 and 6."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..augment import ItemCrop, ItemInsert, ItemMask, ItemReorder, ItemSubstitute, Operator, Sequences
from ..corpus import BehaviourCorpus, ItemCorrelation
from ..encoders import UserEncoder
from ..errors import InputError
from ..losses import AugmentationAdaptiveFusion
from ..recbole.user_model.finetune import check_same_items
from ..recbole.user_model.pretrain import fresh_encoder, load_pretrained
from ..seeding import stream_generator, stream_seed
from ..training import load_artefact
from ..training.stages.base import dropout_seeded
from .opened import recipe_of

MASK = "[MASK]"
_WIDTH = 110
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class AugmentedUser:
    """Two views of one user, Ŝ and S̃, by two draws of one operator."""

    operator: str  # its name and its effect at this strength
    first: tuple[str, ...]
    second: tuple[str, ...]
    coefficient: float | None  # λ of the two (Eq. 7); None without a model


@dataclass(frozen=True)
class SampleUser:
    """A user: name, the newest behaviours, and the views of every operator."""

    user: str
    original: tuple[str, ...]
    views: tuple[AugmentedUser, ...]


@dataclass(frozen=True)
class SampleUsers:
    """Some users, at one strength ρ; ``model`` is the folder of the model for λ, or None."""

    strength: float
    model: str | None
    users: tuple[SampleUser, ...]

    def text(self) -> str:
        """Format the sequences one below the other; long ones take several lines."""
        if self.model is None:
            about_lambda = "λ is left out: it takes the encoder of a finished pre-training (--model DIR)."
        else:
            about_lambda = f"λ of the two views (Eq. 7), each encoded twice under dropout by the model in {self.model}."
        number = f"{len(self.users)} sample user{'s' * (len(self.users) > 1)}"
        lines = [f"{number}, augmented at ρ = {self.strength:g}; two views of each operator.", about_lambda]
        for user in self.users:
            lines += ["", f"user {user.user}", *_sequence(f"original ({len(user.original)})", user.original)]
            for view in user.views:
                shown = "" if view.coefficient is None else f"  λ = {view.coefficient:.3f}"
                lines.append(f"  {view.operator}{shown}")
                lines += _sequence(f"  view 1 ({len(view.first)})", view.first)
                lines += _sequence(f"  view 2 ({len(view.second)})", view.second)
        return "\n".join(lines)


def sample_users(
    corpus: BehaviourCorpus,
    n_users: int,
    *,
    seed: int = 0,
    strength: float = 0.6,
    max_len: int = 100,
    model: str | Path | None = None,
) -> SampleUsers:
    """Draw users, and two views of each by every operator: mask, crop, reorder, substitute and insert.

    Substitute and insert use the ItemCF-IUF correlation of ``corpus``. λ is between the two views of one operator,
    each encoded under two dropout masks, as in training. Arguments as those of
    :func:`~adaptssr_plugin.experiments.describe.describe`; ``corpus`` has the histories that pre-training sees.

    Raises:
        InputError: a number out of range; a folder without a model, or a model of other items.
    """
    if not 0 < strength < 1:
        raise InputError(f"strength: expected a number between 0 and 1, got {strength}")
    if not 1 <= n_users <= len(corpus):
        raise InputError(f"users: expected a number from 1 to the {len(corpus)} of the corpus, got {n_users}")
    encoder = None
    if model is not None:
        encoder, max_len = _encoder(Path(model), corpus)
    rng = np.random.default_rng(stream_seed(seed, "sample users"))
    rows = np.sort(rng.choice(len(corpus), n_users, replace=False))
    item_seq, item_seq_len = corpus.padded(rows, max_len)  # (K, L)
    item_seq = F.pad(item_seq, (0, max_len - item_seq.shape[1]))  # space for inserted items
    names = np.append(corpus.item_tokens, MASK)
    made = []
    for name, operator in _operators(corpus, strength).items():
        views = [
            operator(item_seq, item_seq_len, stream_generator("cpu", seed, "sample users", name, side))
            for side in (0, 1)
        ]
        coefficients = None if encoder is None else _coefficients(encoder, views, seed, name)
        made.append((name, [_tokens(view, names) for view in views], coefficients))
    original = _tokens(Sequences(item_seq, item_seq_len), names)
    users = tuple(
        SampleUser(
            str(corpus.user_tokens[row]),
            original[place],
            tuple(
                AugmentedUser(name, first[place], second[place], None if found is None else float(found[place]))
                for name, (first, second), found in made
            ),
        )
        for place, row in enumerate(rows)
    )
    return SampleUsers(strength, None if model is None else str(model), users)


def _operators(corpus: BehaviourCorpus, strength: float) -> dict[str, Operator]:
    neighbours = torch.from_numpy(ItemCorrelation.from_histories(corpus).neighbours)
    keep, share = f"{1 - strength:g}", f"{strength:g}"
    return {
        f"mask ({share} hidden)": ItemMask(strength, mask_id=corpus.n_items),
        f"crop ({keep} kept)": ItemCrop(1 - strength),
        f"reorder ({share} shuffled)": ItemReorder(strength),
        f"substitute ({share} replaced)": ItemSubstitute(strength, neighbours=neighbours),
        f"insert ({share} given company)": ItemInsert(strength, neighbours=neighbours),
    }


def _encoder(folder: Path, corpus: BehaviourCorpus) -> tuple[UserEncoder, int]:
    """Load a pre-trained encoder with the dropout of its training; returns it with its maximum length."""
    artefact, model = load_artefact(folder), load_pretrained(folder)
    check_same_items(model, artefact.item_tokens.tolist(), corpus)
    plan = recipe_of(artefact, folder, {})
    encoder = fresh_encoder(plan, corpus.n_items, plan.dropout, plan.seed)
    encoder.load_state_dict(model.encoder.state_dict())
    return encoder.train(), plan.max_len


@torch.no_grad()
def _coefficients(encoder: UserEncoder, views: list[Sequences], seed: int, name: str) -> Tensor:
    """Compute λ (K,) between two views of every user."""
    first, second = views
    item_seq = torch.cat([first.item_seq, first.item_seq, second.item_seq, second.item_seq])  # (4K, L)
    item_seq_len = torch.cat([first.item_seq_len, first.item_seq_len, second.item_seq_len, second.item_seq_len])
    with dropout_seeded(_CPU, seed, "sample users", name):
        encodings = encoder(item_seq, item_seq_len)  # (4K, d)
    coefficients: Tensor = AugmentationAdaptiveFusion()(*encodings.chunk(4))
    return coefficients


def _tokens(sequences: Sequences, names: np.ndarray) -> list[tuple[str, ...]]:
    return [
        tuple(names[row[:length]].tolist())
        for row, length in zip(sequences.item_seq.numpy(), sequences.item_seq_len.tolist(), strict=True)
    ]


def _sequence(title: str, items: tuple[str, ...]) -> list[str]:
    head = f"  {title}".ljust(18)
    return textwrap.wrap(
        " ".join(items), _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    )
