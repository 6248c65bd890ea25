"""The encoder as a graph of torch's own: the same numbers for every shape, in a process that knows torch alone."""

import functools
import json

import numpy as np
import pytest
import torch
from core_only import run_python
from encoder_cases import batch, random_lengths
from torch import nn
from training_cases import encoder_of

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.encoders import make_encoder
from adaptssr_plugin.encoders.exporting import export_encoder
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.training import save_artefact
from adaptssr_plugin.training.serving import export_model, load_user_model

SHAPES = [(1, 1), (1, 9), (2, 1), (5, 3), (33, 9), (70, 8)]
TOKENS = np.array(["[PAD]", *(f"ü{number}" for number in range(1, 31))])
SIZES = {"n_items": 31, "dim": 8, "n_layers": 2, "n_heads": 2, "max_len": 9, "ff_dim": 16}


def trained(kind, **options):
    """An encoder in evaluation mode whose weights are large enough for sequences to differ."""
    return encoder_of(lambda **sizes: make_encoder(kind, **sizes), **{"n_items": 31, "max_len": 9, **options}).eval()


@functools.cache
def exported(kind, **options):
    """An encoder and its graph, which tests share."""
    if kind == "of the user's own":
        encoder = OfTheUsers().eval()
    elif kind in ("nextitnet", "gru4rec"):  # which have no width of a feed-forward part
        encoder = make_encoder(kind, n_items=31, dim=8, max_len=9).eval()
    else:
        encoder = trained(kind, **options)
    return encoder, export_encoder(encoder, 31, 9).module()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("transformer", {}),
        ("transformer", {"embed_norm": False, "embed_dropout": False, "n_layers": 1, "interests": 3}),
        ("sasrec", {}),
        ("nextitnet", {}),
        ("gru4rec", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_the_graph_gives_the_encoder_s_numbers(kind, options):
    encoder, graph = exported(kind, **options)
    for n_rows, length in SHAPES:
        item_seq, item_seq_len = batch(random_lengths(n_rows, length, seed=length), length, n_items=31)
        with torch.no_grad():
            expected = encoder(item_seq, item_seq_len)
            came = graph(item_seq, item_seq_len)
        torch.testing.assert_close(came, expected, atol=1e-5, rtol=0)
    assert expected.std(0).min() > 1e-3  # users differ, and the mask of padding counts


def test_one_position_is_enough():
    encoder = trained("transformer", max_len=1)
    graph = export_encoder(encoder, 31, 1).module()
    item_seq, item_seq_len = batch([1] * 7, n_items=31)
    torch.testing.assert_close(graph(item_seq, item_seq_len), encoder(item_seq, item_seq_len), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["transformer", "sasrec", "nextitnet", "gru4rec", "of the user's own"])
def test_an_empty_row_gives_zeros_and_leaves_the_others_alone(kind):
    """The user's own divides by the length."""
    _, graph = exported(kind)
    item_seq, item_seq_len = batch([4, 9, 1, 2], n_items=30)
    expected = graph(item_seq, item_seq_len)
    item_seq[1], item_seq_len[1] = 0, 0
    item_seq_len[3] = 0  # whatever stands there
    came = graph(item_seq, item_seq_len)
    assert torch.equal(came[[1, 3]], torch.zeros(2, came.shape[1]))
    torch.testing.assert_close(came[[0, 2]], expected[[0, 2]], atol=1e-6, rtol=0)
    assert expected.abs().max() > 1e-3
    empty = graph(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    assert torch.equal(empty, torch.zeros(1, came.shape[1]))


def test_padding_changes_nothing_and_too_much_is_refused():
    _, graph = exported("transformer")
    item_seq, item_seq_len = batch([4, 2, 1], n_items=31)
    wider = nn.functional.pad(item_seq, (0, 5))
    torch.testing.assert_close(graph(wider, item_seq_len), graph(item_seq, item_seq_len), atol=1e-5, rtol=0)
    with pytest.raises((AssertionError, RuntimeError)):  # torch's own, by its version
        graph(nn.functional.pad(item_seq, (0, 6)), item_seq_len)


class OfTheUsers(nn.Module):
    """An encoder of the user's own: mean of item vectors, by what ``forward`` says."""

    def __init__(self, n_items=31, dim=4):
        super().__init__()
        self.items = nn.Embedding(n_items, dim, padding_idx=0)

    def forward(self, item_seq, item_seq_len):
        return self.items(item_seq).sum(1) / item_seq_len[:, None]


class ByValue(OfTheUsers):
    def forward(self, item_seq, item_seq_len):
        return super().forward(item_seq, item_seq_len) * int(item_seq_len.max())


class ByShape(OfTheUsers):
    """Gives for one user what it does not give for several, behind torch's back."""

    def forward(self, item_seq, item_seq_len):
        return super().forward(item_seq, item_seq_len) + (0 if torch.compiler.is_compiling() else 1)


def test_an_encoder_of_the_user_s_own():
    encoder, graph = exported("of the user's own")
    item_seq, item_seq_len = batch([4, 9, 1], n_items=30)
    torch.testing.assert_close(graph(item_seq, item_seq_len), encoder(item_seq, item_seq_len))


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (UserEncoder(31), "encoder: expected one in evaluation mode, got one in training mode"),
        (ByValue().eval(), r"encoder: expected one that torch\.export can trace, got ByValue \(.+\)"),
        (
            ByShape().eval(),
            r"encoder: expected one whose graph gives its own numbers, got ByShape, off by 1.+",
        ),
    ],
    ids=["training", "reads values", "other numbers"],
)
def test_what_cannot_be_exported_is_refused_in_one_line(encoder, said):
    with pytest.raises(InputError, match=f"^{said}$") as refused:
        export_encoder(encoder, 31, 9)
    assert "\n" not in str(refused.value)


# --- files -----------------------------------------------------------------------------------------------------------

IN_A_FRESH_PROCESS = """
import json, sys
import torch
extra = {"items.json": "", "model.json": ""}
encoder = torch.export.load(sys.argv[1], extra_files=extra).module()
ids = {token: number for number, token in enumerate(json.loads(extra["items.json"]))}
item_seq = torch.tensor([[ids[token] for token in history] for history in json.loads(sys.argv[2])])
user = encoder(item_seq, torch.tensor([len(row) for row in item_seq]))
assert not user.requires_grad
assert not [name for name in sys.modules if name.startswith(("adaptssr", "recbole", "safetensors", "pyarrow"))]
print(json.dumps([json.loads(extra["model.json"])["dataset"], user.tolist()]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model's files, and the encoder in it."""
    encoder, folder = encoder_of(UserEncoder, **SIZES).eval(), tmp_path_factory.mktemp("model")
    save_artefact(folder, encoder, SIZES, {"dataset": "shop"}, TOKENS)
    return folder, encoder


def test_a_fresh_process_runs_the_file_with_torch_alone(model, tmp_path):
    folder, encoder = model
    written = export_model(load_user_model(folder), tmp_path / "encoder.pt2")
    assert sorted(tmp_path.iterdir()) == [written]
    histories = json.dumps([["ü3", "ü1", "ü30"], ["ü2"] * 3])
    done = run_python("-I", "-c", IN_A_FRESH_PROCESS, written, histories)
    assert done.returncode == 0, done.stderr
    dataset, vectors = json.loads(done.stdout)
    assert dataset == "shop"
    expected = encoder(torch.tensor([[3, 1, 30], [2, 2, 2]]), torch.tensor([3, 3]))
    torch.testing.assert_close(torch.tensor(vectors), expected.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["encoder.pt", "encoder", "."])
def test_the_file_has_torch_s_ending(model, tmp_path, name):
    with pytest.raises(InputError, match=r"^output: expected the name of a file that ends in \.pt2, got "):
        export_model(load_user_model(model[0]), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
def test_a_graph_for_a_gpu(model, tmp_path):
    folder, encoder = model
    graph = torch.export.load(export_model(load_user_model(folder), tmp_path / "encoder.pt2", "cuda")).module()
    item_seq, item_seq_len = batch(random_lengths(33, 9), 9, n_items=31)
    came = graph(item_seq.cuda(), item_seq_len.cuda())
    torch.testing.assert_close(came.cpu(), encoder(item_seq, item_seq_len).detach(), atol=1e-5, rtol=0)


def test_a_device_that_is_not_here(model, tmp_path):
    with pytest.raises(InputError, match=r"^device: expected one that torch has here, got 'cuda:77' \(.+\)$"):
        export_model(load_user_model(model[0]), tmp_path / "encoder.pt2", "cuda:77")
