"""No pre-training: the same network from a random initialisation."""

from ..registry import Method, register

METHOD = register(Method("none", "nothing to verify"))
