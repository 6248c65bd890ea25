"""A training step as one CUDA graph: captured once for each shape of its inputs, and replayed after that.

At a small batch a GPU waits for the host, which launches some hundred small operations one by one. A graph launches
them all at once. What it replays is fixed: the operations, their shapes, the addresses of their tensors. So the inputs
of a step are copied into tensors that stay, shapes are rounded up to a few sizes (:func:`.fixed_size`), and random
numbers come from generators that stay and are seeded anew before every step, as CUDA graphs allow: a replayed step
draws the numbers that the same step draws if it is not replayed. All of this is ours.

The first steps of every shape are ordinary steps, which count. They make what is made once (the optimiser's state,
workspaces, compiled kernels), and the last of them is watched: if the host waits for the device in it, the steps
cannot be captured.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..corpus import Batch
from ..devices import fixed_shapes
from .fixed_sizes import fixed_size
from .stages.base import Stage, StepResult, Streams

Result = TypeVar("Result")

WARM_UP = 3  # ordinary steps of every shape before the capture
_WIDTHS = 4  # to which batches are padded
_MOST_GRAPHS = 64  # steps of further shapes are ordinary ones


class CudaCapture:
    """Run steps on a device and capture them into CUDA graphs, which share their memory.

    Tests on a CPU replace this class alone.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def run(self, step: Callable[[], Result]) -> Result:
        """Run an ordinary step on the stream of the captures, between what was asked for before and after it."""
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                result = step()
            current.wait_stream(self._stream)
        return result

    def waits(self, step: Callable[[], Result]) -> tuple[Result, list[str]]:
        """Run an ordinary step; also say where the host waited for the device, of which torch warns in this mode."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self.run(step)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        return result, [str(one.message) for one in caught if "synchroniz" in str(one.message)]

    def capture(self, step: Callable[[], Result], generators: Iterable[torch.Generator]) -> Callable[[], Result]:
        """Capture a step without running it; returns its replay, which always gives the same tensors.

        Torch's default generator needs no registration.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = step()

        def replay() -> Result:
            graph.replay()
            return result

        return replay


class GraphedStep(Generic[Result]):
    """Training steps, each of them replayed if its shapes have come before.

    Args:
        capture: of the device.
        say: is told in one line if steps cannot be captured; they stay ordinary ones then.
    """

    def __init__(self, capture: CudaCapture, say: Callable[[str], None]) -> None:
        self._capture = capture
        self._say = say
        self._captures = True
        self._said_full = False
        self._came: Counter[Hashable] = Counter()
        self._buffers: dict[Hashable, dict[str, Tensor]] = {}
        self._replays: dict[Hashable, Callable[[], Result]] = {}

    @property
    def n_graphs(self) -> int:
        """The number of captured graphs."""
        return len(self._replays)

    def __call__(
        self,
        inputs: Mapping[str, Tensor],
        step: Callable[[dict[str, Tensor]], Result],
        streams: Streams,
        fixed: Hashable = (),
    ) -> Result:
        """Take a step.

        Args:
            inputs: tensors by name, on the CPU or on the device.
            step: the whole step, from copies of the inputs on the device to detached results. It depends on nothing
                else that changes, apart from tensors that are changed in place, the generators of ``streams``, and
                torch's default one.
            streams: of the device where the step runs, with generators that are kept.
            fixed: whatever else determines the shapes within the step.

        Returns:
            What ``step`` gives; the next step overwrites its tensors.
        """
        shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in inputs.items())
        key = (fixed, shapes)
        if key not in self._buffers:
            self._buffers[key] = {
                name: torch.empty_like(tensor, device=streams.device, memory_format=torch.contiguous_format)
                for name, tensor in inputs.items()
            }
        buffers = self._buffers[key]
        for name, tensor in inputs.items():
            buffers[name].copy_(tensor, non_blocking=True)
        streams.begin()
        self._came[key] += 1
        if key not in self._replays:
            with fixed_shapes():
                if not self._may_capture(key):
                    return self._ordinary(key, lambda: step(buffers))
                generators = list((streams.kept or {}).values())
                self._replays[key] = self._capture.capture(lambda: step(buffers), generators)
        return self._replays[key]()

    def _may_capture(self, key: Hashable) -> bool:
        if not self._captures or self._came[key] <= WARM_UP:
            return False
        if len(self._replays) == _MOST_GRAPHS and not self._said_full:
            self._said_full = True
            self._say(
                f"cuda_graphs: there are {_MOST_GRAPHS} graphs; steps of other shapes run one operation at a time"
            )
        return len(self._replays) < _MOST_GRAPHS

    def _ordinary(self, key: Hashable, step: Callable[[], Result]) -> Result:
        if not self._captures or self._came[key] != WARM_UP:
            return self._capture.run(step)
        result, waits = self._capture.waits(step)
        if waits:
            self._captures = False
            self._say(
                f"cuda_graphs: steps run one operation at a time: the host waits for the device in them ({waits[0]})"
            )
        return result


def step_of_stage(
    graphed: GraphedStep[StepResult],
    stage: Stage,
    batch: Batch,
    streams: Streams,
    take: Callable[[Batch], StepResult],
    max_len: int,
) -> StepResult:
    """Take a step of a stage, replayed if its shapes have come before; the batch is padded to a quarter of ``max_len``.

    Args:
        graphed: of this stage.
        stage: whose :meth:`~.Stage.why_eager` names nothing.
        batch: on the CPU or on the device.
        streams: as :meth:`GraphedStep.__call__`.
        take: the whole step on a batch on the device: loss, gradients and optimiser.
        max_len: the longest sequence.
    """
    batch = batch.padded(fixed_size(batch.item_seq.shape[1], max_len, _WIDTHS))
    with fixed_shapes():
        fixed = stage.fixed(batch)

    def step(tensors: dict[str, Tensor]) -> StepResult:
        result = take(batch.with_tensors(tensors))
        return result._replace(loss=result.loss.detach())

    return graphed(batch.on_device(), step, streams, fixed)


def capture_on(device: torch.device) -> CudaCapture | None:
    """Return what captures steps on a device; None if nothing does."""
    return CudaCapture(device) if device.type == "cuda" else None


def graphed_step(device: torch.device, why_eager: str | None, say: Callable[[str], None]) -> GraphedStep[Result] | None:
    """Make a :class:`GraphedStep`, or say in one line why there is none.

    Args:
        device: where the steps run.
        why_eager: a reason against capturing them; None: none is known.
        say: is told the line.
    """
    capture = capture_on(device) if why_eager is None else None
    if capture is None:
        reason = why_eager or f"there is no CUDA device, but {device.type}"
        say(f"cuda_graphs: steps run one operation at a time, as without it: {reason}")
        return None
    return GraphedStep(capture, say)
