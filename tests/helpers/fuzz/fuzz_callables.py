"""The public calls, each with arguments that it takes: what the tests of bad input put wrong ones in the place of."""
# ruff: noqa: E501 - tables

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import adaptssr_plugin as plugin
from adaptssr_plugin import augment, corpus, downstream, encoders, functional, methods, seeding, training
from adaptssr_plugin.downstream import significance
from adaptssr_plugin.encoders.exporting import export_encoder

N_ITEMS = 6


@dataclass(frozen=True)
class Callee:
    """A public call.

    Attributes:
        name: as users write it.
        call: takes the arguments by name.
        arguments: ones that it takes, made anew for every call.
    """

    name: str
    call: Callable[..., object]
    arguments: Callable[[], Mapping[str, Any]]


CALLEES: dict[str, Callee] = {}


def _callee(name: str, call: Callable[..., object], arguments: Callable[[], Mapping[str, Any]]) -> None:
    CALLEES[name] = Callee(name, call, arguments)


def sequences() -> dict[str, Any]:
    """A batch of three users, one of them with a single item."""
    item_seq = torch.tensor([[1, 2, 3, 4], [5, 4, 3, 0], [2, 0, 0, 0]])
    return {"item_seq": item_seq, "item_seq_len": torch.tensor([4, 3, 1])}


def encodings(*names: str) -> dict[str, Any]:
    """Floating tensors (4, 3)."""
    rows = torch.linspace(-1, 2, 12 * len(names)).sin().view(len(names), 4, 3)
    return dict(zip(names, rows, strict=True))


def histories() -> corpus.BehaviourCorpus:
    """Three users."""
    return corpus.BehaviourCorpus.from_lists([[1, 2, 3], [5, 4, 3, 2], [2]] * 4, N_ITEMS)


def logits(item_seq: torch.Tensor, item_seq_len: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> Any:
    """Stand in for a masked-item model."""
    return torch.zeros(len(rows), N_ITEMS)


def neighbours() -> torch.Tensor:
    """Items like each item."""
    return torch.tensor([[0, 0], [2, 3], [1, 3], [4, 1], [3, 1], [1, 2]])


# --- losses and functional -------------------------------------------------------------------------------------------

_FOUR = ("u1", "u1_pos", "u2", "u2_pos")
_ids = lambda: torch.tensor([1, 2, 3, 1])  # noqa: E731
_callee(
    "AdaptSSRLoss",
    plugin.AdaptSSRLoss,
    lambda: {
        "fusion": 0.5,
        "negatives": "all",
        "scale": 1.0,
        "reduction": "mean",
        "gather": False,
        "chunk_size": 4,
        "implementation": "auto",
    },
)
_callee("AdaptSSRLoss()(…)", plugin.AdaptSSRLoss(), lambda: {**encodings(*_FOUR), "user_ids": _ids()})
_callee(
    "AdaptSSRLoss(negatives='all').terms(…)",
    plugin.AdaptSSRLoss(negatives="all").terms,
    lambda: {**encodings(*_FOUR), "user_ids": _ids()},
)
_callee("AdaptSSRLoss.from_preset", plugin.AdaptSSRLoss.from_preset, lambda: {"preset": "paper"})
_callee(
    "AugmentationAdaptiveFusion",
    plugin.AugmentationAdaptiveFusion,
    lambda: {"granularity": "batch", "terms": 2, "clamp": True, "detach": True},
)
_callee(
    "AugmentationAdaptiveFusion()(…)",
    plugin.AugmentationAdaptiveFusion(),
    lambda: encodings("anchor", "anchor_pos", "view", "view_pos"),
)
_callee(
    "InfoNCELoss",
    plugin.InfoNCELoss,
    lambda: {
        "temperature": 0.5,
        "negatives": "all",
        "reduction": "mean",
        "gather": False,
        "chunk_size": 4,
        "similarity": "dot",
        "implementation": "auto",
    },
)
_callee("InfoNCELoss()(…)", plugin.InfoNCELoss(), lambda: {**encodings("z1", "z2"), "user_ids": _ids()})
_stack = lambda: torch.linspace(-1, 2, 48).sin().view(4, 4, 3)  # noqa: E731
_callee("functional.unit_vectors", functional.unit_vectors, lambda: encodings("encodings"))
_callee(
    "functional.stacked_unit_vectors", lambda a, b: functional.stacked_unit_vectors(a, b), lambda: encodings("a", "b")
)
_callee("functional.intra_user_similarities", functional.intra_user_similarities, lambda: {"units": _stack()})
_callee(
    "functional.adaptive_coefficient",
    functional.adaptive_coefficient,
    lambda: {"cross": torch.rand(4, 2, 2), "terms": 4, "clamp": True},
)
_callee(
    "functional.hardest_negative",
    functional.hardest_negative,
    lambda: {"vectors": _stack(), "stride": 2, "user_ids": _ids(), "chunk_size": 4, "implementation": "auto"},
)
_callee(
    "functional.info_nce",
    functional.info_nce,
    lambda: {"vectors": _stack()[:, :2], "temperature": 0.5, "user_ids": _ids(), "chunk_size": 4},
)
_callee(
    "functional.hardest_info_nce",
    functional.hardest_info_nce,
    lambda: {"vectors": _stack()[:, :2], "temperature": 0.5, "user_ids": _ids(), "chunk_size": 4},
)
_callee(
    "functional.order_hits", functional.order_hits, lambda: {"units": _stack(), "user_ids": _ids(), "chunk_size": 4}
)
for _name in ("hardest_pair_ranking", "all_pairs_ranking"):
    _callee(
        f"functional.{_name}",
        getattr(functional, _name),
        lambda: {
            "units": _stack(),
            "own": functional.intra_user_similarities(_stack()),
            "coefficient": 0.5,
            "scale": 1.0,
            "user_ids": _ids(),
            "chunk_size": 4,
        },
    )


def _scores():
    return {
        "hidden": torch.rand(3, 2),
        "weight": torch.rand(N_ITEMS, 2),
        "bias": torch.rand(N_ITEMS),
        "targets": torch.tensor([1, 5, 2]),
        "chunk_size": 2,
    }


_callee("functional.linear_cross_entropy", functional.linear_cross_entropy, lambda: {**_scores(), "reduction": "mean"})
_callee(
    "functional.sampled_cross_entropy",
    functional.sampled_cross_entropy,
    lambda: {**_scores(), "reduction": "mean", "n_samples": 3, "generator": torch.Generator()},
)
_callee("functional.score_targets", functional.score_targets, _scores)

# --- operators and views ---------------------------------------------------------------------------------------------

_operators = lambda: [augment.ItemMask(0.5, mask_id=N_ITEMS), augment.ItemCrop(0.5), augment.ItemReorder(0.5)]  # noqa: E731
_made = {
    "ItemMask": (augment.ItemMask, lambda: {"ratio": 0.5, "mask_id": N_ITEMS}),
    "ItemCrop": (augment.ItemCrop, lambda: {"ratio": 0.5}),
    "ItemReorder": (augment.ItemReorder, lambda: {"ratio": 0.5}),
    "ItemSubstitute": (augment.ItemSubstitute, lambda: {"ratio": 0.5, "neighbours": neighbours()}),
    "ItemInsert": (augment.ItemInsert, lambda: {"ratio": 0.5, "neighbours": neighbours(), "max_insert_per_position": 2}),
    "MaskAndFill": (augment.MaskAndFill, lambda: {"ratio": 0.5, "filler": logits, "mask_id": N_ITEMS, "top_k": 3, "temperature": 1.0, "fill": "sample", "ban_original": True}),
    "RandomChoice": (augment.RandomChoice, lambda: {"operators": _operators()}),
    "RandomPair": (augment.RandomPair, lambda: {"operators": _operators(), "distinct": True}),
    "Compose": (augment.Compose, lambda: {"operators": _operators()}),
    "FromLength": (augment.FromLength, lambda: {"operator": augment.ItemCrop(), "min_length": 2}),
    "PeriodPair": (augment.PeriodPair, lambda: {"ratio": 0.5, "period": "independent"}),
    "DropoutPair": (augment.DropoutPair, dict),
    "MaskAndFillPair": (augment.MaskAndFillPair, lambda: {"fill": augment.MaskAndFill(0.5, logits, mask_id=N_ITEMS), "one_side": False, "ratios": (0.1, 0.5)}),
    "ScoredFillPair": (augment.ScoredFillPair, lambda: {"fill": augment.MaskAndFill(0.5, logits, mask_id=N_ITEMS), "candidates": 3, "ranks": (1, 2), "one_side": True}),
    "coserec_pair": (augment.coserec_pair, lambda: {"neighbours": neighbours(), "mask_id": N_ITEMS, "substitute": 0.1, "insert": 0.4, "crop": 0.2, "mask": 0.7, "reorder": 0.2, "threshold": 4, "short": "SIM", "max_insert_per_position": 1}),
    "SameTargetPair": (augment.SameTargetPair, lambda: {"items": torch.tensor([1, 2, 3, 2, 1]), "starts": torch.tensor([0, 3]), "lengths": torch.tensor([3, 2]), "keys": torch.tensor([1, 1]), "drop_last": False, "skip_identical": False}),
}  # fmt: skip
for _name, (_make, _arguments) in _made.items():
    if _name != "DropoutPair":
        _callee(_name, _make, _arguments)
    if _name not in ("ScoredFillPair", "SameTargetPair"):  # which need an encoder, and rows, besides
        _callee(
            f"{_name}()(…)",
            lambda _make=_make, _arguments=_arguments, **a: _make(**_arguments())(**a),
            lambda: {**sequences(), "generator": torch.Generator()},
        )
_callee(
    "SameTargetPair()(…)",
    lambda **a: augment.SameTargetPair(**_made["SameTargetPair"][1]())(**a),
    lambda: {
        "item_seq": torch.tensor([[1, 2, 3], [2, 1, 0]]),
        "item_seq_len": torch.tensor([3, 2]),
        "generator": torch.Generator(),
        "rows": torch.tensor([0, 1]),
    },
)
_callee(
    "replace_neighbours",
    augment.replace_neighbours,
    lambda: {"module": augment.ItemSubstitute(0.5, neighbours=neighbours()), "neighbours": neighbours()},
)
_callee("linear_ratios", augment.linear_ratios, lambda: {"ratio": 0.5, "epochs": 4, "epochs_per_stage": 2})
_callee("equal_stages", augment.equal_stages, lambda: {"epochs": 4, "candidates": 3, "stages": 2})

# --- encoders --------------------------------------------------------------------------------------------------------

_sizes = lambda **more: dict(n_items=N_ITEMS, dim=4, max_len=4, dropout=0.1, **more)  # noqa: E731
_encoders = {
    "UserEncoder": (encoders.UserEncoder, lambda: _sizes(n_layers=1, n_heads=2, ff_dim=8, embed_norm=True, embed_dropout=True, length_groups=2, interests=2)),
    "CausalTransformer": (encoders.CausalTransformer, lambda: _sizes(n_layers=1, n_heads=2, ff_dim=8)),
    "ConvolutionEncoder": (encoders.ConvolutionEncoder, lambda: _sizes(dilations=(1, 2))),
    "GRUEncoder": (encoders.GRUEncoder, lambda: _sizes(n_layers=1, hidden_dim=5)),
}  # fmt: skip
for _name, (_make, _arguments) in _encoders.items():
    _callee(_name, _make, _arguments)
    _callee(f"{_name}()(…)", lambda _make=_make, _arguments=_arguments, **a: _make(**_arguments())(**a), sequences)
    _callee(
        f"{_name}().hidden_states(…)",
        lambda _make=_make, _arguments=_arguments, **a: _make(**_arguments()).hidden_states(**a),
        sequences,
    )
_callee("make_encoder", encoders.make_encoder, lambda: dict(kind="transformer", **_sizes(n_layers=1, n_heads=1)))
_callee("encoder_kind", encoders.encoder_kind, lambda: {"name": "gru4rec"})
_callee(
    "register_encoder",
    lambda name, kind: (encoders.register_encoder(name, kind), encoders.unregister_encoder(name)),
    lambda: {"name": "own", "kind": encoders.EncoderKind(encoders.GRUEncoder)},
)
_callee("ItemEmbedding", encoders.ItemEmbedding, lambda: {"n_items": N_ITEMS, "dim": 3})
_callee("ItemEmbedding()(…)", encoders.ItemEmbedding(N_ITEMS, 3), lambda: {"item_seq": sequences()["item_seq"]})
for _name in ("AttentionPooling", "InterestPooling"):
    _make = getattr(encoders, _name)
    _callee(_name, _make, lambda _name=_name: {"dim": 3} if _name == "AttentionPooling" else {"dim": 3, "interests": 2})
    _callee(
        f"{_name}()(…)",
        lambda hidden, visible, _make=_make: _make(3)(hidden, visible),
        lambda: {"hidden": torch.rand(2, 4, 3), "visible": torch.tensor([[True] * 4, [True, False, False, False]])},
    )
_callee(
    "MaskedItemHead", encoders.MaskedItemHead, lambda: {"n_items": N_ITEMS, "softmax": "sampled", "sample_share": 0.5}
)
_callee(
    "MaskedItemHead()(…)",
    encoders.MaskedItemHead(N_ITEMS),
    lambda: {"hidden": torch.rand(2, 3), "item_weight": torch.rand(N_ITEMS, 3)},
)
_callee("MLPHead", downstream.MLPHead, lambda: {"dim": 3, "n_outputs": 2, "hidden": 4, "generator": torch.Generator()})
_callee("MLPHead()(…)", downstream.MLPHead(3, 2), lambda: {"user": torch.rand(4, 3)})
_callee(
    "export_encoder",
    lambda **a: export_encoder(encoders.UserEncoder(N_ITEMS, 4, 1, 1, 4), **a),
    lambda: {"n_items": N_ITEMS, "max_len": 4},
)

# --- corpus ----------------------------------------------------------------------------------------------------------

_callee(
    "BehaviourCorpus",
    corpus.BehaviourCorpus,
    lambda: {
        "items": np.array([1, 2, 1]),
        "offsets": np.array([0, 2, 3]),
        "n_items": 3,
        "user_tokens": np.array(["u", "v"]),
        "item_tokens": np.array(["[PAD]", "a", "b"]),
    },
)
_callee(
    "BehaviourCorpus.from_lists",
    corpus.BehaviourCorpus.from_lists,
    lambda: {"histories": [[1, 2], [1]], "n_items": 3, "user_tokens": ["u", "v"], "item_tokens": ["[PAD]", "a", "b"]},
)
_callee("BehaviourCorpus.history", histories().history, lambda: {"row": 1})
_callee("BehaviourCorpus.padded", histories().padded, lambda: {"rows": np.array([0, 2]), "max_len": 3})
_callee("BehaviourCorpus.select", histories().select, lambda: {"rows": np.array([0, 2])})
_callee(
    "BatchLoader",
    lambda **a: list(corpus.BatchLoader(**a)),
    lambda: {
        "corpus": histories(),
        "rows": np.array([0, 1, 2]),
        "batch_size": 2,
        "max_len": 3,
        "seed": 0,
        "name": "x",
        "shuffle": True,
        "labels": np.array([0, 1, 0]),
    },
)
_callee(
    "ItemCorrelation",
    corpus.ItemCorrelation,
    lambda: {"neighbours": neighbours().numpy(), "scores": np.ones((N_ITEMS, 1), dtype=np.float32), "lowest": 0.5},
)
_callee(
    "same_target_pair",
    corpus.same_target_pair,
    lambda: {"corpus": histories(), "key": "last_dropped", "skip_identical": True, "candidates": np.array([0, 1])},
)
_callee(
    "read_interactions",
    corpus.read_interactions,
    lambda: {"path": "/nonexistent", "user_field": "u", "item_field": "i", "time_field": "t"},
)
_callee("read_sequence_lines", corpus.read_sequence_lines, lambda: {"path": "/nonexistent"})
_callee("open_corpus", corpus.open_corpus, lambda: {"folder": "/nonexistent"})

# --- recipes, tasks, numbers -----------------------------------------------------------------------------------------

_callee(
    "recipe",
    methods.recipe,
    lambda: {"method": "adaptssr", "preset": "paper", "options": {"epochs": 3}, "yaml_files": []},
)
_callee(
    "register",
    lambda method: methods.unregister(methods.register(method).name),
    lambda: {"method": methods.Method("own", "none")},
)
_callee(
    "ProfileTask",
    downstream.ProfileTask,
    lambda: {
        "name": "age",
        "kind": "binary",
        "rows": np.arange(10),
        "labels": np.arange(10) % 2,
        "classes": ("a", "b"),
    },
)
_callee("ProfileTask.split", lambda seed: _task().split(seed), lambda: {"seed": 0})
_callee(
    "ColdRecommendationTask",
    downstream.ColdRecommendationTask,
    lambda: {"name": "toys", "rows": np.arange(10), "targets": np.arange(10) % 3, "labels": np.array(["x", "y", "z"])},
)
_callee(
    "cold_task",
    downstream.cold_task,
    lambda: {
        "name": "toys",
        "rows": downstream.ColdRows(np.array(["0", "1"]), np.array(["x", "y"])),
        "histories": histories(),
    },
)
_callee(
    "conversion_task", downstream.conversion_task, lambda: {"corpus": histories(), "item": "3", "max_len": 3, "seed": 0}
)
_callee("split_rows", downstream.split_rows, lambda: {"n_rows": 20, "seed": 0, "ratios": (0.6, 0.2, 0.2)})
_callee("accuracy", downstream.accuracy, lambda: {"scores": torch.rand(4, 3), "labels": torch.tensor([0, 1, 2, 0])})
_callee("auc", downstream.auc, lambda: {"scores": torch.rand(4, 2), "labels": torch.tensor([0, 1, 1, 0])})
_callee(
    "target_ranks",
    downstream.target_ranks,
    lambda: {
        "scores": torch.rand(2, 5),
        "targets": torch.tensor([1, 2]),
        "known_rows": torch.tensor([0]),
        "known_items": torch.tensor([3]),
        "ties": "mean",
    },
)
for _name in ("ndcg_at", "hit_at"):
    _callee(_name, getattr(downstream, _name), lambda: {"ranks": torch.tensor([1.0, 12.0]), "k": 10})
_callee("reciprocal_rank", downstream.reciprocal_rank, lambda: {"ranks": torch.tensor([1.0, 12.0])})
_callee("ranking_metrics", downstream.ranking_metrics, lambda: {"ranks": torch.tensor([1.0, 12.0])})
_callee(
    "reidentification_ranks",
    downstream.reidentification_ranks,
    lambda: {**encodings("older", "newer"), "chunk_size": 2},
)
_callee("summarise", significance.summarise, lambda: {"values": [0.1, 0.2, 0.3]})
for _name in ("welch", "paired"):
    _callee(_name, getattr(significance, _name), lambda: {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.5]})
_callee(
    "paired_interval", significance.paired_interval, lambda: {"a": [0.1, 0.2, 0.3], "b": [0.2, 0.3, 0.5], "level": 0.9}
)
_callee("relative_improvement", significance.relative_improvement, lambda: {"mean": 0.5, "mean_none": 0.4})
_callee("accuracy_standard_error", significance.accuracy_standard_error, lambda: {"value": 0.5, "n_rows": 10})
_callee(
    "auc_standard_error", significance.auc_standard_error, lambda: {"value": 0.5, "n_positive": 10, "n_negative": 7}
)
_callee("majority", downstream.majority, lambda: {"task": _task(), "split": _task().split(0)})
_callee(
    "tfidf_logistic_regression",
    downstream.tfidf_logistic_regression,
    lambda: {"corpus": histories(), "task": _task(), "split": _task().split(0), "max_len": 3, "C_grid": (1.0,)},
)


def _task() -> downstream.ProfileTask:
    return downstream.ProfileTask("age", "binary", np.arange(12), np.arange(12) % 2, ("a", "b"))


# --- training and seeds ----------------------------------------------------------------------------------------------

_encoder = lambda: encoders.UserEncoder(N_ITEMS, 4, 1, 1, 4)  # noqa: E731
_callee(
    "MaskedItemStage",
    training.MaskedItemStage,
    lambda: {"encoder": _encoder(), "ratio": 0.5, "name": "mlm", "softmax": "full", "sample_share": 0.5, "pooled": 0.0},
)
_callee(
    "MaskedItemFiller",
    training.MaskedItemFiller,
    lambda: {"encoder": _encoder(), "head": encoders.MaskedItemHead(N_ITEMS)},
)
_callee("NegativeItems", training.NegativeItems, lambda: {"weights": np.array([0.0, 1.0, 2.0])})
_callee(
    "NegativeItems()(…)",
    training.NegativeItems(np.array([0.0, 1.0, 2.0])),
    lambda: {"positives": torch.tensor([[1], [2]]), "count": 2, "generator": torch.Generator()},
)
_callee(
    "NextItemStage",
    training.NextItemStage,
    lambda: {"encoder": encoders.GRUEncoder(N_ITEMS, 4), "name": "next", "softmax": "full", "sample_share": 0.5},
)
_callee(
    "NextBehaviourStage",
    training.NextBehaviourStage,
    lambda: {
        "encoder": _encoder(),
        "negatives": training.NegativeItems(np.arange(6.0)),
        "n_negatives": 2,
        "n_next": 1,
        "weight": 1.0,
        "name": "ptum",
    },
)
_callee(
    "PairwiseStage",
    training.PairwiseStage,
    lambda: {
        "encoder": _encoder(),
        "views": augment.RandomPair(_operators()),
        "criterion": plugin.AdaptSSRLoss(),
        "name": "adaptssr",
    },
)
_callee(
    "encode_in_micro_batches",
    lambda micro_batch: training.encode_in_micro_batches(_encoder(), *sequences().values(), micro_batch=micro_batch),
    lambda: {"micro_batch": 2},
)
_callee(
    "transfer",
    training.transfer,
    lambda: {"source": _encoder().state_dict(), "target": _encoder(), "parts": training.WHOLE_ENCODER},
)
_callee("load_checkpoint", training.load_checkpoint, lambda: {"path": "/nonexistent", "device": "cpu"})
_callee(
    "stream_generator", lambda device, key: seeding.stream_generator(device, key), lambda: {"device": "cpu", "key": 3}
)
_callee("stream_seed", lambda key: seeding.stream_seed(key), lambda: {"key": 3})
