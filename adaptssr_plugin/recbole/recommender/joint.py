"""RecBole models with a self-supervised loss: ``loss = own loss + weight · self-supervised loss`` (joint mode)."""

from typing import Any

import numpy as np
import torch
from recbole.model.sequential_recommender.fearec import FEARec
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from ...augment import ItemMask
from ...corpus import Batch
from ...errors import InputError
from ...methods.options.comparison import pairwise_loss
from ...methods.registry import make_views
from ...training import PairwiseStage, Streams
from ...training.processes import Processes
from ..compat.training_rows import ROW_FIELD, TrainingRows
from .backbones import PROBED_ROWS, BackboneEncoder, mask_vector, refusal
from .faster import faster_bases
from .settings import SelfSupervision, settings_of

COMPARED_FIELD = "adaptssr_compared"


class SelfSupervisedTerm:
    """The self-supervised loss of a RecBole model on the rows of its own batches.

    It is not a module of the model, so the model's ``state_dict`` is RecBole's, except for the vector of [MASK].

    Several processes that train together compare the rows of all their batches. Each gets its share of the loss: the
    average of the shares is the loss of all rows in one batch, and the same holds for gradients.

    Attributes:
        settings: the ``ssl_`` options.
        n_rows: number of training rows from which views are made.
        processes: those that train together.
        apart: whether the model's ``calculate_loss`` always returns it separately from the model's own; initially
            False.
        computed: whether the loss of any batch has been computed.
        stage: computes the loss.
        logs: parts of the last loss; detached scalars on the device.
        place: epoch and step, the keys of the streams of views.
        few_sizes: leave out up to an eighth of the compared rows, so that few numbers of them occur; initially False.
        generators: those of the streams, if they are kept from step to step.
    """

    def __init__(self, settings: SelfSupervision, backbone: Any, config: Any, dataset: Any) -> None:
        rows = TrainingRows(config, dataset)
        views = make_views(settings.method, settings, rows)
        self._seed = int(config["seed"])
        if _puts_in_masks(views):
            backbone.ssl_mask = mask_vector(backbone, rows.n_items, self._seed)
        encoder = BackboneEncoder(backbone, rows.n_items, getattr(backbone, "ssl_mask", None), settings.dropout)
        self.settings = settings
        self.n_rows = len(dataset)
        self.apart = self.computed = False
        self.processes = Processes(together=config["single_spec"] is False)
        self.stage = PairwiseStage(encoder, views, pairwise_loss(settings.loss, settings), "ssl")
        if self.processes.data_parallel:
            self.stage.share_batches()
        self.logs: dict[str, Tensor] = {}
        self._fields = config["USER_ID_FIELD"], backbone.ITEM_SEQ, backbone.ITEM_SEQ_LEN, backbone.ITEM_ID
        # Now, so that a model without user vectors is refused before anything runs.
        some = dataset.inter_feat[torch.linspace(0, len(dataset.inter_feat) - 1, PROBED_ROWS).long()]
        encoder.probe(*(some[field].to(config["device"]) for field in self._fields[1:3]))
        self.place = (0, 0)
        self.few_sizes = False
        self.generators: dict[str, torch.Generator] | None = None
        self._numbered = bool(getattr(self.stage.views, "needs_rows", False))
        self._newest = rows.newest_of_users() if settings.rows == "newest" else None
        if self._numbered or self._newest is not None:
            rows.number_rows()

    def start_epoch(self, epoch: int) -> None:
        """Key the streams of views by this epoch, counted from 0, and its steps from 0."""
        self.place = (epoch, 0)

    def compared_rows(self, interaction: Any) -> Tensor:
        """Choose which rows of a batch are compared: int64, on the CPU.

        One row per user: a user's other rows are prefixes of the same history and would not be valid negatives. It is
        the newest one, with the whole training history, so that an epoch compares every user once; or the first in the
        batch, which is as random as the order of the batch. Among several processes, the row of the first process that
        has the user. Waits for the device if the batch is there.
        """
        users = interaction[self._fields[0]].cpu().numpy()
        rows = np.arange(len(users))
        if self.settings.rows == "all":
            return torch.from_numpy(rows)
        if self._newest is not None:
            rows = rows[self._newest[interaction[ROW_FIELD].cpu().numpy()]]
        rows = rows[np.sort(np.unique(users[rows], return_index=True)[1])]
        if self.processes.data_parallel:
            before = self.processes.gather(torch.from_numpy(users[rows]))[: self.processes.rank]
            rows = rows[~np.isin(users[rows], np.concatenate([users[:0], *map(np.asarray, before)]))]
        if self.few_sizes:
            unit = 1 << max(len(rows).bit_length() - 4, 0)  # an eighth of the largest power of two below
            rows = rows[: len(rows) // unit * unit]
        return torch.from_numpy(rows)

    def streams(self, device: torch.device) -> Streams:
        """Return the streams of this step."""
        return Streams(device, (self._seed, "ssl", *self.place, *self.processes.key), self.generators)

    def loss(self, interaction: Any) -> Tensor | None:
        """Compute the loss on a batch, a scalar; None if there are no two rows to compare."""
        self.computed = True
        chosen = COMPARED_FIELD in interaction
        compared = interaction[COMPARED_FIELD] if chosen else self.compared_rows(interaction)
        users, sequences, lengths, targets = (interaction[field] for field in self._fields)
        compared = compared.to(sequences.device)
        batch = Batch(
            item_seq=sequences[compared],
            item_seq_len=lengths[compared],
            user_ids=users[compared],
            lengths=torch.empty(len(compared), dtype=torch.int64),  # not read here
            keys=targets[compared] if self.settings.mask_same_target else None,
            rows=interaction[ROW_FIELD][compared] if self._numbered else None,
        )
        if not self.stage.usable(batch):
            return None
        self.stage.to(sequences.device)
        result = self.stage.step(batch, self.streams(sequences.device))
        self.place = (self.place[0], self.place[1] + 1)
        self.logs = dict(result.logs)
        return result.loss


class _Joint:
    """Mixed into a RecBole model: its own loss plus the self-supervised one."""

    _ssl: SelfSupervisedTerm

    def calculate_loss(self, interaction: Any) -> Any:
        """Compute the model's own loss and the weighted self-supervised loss.

        One number if the model's own loss is one, as its trainer may expect. Otherwise, or if the trainer takes the
        self-supervised loss separately, a tuple of parts, of which it is the last.
        """
        own = super().calculate_loss(interaction)  # type: ignore[misc]
        if self._ssl.settings.mode != "joint":
            return own
        # GCSAN's own is one number of shape (1,).
        parts = [part.reshape(()) for part in (own if isinstance(own, tuple) else (own,))]
        loss = self._ssl.loss(interaction)
        parts.append(torch.zeros_like(parts[0]) if loss is None else self._ssl.settings.weight * loss)
        return tuple(parts) if isinstance(own, tuple) or self._ssl.apart else sum(parts)


class _NextItemFEARec(FEARec):
    """FEARec without its contrast, and without the row-by-row search for it, which RecBole always does."""

    def get_same_item_index(self, dataset: Any) -> dict[int, Any]:
        """Search nothing: RecBole compares every row with every other here (fearec.py:102)."""
        return {}

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Compute the next-item loss alone, which is the same in FEARec and SASRec."""
        loss: Tensor = SASRec.calculate_loss(self, interaction)
        return loss


def class_of_model(model_class: type[Any], config: Any, settings: SelfSupervision) -> type[Any]:
    """Return the class of a model with its options: its own, or one with the self-supervised loss added.

    A class that was made here before stands for the one that was asked for then.

    Raises:
        InputError: a model that cannot have a self-supervised loss.
    """
    model_class = vars(model_class).get("_asked_for", model_class)
    asked_for = model_class
    if model_class is FEARec and (settings.active or not config["contrast"]):
        model_class = _class(asked_for, _NextItemFEARec)
    if config["faster_layers"]:
        bases, members = faster_bases(model_class)
        model_class = _class(asked_for, *bases, **members)
    if not settings.active:
        return model_class
    reason = refusal(asked_for)
    if reason is not None:
        raise InputError(f"ssl_loss: {asked_for.__name__} cannot have one: {reason}")
    return _class(asked_for, _Joint, model_class)


def add_term(model: Any, config: Any, dataset: Any, settings: SelfSupervision) -> None:
    """Give a new model of :func:`class_of_model` its self-supervised loss, on the rows of the training dataset.

    Raises:
        InputError: a model whose forward returns no user vector; a dataset that is not split yet.
    """
    model.to(config["device"])  # some models move what they make in forward there
    # Not through nn.Module, which would make it a part of the model.
    object.__setattr__(model, "_ssl", SelfSupervisedTerm(settings, model, config, dataset))


def self_supervised_term(model: Any) -> SelfSupervisedTerm | None:
    """Return the self-supervised term of a model; None if it has none."""
    return getattr(model, "_ssl", None)


def check_made_with(config: Any, model: Any) -> None:
    """Raise InputError for a model that was made with other ``ssl_`` options than those of its trainer's config."""
    term, settings = self_supervised_term(model), settings_of(config)
    its = SelfSupervision() if term is None else term.settings
    if not (settings.active or its.active):
        return
    wanted, given = settings.as_options(), its.as_options()
    for name in ("ssl_loss", *wanted):
        if given[name] != wanted[name]:
            raise InputError(
                f"{name}: expected a {type(model).__name__} that was made with {wanted[name]!r}, after install(), as "
                f"the trainer's config says, got one that was made with {given[name]!r}"
            )


def _puts_in_masks(views: Any) -> bool:
    """Whether views may contain [MASK]: otherwise a vector for it would never be trained."""
    return isinstance(views, nn.Module) and any(isinstance(module, ItemMask) for module in views.modules())


def keep_modules_out_of_checkpoints(model: Any) -> None:
    """Keep whole modules out of what RecBole pickles beside a model's weights, which already include theirs.

    The feature layers of FDSA, GRU4RecF and SASRecF, with the dataset in them: ``other_parameter_name``.
    """
    names = getattr(model, "other_parameter_name", None)
    if names is not None:
        model.other_parameter_name = [name for name in names if not isinstance(getattr(model, name), nn.Module)]


def _class(asked_for: type[Any], *bases: type[Any], **members: Any) -> type[Any]:
    """Make a class from some bases, under the name by which RecBole knows the model."""
    return type(asked_for.__name__, bases, {"_asked_for": asked_for, **members})
