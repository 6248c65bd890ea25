"""User encoders by name (paper §3.3: the method is independent of the user model)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import InputError, check_kind
from .causal import CausalTransformer, ConvolutionEncoder, GRUEncoder
from .transformer import UserEncoder


@dataclass(frozen=True)
class EncoderKind:
    """How an encoder is made.

    Attributes:
        make: takes ``n_items``, ``dropout`` and the options of ``takes`` by name, and gives a module of the encoder
            contract: ``forward(item_seq, item_seq_len) -> (B, out_dim)``, ``hidden_states(item_seq, item_seq_len)
            -> (B, L, d)``, ``item_weight`` ``(n_items, d)``, ``n_items`` and ``out_dim``; dropout active in training.
            ``encode_twice``, arguments as ``forward``, may give two encodings under masks of their own for less.
        takes: options of a recipe.
        causal: whether a state sees no later behaviour: warmed up on the next item instead of masked ones.
    """

    make: Callable[..., nn.Module]
    takes: tuple[str, ...] = ("dim", "max_len")
    causal: bool = False


_TRANSFORMER = ("dim", "n_layers", "n_heads", "ff_dim", "max_len")
_kinds: dict[str, EncoderKind] = {
    "transformer": EncoderKind(UserEncoder, (*_TRANSFORMER, "embed_norm", "embed_dropout", "interests")),
    "gru4rec": EncoderKind(GRUEncoder, causal=True),
    "nextitnet": EncoderKind(ConvolutionEncoder, causal=True),
    "sasrec": EncoderKind(CausalTransformer, _TRANSFORMER, causal=True),
}


def register_encoder(name: str, kind: EncoderKind) -> None:
    """Make an encoder known by its name, for recipes and for loading what they have trained.

    Raises:
        InputError: the name is taken.
    """
    if name in _kinds:
        raise InputError(f"encoder: expected a new name, got {name!r}, which is registered already")
    check_kind("kind", kind, EncoderKind, "an EncoderKind")
    _kinds[name] = kind


def unregister_encoder(name: str) -> None:
    """Forget an encoder; nothing happens if there is none of that name."""
    _kinds.pop(name, None)


def available_encoders() -> list[str]:
    """Names of the encoders."""
    return list(_kinds)


def encoder_kind(name: str) -> EncoderKind:
    """Look an encoder up.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _kinds:
        raise InputError(f"encoder: expected {' or '.join(_kinds)}, got {name!r}")
    return _kinds[name]


def make_encoder(kind: str = "transformer", dropout: float = 0.1, **arguments: Any) -> Any:
    """Make the encoder of a name.

    Args:
        kind: the name; the paper's Transformer unless given.
        dropout: probability in [0, 1).
        **arguments: ``n_items`` and the options that it takes.
    """
    return encoder_kind(kind).make(dropout=dropout, **arguments)
