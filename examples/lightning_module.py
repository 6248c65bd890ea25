"""AdaptSSR in another trainer: a LightningModule with its views and its loss; everything else is Lightning's.

pip install lightning
python examples/lightning_module.py               ml-100k, where RecBole is installed (its wheel holds the file)
python examples/lightning_module.py users.txt     one line per user: the user, then the items, oldest first

The user model is trained without labels. What is logged for users held out: how often the same input under another
dropout mask is nearer than another augmented view, and how often that view is nearer than other users.
"""

import argparse
import importlib.util
from pathlib import Path

import lightning
import numpy as np
import torch
from torch import Tensor

from adaptssr_plugin import AdaptSSRLoss, ItemCrop, ItemMask, ItemReorder, RandomPair, UserEncoder
from adaptssr_plugin.corpus import Batch, BatchLoader, BehaviourCorpus, read_interactions, read_sequence_lines
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.functional import order_hits, unit_vectors
from adaptssr_plugin.seeding import stream_generator, stream_seed


class AdaptSSR(lightning.LightningModule):
    """A user model that learns by self-supervised ranking.

    Args:
        n_items: items, the padding id 0 included.
        max_len: the number of newest behaviours of a user that it reads.
        scale: multiplies the similarities that are compared; 1 in the paper, for far more users.
        learning_rate: Adam's.
        seed: of the views.
    """

    def __init__(self, n_items: int, max_len: int, scale: float, learning_rate: float, seed: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate, self.seed = learning_rate, seed
        self.encoder = UserEncoder(n_items, max_len=max_len, dropout=0.1)  # or any (item_seq, item_seq_len) -> (B, d)
        self.views = RandomPair([ItemMask(0.6, mask_id=n_items), ItemCrop(0.4), ItemReorder(0.6)])
        self.criterion = AdaptSSRLoss(scale=scale)

    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Encode users: (B, L) and (B,) to (B, d)."""
        vectors: Tensor = self.encoder(item_seq, item_seq_len)
        return vectors

    def encode_views(self, batch: Batch, *key: int | str) -> list[Tensor]:
        """Draw two views of every user and encode each under two dropout masks: û, û⁺, ũ, ũ⁺, each (B, d)."""
        generator = stream_generator(self.device, self.seed, *key)
        first, second, _ = self.views(batch.item_seq, batch.item_seq_len, generator)
        return [*self.encoder.encode_twice(*first), *self.encoder.encode_twice(*second)]

    def on_train_epoch_start(self) -> None:
        """Tell the loader the epoch's order, as Lightning tells a sampler."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Compute the loss of a batch."""
        if len(batch) < 2:
            return None  # a single user has no one to be compared with
        loss: Tensor = self.criterion(*self.encode_views(batch, "views", self.current_epoch, batch_idx))
        self.log("loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count how often the two inequalities hold; the same views and dropout masks in every epoch."""
        if len(batch) < 2:
            return
        self.encoder.train()  # Lightning has switched dropout off, but the implicit view needs it
        with torch.random.fork_rng():
            torch.manual_seed(stream_seed(self.seed, "validation dropout", batch_idx))
            encodings = self.encode_views(batch, "validation views", batch_idx)
        self.encoder.eval()
        nearer, pairs, above, triples = order_hits(unit_vectors(torch.stack(encodings, 1)))
        shares = {"implicit_over_augmented": nearer / pairs, "augmented_over_others": above / triples}
        self.log_dict(shares, prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, as in the paper."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def read(path: Path | None) -> BehaviourCorpus:
    """Read the behaviour of all users; without a path, ml-100k from RecBole's wheel (RecBole is not imported)."""
    if path is None:
        recbole = importlib.util.find_spec("recbole")
        if recbole is None or not recbole.submodule_search_locations:
            raise InputError("path: expected a file of sequences, since no RecBole is installed to take ml-100k from")
        path = Path(recbole.submodule_search_locations[0]) / "dataset_example" / "ml-100k" / "ml-100k.inter"
    return read_interactions(path) if path.suffix == ".inter" else read_sequence_lines(path)


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
    parser.add_argument("--accelerator", default="auto", help="Lightning's: auto, cpu, gpu")
    args = parser.parse_args()
    try:
        corpus = read(args.path)
    except InputError as error:
        parser.exit(2, f"lightning_module: {error}\n")
    users = np.random.default_rng(stream_seed(args.seed, "split")).permutation(len(corpus))
    held_out, training = np.split(users, [len(users) // 10])
    sizes = {"batch_size": args.batch_size, "max_len": args.max_len, "seed": args.seed}

    lightning.seed_everything(args.seed, verbose=False)
    model = AdaptSSR(corpus.n_items, args.max_len, args.scale, args.learning_rate, args.seed)
    trainer = lightning.Trainer(
        max_epochs=args.epochs, accelerator=args.accelerator, devices=1, logger=False, enable_checkpointing=False,
        num_sanity_val_steps=0,
    )  # fmt: skip
    batches, validation = BatchLoader(corpus, training, **sizes), BatchLoader(corpus, held_out, **sizes, shuffle=False)
    for when in ("before", "after"):
        (shares,) = trainer.validate(model, validation, verbose=False)
        print(f"{when}: " + ", ".join(f"{name.replace('_', ' ')} {share:.4f}" for name, share in shares.items()))
        if when == "before":
            trainer.fit(model, batches, validation)


if __name__ == "__main__":
    main()
