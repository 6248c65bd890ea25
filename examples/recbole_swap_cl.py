"""Another loss for CL4SRec: SASRec alone, CL4SRec with its InfoNCE, and the same views with AdaptSSR's ranking.

python examples/recbole_swap_cl.py                          ml-100k, which ships in RecBole's wheel
python examples/recbole_swap_cl.py --sequences beauty.txt   one line per user: the user, then the items, oldest first
python examples/recbole_swap_cl.py --users 300 --epochs 5   a short version that takes minutes

Every row is trained from the same seeds and stops early by NDCG@10 on each user's last item but one; the last item is
the test. Everything that RecBole writes goes to a temporary folder. Nine runs take long without a GPU.
"""

import argparse
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import recbole

from adaptssr_plugin.corpus import BehaviourCorpus, read_interactions, read_sequence_lines
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.recbole import run_recbole

# A name for the row, the model, and its options. faster_layers, which ssl_loss switches on, is on in every row.
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("SASRec", "SASRec", {"ssl_loss": "none", "faster_layers": True}),
    ("CL4SRec, InfoNCE", "CL4SRec", {"ssl_loss": "infonce"}),
    ("CL4SRec, AdaptSSR", "CL4SRec", {"ssl_loss": "adaptssr"}),
]
COLUMNS = [(split, metric) for split in ("valid", "test") for metric in ("ndcg@10", "recall@10")]
RESULT_NAMES = {"valid": "best_valid_result", "test": "test_result"}


def read(path: Path | None, users: int | None) -> BehaviourCorpus:
    """Read the behaviour of all users, or of the first ones; without a path, ml-100k."""
    if path is None:
        corpus = read_interactions(Path(recbole.__file__).parent / "dataset_example" / "ml-100k" / "ml-100k.inter")
    else:
        corpus = read_sequence_lines(path)
    return corpus if users is None else corpus.select(np.arange(min(users, len(corpus))))


def write_atomic_files(corpus: BehaviourCorpus, folder: Path) -> None:
    """Write RecBole's .inter file; the time of a behaviour is its position."""
    folder.mkdir(parents=True)
    with (folder / f"{folder.name}.inter").open("w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for row, user in enumerate(corpus.user_tokens):
            items = corpus.item_tokens[corpus.history(row)]
            file.writelines(f"{user}\t{item}\t{position}\n" for position, item in enumerate(items))


class EpochTimes(logging.Handler):
    """Collects from RecBole's log how long its epochs train; while it is there, RecBole prints no log."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at one message."""
        found = re.search(r"epoch \d+ training.*?time\S*: ([\d.]+)s", str(record.msg))
        if found:
            self.seconds.append(float(found[1]))


@contextmanager
def log_read_by(handler: EpochTimes) -> Iterator[None]:
    """Let a handler, and nobody else, read the root logger."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def train(model: str, options: dict[str, Any]) -> dict[Any, float]:
    """Train once: each measure, and the seconds of an epoch."""
    times = EpochTimes()
    with log_read_by(times):
        result = run_recbole(model, "sequences", config_dict=options)
    measured: dict[Any, float] = {
        (split, metric): float(result[RESULT_NAMES[split]][metric]) for split, metric in COLUMNS
    }
    return measured | {"seconds": mean(times.seconds)}


def spread(values: list[float]) -> float:
    """Give the standard deviation over seeds; 0 for a single one."""
    return stdev(values) if len(values) > 1 else 0.0


def table(runs: dict[str, list[dict[Any, float]]]) -> str:
    """Write mean ± standard deviation over the seeds of each row."""
    titles = [f"{split} {'NDCG' if 'ndcg' in metric else 'Recall'}@10" for split, metric in COLUMNS]
    lines = [f"{'':<20}" + "".join(f"{title:>18}" for title in [*titles, "s per epoch"])]
    for name, measured in runs.items():
        line = f"{name:<20}"
        for column in COLUMNS:
            values = [one[column] for one in measured]
            line += f"{f'{mean(values):.4f}±{spread(values):.4f}':>18}"
        lines.append(line + f"{mean(one['seconds'] for one in measured):>18.2f}")
    return "\n".join(lines)


def conclusion(runs: dict[str, list[dict[Any, float]]]) -> str:
    """Say in one sentence who is ahead on the test items, and whether by more than the spread over seeds."""
    column = ("test", "ndcg@10")
    values = {name: [one[column] for one in measured] for name, measured in runs.items()}
    first, second, *_ = sorted(values, key=lambda name: -mean(values[name]))
    ahead, noise = mean(values[first]) - mean(values[second]), max(spread(values[first]), spread(values[second]))
    start = f"{first} is ahead of {second} by {ahead:.4f} test NDCG@10"
    if len(values[first]) < 2:
        return f"{start}, on one seed, which says nothing of the spread."
    return f"{start}, {'more' if ahead > noise else 'no more'} than the spread over seeds ({noise:.4f})."


def compare(corpus: BehaviourCorpus, args: argparse.Namespace) -> None:
    """Train every row with every seed in a temporary folder, and print the table."""
    options = {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "epochs": args.epochs,
        "stopping_step": 5,
        "MAX_ITEM_LIST_LENGTH": args.max_len,
        "train_batch_size": args.batch_size,
        "metrics": ["NDCG", "Recall"],
        "valid_metric": "NDCG@10",
        "topk": [10],
        "show_progress": False,
    }
    print(f"{len(corpus)} users, {corpus.n_items - 1} items, {len(corpus.items)} behaviours", flush=True)
    runs: dict[str, list[dict[Any, float]]] = {name: [] for name, _, _ in ROWS}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        write_atomic_files(corpus, Path(folder) / "dataset" / "sequences")
        os.chdir(folder)  # where RecBole writes log/, log_tensorboard/ and saved/
        try:
            for seed in range(args.seeds):
                for name, model, flag in ROWS:
                    runs[name].append(train(model, options | flag | {"seed": seed}))
                    print(f"seed {seed}, {name}: test NDCG@10 {runs[name][-1]['test', 'ndcg@10']:.4f}", flush=True)
        finally:
            os.chdir(before)
    print(f"\n{table(runs)}\n\n{conclusion(runs)}")


def main() -> None:
    """Read the arguments and the sequences, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=Path, help="a line per user: user item item …; ml-100k by default")
    parser.add_argument("--users", type=int, help="only the first of them")
    parser.add_argument("--seeds", type=int, default=3, help="runs of every row")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--max-len", type=int, default=50, help="newest behaviours that the model reads")
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole would take --epochs=5 for its own
    try:
        compare(read(args.sequences, args.users), args)
    except InputError as error:
        parser.exit(2, f"recbole_swap_cl: {error}\n")


if __name__ == "__main__":
    main()
