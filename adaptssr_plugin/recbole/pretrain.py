"""Pre-training from a RecBole dataset to a folder with the model: every stage through RecBole's trainer."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config

from ..corpus import BatchLoader, BehaviourCorpus
from ..encoders import UserEncoder, make_encoder
from ..errors import InputError, MissingDatasetError
from ..methods import Recipe
from ..methods.plan import StagePlan, stage_plans
from ..methods.views import UserHistories
from ..seeding import stream_seed
from ..training import MaskedItemFiller, MaskedItemStage, Stage, load_artefact, save_artefact, transfer
from ..training.artefacts import encoder_of, misfit, write_json
from ..training.processes import Processes
from .config import build_config
from .data_parallel import check_alike, device_of_process
from .safe_config import as_option
from .trainer import StageTrainer, UserModel
from .trainer_checkpoints import CHECKPOINT_MINUTES
from .user_sequences import load_user_sequences
from .versions import versions as versions  # also from here, where users look for it
from .warm_start import WarmStart, warm_start

# RecBole's options that would be without effect, since stages have their own.
_OPTIONS_OF_A_RECIPE = {
    "MAX_ITEM_LIST_LENGTH": "max_len",
    "clip_grad_norm": "clip_grad_norm",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "seed": "seed",
    "stopping_step": "stopping_step",
    "train_batch_size": "batch_size",
}


@dataclass(frozen=True)
class Source:
    """Where behaviours come from.

    Attributes:
        dataset: a RecBole dataset by name, or a folder with its atomic files.
        options: RecBole's own options (columns, filters, split, device, AMP …).
        config_files: RecBole's yaml files, or options in the place of one.
        advice: what is said besides where there is no such dataset.
    """

    dataset: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config_files: Sequence[str | Mapping[str, Any]] = ()
    advice: str = ""

    def config(self, max_len: int = 100) -> Config:
        """Make RecBole's config; errors as :func:`build_config`, and for options that a recipe has in their place."""
        for name in self.options:
            if name in _OPTIONS_OF_A_RECIPE:
                raise InputError(
                    f"{name}: expected among the options of the recipe, as {_OPTIONS_OF_A_RECIPE[name]}, "
                    "got it among RecBole's"
                )
        try:
            return build_config(
                UserModel, self.dataset, {"MAX_ITEM_LIST_LENGTH": max_len, **self.options}, self.config_files
            )
        except MissingDatasetError as error:
            raise MissingDatasetError(f"{error}{self.advice and f'; {self.advice}'}") from None

    @property
    def name(self) -> str:
        """Name of the dataset, without its folder."""
        return Path(self.dataset).name

    @classmethod
    def of_model(
        cls,
        folder: Path,
        card: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        config_files: Sequence[str] = (),
        advice: str = "",
    ) -> "Source":
        """Say again where the behaviours of a finished run came from.

        Args:
            folder: of its model.
            card: of its model.
            options: that go before those of the run.
            config_files: likewise, behind ``options``.
            advice: what to do where the dataset has moved.

        Raises:
            InputError: a card that does not say it.
        """
        dataset, before = card.get("dataset"), card.get("recbole_options", {})
        files = card.get("recbole_config_files", [])  # of runs whose card does not yet say what is in these
        if not (isinstance(dataset, str) and isinstance(before, Mapping) and isinstance(files, list)):
            raise InputError(f"model: expected one from adaptssr pretrain, got another model.json in {folder}")
        advice = f"the model in {folder} was trained on it{advice and f', and {advice}'}"
        return cls(dataset, options or {}, [*map(str, files), before, *config_files], advice)


@dataclass(frozen=True)
class StageResult:
    """What a stage came to.

    Attributes:
        name: of the stage.
        selected_epoch: the epoch, counted from 1, that moved on.
        history: per epoch the means of what was logged, validation numbers and seconds.
    """

    name: str
    selected_epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True)
class PretrainedModel:
    """A pre-trained encoder and where its files are.

    Attributes:
        encoder: on the CPU, in evaluation mode.
        folder: where its files are.
        stages: how training went.
        warm_up: the encoder as the warm-up left it, where there was one and the stages were run or read again.
    """

    encoder: UserEncoder
    folder: Path
    stages: tuple[StageResult, ...]
    warm_up: UserEncoder | None = None


def pretrain(
    source: Source,
    recipe: Recipe,
    folder: str | Path,
    show_progress: bool = True,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    say: Callable[[str], None] = lambda _: None,
) -> PretrainedModel:
    """Run the stages of a recipe, or go on where an interrupted run of the same recipe stopped.

    Nine tenths of the users are trained on, by ``valid_share``; the rest choose the epoch. The folder gets a
    sub-folder with checkpoints and TensorBoard curves per stage, and at the end the model's files
    (:func:`~adaptssr_plugin.training.save_artefact`). An interrupted run that is started again ends with the
    same weights as an uninterrupted one.

    Where torch's default process group has several processes, all of them call this, alike, and train together: every
    batch is shared out among them, negatives come from all of them, and a step is that of the whole batch (``sampled``
    warm-up excepted, where each draws items of its own). The first one writes and speaks. Views and dropout are
    drawn by each for its rows, so that the weights depend on the number of processes, and on nothing else of them.

    Args:
        source: where the behaviours come from.
        recipe: method and options; ``none`` gives the random initialisation.
        folder: where the files go; made if missing.
        show_progress: a progress bar per stage, on standard error.
        checkpoint_minutes: of training between two checkpoints within an epoch; 0: after every step. The last two
            checkpoints are kept, and those of the epochs that are selected.
        say: is told, in one line, of items that a warm start does not know.

    Raises:
        InputError: anything the caller can put right, a folder that holds another run among it.
        TrainingDivergedError: NaN or infinity in a step.
        TrainingStoppedError: SIGTERM came in training, which has written a checkpoint.
        OSError: a full disk or the like; what was written before is whole.
        ProcessLostError: another one of several processes ended, or no longer answers.
    """
    processes = Processes(together=True)
    with processes.none_lost():
        return _pretrain(source, recipe, folder, show_progress, checkpoint_minutes, say, processes)


def _pretrain(
    source: Source,
    recipe: Recipe,
    folder: str | Path,
    show_progress: bool,
    checkpoint_minutes: float,
    say: Callable[[str], None],
    processes: Processes,
) -> PretrainedModel:
    if isinstance(checkpoint_minutes, bool) or not 0 <= checkpoint_minutes < float("inf"):
        raise InputError(f"checkpoint_minutes: expected a number of at least 0, got {checkpoint_minutes!r}")
    folder = Path(folder)
    config, corpus, start = processes.agreed(lambda: _beginning_of_run(source, recipe, processes))
    asked = _asked(source, recipe, corpus)
    check_alike(processes, {part: asked[part] for part in ("recipe", "corpus")})
    run = processes.by_first(lambda: _claim(folder, asked))
    if start is not None and start.items is not None and processes.is_main_process:
        say(f"warm start: {start.items}")

    def begin(dropout: float) -> UserEncoder:
        """Make the encoder that a stage begins with."""
        encoder = fresh_encoder(recipe, corpus.n_items, dropout, recipe.seed)
        if start is not None:
            start.into(encoder)
        return encoder

    train_rows, valid_rows = _split(len(corpus), recipe)
    plans = stage_plans(recipe)
    earlier = encoder = begin(plans[0].dropout if plans else recipe.dropout)
    source_of_views = UserHistories(corpus, recipe.max_len, train_rows)
    results: list[StageResult] = []
    for plan in plans:
        if results:
            earlier, encoder = encoder, begin(plan.dropout)
            transfer(earlier.state_dict(), encoder, plan.takes)
        loaders = [
            BatchLoader(corpus, rows, batch_size=recipe.batch_size, max_len=recipe.max_len, seed=recipe.seed,
                        name=name, shuffle=name == "train", part=part, parts=parts)
            for name, rows, part, parts in (
                ("train", train_rows, processes.rank, processes.number), ("valid", valid_rows, 0, 1)
            )
        ]  # fmt: skip
        kept = {"checkpoint_minutes": checkpoint_minutes, "run": run, "together": True}
        result, stage = _run_stage(config, recipe, plan, encoder, source_of_views, folder, loaders, show_progress, kept)
        results.append(result)
        if plan.generates:
            source_of_views.generator = _generator(stage, recipe)
    warm_up = earlier.cpu().eval() if len(results) > 1 and plan.takes else None
    encoder = encoder.cpu().eval()
    if processes.is_main_process:
        card = _card(source, config, recipe, corpus, results)
        save_artefact(folder, encoder, recipe.encoder_arguments(corpus.n_items), card, corpus.item_tokens)
    processes.wait()
    return PretrainedModel(encoder, folder, tuple(results), warm_up)


def _beginning_of_run(
    source: Source, recipe: Recipe, processes: Processes
) -> tuple[Config, BehaviourCorpus, WarmStart | None]:
    """Read all that a run begins with; errors as for :func:`pretrain`."""
    config = source.config(recipe.max_len)
    if processes.data_parallel:
        config["device"] = device_of_process(config, processes)
    corpus = load_user_sequences(config).corpus
    return config, corpus, warm_start(recipe, corpus)


def fresh_encoder(recipe: Recipe, n_items: int, dropout: float, seed: int) -> UserEncoder:
    """Initialise an encoder; the same seed gives the same weights, whatever was drawn before."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(stream_seed(seed, "init"))
        encoder: UserEncoder = make_encoder(dropout=dropout, **recipe.encoder_arguments(n_items))
        return encoder


def _generator(stage: Stage, recipe: Recipe) -> MaskedItemFiller:
    """Freeze the model of a stage, for the views of the next one."""
    if not isinstance(stage, MaskedItemStage):
        came = type(stage.encoder).__name__
        raise InputError(f"encoder: expected one that predicts masked items, for {recipe.method}'s views, got {came}")
    return MaskedItemFiller(stage.encoder, stage.head)


def load_pretrained(folder: str | Path) -> PretrainedModel:
    """Load the encoder of a finished run, on the CPU, in evaluation mode.

    Raises:
        InputError: a folder without a finished run, or damaged files.
    """
    folder = Path(folder)
    artefact = load_artefact(folder)
    encoder = encoder_of(artefact, folder)
    try:
        stages = tuple(StageResult(**stage) for stage in artefact.card.get("stages", ()))
    except TypeError as error:
        raise misfit(folder, error) from None
    return PretrainedModel(encoder, folder, stages)


def _run_stage(
    config: Config,
    recipe: Recipe,
    plan: StagePlan,
    encoder: UserEncoder,
    source: UserHistories,
    folder: Path,
    loaders: list[BatchLoader],
    show_progress: bool,
    kept: Mapping[str, Any],
) -> tuple[StageResult, Stage]:
    """Run a stage; the stage has the weights of its selected epoch then. ``kept``: of the trainer's checkpoints."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(stream_seed(recipe.seed, plan.name, "init"))
        stage = plan.make(encoder, source)
    trainer = StageTrainer(
        config,
        stage,
        plan,
        folder / plan.name,
        seed=recipe.seed,
        stopping_step=recipe.stopping_step,
        clip_grad_norm=recipe.clip_grad_norm,
        amp_dtype=recipe.amp_dtype,
        **kept,
    )
    train_data, valid_data = loaders
    trainer.run(train_data, valid_data, show_progress)
    return StageResult(plan.name, trainer.selected_epoch, trainer.history), stage


def _split(n_users: int, recipe: Recipe) -> tuple[Any, Any]:
    """Split users into training and validation (90/10 in the paper)."""
    n_valid = round(recipe.valid_share * n_users)
    if n_valid < 2 or n_users - n_valid < 2:
        raise InputError(
            f"dataset: expected at least two users for training and two for validation "
            f"(valid_share {recipe.valid_share}), got {n_users} users"
        )
    order = np.random.default_rng(stream_seed(recipe.split_seed, "pretrain split")).permutation(n_users)
    return np.sort(order[n_valid:]), np.sort(order[:n_valid])


def _asked(source: Source, recipe: Recipe, corpus: BehaviourCorpus) -> dict[str, Any]:
    """Give what a run is asked for, as plain values in named parts."""
    asked = {
        "recipe": dataclasses.asdict(recipe),
        "source": {
            "dataset": source.dataset,
            "options": dict(source.options),
            "config_files": list(source.config_files),
        },
        "corpus": {"users": len(corpus), "items": corpus.n_items, "behaviours": len(corpus.items)},
    }
    run: dict[str, Any] = json.loads(json.dumps(asked, default=str))
    return run


def _claim(folder: Path, run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Note in the folder which run it belongs to, or check that it is this one; clear away what is half written."""
    _check_claim(folder, run)
    for half_written in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):  # by a run that was killed
        half_written.unlink()
    return run


def _check_claim(folder: Path, run: Mapping[str, Any]) -> None:
    manifest = folder / "run.json"
    # A run that was refused before its first epoch left nothing, and may be corrected in the same folder.
    kept = ("*/last.pt", "*/previous.pt", "model.json")
    if not any(path for pattern in kept for path in folder.glob(pattern)):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output: expected a folder, got the file {folder}")
        write_json(manifest, run)
        return
    try:
        there = json.loads(manifest.read_text(encoding="utf-8"))
        known = {part: dict(there[part]) for part in run}
    except (OSError, ValueError, TypeError, KeyError):
        raise InputError(f"output: {manifest} is missing or damaged; choose another folder") from None
    for part, values in run.items():
        for name, value in values.items():
            if known[part].get(name) != value:
                raise InputError(
                    f"output: {folder} holds another run ({name}: {known[part].get(name)!r} there, "
                    f"{value!r} here); choose another folder"
                )


def _card(
    source: Source, config: Config, recipe: Recipe, corpus: BehaviourCorpus, results: list[StageResult]
) -> dict[str, Any]:
    of_files = {
        name: as_option(value)
        for name, value in config.file_config_dict.items()
        if name not in _OPTIONS_OF_A_RECIPE  # which are without effect in a file
    }
    return {
        "dataset": source.dataset,
        "recbole_options": json.loads(json.dumps({**of_files, **source.options}, default=str)),
        "users": len(corpus),
        "recipe": dataclasses.asdict(recipe),
        "stages": [dataclasses.asdict(result) for result in results],
        "versions": versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
