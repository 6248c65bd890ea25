"""A pre-training method of your own: this file and own_method.yaml, nothing else.

python examples/own_method.py --epochs 3      registers the method and pre-trains ml-100k with it

A method that compares views is a function that makes their provider from the options of the recipe and the training
data; no part of the data is computed unless it is used. It works with both losses and every warm start and preset.
This one compares the older part of a history with the newer one.

The command `adaptssr` does not know the method. To fine-tune the model, import this file first, from its folder:

python -c "import own_method; from adaptssr_plugin.__main__ import main; main()" finetune own-method --task gender
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptssr_plugin.augment import Sequences, ViewPair
from adaptssr_plugin.methods import Method, recipe, register
from adaptssr_plugin.methods.options.comparison import ComparisonOptions
from adaptssr_plugin.methods.views import ViewSource


class OlderAndNewer(nn.Module):
    """The oldest and the newest share of every history; they overlap if the share is more than a half."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, _generator: torch.Generator | None = None) -> ViewPair:
        """Cut both parts out of a batch, (B, L) int64 and (B,) int64, for all rows at once."""
        length = (item_seq_len * self.share).ceil().long()  # (B,)
        place = torch.arange(item_seq.shape[1], device=item_seq.device)  # (L,)
        inside = place < length[:, None]  # (B, L)
        source = place + (item_seq_len - length)[:, None]
        newer = item_seq.gather(1, source.clamp(max=item_seq.shape[1] - 1))
        return ViewPair(Sequences(item_seq * inside, length), Sequences(newer * inside, length.clone()), None)


def halves(options: ComparisonOptions, _source: ViewSource) -> OlderAndNewer:
    """Make the views; ``_source.n_items`` is the id of [MASK], ``_source.histories()`` the training histories."""
    return OlderAndNewer(options.crop_ratio)


METHOD = register(
    Method("halves", "an example", views=halves, defaults=Path(__file__).with_name("own_method.yaml")),
)


def main() -> None:
    """Pre-train ml-100k, which ships with RecBole."""
    from adaptssr_plugin.recbole.user_model.pretrain import Source, pretrain

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("own-method"))
    args = parser.parse_args()
    made = recipe("halves", options={"epochs": args.epochs, "max_len": 50})
    model = pretrain(Source("ml-100k"), made, args.output)
    for stage in model.stages:
        print(f"{stage.name}: epoch {stage.selected_epoch} of {len(stage.history)} selected, model in {model.folder}")


if __name__ == "__main__":
    main()
