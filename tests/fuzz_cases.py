"""Bad input, as a table: what is tried, and what came back; ``python tests/fuzz_cases.py`` writes the page of it."""
# ruff: noqa: E501 - tables

import contextlib
import io
import os
import pickle
import shlex
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fuzz_callables import CALLEES, sequences
from fuzz_readers import COLD, INTER, LINES, READERS, USER

from adaptssr_plugin.cli.main import main
from adaptssr_plugin.errors import InputError

PAGE = Path(__file__).parents[1] / "adaptssr_plugin" / "docs" / "bad_input.md"


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        group: the reader, call or command.
        tried: in words.
        call: does it, in an empty working directory.
        limit: it is a known limit, and no InputError: why.
    """

    group: str
    tried: str
    call: Callable[[], object]
    limit: str = ""


@contextlib.contextmanager
def working_directory(path: Path) -> Iterator[None]:
    """Work in a folder for a while."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def came_back(case: Case) -> str:
    """Say what a case comes to: ``InputError: …``, another exception by its name alone, or ``accepted``."""
    with tempfile.TemporaryDirectory() as folder, working_directory(Path(folder)):
        try:
            case.call()
        except InputError as error:
            said = str(error).replace(str(Path(folder).resolve()), "").replace("/./", "")
            return f"{type(error).__name__}: {_shortened(said)}"
        except Exception as error:
            return type(error).__name__
        return "accepted"


def _shortened(said: str) -> str:
    """Leave out what depends on versions of other packages, and the middle of what is long."""
    for beginning in ("got something else", "after row 0", "cannot be unpacked", "expected one that torch has here, got 'foo'",
                      "expected one that torch has here, got 'meta'", "cannot read x.yaml"):  # fmt: skip
        place = said.find(beginning)
        if place >= 0:
            said = said[: place + len(beginning)] + " …"
    for beginning in ("cannot read the files in model:", "do not fit:"):
        place = said.find(beginning)
        if place >= 0:
            said = said[: place + len(beginning)] + " …"
    return said if len(said) <= 230 else f"{said[:150]} … {said[-60:]}"


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


_SHOWN = {
    "read_interactions": ("a picture", "an empty file", "UTF-16", "a folder in its place", "a line of 2 MB"),
    "read_sequence_lines": ("a picture", "an empty file", "Latin-1"),
    "read_cold_rows": ("a picture", "no file"),
    "convert lines": ("a picture", "an empty file", "a folder in its place", "no file"),
    "convert ttl": ("a picture", "NUL bytes"),
    "convert tafeng, wheel": ("a picture", "a zip of 64 MiB of zeros"),
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
    ("read_interactions", "a time that is none", INTER + "u\ta\tyesterday\n"),
    ("read_interactions", "NaN as a time", INTER + "u\ta\tnan\n"),
    ("read_interactions", "an item called [PAD]", INTER + "u\t[PAD]\t3\n"),
    ("read_interactions", "an escape sequence in a header", "\x1b[2Juser\titem\n"),
    ("read_sequence_lines", "a user without items", LINES + "x\n"),
    ("read_sequence_lines", "a user twice", LINES + "u a\n"),
    ("convert lines", "a name that RecBole would lose", "u a NA\n"),
    ("convert lines", "a NUL in a name", "u a\0b\n"),
    ("convert ttl", "letters among the items", "0,1,x\n"),
    ("convert ttl", "a negative item", "0,1,-2\n"),
    ("convert ttl", "a number of 40 digits", f"0,1,{'9' * 40}\n"),
    ("convert ttl", "nothing but padding", "0,0,0\n"),
    ("convert tafeng, csv", "a missing column", "A,B\n1,2\n"),
    ("convert tafeng, csv", "a header alone", "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_ID\n"),
    ("convert two-domains", "items that are no integers", "u 1 a 12\n"),
    ("convert two-domains", "an item of 40 digits", f"u 1 {'9' * 40}\n"),
    ("read_cold_rows", "a length of 40 digits", COLD + f"u\tx\t{'9' * 40}\n"),
    ("read_cold_rows", "a negative length", COLD + "u\tx\t-1\n"),
    ("read_cold_rows", "a missing column", "user_id:token\nu\n"),
    ("options in YAML", "an unknown option", "epoch: 3\n"),
    ("options in YAML", "NaN", "learning_rate: .nan\n"),
    ("options in YAML", "a list", "- 1\n"),
    ("RecBole dataset", "a time that is none", INTER + "u\ta\tyesterday\n"),
    ("RecBole dataset", "a missing column", "user_id:token\titem_id:token\nu\ta\n"),
]  # fmt: skip


def file_cases() -> list[Case]:
    """List what is tried with files, and shown."""
    cases = [
        Case(reader, f"{what}{_where(reader)}", lambda reader=reader, what=what: _read_spoilt(reader, 0, what))
        for reader, whats in _SHOWN.items()
        for what in whats
    ]
    cases += [
        Case(reader, tried, lambda reader=reader, text=text: _read_text(reader, 0, text))
        for reader, tried, text in _TEXTS
    ]
    return sorted(cases, key=lambda case: list(READERS).index(case.group))


def _where(reader: str) -> str:
    return {"open_corpus": " (corpus.json)", "load_user_model": " (model.safetensors)"}.get(reader, "")


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
_VALUES = "values are not looked at, for the sake of GPUs: readers and BehaviourCorpus do"
_LIMITS = {
    ("UserEncoder()(…)", "item_seq", "ids out of range"): ({"item_seq": sequences()["item_seq"] + 9}, _VALUES),
    ("UserEncoder()(…)", "item_seq_len", "lengths out of range"): ({"item_seq_len": _T([9, 9, 9])}, _VALUES),
    ("ItemCrop()(…)", "item_seq_len", "lengths out of range"): ({"item_seq_len": _T([9, 9, 9])}, _VALUES),
    ("GRUEncoder()(…)", "item_seq", "negative ids"): ({"item_seq": -sequences()["item_seq"]}, _VALUES),
    ("functional.own_similarities", "units", "text"): ({"units": "x"}, "functional is the maths alone: torch's own exceptions; the losses check"),
    ("AttentionPooling()(…)", "hidden", "another width"): ({"hidden": torch.ones(2, 4, 9)}, "a part of an encoder, which checks before"),
    ("read_interactions", "path", "a number"): ({"path": 3.5}, "Python's own TypeError for what is no path"),
    ("BehaviourCorpus.from_lists", "histories", "a number"): ({"histories": 5}, "Python's own TypeError for what is no list"),
}  # fmt: skip


def _shown(value: object) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() <= 4 and value.device.type == "cpu":
            return f"tensor({value.tolist()})"
        device = ", meta" if value.is_meta else ""
        nan = ", NaN" if value.is_floating_point() and not value.is_meta and value.isnan().any() else ""
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}{device}{nan}"
    return f"array({value.tolist()}, {value.dtype})" if isinstance(value, np.ndarray) else repr(value)


def call_with(callee: str, **wrong: object) -> object:
    """Make a call with some of its arguments replaced."""
    return CALLEES[callee].call(**{**CALLEES[callee].arguments(), **wrong})


def call_cases() -> list[Case]:
    """List what is tried with calls, and shown."""
    cases = [
        Case(callee, f"{name} = {_shown(value)}", lambda callee=callee, name=name, value=value: call_with(callee, **{name: value}))
        for callee, arguments in _WRONG.items()
        for name, values in arguments.items()
        for value in values
    ]  # fmt: skip
    cases += [
        Case(callee, f"{name}: {tried}", lambda callee=callee, wrong=wrong: call_with(callee, **wrong), limit)
        for (callee, name, tried), (wrong, limit) in _LIMITS.items()
    ]
    return sorted(cases, key=lambda case: list(CALLEES).index(case.group))


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
convert tafeng lines.txt --output o --quiet
convert parquet picture.parquet --output o --quiet
convert recbole small --output o --quiet
convert recbole small --corpus --output o --time-column x --quiet
convert two-domains lines.txt --boundary 3 --output o
describe nowhere
describe half
describe small --users -1
describe small --users 2 --rho 3
describe small --users 2 --model small
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
quickstart --seeds 1
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


def command_came_back(line: str) -> str:
    """Say what a command wrote, in a place of its own."""
    with tempfile.TemporaryDirectory() as folder, working_directory(Path(folder)):
        make_place()
        status, said = run_command(shlex.split(line))
        assert status == 2, (line, status, said)
        assert said.count("\n") == 1, (line, said)
        assert not Path(MARK).exists(), line
        return _shortened(said.strip().replace(str(Path(folder).resolve()) + "/", ""))


# --- the page --------------------------------------------------------------------------------------------------------

_HEAD = """# Bad input

What was tried with every reader, call and command, and what came back, line for line. Written by
`python tests/fuzz_cases.py`; `tests/test_fuzz_commands.py` holds it against what comes back now. Beside these, valid files
are damaged at random, up to two hundred times for every reader, and every argument of every public call is replaced by
some dozens of wrong values (`tests/test_fuzz_files.py`, `tests/test_fuzz_calls.py`).

Nothing but these comes back: an `InputError`, whose message is one line; Python's `TypeError` where an argument is no
path, list or number at all; and from a command, exit status 2 with one line on standard error. Nothing executes
anything from a file: pickles, YAML tags and arrays of objects that would make a folder are put in the place of every
file. Control characters in a message are written out, and of long messages the middle is left out. "…" stands for the words
of another package, or for that middle. The limits that are known are at the end.
"""


def page() -> str:
    """Write the page."""
    parts = [_HEAD.strip()]
    for title, cases in (("Files", file_cases()), ("Calls", call_cases())):
        parts.append(f"## {title}")
        shown = [case for case in cases if not case.limit]
        for group in dict.fromkeys(case.group for case in shown):
            rows = [
                f"| {_code(case.tried)} | {_code(_without_name(came_back(case)))} |"
                for case in shown
                if case.group == group
            ]
            parts.append(f"### {group}\n\n| Tried | Came back |\n| --- | --- |\n" + "\n".join(rows))
    rows = [f"| {_code(line)} | {_code(command_came_back(line))} |" for line in command_lines()]
    parts.append(
        "## Commands\n\nIn a folder with a dataset `small`, one that lacks columns, `half`, a model, and files that are not what their "
        "names say.\n\n| Tried | Came back |\n| --- | --- |\n" + "\n".join(rows)
    )
    limits = [case for case in call_cases() if case.limit]
    rows = [f"| `{case.group}`, {case.tried} | {came_back(case)} | {case.limit} |" for case in limits]
    parts.append(
        "## Known limits\n\n| Tried | Came back | Why |\n| --- | --- | --- |\n"
        + "\n".join(rows)
        + "\n\n"
        + _ALSO.strip()
    )
    return "\n\n".join(parts) + "\n"


_ALSO = """
* On a GPU, ids out of range end in a device-side assertion in place of the IndexError.
* Counts are believed: an encoder of a billion layers is begun.
* A line of a text file, and a user of a Parquet file, have to fit into memory.
* Before its training, RecBole writes a log to standard error; the line of `adaptssr run` comes last then.
* A file that is a pipe without a writer is waited for, as by any program.
* Weights are not summed: a model.safetensors with other numbers in it is another model.
"""


def _without_name(said: str) -> str:
    return said.removeprefix("InputError: ")


def _code(text: str) -> str:
    """Write as code in a table."""
    text = text.replace("|", "\\|")
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    PAGE.write_text(page(), encoding="utf-8")
