"""Wrong calls of the losses: one line that names the argument, what was expected and what came."""

import re

import pytest
import torch
from loss_cases import NEGATIVES
from refusals import refusal_of

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss
from adaptssr_plugin.errors import InputError

X = torch.ones


CONSTRUCTIONS = [
    (AdaptSSRLoss, "fusion", 1.5),
    (AdaptSSRLoss, "fusion", -0.1),
    (AdaptSSRLoss, "fusion", float("nan")),
    (AdaptSSRLoss, "fusion", "paper"),
    (AdaptSSRLoss, "negatives", "x"),
    (AdaptSSRLoss, "negatives", None),
    (AdaptSSRLoss, "negatives", 0),
    (AdaptSSRLoss, "negatives", float("inf")),
    (AdaptSSRLoss, "negatives", True),
    (AdaptSSRLoss, "scale", 0),
    (AdaptSSRLoss, "scale", -1.0),
    (AdaptSSRLoss, "scale", float("nan")),
    (AdaptSSRLoss, "scale", float("inf")),
    (AdaptSSRLoss, "scale", "1"),
    (AdaptSSRLoss, "reduction", "avg"),
    (AdaptSSRLoss, "chunk_size", 0),
    (AdaptSSRLoss, "chunk_size", -3),
    (AdaptSSRLoss, "chunk_size", 2.5),
    (InfoNCELoss, "temperature", 0),
    (InfoNCELoss, "temperature", -0.1),
    (InfoNCELoss, "temperature", float("nan")),
    (InfoNCELoss, "negatives", "x"),
    (InfoNCELoss, "negatives", -0.1),
    (InfoNCELoss, "similarity", "x"),
    (InfoNCELoss, "similarity", None),
    (InfoNCELoss, "similarity", True),
    (InfoNCELoss, "reduction", "avg"),
    (InfoNCELoss, "chunk_size", 0),
    (AdaptSSRLoss, "gather", 1),
    (AdaptSSRLoss, "gather", None),
    (InfoNCELoss, "gather", "all"),
    (AugmentationAdaptiveFusion, "granularity", "user"),
    (AugmentationAdaptiveFusion, "terms", 3),
]


@pytest.mark.parametrize(("module", "argument", "value"), CONSTRUCTIONS)
def test_wrong_constructor_arguments(module, argument, value):
    message = refusal_of(lambda: module(**{argument: value}))
    assert re.fullmatch(rf"{argument}: expected .+, got {re.escape(repr(value))}", message)


def test_choices_are_listed():
    assert "'hardest' or 'all' or a positive number" in refusal_of(lambda: AdaptSSRLoss(negatives="x"))
    assert all(r in refusal_of(lambda: InfoNCELoss(reduction="x")) for r in ("'mean'", "'sum'", "'none'"))
    assert "[0, 1]" in refusal_of(lambda: AdaptSSRLoss(fusion=2.0))


def test_wrong_preset():
    message = refusal_of(lambda: AdaptSSRLoss.from_preset("repo"))
    assert message.startswith("preset: expected 'paper' or 'official_code'")
    assert message.endswith("got 'repo'")
    with pytest.raises((InputError, TypeError), match="temperature"):
        AdaptSSRLoss.from_preset("paper", temperature=1.0)
    assert "scale" in refusal_of(lambda: AdaptSSRLoss.from_preset("paper", scale=0))


@pytest.mark.parametrize("fusion", [0, 1, 0.0, 1.0, None, AugmentationAdaptiveFusion()])
def test_right_fusions_are_taken(fusion):
    assert AdaptSSRLoss(fusion=fusion)(*torch.randn(4, 3, 2)).isfinite()


@pytest.mark.parametrize(("module", "options"), [(AdaptSSRLoss, {}), (InfoNCELoss, {"negatives": "hardest"})])
def test_no_triton_over_processes(module, options, monkeypatch):
    monkeypatch.setattr("adaptssr_plugin.functional.triton_search.is_installed", lambda: True)
    message = refusal_of(lambda: module(gather=True, implementation="triton", **options))
    assert message == "implementation: expected 'auto' or 'torch' with gather=True, got 'triton'"


ENCODINGS = [
    (AdaptSSRLoss(), ["u1", "u1_pos", "u2", "u2_pos"]),
    (AdaptSSRLoss(negatives="all"), ["u1", "u1_pos", "u2", "u2_pos"]),
    (AdaptSSRLoss().terms, ["u1", "u1_pos", "u2", "u2_pos"]),
    (AugmentationAdaptiveFusion(), ["anchor", "anchor_pos", "view", "view_pos"]),
    (InfoNCELoss(), ["z1", "z2"]),
    (InfoNCELoss(negatives="hardest"), ["z1", "z2"]),
    (InfoNCELoss(similarity="dot"), ["z1", "z2"]),
]
PLACES = [(criterion, names, i) for criterion, names in ENCODINGS for i in range(len(names))]
every_place = pytest.mark.parametrize(
    ("criterion", "names", "i"),
    PLACES,
    ids=[f"{getattr(c, '__qualname__', type(c).__name__)}-{n[i]}-{k}" for k, (c, n, i) in enumerate(PLACES)],
)


@every_place
class TestEncodings:
    def called_with(self, criterion, names, i, wrong):
        inputs = [X(4, 3) for _ in names]
        inputs[i] = wrong
        return refusal_of(lambda: criterion(*inputs))

    @pytest.mark.parametrize(
        ("what", "right", "wrong"),
        [
            ("shape", (4, 3), X(4, 2)),
            ("shape", (4, 3), X(5, 3)),
            ("dtype", torch.float32, X(4, 3, dtype=torch.float64)),
            ("device", "cpu", X(4, 3, device="meta")),
        ],
        ids=["shape", "rows", "dtype", "device"],
    )
    def test_unlike_the_first(self, criterion, names, i, what, right, wrong):
        came = tuple(wrong.shape) if what == "shape" else getattr(wrong, what)
        expected, came = (came, right) if i == 0 else (right, came)  # the first sets the measure
        message = self.called_with(criterion, names, i, wrong)
        assert message == f"{names[max(i, 1)]}: expected {what} {expected} as {names[0]}, got {came}"

    @pytest.mark.parametrize("shape", [(), (3,), (4, 3, 1)])
    def test_dimensions(self, criterion, names, i, shape):
        message = self.called_with(criterion, names, i, X(shape))
        assert message.startswith(f"{names[i]}: expected ")
        assert message.endswith(f"got shape {shape}" if i == 0 else f"got {shape}") or f"{shape}" in message

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
    def test_integers(self, criterion, names, i, dtype):
        message = refusal_of(lambda: criterion(*(X(4, 3, dtype=dtype) for _ in names)))
        assert message.startswith(f"{names[0]}: expected ")
        assert str(dtype) in message

    def test_no_tensor(self, criterion, names, i):
        inputs = [X(4, 3) for _ in names]
        inputs[i] = [[1.0, 2.0, 3.0]] * 4
        with pytest.raises((InputError, TypeError), match=rf"^{names[i]}: .*list"):
            criterion(*inputs)


LOSSES = [(criterion, names) for criterion, names in ENCODINGS if names[0] != "anchor"]
every_loss = pytest.mark.parametrize(("criterion", "names"), LOSSES, ids=range(len(LOSSES)))


@every_loss
class TestBatch:
    @pytest.mark.parametrize("n_rows", [0, 1])
    def test_too_few_rows(self, criterion, names, n_rows):
        message = refusal_of(lambda: criterion(*(X(n_rows, 3) for _ in names)))
        assert message.startswith("batch: expected at least 2 rows")
        assert f"got {n_rows}" in message

    @pytest.mark.parametrize(
        "ids",
        [
            X(3, dtype=torch.int64),
            X(3, 4, dtype=torch.int64),
            X(4, 0, dtype=torch.int64),
            X(4, 1, 1, dtype=torch.int64),
            X((), dtype=torch.int64),
            X(4),
            X(4, 2),
            X(4, dtype=torch.bool),
            X(4, 2, dtype=torch.bool),
            X(4, dtype=torch.complex64),
        ],
        ids=lambda ids: f"{ids.dtype}-{list(ids.shape)}",
    )
    def test_user_ids(self, criterion, names, ids):
        message = refusal_of(lambda: criterion(*(X(4, 3) for _ in names), ids))
        assert message.startswith("user_ids: expected an integer tensor of shape (B,) or (B, k) with B = 4, got ")
        assert message.endswith(f"{ids.dtype} of shape {tuple(ids.shape)}")

    def test_user_ids_elsewhere(self, criterion, names):
        ids = X(4, dtype=torch.int64, device="meta")
        message = refusal_of(lambda: criterion(*(X(4, 3) for _ in names), user_ids=ids))
        assert message.startswith("user_ids: ")
        assert "meta" in message

    def test_user_ids_no_tensor(self, criterion, names):
        with pytest.raises((InputError, TypeError), match=r"^user_ids: .*list"):
            criterion(*(X(4, 3) for _ in names), user_ids=[1, 2, 3, 4])


def test_arguments_that_are_shown():
    assert repr(AdaptSSRLoss(fusion=0.5, gather=True)).endswith("reduction='mean', gather=True)")
    assert repr(InfoNCELoss(0.5, similarity="dot")) == (
        "InfoNCELoss(temperature=0.5, negatives='all', reduction='mean', similarity='dot')"
    )


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_user_ids_by_name(negatives):
    ids = torch.tensor([1, 1, 2])
    u = torch.randn(4, 3, 2)
    criterion = AdaptSSRLoss(negatives=negatives)
    assert torch.equal(criterion(*u, user_ids=ids), criterion(*u, ids))
    by_name = criterion(u1=u[0], u1_pos=u[1], u2=u[2], u2_pos=u[3], user_ids=ids)
    assert torch.equal(by_name, criterion(*u, ids))
    criterion = InfoNCELoss(negatives=negatives)
    assert torch.equal(criterion(z1=u[0], z2=u[1], user_ids=ids), criterion(u[0], u[1], ids))
