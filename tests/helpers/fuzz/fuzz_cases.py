"""Bad input, as a table: what is tried with files, calls and commands."""
# ruff: noqa: E501 - tables

import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fuzz_callables import CALLEES, sequences
from fuzz_readers import COLD, INTER, LINES, READERS, USER

from adaptssr_plugin.cli.main import main
from adaptssr_plugin.errors import InputError


@dataclass(frozen=True)
class Case:
    """Something that is tried.

    Attributes:
        group: the reader or call.
        tried: in words.
        call: does it, in an empty working directory.
        raises: what is raised; None: it is accepted.
    """

    group: str
    tried: str
    call: Callable[[], object]
    raises: type[Exception] | None = InputError


# --- what files may hold ---------------------------------------------------------------------------------------------

MARK = "executed"  # a folder that only code from a file would make


class Planted:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (MARK,)


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _zip_of_zeros(file: io.BytesIO) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.csv", bytes(64 << 20))


FOREIGN: dict[str, bytes] = {
    "an empty file": b"",
    "an empty line": b"\n",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(40),
    "NUL bytes": bytes(100),
    "a byte-order mark alone": b"\xef\xbb\xbf",
    "UTF-16": "u a b\n".encode("utf-16"),
    "Latin-1": b"u \xe9\n",
    "a pickle that makes a folder": pickle.dumps(Planted()),
    "a .npy of pickled objects": _saved(lambda file: np.save(file, np.array([Planted()]), allow_pickle=True)),
    "torch.save of such a pickle": _saved(lambda file: torch.save({"state_dict": Planted()}, file)),
    "torch.save of such a pickle, the old form": _saved(
        lambda file: torch.save({"state_dict": Planted()}, file, _use_new_zipfile_serialization=False)
    ),
    "YAML with a Python tag": f'epochs: !!python/object/apply:os.mkdir ["{MARK}"]\n'.encode(),
    "a zip of 64 MiB of zeros": _saved(_zip_of_zeros),
    "100,000 brackets": b"[" * 100_000,
    "5,000 digits": b"1" * 5000,
    "JSON of another kind": b'{"a": 1}',
    "a line of 2 MB": b"x" * 2_000_000,
}
PLACES = ("a folder in its place", "no file", "a link to itself")


def spoil(path: Path, what: str) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    if what in FOREIGN:
        path.write_bytes(FOREIGN[what])
    elif what == "a folder in its place":
        path.mkdir()
    elif what == "a link to itself":
        path.symlink_to(path.name)


def _read_spoilt(reader: str, number: int, what: str) -> object:
    files = READERS[reader].make(Path())
    spoil(files[number], what)
    return READERS[reader].read(Path())


def _read_text(reader: str, number: int, text: str) -> object:
    files = READERS[reader].make(Path())
    files[number].write_text(text, encoding="utf-8", newline="")
    return READERS[reader].read(Path())


_SPOILT = {
    "read_interactions": ("a picture", "an empty file", "UTF-16", "a folder in its place", "a line of 2 MB"),
    "read_sequence_lines": ("a picture", "an empty file", "Latin-1"),
    "read_cold_rows": ("a picture", "no file"),
    "convert lines": ("a picture", "an empty file", "a folder in its place", "no file"),
    "convert ttl": ("a picture", "NUL bytes"),
    "convert parquet": ("a picture", "an empty file", "a pickle that makes a folder"),
    "convert recbole": ("a picture", "a byte-order mark alone"),
    "convert lines --corpus, broken off": ("a .npy of pickled objects",),
    "open_corpus": ("a .npy of pickled objects", "100,000 brackets", "no file"),
    "load_checkpoint": (
        "a picture",
        "a pickle that makes a folder",
        "torch.save of such a pickle",
        "a zip of 64 MiB of zeros",
        "no file",
    ),
    "load_run": ("torch.save of such a pickle, the old form",),
    "load_user_model": ("a picture", "no file", "a pickle that makes a folder"),
    "options in YAML": ("a picture", "YAML with a Python tag", "100,000 brackets", "5,000 digits", "a line of 2 MB"),
    "RecBole's options in YAML": ("YAML with a Python tag", "JSON of another kind"),
    "RecBole dataset": ("a picture", "an empty file"),
}
_TEXTS = [
    ("read_interactions", "a byte-order mark, CRLF, an empty line at the end", "\ufeff" + INTER.replace("\n", "\r\n") + "\r\n"),
    ("read_interactions", "unicode names", INTER.replace("u\t", "ü漢\t")),
    ("read_interactions", "rows in no order, one of them twice", INTER + "u\ta\t3\n"),
    ("read_interactions", "columns in another order, one more than needed", "x:float\ttimestamp:float\titem_id:token\tuser_id:token\n1\t2\ta\tu\n"),
    ("read_interactions", "a missing column", "user_id:token\titem_id:token\nu\ta\n"),
    ("read_interactions", "a row with a value too few", INTER + "u\ta\n"),
    ("read_interactions", "a time that is no number", INTER + "u\ta\tyesterday\n"),
    ("read_interactions", "NaN as a time", INTER + "u\ta\tnan\n"),
    ("read_interactions", "an item called [PAD]", INTER + "u\t[PAD]\t3\n"),
    ("read_interactions", "an escape sequence in a header", "\x1b[2Juser\titem\n"),
    ("read_sequence_lines", "a user without items", LINES + "x\n"),
    ("read_sequence_lines", "a user twice", LINES + "u a\n"),
    ("convert lines", "the padding as a name", "u a [PAD]\n"),
    ("convert lines", "a NUL in a name", "u a\0b\n"),
    ("convert ttl", "letters among the items", "0,1,x\n"),
    ("convert ttl", "a negative item", "0,1,-2\n"),
    ("convert ttl", "a number of 40 digits", f"0,1,{'9' * 40}\n"),
    ("convert ttl", "nothing but padding", "0,0,0\n"),
    ("convert two-domains", "items that are no integers", "u 1 a 12\n"),
    ("convert two-domains", "an item of 40 digits", f"u 1 {'9' * 40}\n"),
    ("read_cold_rows", "a length of 40 digits", COLD + f"u\tx\t{'9' * 40}\n"),
    ("read_cold_rows", "a negative length", COLD + "u\tx\t-1\n"),
    ("read_cold_rows", "a missing column", "user_id:token\nu\n"),
    ("options in YAML", "an unknown option", "epoch: 3\n"),
    ("options in YAML", "NaN", "learning_rate: .nan\n"),
    ("options in YAML", "a list", "- 1\n"),
    ("RecBole dataset", "a time that is no number", INTER + "u\ta\tyesterday\n"),
    ("RecBole dataset", "a missing column", "user_id:token\titem_id:token\nu\ta\n"),
]  # fmt: skip


_ACCEPTED = {
    "a byte-order mark, CRLF, an empty line at the end",
    "unicode names",
    "rows in no order, one of them twice",
    "columns in another order, one more than needed",
    "JSON of another kind",  # which is YAML, for RecBole's options
}


def file_cases() -> list[Case]:
    """List what is tried with files."""
    spoilt = [
        (reader, what, lambda reader=reader, what=what: _read_spoilt(reader, 0, what))
        for reader, whats in _SPOILT.items()
        for what in whats
    ]
    written = [
        (reader, tried, lambda reader=reader, text=text: _read_text(reader, 0, text)) for reader, tried, text in _TEXTS
    ]
    return [
        Case(reader, tried, call, None if tried in _ACCEPTED else InputError)
        for reader, tried, call in [*spoilt, *written]
    ]


# --- calls -----------------------------------------------------------------------------------------------------------


class Thing:
    """Something of no use."""

    def __repr__(self) -> str:
        return "Thing()"


_T, _nan = torch.tensor, float("nan")
_WRONG: dict[str, dict[str, list[object]]] = {
    "AdaptSSRLoss": {"fusion": [1.5, "x"], "negatives": ["random"], "scale": [0, _nan, float("inf")], "reduction": ["max"], "gather": [1], "chunk_size": [0, 2.5]},
    "AdaptSSRLoss()(…)": {"u1": [None, torch.ones(4), torch.ones(4, 3, dtype=torch.int64)], "u1_pos": [torch.ones(4, 2)], "u2": [torch.ones(4, 3, dtype=torch.float64), torch.ones(4, 3, device="meta")], "user_ids": [_T([1, 2]), torch.ones(4)]},
    "InfoNCELoss": {"temperature": [0, -1, "x"], "similarity": ["euclid"]},
    "AugmentationAdaptiveFusion": {"granularity": ["user"], "terms": [3]},
    "functional.linear_cross_entropy": {"targets": [_T([1, 5, 6]), _T([-1, 0, 0]), torch.ones(3)], "weight": [torch.ones(6, 5)]},
    "ItemMask": {"ratio": [0, 1.5, _nan, "x"], "mask_id": [0, -1, 10**30, None]},
    "ItemCrop()(…)": {"item_seq": [[[1, 2]], torch.ones(3, 0, dtype=torch.int64), torch.ones(3, 4)], "item_seq_len": [_T([1, 2]), _T([1.0, 2, 3]), torch.ones(3, dtype=torch.int64, device="meta")], "generator": [7]},
    "ItemSubstitute": {"neighbours": [_T([1, 2]), None, _T([[0], [9]])]},
    "RandomPair": {"operators": [[], [Thing()], None], "distinct": ["yes"]},
    "Compose": {"operators": [[int]]},
    "MaskAndFill": {"filler": [None], "top_k": [0], "temperature": [_nan], "fill": ["beam"]},
    "UserEncoder": {"n_items": [0, -1, 2.5], "dim": [3], "dropout": [1, _nan], "max_len": [None]},
    "UserEncoder()(…)": {"item_seq": [torch.ones(3, 5, dtype=torch.int64), torch.ones(3, 4), torch.ones(0, dtype=torch.int64)], "item_seq_len": [_T([1]), None]},
    "GRUEncoder()(…)": {"item_seq": [torch.ones(3, 4), None, torch.ones(3, 9, dtype=torch.int64)], "item_seq_len": [torch.ones(3, dtype=torch.int64, device="meta")]},
    "make_encoder": {"kind": ["lstm", None]},
    "MLPHead()(…)": {"user": [torch.ones(4, 5), torch.ones(4, 3, dtype=torch.int64)]},
    "BehaviourCorpus": {"items": [np.array([1, 3, 1]), np.array([0, 1, 1]), np.array([-1, 1, 1]), [1, 2, 1], np.array([1.0, 2, 1])], "offsets": [np.array([0, 3, 3]), np.array([0, 2, 9])], "item_tokens": [np.array(["a", "b", "c"])]},
    "BehaviourCorpus.from_lists": {"histories": [[[1], []], [[1.5]], [["a"]]]},
    "BehaviourCorpus.padded": {"rows": [np.array([12]), np.array([-1]), np.array([0.5]), np.array([], dtype=np.int64)], "max_len": [0, 2.5]},
    "BehaviourCorpus.history": {"row": [12, "x"]},
    "BatchLoader": {"corpus": [None, [[1, 2]]], "shuffle": ["no"], "batch_size": [0, "x"], "max_len": [0], "rows": [np.array([99])]},
    "recipe": {"method": ["simclr", None], "preset": ["fast"], "options": [{"epochs": -1}, {"mask_ratio": 2}, {"lr": 1}, 5]},
    "ProfileTask": {"labels": [np.arange(10), np.ones(10), np.arange(9) % 2], "kind": ["ordinal"], "rows": [np.zeros(10, dtype=np.int64)]},
    "split_rows": {"n_rows": [2, -5, "x"], "ratios": [(0.5, 0.5), (1, 1, 1)]},
    "accuracy": {"scores": [torch.full((4, 3), _nan), torch.ones(4), torch.ones(4, 3, device="meta")], "labels": [_T([0, 1, 2, 3]), torch.ones(4)]},
    "auc": {"labels": [_T([1, 1, 1, 1])]},
    "target_ranks": {"targets": [_T([1]), torch.ones(2)], "ties": ["worst"]},
    "welch": {"a": [[0.1], [0.1, _nan], "x", ["a", "b"]]},
    "relative_improvement": {"mean": ["x"]},
    "load_checkpoint": {"path": ["nowhere.pt"]},
    "transfer": {"source": [{}]},
}  # fmt: skip
_LIMITS = {
    # Values are not looked at, for the sake of GPUs: readers and BehaviourCorpus do.
    ("UserEncoder()(…)", "item_seq", "ids out of range"): (sequences()["item_seq"] + 9, IndexError),
    ("UserEncoder()(…)", "item_seq_len", "lengths out of range"): (_T([9, 9, 9]), RuntimeError),
    ("GRUEncoder()(…)", "item_seq", "negative ids"): (-sequences()["item_seq"], IndexError),
    # functional is the maths alone, and a part of an encoder is behind the encoder's checks.
    ("functional.intra_user_similarities", "units", "text"): ("x", AttributeError),
    ("AttentionPooling()(…)", "hidden", "another width"): (torch.ones(2, 4, 9), RuntimeError),
    # What is no path, and what is no list.
    ("read_interactions", "path", "a number"): (3.5, TypeError),
    ("BehaviourCorpus.from_lists", "histories", "a number"): (5, TypeError),
}


def call_with(callee: str, **wrong: object) -> object:
    """Make a call with some of its arguments replaced."""
    return CALLEES[callee].call(**{**CALLEES[callee].arguments(), **wrong})


def call_cases() -> list[Case]:
    """List what is tried with calls."""
    cases = [
        Case(callee, f"{name} {number}", lambda callee=callee, name=name, value=value: call_with(callee, **{name: value}))
        for callee, arguments in _WRONG.items()
        for name, values in arguments.items()
        for number, value in enumerate(values, start=1)
    ]  # fmt: skip
    cases += [
        Case(callee, f"{name}: {tried}", lambda callee=callee, name=name, value=value: call_with(callee, **{name: value}), error)
        for (callee, name, tried), (value, error) in _LIMITS.items()
    ]  # fmt: skip
    return cases


# --- commands --------------------------------------------------------------------------------------------------------

_COMMANDS = """
frobnicate
pretrain --output o
pretrain --dataset nowhere --output o
pretrain --dataset empty --output o
pretrain --dataset half --output o
pretrain --dataset small --output empty
pretrain --dataset small --output o --method simclr
pretrain --dataset small --output o --mask-ratio 1.5
pretrain --dataset small --output o --mask-ratio nan
pretrain --dataset small --output o --epochs 1e3
pretrain --dataset small --output o --seed -3
pretrain --dataset small --output o --config tag.yaml
pretrain --dataset small --output o --config list.yaml
pretrain --dataset small --output o --recbole-config tag.yaml
pretrain --dataset small --output o --set x
pretrain --dataset small --output o --set USER_ID_FIELD=uid
pretrain --dataset small --output o --set "USER_ID_FIELD=__import__('os').mkdir('executed')"
pretrain --dataset small --output o --set eval_args=3
pretrain --dataset small --output o --set encoding=foo
pretrain --dataset small --output o --checkpoint-minutes nan
pretrain --dataset small --output o --warm-start nowhere
finetune nowhere --task age
finetune empty --task age
finetune model --task age --bins x
finetune model --task age --seeds 0
finetune model --task cold:bad.cold
run SASRec
run SASRec nowhere
run SASREC small
run SASRec small --epochs
run SASRec small --ssl_loss=foo
run SASRec small --ssl_weight=nan
run SASRec small --config_files=tag.yaml
run SASRec small --USER_ID_FIELD=x
run SASRec small --pretrained=nowhere
run SASRec small --nproc=two
run SASRec half
convert csv lines.txt --output o
convert lines nowhere --output o --quiet
convert lines small --output o --quiet
convert lines picture.txt --output o --quiet
convert lines lines.txt --output empty --quiet
convert lines lines.txt --output o --name a/b --quiet
convert ttl lines.txt --output o --quiet
convert parquet picture.parquet --output o --quiet
convert recbole small --output o --quiet
convert recbole small --corpus --output o --time-column x --quiet
convert two-domains lines.txt --boundary 3 --output o
describe nowhere
describe half
describe small --users -1
describe small --users 2 --rho 3
describe small --users 2 --model small
reidentify nowhere
reidentify model
embed nowhere --output o.parquet
embed model --output o.parquet --input nowhere --quiet
embed model --output o.parquet --input picture.parquet --quiet
embed model --output o.parquet --input picture.txt --quiet
embed model --output o.parquet --input empty --quiet
embed model --output small --input lines.txt --quiet
embed model --output o.parquet --input lines.txt --items o.parquet
embed model --output o.parquet --input lines.txt --device foo --quiet
embed model --output o.parquet --input lines.txt --device meta --quiet
embed model --output o.parquet --input lines.txt --whole
export nowhere --output e.pt2
export model --output e.txt
export model --output e.pt2 --device meta
compare nowhere
compare-losses nowhere
compare-losses --models SASRec
reidentify nowhere
reidentify model
quickstart --splits 1
quickstart --mask-ratio 2
"""


def make_place() -> None:
    """Put into the working directory what the commands are given."""
    READERS["load_user_model"].make(Path())
    for name, files in {"small": {".inter": INTER, ".user": USER}, "half": {".inter": "user_id:token\n"}}.items():
        Path(name).mkdir()
        for ending, text in files.items():
            Path(name, name + ending).write_text(text, encoding="utf-8")
    Path("lines.txt").write_text(LINES, encoding="utf-8")
    Path("bad.cold").write_text("a\tb\n1\t2\n", encoding="utf-8")
    Path("empty").touch()
    Path("list.yaml").write_text("- 1\n", encoding="utf-8")
    Path("tag.yaml").write_bytes(FOREIGN["YAML with a Python tag"])
    for name in ("picture.txt", "picture.parquet"):
        Path(name).write_bytes(FOREIGN["a picture"])


def run_command(words: list[str]) -> tuple[int | str | None, str]:
    """Run a command in the working directory; gives its exit status and what it wrote to standard error."""
    written = io.StringIO()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as leaving:
            return leaving.code, written.getvalue()
    return 0, written.getvalue()


def command_lines() -> list[str]:
    """List the commands that are tried."""
    return _COMMANDS.strip().splitlines()
