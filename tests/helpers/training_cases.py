"""Small corpora, encoders, recipes and a RecBole dataset with profiles, for the tests of training."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import torch
from recbole_cases import write_table

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss, ItemCrop, ItemMask, ItemReorder, RandomPair, UserEncoder
from adaptssr_plugin.corpus import Batch, BatchLoader, BehaviourCorpus
from adaptssr_plugin.methods.views import UserHistories
from adaptssr_plugin.training import MaskedItemFiller, MaskedItemStage, PairwiseStage, Streams

N_ITEMS = 12
CPU = torch.device("cpu")
# Options of a recipe that trains in a fraction of a second; learning rates at which weights visibly move.
TINY = {
    "dim": 8,
    "ff_dim": 16,
    "max_len": 10,
    "batch_size": 8,
    "valid_share": 0.2,
    "mlm_epochs": 2,
    "epochs": 2,
    "mlm_learning_rate": 1e-2,
    "learning_rate": 1e-2,
    "ft_epochs": 2,
    "ft_batch_size": 8,
    "ft_learning_rate": 1e-2,
}
TRAINING = {name: value for name, value in TINY.items() if not name.startswith("ft_")}


def runs_fixture(start, options):
    """A fixture of a module: what ``start`` gives for a small dataset and these options of the command."""

    @pytest.fixture(scope="module")
    def runs(tmp_path_factory):
        with start(write_profiled_dataset(tmp_path_factory.mktemp("data") / "small"), options) as ask:
            yield ask

    return runs


def interrupted_before(epoch, views, train):
    """Train until views of a class are told of an epoch; the epochs that they were told of, None for a validation."""
    told, own = [], views.set_epoch

    def set_epoch(self, epoch_told, encoder=None):
        told.append(epoch_told)
        if epoch_told == epoch:
            raise KeyboardInterrupt
        own(self, epoch_told, encoder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "set_epoch", set_epoch)
        with pytest.raises(KeyboardInterrupt):
            train()
    return told


def streams(*key):
    return Streams(CPU, key or (0, "stage", 0, 0))


def corpus_of(*lengths, seed=0):
    random = np.random.default_rng(seed)
    return BehaviourCorpus.from_lists([random.integers(1, N_ITEMS, n).tolist() for n in lengths], N_ITEMS)


def batches_of(*lengths, batch_size=None, max_len=100, seed=0) -> list[Batch]:
    loader = BatchLoader(
        corpus_of(*lengths, seed=seed), batch_size=batch_size or len(lengths), max_len=max_len, seed=0, shuffle=False
    )
    return list(loader)


def batch_of(*lengths, **options) -> Batch:
    (batch,) = batches_of(*lengths, **options)
    return batch


class RecordingEncoder(UserEncoder):
    """A UserEncoder that keeps what it was handed and what it gave, call by call."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.calls = []

    def forward(self, item_seq, item_seq_len):
        encodings = super().forward(item_seq, item_seq_len)
        self.calls.append((item_seq.clone(), item_seq_len.clone(), encodings.detach().clone()))
        return encodings

    def hidden_states(self, item_seq, item_seq_len):
        hidden = super().hidden_states(item_seq, item_seq_len)
        self.calls.append((item_seq.clone(), item_seq_len.clone(), hidden.detach().clone()))
        return hidden


def encoder_of(kind=RecordingEncoder, seed=0, **options):
    """An encoder whose weights are large enough for sequences to differ."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        encoder = kind(**{"n_items": N_ITEMS, "dim": 8, "max_len": 100, "ff_dim": 16, **options})
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
    return encoder


def some_views():
    return RandomPair([ItemMask(0.6, mask_id=N_ITEMS), ItemCrop(0.4), ItemReorder(0.6)])


def masked_items():
    return MaskedItemStage(encoder_of(UserEncoder))


def ranking():
    return PairwiseStage(encoder_of(UserEncoder), some_views(), AdaptSSRLoss())


def contrast():
    return PairwiseStage(encoder_of(UserEncoder), some_views(), InfoNCELoss())


STAGES = pytest.mark.parametrize("make", [masked_items, ranking, contrast], ids=lambda make: make.__name__)


def write_profiled_dataset(folder, n_users=24, n_items=9, least=4, most=12, seed=3):
    """Write users of ``least`` to ``most`` interactions with a gender (2), a job (3) and an age."""
    random = np.random.default_rng(seed)
    rows, users = [], []
    for user in range(n_users):
        count = int(random.integers(least, most + 1))
        rows += [(f"u{user}", f"i{item}", time) for time, item in enumerate(random.integers(0, n_items, count))]
        users.append((f"u{user}", "FM"[user % 2], "abc"[user % 3], 15 + user % 5 * 10))
    write_table(folder / f"{folder.name}.inter", "user_id:token item_id:token timestamp:float", rows)
    write_table(folder / f"{folder.name}.user", "user_id:token gender:token job:token age:token", users)
    return folder


def source_with_filler(*lengths):
    source = UserHistories(corpus_of(*(lengths or (5, 3, 7))), max_len=10)
    stage = MaskedItemStage(encoder_of(UserEncoder))
    source.filler = MaskedItemFiller(stage.encoder, stage.head)
    return source


def assert_filler_left_alone(stage, filler):
    """A trained and validated stage neither trains the frozen filler of its views nor keeps it, but moves it."""
    assert {name.split(".")[0] for name in stage.state_dict()} == {"encoder"}
    before = copy.deepcopy(filler.state_dict())
    stage.train()
    optimizer = torch.optim.Adam(stage.parameters(), lr=0.1)
    stage.set_epoch(0)
    stage.step(batch_of(5, 3, 7), streams()).loss.backward()
    optimizer.step()
    stage.validate([batch_of(5, 3, 7)], streams())
    assert_same_weights(filler.state_dict(), before)
    assert not any(module.training for module in filler.modules())
    stage.to("meta")
    assert next(filler.parameters()).is_meta


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_origins(options):
    """Each option of a class says where its default comes from."""
    known = re.compile(r"(the paper|the authors' code|ours|RecBole|(CCL|CoSeRec|DuoRec|PeterRec|PTUM)'s code)\b.*")
    for field in dataclasses.fields(options):
        assert known.fullmatch(field.metadata["origin"]), field.name


def interrupt(trainer, after):
    """Interrupt a trainer, as by Ctrl-C, when it begins a step after so many; None: never."""
    step, left = trainer._step, iter(range(after or 0))

    def step_or_not(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return step(*args)

    if after is not None:
        trainer._step = step_or_not
