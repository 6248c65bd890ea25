"""The methods by name. One method is one file that registers it, and one YAML file with its defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ..encoders import UserEncoder
from ..errors import InputError, check_kind, find
from ..training import Stage
from ..training.stages.pairwise import Views
from .options.comparison import ComparisonOptions
from .views import ViewSource

_PACKAGED = files(__package__) / "defaults"


@dataclass(frozen=True)
class Method:
    """A row of the paper's Table 2, or a method of your own.

    Attributes:
        name: of the method.
        evidence: the sources of its parts: the authors' code, a paper, or our reconstruction.
        views: makes its two views of a sequence, for methods that compare views; they work with either loss.
        stage: makes its stage for an encoder from ``(recipe, encoder, source)``, for other methods.
        needs_filler: whether its views come from a frozen masked-item model, which is trained first.
        defaults: YAML file of its defaults; None: ``defaults/<name>.yaml`` of this package.
    """

    name: str
    evidence: str
    views: Callable[[ComparisonOptions, ViewSource], Views] | None = None
    stage: Callable[[Any, UserEncoder, ViewSource], Stage] | None = None
    needs_filler: bool = False
    defaults: Any = None


_methods: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Register a method under its name; returns it.

    Raises:
        InputError: the name is taken, or the method has both views and a stage.
    """
    check_kind("method", method, Method, "a Method")
    if method.name in _methods:
        raise InputError(f"method: expected a new name, got {method.name!r}, which is registered already")
    if method.views is not None and method.stage is not None:
        raise InputError(f"method: expected views or a stage of {method.name!r}, got both")
    _methods[method.name] = method
    return method


def unregister(name: str) -> None:
    """Remove a method; an unknown name is ignored."""
    _methods.pop(name, None)


def available() -> list[str]:
    """Names of the methods."""
    return sorted(_methods)


def view_methods(with_filler: bool = True) -> list[str]:
    """Names of the methods that compare two views; ``with_filler=False`` leaves out those that need a trained model."""
    return [
        name
        for name in available()
        if _methods[name].views is not None and (with_filler or not _methods[name].needs_filler)
    ]


def method_named(name: str) -> Method:
    """Return the method of a name.

    Raises:
        InputError: an unknown name.
    """
    return find("method", _methods, name)


def defaults_of(name: str) -> Any:
    """Return the YAML file of a method's defaults."""
    method = method_named(name)
    return method.defaults if method.defaults is not None else _PACKAGED / f"{name}.yaml"


def make_views(method: str, options: ComparisonOptions, source: ViewSource) -> Views:
    """Make the view provider of a method.

    Raises:
        InputError: an unknown method, or one that does not compare views.
    """
    views = method_named(method).views
    if views is None:
        raise InputError(f"method: expected one that compares two views, got {method!r}")
    return views(options, source)
