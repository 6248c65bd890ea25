"""User encoders by name (paper §3.3: the method is independent of the user model)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..errors import InputError, check_kind, find
from .causal import CausalTransformer, ConvolutionEncoder, GRUEncoder
from .transformer import UserEncoder


@dataclass(frozen=True)
class EncoderKind:
    """How an encoder is made.

    Attributes:
        make: takes ``n_items``, ``dropout`` and the options of ``takes`` by name, and returns a module with the encoder
            interface: ``forward(item_seq, item_seq_len) -> (B, out_dim)``, ``hidden_states(item_seq, item_seq_len)
            -> (B, L, d)``, ``item_weight`` ``(n_items, d)``, ``n_items`` and ``out_dim``; dropout active in training.
            An optional ``encode_twice``, arguments as ``forward``, gives two encodings under separate dropout masks at
            less cost.
        takes: options of a recipe.
        causal: whether a state sees no later behaviour; such an encoder is warmed up on next items, not masked ones.
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
    """Register an encoder under a name, for recipes and for loading trained models.

    Raises:
        InputError: the name is taken.
    """
    if name in _kinds:
        raise InputError(f"encoder: expected a new name, got {name!r}, which is registered already")
    check_kind("kind", kind, EncoderKind, "an EncoderKind")
    _kinds[name] = kind


def unregister_encoder(name: str) -> None:
    """Remove an encoder; an unknown name is ignored."""
    _kinds.pop(name, None)


def available_encoders() -> list[str]:
    """Names of the registered encoders."""
    return list(_kinds)


def encoder_kind(name: str) -> EncoderKind:
    """Return the encoder of a name.

    Raises:
        InputError: an unknown name.
    """
    return find("encoder", _kinds, name)


def make_encoder(kind: str = "transformer", dropout: float = 0.1, **arguments: Any) -> Any:
    """Make an encoder.

    Args:
        kind: its name; by default the paper's Transformer.
        dropout: probability in [0, 1).
        **arguments: ``n_items`` and the options of this encoder.
    """
    return encoder_kind(kind).make(dropout=dropout, **arguments)
