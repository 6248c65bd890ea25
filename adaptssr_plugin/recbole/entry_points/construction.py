"""Making instances of RecBole's classes while installed, so that they honour the options of their config.

A name imported before :func:`~adaptssr_plugin.recbole.install` refers to the same class as one imported after it. So
the classes themselves are changed for a while, in their ``__init__``. Not in ``__new__``: CPython (3.10 to 3.13, tried)
does not restore a class's former ``__new__``, and no more instances could be made.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from recbole.config import Config
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.dataset import Dataset
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.trainer.trainer import AbstractTrainer

from ...errors import InputError
from ..compat.data_parallel import alone, refuse_trainer
from ..compat.layers import speed_up
from ..compat.patches import temporary_attribute
from ..recommender.checkpoints import load_pretrained_weights
from ..recommender.config import RunConfig
from ..recommender.data import check_items
from ..recommender.item_init import start_from_svd
from ..recommender.joint import (
    SelfSupervisedTerm,
    add_term,
    check_made_with,
    class_of_model,
    keep_modules_out_of_checkpoints,
    self_supervised_term,
)
from ..recommender.settings import SelfSupervision, settings_of
from ..recommender.trainer import RecommenderTrainer
from ..user_model.trainer import UserModel

_Init = Callable[..., None]
# Whether a model is being made; another one made meanwhile may be a part of it.
_making_model: ContextVar[bool] = ContextVar("making_model", default=False)


@contextmanager
def options_honoured() -> Iterator[None]:
    """Within this context a plain ``Config`` and ``Trainer`` are ours, and models get their self-supervised loss."""
    with ExitStack() as stack:
        for owner, make in (
            (Config, _make_config),
            (AbstractDataLoader, _make_loader),
            (Trainer, _make_trainer),
            (AbstractTrainer, _make_any_trainer),
        ):
            stack.enter_context(temporary_attribute(owner, "__init__", _instead(owner.__init__, make)))
        stack.enter_context(_models_intercepted())
        yield


def _instead(own: _Init, make: _Init) -> _Init:
    """Return an ``__init__`` that calls ``make(own, self, …)`` instead of ``own(self, …)``."""

    @functools.wraps(own)
    def init(*arguments: Any, **options: Any) -> None:
        make(own, *arguments, **options)

    return init


def _make_config(own: _Init, config: Any, /, *arguments: Any, **options: Any) -> None:
    if type(config) is Config:
        config.__class__ = RunConfig
        RunConfig.__init__(config, *arguments, **options)
    else:
        own(config, *arguments, **options)


def _make_loader(own: _Init, loader: Any, /, config: Any, *arguments: Any, **options: Any) -> None:
    """Give every process all rows for evaluation, and its own part of those for training."""
    if config["single_spec"] is False and isinstance(loader, FullSortEvalDataLoader | NegSampleEvalDataLoader):
        config = alone(config)
    own(loader, config, *arguments, **options)


# --- trainers --------------------------------------------------------------------------------------------------------


def _make_trainer(own: _Init, trainer: Any, /, config: Any, model: Any) -> None:
    if type(trainer) is Trainer:
        trainer.__class__ = RecommenderTrainer
        RecommenderTrainer.__init__(trainer, config, model)
    else:
        own(trainer, config, model)
        term = self_supervised_term(model)
        if term is not None and not isinstance(trainer, RecommenderTrainer):
            term.apart = False
            _check_first_step(trainer, config, term)


def _check_first_step(trainer: Any, config: Any, term: SelfSupervisedTerm) -> None:
    """Let the first step raise InputError if it uses other losses of the model than ``calculate_loss``."""

    def check(*_: Any) -> None:
        handle.remove()
        if not term.computed:
            raise InputError(
                f"ssl_loss: expected none for {config['model']}, which {type(trainer).__name__} trains without its "
                f"calculate_loss, got {term.settings.loss}"
            )

    handle = trainer.optimizer.register_step_pre_hook(check)


def _make_any_trainer(own: _Init, trainer: Any, /, config: Any, model: Any) -> None:
    if isinstance(config, Config) and not isinstance(model, UserModel):  # a UserModel is a stage of pretrain mode
        check_made_with(config, model)
        if not isinstance(trainer, RecommenderTrainer):
            _check_trainer(type(trainer), config, settings_of(config))
    own(trainer, config, model)


def _check_trainer(trainer: type[Any], config: Config, settings: SelfSupervision) -> None:
    """Raise InputError for options that need this package's trainer, if a model has its own trainer."""
    model = config["model"]
    if settings.active and settings.mode == "pretrain":
        raise InputError(
            f"ssl_mode: expected joint for {model}, which {trainer.__name__} trains, got pretrain: the stages before "
            "go by this package's trainer"
        )
    if config["resume"]:
        raise InputError(
            f"resume: expected no checkpoint for {model}, which {trainer.__name__} trains, got {config['resume']}: "
            "only this package's trainer goes on from one"
        )
    if config["single_spec"] is False:
        refuse_trainer(trainer, model, config["world_size"])


# --- models ----------------------------------------------------------------------------------------------------------


@contextmanager
def _models_intercepted() -> Iterator[None]:
    """Intercept the making of every recommender, including classes defined within this context."""
    own: dict[type[Any], _Init | None] = {}
    stand_ins: set[_Init] = set()

    def intercept(model_class: type[Any]) -> None:
        if model_class.__init__ not in stand_ins:  # its own, or inherited from a class that is not a recommender
            own[model_class] = vars(model_class).get("__init__")
            stand_in = _instead(model_class.__init__, _make_model)
            stand_ins.add(stand_in)
            setattr(model_class, "__init__", stand_in)  # noqa: B010 - mypy takes no other

    def init_subclass(model_class: type[Any], /, **options: Any) -> None:
        super(AbstractRecommender, model_class).__init_subclass__(**options)
        intercept(model_class)

    for model_class in _descendants(AbstractRecommender):
        intercept(model_class)
    AbstractRecommender.__init_subclass__ = classmethod(init_subclass)
    try:
        yield
    finally:
        del AbstractRecommender.__init_subclass__
        for model_class, init in own.items():
            if init is None:
                del model_class.__init__
            else:
                setattr(model_class, "__init__", init)  # noqa: B010


def _descendants(parent: type[Any]) -> Iterator[type[Any]]:
    yield parent
    for child in parent.__subclasses__():
        yield from _descendants(child)


def _make_model(own: _Init, model: Any, /, *arguments: Any, **options: Any) -> None:
    """Make a model as its config says. A model within another, such as a teacher, is a part of it and not changed."""
    config = _first(Config, *arguments, *options.values())
    if config is None or _making_model.get():
        own(model, *arguments, **options)
        return
    dataset = _first(Dataset, *arguments, *options.values())
    if trained := vars(config).pop("trained_items", None):  # from a checkpoint that is being loaded
        check_items(dataset, *trained)
    settings = settings_of(config)
    # Not through nn.Module, which would look for a parameter of that name.
    object.__setattr__(model, "__class__", class_of_model(type(model), config, settings))
    making = _making_model.set(True)
    try:
        own(model, *arguments, **options)
        keep_modules_out_of_checkpoints(model)
        if settings.item_init == "svd":
            start_from_svd(model, config, dataset)
        if settings.active:
            add_term(model, config, dataset, settings)
        if config["faster_layers"]:
            speed_up(model)
        if config["pretrained"]:
            report = load_pretrained_weights(model, config["pretrained"], dataset, bool(config["trusted_files"]))
            model.logger.info(f"Weights of {config['pretrained']}:\n{report}")
    finally:
        _making_model.reset(making)


def _first(kind: type[Any], *arguments: Any) -> Any:
    return next((argument for argument in arguments if isinstance(argument, kind)), None)
