"""Users of ml-100k as vectors in a search index, with their nearest neighbours and the films that these saw last.

python examples/embed_and_search.py                  pre-trains first, in the folder adaptssr-search, if needed
python examples/embed_and_search.py adaptssr-run     a folder of `adaptssr pretrain --dataset ml-100k`

Needs RecBole, whose wheel holds ml-100k. The index is faiss where faiss is installed (pip install faiss-cpu), else an
exact search in torch; both give the same neighbours, by cosine.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import recbole
import torch
from pyarrow import parquet

from adaptssr_plugin.corpus import BehaviourCorpus, read_interactions
from adaptssr_plugin.corpus.known_histories import known_corpus
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training.serving import embed_users, load_user_model

DATA = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"


def pretrain_on_ml_100k(folder: Path, epochs: int) -> None:
    """Pre-train by the preset recommended, with as many epochs of masked items as of the ranking."""
    from adaptssr_plugin.methods import recipe
    from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain

    options = {"mlm_epochs": epochs, "epochs": epochs, "max_len": 50}
    pretrain(Source("ml-100k"), recipe("adaptssr", "recommended", options), folder)


def titles() -> dict[str, str]:
    """Read the title of every film."""
    lines = (DATA / "ml-100k.item").read_text(encoding="utf-8").splitlines()
    return {item: f"{title} ({year})" for item, title, year, *_ in (line.split("\t") for line in lines[1:])}


def read_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Read what `adaptssr embed` writes: names, and (U, d) float32, here of length 1."""
    table = parquet.read_table(path)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1).copy()
    return table["user_id"].to_pylist(), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: np.ndarray, queries: np.ndarray, k: int, use_faiss: bool) -> tuple[np.ndarray, np.ndarray]:
    """Find the k vectors of the largest dot product with each query: their products and places, each (Q, k)."""
    if use_faiss:
        import faiss

        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        products, places = index.search(queries, k)
        return products, places
    found = (torch.from_numpy(queries) @ torch.from_numpy(vectors).T).topk(k)
    return found.values.numpy(), found.indices.numpy()


def shared_films(corpus: BehaviourCorpus, users: np.ndarray, others: np.ndarray) -> float:
    """Mean over pairs of users: films that both saw as a share of those that either saw (Jaccard)."""
    seen = [set(corpus.history(row).tolist()) for row in range(len(corpus))]
    return float(np.mean([len(seen[a] & seen[b]) / len(seen[a] | seen[b]) for a, b in zip(users, others, strict=True)]))


def main() -> None:
    """Pre-train if needed, embed all users, search, and show the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("adaptssr-search"))
    parser.add_argument("--epochs", type=int, default=8, help="of each stage, if pre-training is needed")
    parser.add_argument("--users", type=int, default=3, help="number of users to show")
    parser.add_argument("--neighbours", type=int, default=3, help="number of neighbours of each")
    parser.add_argument("--films", type=int, default=4, help="number of their newest films")
    args = parser.parse_args()
    try:
        if not (args.folder / "model.json").exists():
            pretrain_on_ml_100k(args.folder, args.epochs)
        model = load_user_model(args.folder)
        corpus = read_interactions(DATA / "ml-100k.inter")  # all behaviours, including users that were not in training
        written = args.folder / "users.parquet"
        done = embed_users(model, known_corpus(corpus, model.artefact.item_tokens), written)
    except InputError as error:
        parser.exit(2, f"embed_and_search: {error}\n")
    names, vectors = read_vectors(written)
    use_faiss = importlib.util.find_spec("faiss") is not None
    print(f"{done.rows} users, {done.dim} numbers each, in {written}; searched by {'faiss' if use_faiss else 'torch'}")

    # A user's nearest neighbour is herself, at 1; she is skipped.
    products, places = nearest(vectors, vectors, args.neighbours + 1, use_faiss)
    row_of = {user: row for row, user in enumerate(corpus.user_tokens.tolist())}
    rows = np.array([row_of[name] for name in names])
    title_of = titles()

    def newest(row: int) -> str:
        shown = corpus.item_tokens[corpus.history(row)[-args.films :]].tolist()
        return "; ".join(title_of[item] for item in reversed(shown))

    for query in range(min(args.users, len(names))):
        print(f"\nuser {names[query]}: {newest(rows[query])}")
        beside = [(place, value) for place, value in zip(places[query], products[query], strict=True) if place != query]
        for place, value in beside[: args.neighbours]:
            print(f"  {value:.4f}  user {names[place]}: {newest(rows[place])}")

    first = np.where(places[:, 0] == np.arange(len(names)), places[:, 1], places[:, 0])
    anybody = np.random.default_rng(0).permutation(rows)
    with_nearest = shared_films(corpus, rows, rows[first])
    with_anybody = shared_films(corpus, anybody, np.roll(anybody, 1))
    print(
        f"\nFilms that both have seen, of those that either has: {with_nearest:.3f} with the nearest user, "
        f"{with_anybody:.3f} with anybody."
    )


if __name__ == "__main__":
    main()
