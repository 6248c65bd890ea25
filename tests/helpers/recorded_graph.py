"""A stand-in for CUDA graphs on a CPU: it records the operations of a step, and a replay runs these alone.

As on a device, no Python of the step runs again, and every operation reads and writes the tensors of the recording. So
a step that depends on a Python number, a shape or a value that changes goes wrong here as it would there.
"""

import torch
from readbacks import count_readbacks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from adaptssr_plugin.training.graphed_step import GraphedStep, step_of_stage
from adaptssr_plugin.training.stages.base import Streams

aten = torch.ops.aten
RESHAPING = {aten.transpose_, aten.t_, aten.squeeze_, aten.unsqueeze_, aten.as_strided_}


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given, named = tree_map(_alias, (args, kwargs))  # of these shapes, which an operation in place may change
        made = func(*args, **kwargs)
        writes = any(argument.is_write for argument in func._schema.arguments)
        views = any(one.alias_info is not None for one in func._schema.returns)
        if func.overloadpacket not in RESHAPING and (writes or not views):  # a view of what stays is up to date
            self.operations.append((func, given, named, [] if writes else [_alias(one) for one in _tensors(made)]))
        return made


class RecordedCapture:
    """Captures on a CPU. Recording a step runs it, which a graph does not: what it changed is put back.

    Args:
        state: returns the tensors that a step changes in place.
        captures: False: as if the last ordinary step had waited.
    """

    def __init__(self, state, captures=True):
        self.state, self.captures = state, captures
        self.ordinary = self.captured = self.replayed = 0

    def run(self, step):
        self.ordinary += 1
        return step()

    def waits(self, step):
        with count_readbacks() as reads:
            result = self.run(step)
        return result, reads if self.captures else ["aten.item"]

    def capture(self, step, generators):
        self.captured += 1
        changed, generators = self.state(), [torch.default_generator, *generators]
        before, random = [tensor.clone() for tensor in changed], [one.get_state() for one in generators]
        with _Recorder() as recorder:
            result = step()
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        for generator, state in zip(generators, random, strict=True):
            generator.set_state(state)

        def replay():
            self.replayed += 1
            with torch.no_grad():
                for func, args, kwargs, then in recorder.operations:
                    made = func(*args, **kwargs)
                    for old, new in zip(then, _tensors(made) if then else [], strict=True):
                        old.copy_(new)
            return result

        return replay


def _alias(value):
    return value.detach() if isinstance(value, torch.Tensor) else value


def _tensors(values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def changed_by(module, optimizer):
    """Return the weights, buffers and the optimiser's tensors."""
    moments = [value for state in optimizer.state.values() for value in state.values()]
    return [*module.parameters(), *module.buffers(), *_tensors(moments)]


class StageSteps:
    """Steps of a stage with Adam, as StageTrainer takes them.

    Args:
        stage: of any kind, in training.
        capture: makes what captures from the function that returns the changed tensors.
        device: where they run.
    """

    def __init__(self, stage, capture=RecordedCapture, device="cpu", **options):
        self.stage, self.device, self.said = stage.to(device).train(), torch.device(device), []
        self.optimizer = torch.optim.Adam(
            stage.parameters(), lr=1e-2, fused=True, capturable=self.device.type == "cuda"
        )
        self.capture = capture(lambda: changed_by(self.stage, self.optimizer), **options)
        self.graphed = GraphedStep(self.capture, self.said.append)
        self.kept = {}

    def __call__(self, batch, number):
        """Take a step; returns its loss and logs as numbers."""
        result = self.take(batch, number)
        return {"of the step": result.loss.item(), **{name: value.item() for name, value in result.logs.items()}}

    def take(self, batch, number):
        """Take a step; returns its result."""
        streams = Streams(self.device, (0, "stage", 0, number), self.kept)

        def take(held):
            self.optimizer.zero_grad(set_to_none=True)
            result = self.stage.step(held, streams)
            result.loss.backward()
            self.optimizer.step()
            return result

        return step_of_stage(self.graphed, self.stage, batch, streams, take, batch.item_seq.shape[1])
