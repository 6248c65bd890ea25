"""The comparisons for AdaptSSRLoss: other ways to write it, other losses, and losses of other packages."""

import functools
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptssr_plugin import AdaptSSRLoss, InfoNCELoss
from adaptssr_plugin.functional import stacked_unit_vectors
from adaptssr_plugin.functional.search import Implementation, choose_search
from adaptssr_plugin.training.graphed_step import WARM_UP, CudaCapture, GraphedStep
from adaptssr_plugin.training.stages.base import Streams
from benchmarks.support.measure import Phased, timed
from tests.helpers.oracle import straightforward_adaptssr

OURS = "AdaptSSRLoss"
TRITON = "AdaptSSRLoss, triton"
SEARCHES = {"torch": "search alone, torch", "triton": "search alone, triton"}  # of the hardest negative
PRODUCT = "bare product"
STRAIGHTFORWARD = "straightforward"
COMPILED = "straightforward, compiled"
OURS_COMPILED = "AdaptSSRLoss, compiled"
OURS_GRAPHED = "AdaptSSRLoss, graph"
NT_XENT = "NT-Xent"
PACKAGES = ("pytorch-metric-learning", "info-nce-pytorch", "lightly", "torchvision")

# Elements of the matrix of similarities that the bare product holds at once; 2**21 float32 stay in a cache.
CPU_ELEMENTS = 2**21
DEVICE_ELEMENTS = 2**25

Views = Sequence[Tensor]  # û, û⁺, ũ, ũ⁺, each (B, d)


class Candidate(NamedTuple):
    """One way to compute a loss of a batch."""

    products: str
    """Rows times columns of its matrix of similarities."""
    bytes_needed: Callable[[int], float]
    """Peak memory at B, estimated from what was measured at smaller B; an upper bound for ours."""
    make: Callable[[], Callable[..., Tensor]]
    """Imports what it needs and makes the loss."""
    power: int = 2
    """Time grows at most as B to this power."""
    paired: bool = False
    """Takes one encoding of each view, û and ũ, rather than all four."""
    differentiable: bool = True
    quick: bool = True
    """Measured by ``--quick`` too."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    """Where it is measured."""


def nt_xent(z1: Tensor, z2: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent as it is commonly written (SimCLR): 2B anchors, 2(B - 1) negatives each, all logits at once."""
    n_rows = len(z1)
    z = F.normalize(torch.cat([z1, z2]), dim=-1)  # (2B, d)
    logits = z @ z.T / temperature  # (2B, 2B)
    logits = logits.masked_fill(torch.eye(2 * n_rows, dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(2 * n_rows, device=z.device).roll(n_rows)  # (2B,)
    return F.cross_entropy(logits, partner)


def bare_product(*views: Tensor) -> Tensor:
    """Multiply û and ũ with all four encodings, 2B × 4B × d, in cache-sized chunks, and discard the result."""
    with torch.no_grad():
        anchors, keys = torch.cat([views[0], views[2]]), torch.cat(list(views)).t()  # (2B, d), (d, 4B)
        elements = CPU_ELEMENTS if keys.device.type == "cpu" else DEVICE_ELEMENTS
        step = max(64, elements // keys.shape[1])
        buffer = keys.new_empty(min(step, len(anchors)), keys.shape[1])
        for chunk in torch.split(anchors, step):
            torch.mm(chunk, keys, out=buffer[: len(chunk)])
    return buffer


def _search(implementation: Implementation) -> Callable[..., Tensor]:
    """Make the search for the hardest negative alone, without gradients, of encodings taken as unit vectors."""

    def call(*views: Tensor) -> Tensor:
        search = choose_search(implementation, views[0].device)
        with torch.no_grad():
            return search(stacked_unit_vectors(*views), 2, None, None)[0]

    return call


def _compiled(loss: Callable[..., Tensor], reset: bool) -> Callable[..., Tensor]:
    if reset:  # by the first at each B: it is compiled for itself, and no limit of recompilations is reached
        torch.compiler.reset()
    compiled = torch.compile(loss, dynamic=False)

    def call(*views: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about itself
            return compiled(*views)

    return call


def _graphed() -> Callable[..., Tensor]:
    """Make the loss and its gradients as one CUDA graph, captured in the first call."""
    criterion = AdaptSSRLoss()
    graphs: list[GraphedStep[tuple[Tensor, ...]]] = []

    def step(held: dict[str, Tensor]) -> tuple[Tensor, ...]:
        views = [view.detach().requires_grad_() for view in held.values()]
        loss = criterion(*views)
        return loss.detach(), *torch.autograd.grad(loss, views)

    def call(*views: Tensor) -> Tensor:
        if not graphs:
            graphs.append(GraphedStep(CudaCapture(views[0].device), print))
        inputs = {str(place): view.detach() for place, view in enumerate(views)}
        streams = Streams(views[0].device, (), {})
        for _ in range(0 if graphs[0].n_graphs else WARM_UP):
            graphs[0](inputs, step, streams)
        return graphs[0](inputs, step, streams)[0]

    return call


def _pytorch_metric_learning() -> Callable[..., Tensor]:
    from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

    loss: Callable[..., Tensor] = SelfSupervisedLoss(NTXentLoss())
    return loss


# A float32 matrix of 2B × 4B is 32 B² bytes, one of 2B × 2B 16 B². The numbers of matrices held at once were measured.
CANDIDATES: dict[str, Candidate] = {
    OURS: Candidate("2B x 4B", lambda n: 2.5e4 * n + 1e8, AdaptSSRLoss),
    PRODUCT: Candidate("2B x 4B", lambda n: 1e4 * n + 1e8, lambda: bare_product, differentiable=False),
    STRAIGHTFORWARD: Candidate("2B x 4B", lambda n: 2.5 * 32 * n**2, lambda: straightforward_adaptssr),
    COMPILED: Candidate(
        "2B x 4B", lambda n: 2.5 * 32 * n**2, lambda: _compiled(straightforward_adaptssr, reset=True), quick=False
    ),
    "InfoNCELoss": Candidate("2B x 2B", lambda n: 2.5e4 * n + 1e8, InfoNCELoss, paired=True),
    NT_XENT: Candidate("2B x 2B", lambda n: 4 * 16 * n**2, lambda: nt_xent, paired=True),
    "pytorch-metric-learning": Candidate(
        "2B x 2B, repeated for each of 2B pairs", lambda n: 4.3 * 32 * n**3, _pytorch_metric_learning, 3, paired=True
    ),
    "info-nce-pytorch": Candidate(
        "B x B: one direction, an eighth of 2B x 4B",
        lambda n: 4 * 4 * n**2,
        lambda: import_module("info_nce").InfoNCE(),
        paired=True,
    ),
    "lightly": Candidate(
        "2B x 2B", lambda n: 7 * 16 * n**2, lambda: import_module("lightly.loss").NTXentLoss(), paired=True
    ),
    TRITON: Candidate(
        "2B x 4B", lambda n: 2.5e4 * n + 1e8, lambda: AdaptSSRLoss(implementation="triton"), devices=("cuda",)
    ),
    OURS_COMPILED: Candidate(
        "2B x 4B",
        lambda n: 2.5e4 * n + 1e8,
        lambda: _compiled(AdaptSSRLoss(), reset=False),
        quick=False,
        devices=("cuda",),
    ),
    OURS_GRAPHED: Candidate("2B x 4B", lambda n: 2.5e4 * n + 1e8, _graphed, differentiable=False, devices=("cuda",)),
    SEARCHES["torch"]: Candidate(
        "2B x 4B", lambda n: 2.5e4 * n + 1e8, lambda: _search("torch"), differentiable=False, devices=("cuda",)
    ),
    SEARCHES["triton"]: Candidate(
        "2B x 4B", lambda n: 2.5e4 * n + 1e8, lambda: _search("triton"), differentiable=False, devices=("cuda",)
    ),
}


@functools.cache
def available(quick: bool, device: str = "cpu") -> tuple[str, ...]:
    """Names of the candidates that can be measured here; prints in one line why any other is left out."""
    names = []
    for name, candidate in CANDIDATES.items():
        if device not in candidate.devices:
            continue
        if quick and not candidate.quick:
            print(f"{name}: left out by --quick")
            continue
        try:
            candidate.make()
        except Exception as error:  # a broken installation fails in many ways: torchvision with a RuntimeError
            reason = str(error).strip().splitlines() or [""]
            print(f"{name}: left out, not installed or does not import: {type(error).__name__}: {reason[0]}")
            continue
        names.append(name)
    return tuple(names)


def inputs(batch_size: int, dim: int, seed: int, device: torch.device) -> list[Tensor]:
    """Encodings û, û⁺, ũ, ũ⁺ as leaves: the same numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(4, batch_size, dim, generator=generator).to(device)
    return [one.contiguous().requires_grad_() for one in views.unbind()]


def phased(name: str, views: Views) -> Phased:
    """One candidate at these encodings: its loss, and the gradient of all that it takes."""
    candidate = CANDIDATES[name]
    loss: Callable[..., Any] = candidate.make()
    taken = (views[0], views[2]) if candidate.paired else tuple(views)
    if not candidate.differentiable:
        return Phased(lambda: loss(*taken), None)
    return Phased(lambda: loss(*taken), lambda made: torch.autograd.grad(made, taken))


def once(name: str, batch_size: int, dim: int, seed: int, device: str) -> dict[str, float]:
    """Compute a loss and its gradient once, encodings included, for peak memory; returns seconds of each phase."""
    on = torch.device(device)
    return timed(phased(name, inputs(batch_size, dim, seed, on)), on)
