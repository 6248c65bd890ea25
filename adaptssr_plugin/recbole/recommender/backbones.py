"""RecBole's sequential models as encoders of user vectors; only BERT4Rec needs its own code.

A model needs a ``forward`` that takes the item sequence, with or without its length, and returns a vector ``(B, d)``.
Arguments are bound by name. While a sequence is encoded for a self-supervised loss, hooks on the model's item embedding
give [MASK] a learned vector and, if the model has no active dropout, apply dropout to item vectors. Everything else is
computed by the model itself.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.layers import ContextSeqEmbAbstractLayer
from recbole.utils import ModelType
from torch import Tensor, nn

from ...devices import shapes_are_fixed
from ...encoders.length_groups import LengthGroup, length_groups, priced_groups, restore_order
from ...errors import InputError
from ...seeding import stream_generator

SEQUENCE = ("item_seq", "seq_item")
LENGTH = ("item_seq_len", "seq_item_len")
_USER = ("user",)
_MASK_STD = 0.02  # as all embeddings in AdaptSSR's code
PROBED_ROWS = 8
_GROUP_COST = 256  # padded positions on a CPU that take as long as another pass through a backbone
_SAME = 1e-4  # relative; float32's rounding in a backbone of a few layers is a hundred times smaller


def refusal(model_class: type[Any]) -> str | None:
    """Say in a few words why a model cannot have a self-supervised loss; None if it can."""
    if getattr(model_class, "type", None) != ModelType.SEQUENTIAL:
        return "it is not a sequential model, so that it has no behaviour sequence to make views of"
    if hasattr(model_class, "pretrain"):
        return "it has its own pre-training, in two runs by train_stage"
    needed = _needed_arguments(model_class)
    if not any(name in SEQUENCE for name in needed):
        return "its forward takes no item sequence"
    for name in needed:
        if name not in SEQUENCE + LENGTH + _USER:
            return f"its forward needs {name} besides the item sequence, so that it gives no vector of a user alone"
    if any(name in _USER for name in needed):
        return "its user vector holds an embedding of the user's id, which both views would share"
    return None


def _needed_arguments(model_class: type[Any]) -> list[str]:
    parameters = list(inspect.signature(model_class.forward).parameters.values())[1:]
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


class BackboneEncoder(nn.Module):
    """A RecBole model as the encoder of a self-supervised loss.

    Args:
        backbone: the model. The encoder shares its weights.
        n_items: items, the padding id 0 included; the id ``n_items`` marks a masked position.
        mask: the learned vector of [MASK], ``(d,)``; None if the backbone's table has a row for it, or if views never
            contain it.
        dropout: probability of dropout on item vectors, used if the backbone has no active dropout.

    Attributes:
        drops_out: whether the backbone's own dropout is active; None before :meth:`probe`.
        ignores_padding: whether the encoding of a row does not depend on padding; None before :meth:`probe`.
    """

    def __init__(self, backbone: nn.Module, n_items: int, mask: nn.Parameter | None, dropout: float) -> None:
        super().__init__()
        self.backbone = backbone
        self.n_items = n_items
        self.mask = mask
        self.dropout = dropout
        self.drops_out: bool | None = None
        self.ignores_padding: bool | None = None
        self._arguments = _needed_arguments(type(backbone))

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode sequences, int64 ``(B, L)`` and ``(B,)``, as user vectors ``(B, d)``.

        Raises:
            InputError: at the first call, for a backbone that does not return a vector.
        """
        if self.ignores_padding is None:
            self.probe(item_seq[:PROBED_ROWS], item_seq_len[:PROBED_ROWS])
        # One process's empty part of a batch: not every backbone has a forward for it, but it needs a graph.
        if not len(item_seq):
            return self(item_seq.new_ones(2, 1), item_seq_len.new_ones(2))[:0]  # type: ignore[no-any-return]
        with self._hooks():
            if shapes_are_fixed() or not self.ignores_padding:
                return self._encode(self._full_width(item_seq), item_seq_len)
            groups = backbone_groups(item_seq_len)
            parts = [self._encode(item_seq[rows, :width], item_seq_len[rows]) for rows, width in groups]
            return restore_order(parts, groups)

    def _full_width(self, item_seq: Tensor) -> Tensor:
        """Pad rows to the width of the backbone's own data."""
        missing = int(getattr(self.backbone, "max_seq_length", 0)) - item_seq.shape[1]
        return F.pad(item_seq, (0, missing)) if missing > 0 else item_seq

    def _encode(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        if hasattr(self.backbone, "reconstruct_test_data"):
            return self._at_appended_mask(item_seq, item_seq_len)
        values = {**dict.fromkeys(SEQUENCE, item_seq), **dict.fromkeys(LENGTH, item_seq_len)}
        vectors: Tensor = self._forward(**{name: values[name] for name in self._arguments})
        return vectors

    def _forward(self, *arguments: Tensor, **named: Tensor) -> Tensor:
        """Call the backbone's own ``forward``, not the grouped one that ``faster_layers`` puts around it."""
        output: Tensor = inspect.unwrap(type(self.backbone).forward)(self.backbone, *arguments, **named)
        return output

    def _at_appended_mask(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """BERT4Rec's user vector: its output at a [MASK] after the newest item, as in its own prediction.

        The same as its ``reconstruct_test_data``, which loops over the rows in Python.
        """
        appended = F.pad(item_seq, (0, 1)).scatter(1, item_seq_len[:, None], self.n_items)[:, 1:]
        hidden: Tensor = self._forward(appended)  # (B, L, d)
        return hidden[torch.arange(len(hidden), device=hidden.device), item_seq_len - 1]

    # --- hooks, in self-supervised encodes only ------------------------------------------------------------------

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        table = item_embedding(self.backbone, self.n_items)
        masked: list[Tensor] = []

        def hide_mask(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            masked.append(arguments[0] == self.n_items)
            return (arguments[0].masked_fill(masked[-1], 0), *arguments[1:])

        def put_mask(_module: nn.Module, _arguments: Any, vectors: Tensor) -> Tensor:
            assert self.mask is not None
            return torch.where(masked.pop()[..., None], self.mask.to(vectors.dtype), vectors)

        def hide_elsewhere(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(
                argument.masked_fill(argument == self.n_items, 0) if isinstance(argument, Tensor) else argument
                for argument in arguments
            )

        def drop_out(_module: nn.Module, _arguments: Any, vectors: Tensor) -> Tensor:
            return F.dropout(vectors, self.dropout) if self.backbone.training else vectors

        with ExitStack() as hooks:
            if self.mask is not None:
                hooks.enter_context(table.register_forward_pre_hook(hide_mask))
                hooks.enter_context(table.register_forward_hook(put_mask))
            if self.drops_out is False:
                hooks.enter_context(table.register_forward_hook(drop_out))
            for module in self.backbone.modules():
                if module is not table and self._knows_items_alone(module):
                    hooks.enter_context(module.register_forward_pre_hook(hide_elsewhere))
            yield

    def _knows_items_alone(self, module: nn.Module) -> bool:
        """Whether a module looks something up by item (features, entities) and has no row for [MASK]'s id."""
        if isinstance(module, nn.Embedding):
            return module.num_embeddings <= self.n_items
        return isinstance(module, ContextSeqEmbAbstractLayer)

    # --- properties of the backbone, found by trying -----------------------------------------------------------------

    @torch.no_grad()
    def probe(self, item_seq: Tensor, item_seq_len: Tensor) -> None:
        """Try the backbone on a few rows: does it return vectors, apply dropout, and depend on padding?

        Restores modes, buffers and torch's random numbers. Arguments as of :meth:`forward`.

        Raises:
            InputError: for a backbone that does not return a vector.
        """
        # Plain items only: a backbone that is refused below may fail in any way on an unknown id.
        item_seq = self._full_width(item_seq.masked_fill(item_seq == self.n_items, 1))
        with untouched(self.backbone, item_seq.device):
            self.backbone.train()
            once, again = self._twice(item_seq, item_seq_len)
            self._check_vectors(once, len(item_seq))
            self.backbone.eval()
            self.ignores_padding = ignores_padding(
                self.backbone, lambda rows, lengths, _: self._encode(rows, lengths), item_seq, item_seq_len
            )
            self.drops_out = not torch.equal(once, again)

    def _twice(self, item_seq: Tensor, item_seq_len: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return self._encode(item_seq, item_seq_len), self._encode(item_seq, item_seq_len)
        except (RuntimeError, ValueError, TypeError, LookupError) as error:  # whatever the backbone's forward raises
            why = " ".join(str(error).split())
            raise InputError(
                f"ssl_loss: {type(self.backbone).__name__} cannot have one: its forward fails on these data: {why}"
            ) from error

    def _check_vectors(self, vectors: Any, rows: int) -> None:
        name = type(self.backbone).__name__
        if not isinstance(vectors, Tensor) or vectors.dim() != 2 or len(vectors) != rows:
            came = f"shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else f"a {type(vectors).__name__}"
            raise InputError(
                f"ssl_loss: {name} cannot have one: expected a user vector ({rows}, d) of its forward, got {came}"
            )
        if vectors.shape[1] == self.n_items:
            raise InputError(
                f"ssl_loss: {name} cannot have one: its forward gives scores of all {self.n_items} items, not a vector"
            )


@contextmanager
def untouched(backbone: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore modes, buffers and torch's random numbers after this context."""
    training = {module: module.training for module in backbone.modules()}
    buffers = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for name, buffer in backbone.named_buffers():
                buffer.copy_(buffers[name])
            for module, mode in training.items():
                module.training = mode


def ignores_padding(
    backbone: nn.Module, encode: Callable[[Tensor, Tensor, Tensor], Tensor], item_seq: Tensor, item_seq_len: Tensor
) -> bool:
    """Try whether rows of half the width have equal encodings with and without padding, and one by one.

    Not so if a batch norm averages over all rows and positions.

    Args:
        backbone: in evaluation mode.
        encode: gives vectors ``(B, d)`` of sequences, their lengths, and which of the rows they are, int64 ``(B,)``.
        item_seq: int64 ``(B, L)``.
        item_seq_len: int64 ``(B,)``.
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        return False
    width = max(item_seq.shape[1] // 2, 1)
    short = torch.zeros_like(item_seq)
    short[:, :width] = item_seq[:, :width]
    lengths = item_seq_len.clamp(max=width)
    rows = torch.arange(len(item_seq), device=item_seq.device)
    padded = encode(short, lengths, rows)
    try:
        trimmed = torch.cat([encode(short[row, :width], lengths[row], rows[row]) for row in rows[:, None]])
    except (RuntimeError, IndexError, ValueError):  # the model has a fixed width
        return False
    # Relative to each vector: the vectors of some backbones are near 0 at first.
    if trimmed.shape != padded.shape:
        return False
    return bool(((trimmed - padded).norm(dim=1) <= _SAME * padded.norm(dim=1)).all())


def backbone_groups(item_seq_len: Tensor) -> list[LengthGroup]:
    """Cut a batch into few groups of similar length: each passes through the whole backbone, small operations too."""
    if item_seq_len.device.type == "cpu":
        return priced_groups(item_seq_len, _GROUP_COST)
    return list(length_groups(item_seq_len, max(1, min(4, len(item_seq_len) // 256))))


def item_embedding(backbone: nn.Module, n_items: int, option: str = "ssl_loss") -> nn.Embedding:
    """Find the item embedding of a RecBole model, which an option needs.

    Raises:
        InputError: it has none, or several of which none is called ``item_embedding``.
    """
    tables = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Embedding) and module.num_embeddings in (n_items, n_items + 1)
    }
    if "item_embedding" in tables:
        return tables["item_embedding"]
    if len(tables) == 1:
        return next(iter(tables.values()))
    found = ", ".join(tables) or "none"
    raise InputError(
        f"{option}: expected an item embedding of {n_items} rows in {type(backbone).__name__}, found {found}"
    )


def mask_vector(backbone: nn.Module, n_items: int, seed: int) -> nn.Parameter | None:
    """Make a backbone's [MASK] vector from a separate random stream; None if its item table has a row for it."""
    table = item_embedding(backbone, n_items)
    if table.num_embeddings > n_items:
        return None
    generator = stream_generator("cpu", seed, "ssl mask vector")
    return nn.Parameter(torch.randn(table.embedding_dim, generator=generator) * _MASK_STD)
