"""Everything of this package that reads a file, each with valid files: what the tests of bad input spoil."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.corpus import open_corpus, read_interactions, read_sequence_lines
from adaptssr_plugin.corpus.formats.atomic_converter import convert_interactions
from adaptssr_plugin.corpus.formats.converters import convert_lines, convert_parquet
from adaptssr_plugin.corpus.formats.corpus_writer import CorpusWriter
from adaptssr_plugin.corpus.formats.ttl import convert_ttl
from adaptssr_plugin.corpus.known_histories import known_lines, known_parquet
from adaptssr_plugin.downstream import read_cold_rows, two_domains
from adaptssr_plugin.downstream.tasks.two_domain import convert_two_domains
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.compat.profiles import profile_labels
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.recommender.checkpoints import load_run
from adaptssr_plugin.recbole.user_model.pretrain import Source, load_pretrained
from adaptssr_plugin.training import LastTwo, load_checkpoint, save_artefact, write_checkpoint
from adaptssr_plugin.training.serving import load_user_model

INTER = (
    "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t3\nv\tb\t1\nu\tb\t1\nv\ta\t4\nw\tc\t2\nu\tc\t7.5\nw\ta\t9\n"
)
USER = "user_id:token\tage:token\nu\t1\nv\t2\nw\t1\n"
LINES = "u a b c\nv b a\nw c a b a\n"
MIXED = "u 1 12 2 13 3\nv 11 2 14 1\nw 4 15 3\n"
COLD = "user_id:token\ttarget_id:token\tinput_length:float\nu\tx\t2\nv\ty\t1\nw\tx\t3\n"
TTL = {
    "original_desen_pretrain.csv": "0,0,1,2,3\n0,4,2,1\n5,1\n",
    "original_desen_age.csv": "0,0,1,2,3,,4\n0,4,2,1,,2\n",
    "original_desen_finetune_click_nouserID.csv": "5,1,,9,8\n0,4,2,1,,8\n",
}
OPTIONS = "epochs: 3\ndim: 16\nlearning_rate: 1e-3\nloss: adaptssr\n"
RECBOLE = "epochs: 3\nMAX_ITEM_LIST_LENGTH: 7\ngpu_id: ''\nload_col:\n  inter: [user_id, item_id, timestamp]\n"
TOKENS = np.array(["[PAD]", "a", "b", "c"])
SIZES = {"n_items": 4, "dim": 4, "n_layers": 1, "n_heads": 1, "max_len": 5, "ff_dim": 4}


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: as users call it.
        make: writes valid files into a folder, and names those that are read.
        read: reads the files of that folder; what it makes goes into the folder ``out``.
        text: whether its files are text.
        heavy: takes more than some milliseconds.
    """

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    text: bool = True
    heavy: bool = False


READERS: dict[str, Reader] = {}


def _texts(files: dict[str, str]) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return [folder / name for name in files]

    return make


def _reader(name: str, make: Callable[[Path], list[Path]], read: Callable[[Path], object], **more: bool) -> None:
    READERS[name] = Reader(name, make, read, **more)


# --- text ------------------------------------------------------------------------------------------------------------

_reader("read_interactions", _texts({"x.inter": INTER}), lambda folder: read_interactions(folder / "x.inter"))
_reader("read_sequence_lines", _texts({"x.txt": LINES}), lambda folder: read_sequence_lines(folder / "x.txt"))
_reader("read_cold_rows", _texts({"x.cold": COLD}), lambda folder: read_cold_rows(folder / "x.cold"))
_reader("two_domains", _texts({"x.txt": MIXED}), lambda folder: two_domains(folder / "x.txt", 10))
_reader(
    "known_lines",
    _texts({"x.txt": LINES}),
    lambda folder: list(known_lines([folder / "x.txt"], TOKENS, show_progress=False)),
)


def _converted(folder: Path, convert: Callable[..., object], *words: object, **options: object) -> object:
    """Convert into ``out``, of which nothing but whole files may be left."""
    out = folder / "out"
    try:
        return convert(*words, out, show_progress=False, **options)
    finally:
        left = [path.name for path in out.glob("**/*") if "tmp" in path.name] if out.exists() else []
        assert not left, left


for corpus in (False, True):
    form = " --corpus" if corpus else ""
    _reader(
        f"convert lines{form}",
        _texts({"x.txt": LINES}),
        lambda folder, corpus=corpus: _converted(folder, convert_lines, [folder / "x.txt"], corpus=corpus),
    )
    _reader(
        f"convert ttl{form}",
        _texts(TTL),
        lambda folder, corpus=corpus: _converted(folder, convert_ttl, [folder / name for name in TTL], corpus=corpus),
    )
_reader(
    "convert recbole",
    _texts({"x.inter": INTER, "x.user": USER}),
    lambda folder: _converted(folder, convert_interactions, folder / "x.inter"),
)
_reader(
    "convert two-domains",
    _texts({"x.txt": MIXED}),
    lambda folder: convert_two_domains(folder / "x.txt", folder / "out", 10),
)


_reader("options in YAML", _texts({"x.yaml": OPTIONS}), lambda folder: recipe(yaml_files=[folder / "x.yaml"]))
_reader(
    "RecBole's options in YAML",
    _texts({"x.yaml": RECBOLE}),
    lambda folder: Source("ml-100k", {}, [str(folder / "x.yaml")]).config(),
    heavy=True,
)


def _read_dataset(folder: Path) -> object:
    split = {"split": {"RS": [1, 0, 0]}, "order": "TO", "group_by": "user"}
    config = Source(str(folder), {"eval_args": split, "use_gpu": False}).config()
    corpus = load_user_sequences(config).corpus
    return profile_labels(config, corpus.user_tokens, "age")


_reader("RecBole dataset", _texts({"x.inter": INTER, "x.user": USER}), _read_dataset, heavy=True)

# --- binary ----------------------------------------------------------------------------------------------------------


def _columns(folder: Path) -> list[Path]:
    table = {"user_id": ["u", "v", "w"], "item_id": [["a", "b"], ["b"], ["c", "a", "a"]], "age": [1, None, 2]}
    parquet.write_table(pa.table(table), folder / "x.parquet")
    return [folder / "x.parquet"]


for corpus in (False, True):
    _reader(
        f"convert parquet{' --corpus' if corpus else ''}",
        _columns,
        lambda folder, corpus=corpus: _converted(
            folder, convert_parquet, [folder / "x.parquet"], label_columns=["age"], corpus=corpus
        ),
        text=False,
    )
_reader(
    "known_parquet",
    _columns,
    lambda folder: list(known_parquet([folder / "x.parquet"], TOKENS, show_progress=False)),
    text=False,
)


def _corpus(folder: Path) -> list[Path]:
    (folder / "x.txt").write_text(LINES, encoding="utf-8")
    convert_lines([folder / "x.txt"], folder / "corpus", corpus=True, show_progress=False)
    (folder / "x.txt").unlink()
    return sorted((folder / "corpus").iterdir())


def _broken_off(folder: Path) -> list[Path]:
    """Leave the parts of a conversion that was killed before its end."""
    (folder / "x.txt").write_text(LINES, encoding="utf-8")
    before = CorpusWriter._put_in_place

    def killed(writer: CorpusWriter) -> None:
        writer._end_part()
        raise KeyboardInterrupt

    CorpusWriter._put_in_place = killed
    try:
        convert_lines([folder / "x.txt"], folder / "out", corpus=True, show_progress=False)
    except KeyboardInterrupt:
        return sorted((folder / "out" / ".parts" / "000000").iterdir())
    finally:
        CorpusWriter._put_in_place = before
    raise AssertionError("it came to its end")


def _go_on(folder: Path) -> object:
    convert_lines([folder / "x.txt"], folder / "out", corpus=True, show_progress=False)
    return open_corpus(folder / "out")


_reader("convert lines --corpus, broken off", _broken_off, _go_on, text=False)


def _open(folder: Path) -> object:
    corpus = open_corpus(folder / "corpus")
    return corpus.user_tokens, corpus.item_tokens, [corpus.history(row) for row in range(len(corpus))]


_reader("open_corpus", _corpus, _open, text=False)


def _checkpoint(folder: Path) -> list[Path]:
    state = {
        "state_dict": {"w": torch.arange(6.0)},
        "epoch": 2,
        "config": {"model": "SASRec", "dataset": "small"},
        "stage": "mlm",
    }
    write_checkpoint(folder / "last.pt", state)
    return [folder / "last.pt"]


_reader("load_checkpoint", _checkpoint, lambda folder: load_checkpoint(folder / "last.pt"), text=False)
_reader("LastTwo.load", _checkpoint, lambda folder: LastTwo(folder).load("cpu", lambda _: None), text=False)
_reader("load_run", _checkpoint, lambda folder: load_run(folder / "last.pt"), text=False)


def _artefact(folder: Path) -> list[Path]:
    encoder = UserEncoder(**SIZES)
    stages = [{"name": "mlm", "selected_epoch": 1, "history": [{"valid_accuracy": 0.5}]}]
    return save_artefact(folder / "model", encoder, SIZES, {"dataset": "ml-100k", "stages": stages}, TOKENS)[:3]


_reader("load_user_model", _artefact, lambda folder: load_user_model(folder / "model"), text=False)
_reader("load_pretrained", _artefact, lambda folder: load_pretrained(folder / "model"), text=False)
