"""AdaptSSR in your own training loop: torch, numpy and adaptssr_plugin, nothing else.

python examples/own_trainer.py               ml-100k, where RecBole is installed (its wheel holds the file)
python examples/own_trainer.py users.txt     one line per user: the user, then the items, oldest first
python examples/own_trainer.py data.inter    RecBole's atomic file: user_id, item_id, timestamp

The user model is trained without labels. The result is measured on held-out users: how often the same input under
another dropout mask is nearer than another augmented view, and how often that view is nearer than other users.
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch

from adaptssr_plugin import AdaptSSRLoss, ItemCrop, ItemMask, ItemReorder, RandomPair, UserEncoder
from adaptssr_plugin.corpus import Batch, BatchLoader, BehaviourCorpus, read_interactions, read_sequence_lines
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.functional import order_hits, unit_vectors
from adaptssr_plugin.seeding import stream_generator, stream_seed


def read(path: Path | None) -> BehaviourCorpus:
    """Read the behaviour of all users; without a path, ml-100k from RecBole's wheel (RecBole is not imported)."""
    if path is None:
        recbole = importlib.util.find_spec("recbole")
        if recbole is None or not recbole.submodule_search_locations:
            raise InputError("path: expected a file of sequences, since no RecBole is installed to take ml-100k from")
        path = Path(recbole.submodule_search_locations[0]) / "dataset_example" / "ml-100k" / "ml-100k.inter"
    return read_interactions(path) if path.suffix == ".inter" else read_sequence_lines(path)


def encode(
    encoder: UserEncoder, views: RandomPair, batch: Batch, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Draw two views of every user and encode each twice: û, û⁺, ũ, ũ⁺, each (B, d).

    One stacked forward pass: every row has a separate dropout mask, so the copy of a row is its implicit view.
    """
    first, second, _ = views(batch.item_seq, batch.item_seq_len, generator)
    item_seq = torch.cat((first.item_seq, first.item_seq, second.item_seq, second.item_seq))
    item_seq_len = torch.cat((first.item_seq_len, first.item_seq_len, second.item_seq_len, second.item_seq_len))
    vectors: torch.Tensor = encoder(item_seq, item_seq_len)  # (4B, d)
    return vectors.chunk(4)


@torch.no_grad()
def order_accuracies(encoder: UserEncoder, views: RandomPair, loader: BatchLoader, args: argparse.Namespace) -> str:
    """Return how often the two inequalities hold, as text; every call uses the same views and dropout masks."""
    torch.manual_seed(stream_seed(args.seed, "validation dropout"))
    generator = stream_generator(args.device, args.seed, "validation views")
    counts = torch.zeros(4, dtype=torch.int64, device=args.device)
    for batch in loader:
        if len(batch) > 1:
            encodings = encode(encoder, views, batch.to(args.device), generator)
            counts += torch.stack(order_hits(unit_vectors(torch.stack(encodings, 1))))
    nearer, pairs, above, triples = counts.tolist()
    return f"implicit over augmented {nearer / pairs:.4f}, augmented over others {above / triples:.4f}"


def train(corpus: BehaviourCorpus, args: argparse.Namespace) -> UserEncoder:
    """Train on nine users of ten, and show the order accuracies of the tenth before and after."""
    users = np.random.default_rng(stream_seed(args.seed, "split")).permutation(len(corpus))
    held_out, training = np.split(users, [max(2, len(users) // 10)])
    sizes = {"batch_size": args.batch_size, "max_len": args.max_len, "seed": args.seed}
    batches, validation = BatchLoader(corpus, training, **sizes), BatchLoader(corpus, held_out, **sizes)

    torch.manual_seed(stream_seed(args.seed, "initialisation"))
    encoder = UserEncoder(corpus.n_items, max_len=args.max_len, dropout=0.1).to(args.device)  # in train mode
    views = RandomPair([ItemMask(0.6, mask_id=corpus.n_items), ItemCrop(0.4), ItemReorder(0.6)])
    # The paper has no scale (1). From random weights and with few users, 1 is too flat to separate users: all encodings
    # collapse onto two opposite points, masked views on one and the rest on the other. Try --scale 1.
    criterion = AdaptSSRLoss(scale=args.scale)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=args.learning_rate)

    print("before:", order_accuracies(encoder, views, validation, args))
    for epoch in range(args.epochs):
        losses, coefficients = [], []
        batches.set_epoch(epoch)
        torch.manual_seed(stream_seed(args.seed, "dropout", epoch))
        for step, batch in enumerate(batches):
            if len(batch) < 2:
                continue  # a single user has no one to be compared with
            generator = stream_generator(args.device, args.seed, "views", epoch, step)
            u1, u1_pos, u2, u2_pos = encode(encoder, views, batch.to(args.device), generator)
            terms = criterion.terms(u1, u1_pos, u2, u2_pos)  # or criterion(...) for the loss alone
            loss = criterion.reduce(terms)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())  # stays on the device: reading it here would make a GPU wait at every step
            coefficients.append(terms.coefficient.mean())
        mean_loss, mean_lambda = torch.stack(losses).mean(), torch.stack(coefficients).mean()
        print(f"epoch {epoch + 1}: loss {mean_loss:.4f}, λ {mean_lambda:.4f}", flush=True)
    print("after: ", order_accuracies(encoder, views, validation, args))
    return encoder


def main() -> None:
    """Read the arguments, then the file, then train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, nargs="?", help="sequences; ml-100k by default")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-len", type=int, default=50, help="newest behaviours kept of a user")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="2e-4 in the paper, for far more users")
    parser.add_argument("--scale", type=float, default=10.0, help="multiplies the similarities that are compared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    try:
        corpus = read(args.path)
        if len(corpus) < 20 or args.batch_size < 3:
            raise InputError(f"users: expected 20 of them and 3 in a batch, got {len(corpus)} and {args.batch_size}")
        train(corpus, args)
    except InputError as error:
        parser.exit(2, f"own_trainer: {error}\n")


if __name__ == "__main__":
    main()
