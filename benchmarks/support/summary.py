"""The targets of the benchmarks on two cores, compared with the CSV files of a folder."""

import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.masked_items import CHUNKED
from benchmarks.masked_items import STRAIGHTFORWARD as ALL_SCORES
from benchmarks.support.loss_peers import NT_XENT, OURS, PRODUCT, STRAIGHTFORWARD
from benchmarks.support.plots import read_csv

Rows = list[dict[str, str]]
NOT_MEASURED = "not measured"
_RELATIONS = {"≥": operator.ge, ">": operator.gt, "≤": operator.le, "<": operator.lt}


class _Target(NamedTuple):
    what: str
    relation: str  # ≥, >, ≤ or <
    bound: float
    measured: float | None
    unit: str = "×"


def run(output: Path) -> None:
    """Print :func:`check` and write it to ``targets.md``."""
    lines = ["| What | Asked | Measured | Holds |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(row.values()) + " |" for row in check(output)]
    (output / "targets.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"wrote {output / 'targets.md'}")


def check(output: Path) -> list[dict[str, str]]:
    """Compare the medians in ``output`` with the targets.

    Returns:
        A row per target: ``name``, ``asked``, ``measured`` and ``holds`` ("yes", "no", or "not measured" if a file or
        its rows are missing).
    """
    return [_row(target) for target in _targets(output)]


def _row(target: _Target) -> dict[str, str]:
    row = {"name": target.what, "asked": f"{target.relation} {_shown(target.bound, target.unit)}"}
    if target.measured is None:
        return {**row, "measured": "", "holds": NOT_MEASURED}
    holds = _RELATIONS[target.relation](target.measured, target.bound)
    return {**row, "measured": _shown(target.measured, target.unit), "holds": "yes" if holds else "no"}


def _shown(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "MB":
        return f"{value:,.0f} MB"
    return f"{value:.3f}".rstrip("0").rstrip(".") + unit


def _targets(output: Path) -> Iterator[_Target]:
    yield from _of_loss(_read(output, "loss"), _read(output, "loss-memory"))
    augment, step = _read(output, "augment"), _read(output, "step")
    for length in _values(augment, "L") or ["100"]:
        sizes = [size for size in _values(augment, "B") if int(size) >= 128]
        at = {"L": length, "what": "pair"}
        ratios = [_ratio(augment, "per_user", "batched", {"B": size, **at}) for size in sizes]
        known = [ratio for ratio in ratios if ratio is not None]
        what = f"augmentation of a pair of views against per-user Python, L = {length}, the least over B ≥ 128"
        yield _Target(what, ">", 1, min(known, default=None))
    for newest in (100, 256):
        row: dict[str, object] = {"candidate": "adaptssr", "B": 128, "L": newest}
        part, whole = (_value(step, {**row, "phase": phase}, "median_ms") for phase in ("augment", "full"))
        share = None if part is None or not whole else part / whole
        yield _Target(f"augmentation's share of the AdaptSSR step, B = 128, L = {newest}", "≤", 0.02, share, "%")
    for newest, times in ((100, 6), (256, 8)):
        ratio = _ratio(step, "usual_way", "adaptssr", {"B": 128, "L": newest, "phase": "full"})
        yield _Target(f"step against the usual way, L = {newest}", "≥", times, ratio)
    shape = {"M": 1400, "n": 645_972}
    memory, speed = _read(output, "masked_items-memory"), _read(output, "masked_items")
    head = "masked-item head against the straightforward form, 1,400 × 645,972"
    yield _Target(f"{head}: memory", "<", 0.25, _ratio(memory, CHUNKED, ALL_SCORES, shape, "added_mb"))
    yield _Target(f"{head}: time", "≤", 1, _ratio(speed, CHUNKED, ALL_SCORES, {**shape, "phase": "full"}))
    for newest in (100, 256):
        yield _Target(
            f"AdaptSSR step (four encodings) against the CL4SRec step (two), L = {newest}", "<", 2,
            _ratio(step, "adaptssr", "cl4srec", {"B": 128, "L": newest, "phase": "full"}),
        )  # fmt: skip


def _of_loss(times: Rows, memory: Rows) -> Iterator[_Target]:
    asked = (
        ("the straightforward form", STRAIGHTFORWARD, {128: 1.8, 512: 5, 4096: 12}),
        ("the common NT-Xent", NT_XENT, {128: 0.8, 512: 2, 4096: 4.5}),
    )
    for what, name, bounds in asked:
        for size, bound in bounds.items():
            ratio = _ratio(times, name, OURS, {"B": size, "phase": "full"})
            yield _Target(f"loss, full, against {what}, B = {size:,}", "≥", bound, ratio)
    share = _ratio(times, PRODUCT, OURS, {"B": 4096, "phase": "full"})
    yield _Target("loss: share of the bare product, B = 4,096", "≥", 0.7, share, "%")
    exponent = None
    if all(_value(memory, {"candidate": OURS, "B": size}, "added_mb") is not None for size in (4096, 65536)):
        exponent = _value(memory, {"candidate": OURS, "B": 65536}, "exponent")
    yield _Target("loss memory: exponent of B, 4,096 to 65,536", "<", 1.15, exponent, "")
    added = _value(memory, {"candidate": OURS, "B": 65536}, "added_mb")
    yield _Target("loss memory: added at B = 65,536", "<", 1500, added, "MB")


def _read(output: Path, name: str) -> Rows:
    path = output / f"{name}.csv"
    return read_csv(path) if path.exists() else []


def _values(rows: Rows, column: str) -> list[str]:
    return sorted({row[column] for row in rows}, key=int)


def _value(rows: Rows, at: Mapping[str, object], column: str) -> float | None:
    """Return the one number where all columns of ``at`` have these values; None if it was not measured."""
    found = [row[column] for row in rows if all(row.get(key) == str(value) for key, value in at.items())]
    if len(found) > 1:
        raise ValueError(f"expected one row at {dict(at)}, got {len(found)}")
    return float(found[0]) if found and found[0] else None


def _ratio(rows: Rows, over: str, under: str, at: Mapping[str, object], column: str = "median_ms") -> float | None:
    """Return the ratio of two candidates."""
    values = [_value(rows, {"candidate": name, **at}, column) for name in (over, under)]
    return None if values[0] is None or not values[1] else values[0] / values[1]
