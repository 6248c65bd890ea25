"""A stand-in for CUDA graphs on a CPU: it records the operations of a step, and its replay runs them alone.

As on a device, no Python of the step runs again, every operation reads and writes the tensors of the recording, and
what was a Python number or a shape then stays so. A step that would go wrong as a graph so goes wrong here.
"""

import torch
from readbacks import count_readbacks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        schema = func._schema
        if any(argument.is_write for argument in schema.arguments):
            self.operations.append((func, args, kwargs, []))  # writes into tensors that stay
        elif not any(one.alias_info is not None for one in schema.returns):  # a view of such a tensor is up to date
            self.operations.append((func, args, kwargs, _tensors(result)))
        return result


class RecordedCapture:
    """Captures on a CPU. Recording a step runs it, which a graph does not: what it changed is put back.

    Args:
        state: returns the tensors that a step changes in place.
    """

    def __init__(self, state):
        self.state = state
        self.ordinary = self.captured = self.replayed = 0

    def run(self, step):
        self.ordinary += 1
        return step()

    def waits(self, step):
        with count_readbacks() as reads:
            return self.run(step), reads

    def capture(self, step, generators):
        self.captured += 1
        changed = self.state()
        before = [tensor.clone() for tensor in changed]
        random = torch.get_rng_state(), [generator.get_state() for generator in generators]
        with _Recorder() as recorder:
            result = step()
        with torch.no_grad():
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
        torch.set_rng_state(random[0])
        for generator, state in zip(generators, random[1], strict=True):
            generator.set_state(state)

        def replay():
            self.replayed += 1
            with torch.no_grad():
                for func, args, kwargs, results in recorder.operations:
                    for result_then, now in zip(results, _tensors(func(*args, **kwargs)) if results else _run(func, args, kwargs), strict=True):
                        result_then.copy_(now)
            return result

        return replay


def _run(func, args, kwargs):
    func(*args, **kwargs)
    return []


def _tensors(values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
