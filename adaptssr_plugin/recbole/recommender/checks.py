"""Errors that RecBole would only hit during training or evaluation, refused before it begins."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import recbole
from recbole.evaluator.register import metric_information, metric_types, metrics_dict, smaller_metrics
from recbole.model.abstract_recommender import AbstractRecommender, AutoEncoderMixin
from recbole.model.sequential_recommender import BERT4Rec
from recbole.sampler import RepeatableSampler
from recbole.utils import EvaluatorType, InputType, ModelType

from ...errors import InputError, check_count
from ..compat.layers import holds_all
from ..compat.reading import files_read

# What RecBole fills in for missing parts of eval_args (config/configurator.py:441).
_EVAL_ARGS: dict[str, Any] = {
    "split": {"RS": [0.8, 0.1, 0.1]},
    "order": "RO",
    "group_by": "user",
    "mode": {"valid": "full", "test": "full"},
}
# And of train_neg_sample_args (config/configurator.py:410).
_NEGATIVES = {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
_SPLITS = "{'RS': [0.8, 0.1, 0.1]}, {'TS': [0.8, 0.1, 0.1]} or {'LS': 'valid_and_test', 'valid_only' or 'test_only'}"
_ROWS = 1 << 14  # looked at together
_LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")
# With 0 or less RecBole trains for no epoch, never validates, or stops at the first epoch without improvement.
_INTEGERS = ("epochs", "eval_step", "stopping_step")
_COUNTS = {
    "train_batch_size": 1,
    "eval_batch_size": 1,
    "MAX_ITEM_LIST_LENGTH": 1,
    "metric_decimal_place": 0,
    "loss_decimal_place": 0,
}


# --- options ---------------------------------------------------------------------------------------------------------


def settle_options(final: dict[str, Any], given: Mapping[str, Any], model_class: type[Any]) -> None:
    """Choose the validation metric if the user gives none, and check what RecBole does not.

    RecBole's own is MRR@10, or AUC for models of labels. If that is not computed, the first of ``metrics`` replaces
    MRR, and the first of ``topk`` replaces 10.

    Args:
        final: RecBole's options, including defaults; ``valid_metric`` is set.
        given: the options that the user gave.
        model_class: of the model.

    Raises:
        InputError: an option with which a run could not finish training or evaluation.
    """
    _check_numbers(final)
    metrics = _checked_metrics(final["metrics"])
    topk = _checked_topk(final["topk"])
    _settle_valid_metric(final, given, metrics, topk)
    _check_eval_args(final, metrics, model_class)
    _check_negatives(final, model_class)
    _check_optimiser(final, model_class)
    _check_masking(final, model_class)
    for name in ("dataset_save_path", "dataloaders_save_path"):
        if final.get(name) and not Path(str(final[name])).is_file():
            raise InputError(f"{name}: expected an existing file, got {final[name]!r}")


def _check_numbers(final: Mapping[str, Any]) -> None:
    for name in _INTEGERS:
        if not isinstance(final[name], int) or isinstance(final[name], bool):
            raise InputError(f"{name}: expected an integer, got {final[name]!r}")
    for name, least in _COUNTS.items():
        if name != "loss_decimal_place" or final[name] is not None:
            check_count(name, final[name], least)
    tail = final.get("tail_ratio")  # for None, and for 0 or less, TailPercentage uses 0.1
    if tail is not None and not (isinstance(tail, int | float) and tail > 0):
        raise InputError(f"tail_ratio: expected a positive number, got {tail!r}")


def _checked_metrics(asked: Any) -> list[str]:
    """Return the requested metrics, as the user spells them."""
    metrics = [asked] if isinstance(asked, str) else asked
    known = isinstance(metrics, list | tuple | set) and all(
        isinstance(metric, str) and metric.lower() in metric_types for metric in metrics
    )
    if not known or not metrics:
        names = ", ".join(metric.__name__ for metric in metrics_dict.values())
        raise InputError(f"metrics: expected one or several of {names}, got {asked!r}")
    if len({metric_types[metric.lower()] for metric in metrics}) > 1:
        of_values = [name.__name__ for key, name in metrics_dict.items() if metric_types[key] == EvaluatorType.VALUE]
        raise InputError(
            f"metrics: expected ranking metrics alone or value metrics ({', '.join(of_values)}) alone, got {asked!r}"
        )
    return list(metrics)


def _checked_topk(asked: Any) -> list[int]:
    topk = asked if isinstance(asked, list) else [asked]
    if not topk or not all(isinstance(k, int) and not isinstance(k, bool) and k > 0 for k in topk):
        raise InputError(f"topk: expected a positive integer or a list of them, got {asked!r}")
    return topk


def _takes_k(metric: str) -> bool:
    """Tell whether a metric depends on the first k items of a ranking."""
    return not {"rec.topk", "rec.items"}.isdisjoint(metric_information[metric.lower()])


def _settle_valid_metric(
    final: dict[str, Any], given: Mapping[str, Any], metrics: Sequence[str], topk: Sequence[int]
) -> None:
    computed = [f"{metric}@{k}" for metric in metrics if _takes_k(metric) for k in topk]
    computed += [metric for metric in metrics if not _takes_k(metric)]
    if "valid_metric" not in given:
        final["valid_metric"] = _default_valid_metric(final["valid_metric"], metrics, topk)
    asked = final["valid_metric"]
    name = asked.partition("@")[0].lower() if isinstance(asked, str) else ""
    # A metric that a user has added to RecBole's may use other names for its values.
    added = {metric.lower() for metric in metrics if not metrics_dict[metric.lower()].__module__.startswith("recbole.")}
    if name not in added and str(asked).lower() not in [metric.lower() for metric in computed]:
        raise InputError(
            f"valid_metric: expected one that metrics and topk ask for ({', '.join(computed)}), got {asked!r}"
        )
    bigger = name not in smaller_metrics
    if given.get("valid_metric_bigger", bigger) != bigger:
        raise InputError(
            f"valid_metric_bigger: expected {bigger}, which RecBole knows of {asked}, "
            f"got {given['valid_metric_bigger']!r}"
        )


def _default_valid_metric(usual: str, metrics: Sequence[str], topk: Sequence[int]) -> str:
    metric, _, k = usual.partition("@")
    if metric.lower() not in [other.lower() for other in metrics]:
        metric = metrics[0]
    if not _takes_k(metric):
        return metric
    return f"{metric}@{k if k in map(str, topk) else topk[0]}"


# --- how a run evaluates ---------------------------------------------------------------------------------------------


def _check_eval_args(final: Mapping[str, Any], metrics: Sequence[str], model_class: type[Any]) -> None:
    given = final["eval_args"]
    if not isinstance(given, dict) or not set(given) <= set(_EVAL_ARGS):
        raise InputError(f"eval_args: expected split, order, group_by and mode by name, got {given!r}")
    args = {**_EVAL_ARGS, **given}
    _check_split(args["split"])
    sequential = final["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if args["order"] not in (("TO",) if sequential else ("TO", "RO")):
        expected = "TO for a sequential model" if sequential else "TO or RO"
        came = f"{args['order']!r}" if "order" in given else "none, which RecBole takes for RO"
        raise InputError(f"eval_args: expected the order {expected}, got {came}")
    group_by = args["group_by"]
    if group_by not in (None, "user") and str(group_by).lower() != "none":
        raise InputError(f"eval_args: expected group_by user or none, got {group_by!r}")
    _check_modes(_modes(args["mode"]), metrics, model_class)


def _check_split(split: Any) -> None:
    kind, how = next(iter(split.items())) if isinstance(split, dict) and len(split) == 1 else ("", ())
    known = kind == "LS" and how in ("valid_and_test", "valid_only", "test_only")
    if kind in ("RS", "TS") and isinstance(how, list) and len(how) == 3 and all(map(_is_share, how)):
        # For TS, RecBole divides by what the test part leaves (data/dataset/dataset.py:1777).
        known = sum(how) > 0 and (kind == "RS" or how[2] < sum(how))
    if not known:
        raise InputError(f"eval_args: expected a split such as {_SPLITS}, got {split!r}")


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _modes(given: Any) -> dict[str, str]:
    """Return the modes of validation and test as RecBole completes them (config/configurator.py:455)."""
    modes = {"valid": given, "test": given} if isinstance(given, str) else given
    known = isinstance(modes, dict) and bool(modes) and set(modes) <= {"valid", "test"}
    if not known or not all(_is_mode(mode) for mode in modes.values()):
        raise InputError(
            "eval_args: expected a mode full, uniN, popN (N sampled negatives) or labeled, or one for each of valid "
            f"and test, got {given!r}"
        )
    only = next(iter(modes.values()))
    return {part: modes.get(part, only) for part in ("valid", "test")}


def _is_mode(mode: Any) -> bool:
    return isinstance(mode, str) and re.fullmatch(r"full|labeled|(uni|pop)0*[1-9][0-9]*", mode) is not None


def _check_modes(modes: Mapping[str, str], metrics: Sequence[str], model_class: type[Any]) -> None:
    ranking = metric_types[metrics[0].lower()] == EvaluatorType.RANKING
    impossible, possible = ("labeled", "full") if ranking else ("full", "labeled")
    if impossible in modes.values():
        raise InputError(
            f"eval_args: expected a mode {possible}, uniN or popN for {', '.join(metrics)}, got {impossible}"
        )
    if modes["valid"] == "labeled" != modes["test"]:  # NegSampleEvalDataLoader would use the test's mode for both
        raise InputError(f"eval_args: expected the mode labeled for test as for valid, got {modes['test']}")
    if getattr(model_class, "type", None) == ModelType.DECISIONTREE:
        return
    predicts, ranks = (
        getattr(model_class, name, None) not in (None, getattr(AbstractRecommender, name))
        for name in ("predict", "full_sort_predict")
    )
    for mode in modes.values():
        if not predicts and not (ranks and mode == "full"):
            way = "a mode full" if ranks else "a model with predict or full_sort_predict"
            raise InputError(f"eval_args: expected {way} for {model_class.__name__}, which has no predict, got {mode}")


# --- how a run trains ------------------------------------------------------------------------------------------------


def _check_negatives(final: Mapping[str, Any], model_class: type[Any]) -> None:
    """Check the negatives of training rows, of which RecBole checks the distribution alone."""
    given = final.get("train_neg_sample_args")
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"train_neg_sample_args: expected a mapping or None, got {given!r}")
    args = {**_NEGATIVES, **given} if given is not None else {"distribution": "none"}
    if args["distribution"] == "none":
        if _compares_with_negatives(model_class, final.get("loss_type")) and _is_recboles(model_class):
            raise InputError(
                "train_neg_sample_args: expected a distribution uniform or popularity for "
                f"{model_class.__name__}, which compares with negatives, got {given!r}"
            )
        return
    if args["distribution"] not in ("uniform", "popularity"):
        raise InputError(f"train_neg_sample_args: expected a distribution uniform or popularity, got {given!r}")
    check_count("train_neg_sample_args: sample_num", args["sample_num"], 1)
    check_count("train_neg_sample_args: candidate_num", args["candidate_num"], 1 if args["dynamic"] else 0)
    if not isinstance(args["alpha"], int | float):
        raise InputError(f"train_neg_sample_args: expected a number as alpha, got {args['alpha']!r}")


def _compares_with_negatives(model_class: type[Any], loss_type: Any) -> bool:
    """Say whether a model reads negatives. The input type alone does not say: SINE and auto-encoders declare pairs."""
    if loss_type in ("CE", "NLL") or issubclass(model_class, AutoEncoderMixin):
        return False
    declared = getattr(model_class, "input_type", None)
    return declared == InputType.PAIRWISE or (declared is None and loss_type == "BPR")


def _is_recboles(model_class: type[Any]) -> bool:
    return model_class.__module__.startswith(f"{recbole.__name__}.")


def _check_optimiser(final: Mapping[str, Any], model_class: type[Any]) -> None:
    learner, clip = final["learner"], final.get("clip_grad_norm")
    if str(learner).lower() not in _LEARNERS:  # RecBole would warn and use Adam
        raise InputError(f"learner: expected one of {', '.join(_LEARNERS)}, got {learner!r}")
    if str(learner).lower() == "sparse_adam" and _is_recboles(model_class):
        raise refused_sparse_adam(model_class)
    if clip and not (
        isinstance(clip, Mapping)
        and "max_norm" in clip
        and set(clip) <= {"max_norm", "norm_type", "error_if_nonfinite", "foreach"}
        and all(isinstance(clip.get(name, 2.0), int | float) for name in ("max_norm", "norm_type"))
    ):
        raise InputError(
            f"clip_grad_norm: expected a mapping such as {{'max_norm': 5.0, 'norm_type': 2}}, got {clip!r}"
        )


def refused_sparse_adam(model_class: type[Any]) -> InputError:
    """Make the error for a model whose gradients torch's SparseAdam does not support."""
    return InputError(
        f"learner: expected another than sparse_adam for {model_class.__name__}, whose gradients are not sparse, "
        "got sparse_adam"
    )


def _check_masking(final: Mapping[str, Any], model_class: type[Any]) -> None:
    """Check that RecBole's ``mask_itemseq`` masks an item that counts in its loss: none at the first position does."""
    transform = final.get("transform")
    if model_class is BERT4Rec and transform not in ("mask_itemseq", "user_defined"):
        raise InputError(f"transform: expected mask_itemseq or user_defined for BERT4Rec, got {transform!r}")
    if transform != "mask_itemseq":
        return
    ratio, length = final.get("mask_ratio"), final["MAX_ITEM_LIST_LENGTH"]
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio <= 1:
        raise InputError(f"mask_ratio: expected a number in (0, 1], got {ratio!r}")
    if length < 2 or int(ratio * length) < 1:
        raise InputError(
            f"MAX_ITEM_LIST_LENGTH: expected 2 or more, and 1 / mask_ratio (1 / {ratio}) or more, so that an item is "
            f"masked, got {length}"
        )


# --- data ------------------------------------------------------------------------------------------------------------


def check_parts(config: Any, parts: Sequence[Any]) -> None:
    """Check options that depend on the data, once these are read and split for training, validation and test.

    Raises:
        InputError: an option with which a run could not finish training or evaluation, or rows that were saved from
            other files than those of the config.
    """
    files_read(parts[0]).check(config["data_path"])
    n_rows = [len(part.inter_feat) for part in parts]
    if n_rows[0] == 0:
        raise InputError(
            f"eval_args: expected rows in the training part, got none, {n_rows[1]} for validation, {n_rows[2]} for test"
        )
    n_items = int(parts[0].item_num)
    if any(map(_takes_k, config["metrics"])) and max(config["topk"]) > n_items:
        raise InputError(f"topk: expected at most {n_items}, the number of items and padding, got {config['topk']}")
    if config["benchmark_filename"] and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        _check_lists(config, parts)
    if config["transform"] == "mask_itemseq":
        _check_masked_rows(config, parts[0])
    _check_labels(config, parts)


def check_samplers(config: Any, samplers: Sequence[Any]) -> None:
    """Check that every row has items that can be sampled as negatives: without any RecBole would never end.

    ``samplers`` are for training, validation and test; None where no negatives are sampled.

    Raises:
        InputError: a row without such items.
    """
    for phase, sampler in zip(("train", "valid", "test"), samplers, strict=True):
        if sampler is None or config[f"{phase}_neg_sample_args"]["sample_num"] == "none":  # not used
            continue
        popular = sampler.distribution == "popularity"
        candidates = set(sampler.prob) if popular else set(range(1, sampler.item_num))
        if isinstance(sampler, RepeatableSampler):  # avoids the target (sampler/sampler.py:155)
            exhausted = len(candidates) < 2
        else:  # avoids the user's items
            exhausted = any(candidates <= used for used in sampler.used_ids)
        if exhausted:
            raise InputError(
                f"dataset: expected in {config['dataset']} an item that is a negative for every row, got rows without "
                f"one among {len(candidates)} items to sample from"
            )


def _check_masked_rows(config: Any, part: Any) -> None:
    """Check that training rows have an item to mask and, for a pairwise loss, items to compare it with."""
    rows, name = part.inter_feat, config["dataset"]
    if np.asarray(rows[config["ITEM_LIST_LENGTH_FIELD"]]).max() < 2:
        raise InputError(
            f"dataset: expected a list of two items or more among the {len(rows)} training rows of {name}, since "
            "mask_itemseq masks an item after the first, got lists of one"
        )
    n_items = int(part.item_num)
    if config["MODEL_INPUT_TYPE"] != InputType.PAIRWISE or n_items - 1 > config["MAX_ITEM_LIST_LENGTH"]:
        return
    for start in range(0, len(rows), _ROWS):
        lists = rows[start : start + _ROWS][f"{config['ITEM_ID_FIELD']}{config['LIST_SUFFIX']}"].tolist()
        if any(holds_all(items, n_items) for items in lists):
            raise InputError(
                f"loss_type: expected CE for {name}, in which a training row holds all {n_items - 1} items, so that "
                f"none is left to compare a masked one with, got {config['loss_type']}"
            )


def _check_lists(config: Any, parts: Sequence[Any]) -> None:
    column = f"{config['ITEM_ID_FIELD']}{config['LIST_SUFFIX']}"
    for name, part in zip(config["benchmark_filename"], parts, strict=True):
        empty = np.flatnonzero(np.asarray(part.inter_feat[config["ITEM_LIST_LENGTH_FIELD"]]) == 0)
        if len(empty):
            raise InputError(
                f"{config['dataset']}.{name}.inter: expected an item or more in every {column}, got an empty one in "
                f"row {empty[0] + 1}{f' and {len(empty) - 1} more' if len(empty) > 1 else ''}"
            )


def _check_labels(config: Any, parts: Sequence[Any]) -> None:
    label, modes = config["LABEL_FIELD"], config["eval_args"]["mode"]
    if label not in parts[0].inter_feat:
        reason = _need_of_labels(config)
        if reason:
            raise InputError(
                f"LABEL_FIELD: expected a column {label!r} among those that are loaded, or a threshold to make it "
                f"from, for {reason}, got {', '.join(parts[0].inter_feat)}"
            )
    elif config["valid_metric"].lower() == "auc" and modes["valid"] == "labeled" and config["eval_step"] > 0:
        labels = np.asarray(parts[1].inter_feat[label]) == 1
        if len(labels) and labels.all() == labels.any():  # AUC is NaN then, and RecBole saves no checkpoint
            raise InputError(
                "valid_metric: expected rows with the label 1 and others in the validation part, for AUC, got "
                f"{labels.sum()} of {len(labels)} with it"
            )


def _need_of_labels(config: Any) -> str:
    """Say why a run needs labels of its rows; empty if it does not."""
    if "labeled" in config["eval_args"]["mode"].values():
        return "the mode labeled of eval_args"
    if config["MODEL_TYPE"] == ModelType.CONTEXT and config["train_neg_sample_args"]["distribution"] == "none":
        return f"{config['model']}, which is trained on labels unless train_neg_sample_args samples negatives"
    return ""
