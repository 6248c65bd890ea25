"""Pre-training from a RecBole dataset to a folder with the model: all stages through RecBole's trainer."""

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.config import Config

from ...corpus import BehaviourCorpus
from ...encoders import UserEncoder
from ...errors import InputError
from ...methods import Recipe
from ...progress import Show
from ...training import load_artefact, save_artefact
from ...training.artefacts import encoder_of, misfit
from ...training.processes import Processes
from ..compat.data_parallel import check_alike, device_of_process
from ..compat.user_sequences import load_user_sequences
from ..versions import versions
from .checkpoints import CHECKPOINT_MINUTES
from .manifest import as_json, claim, manifest_of
from .source import Source
from .stages import PretrainStages, StageResult, fresh_encoder, users_of
from .warm_start import WarmStart, warm_start

# Users look for these names here, wherever they are defined.
__all__ = [
    "PretrainedModel",
    "Source",
    "StageResult",
    "fresh_encoder",
    "load_pretrained",
    "pretrain",
    "versions",
]


@dataclass(frozen=True)
class PretrainedModel:
    """A pre-trained encoder and its files.

    Attributes:
        encoder: on the CPU, in evaluation mode.
        folder: of the files.
        stages: the results of training.
        warm_up: the encoder after the warm-up, if there was one and the stages were run or read again.
    """

    encoder: UserEncoder
    folder: Path
    stages: tuple[StageResult, ...]
    warm_up: UserEncoder | None = None


def pretrain(
    source: Source,
    recipe: Recipe,
    folder: str | Path,
    show_progress: Show = True,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    say: Callable[[str], None] = lambda _: None,
) -> PretrainedModel:
    """Run the stages of a recipe, or resume an interrupted run of the same recipe.

    By default nine tenths of the users are trained on (``valid_share``); the rest choose the epoch. The folder gets a
    sub-folder with checkpoints and TensorBoard curves per stage, and at the end the model's files
    (:func:`~adaptssr_plugin.training.save_artefact`). An interrupted run that is started again ends with the
    same weights as an uninterrupted one.

    If torch's default process group has several processes, all of them call this with the same arguments and train
    together: they share every batch, negatives come from all of them, and a step is that of the whole batch (except in
    a ``sampled`` warm-up, where each draws different items). The first one prints and writes files. Each draws views
    and dropout for its own rows, so the weights depend on the number of processes.

    Args:
        source: where the behaviours come from.
        recipe: method and options; ``none`` gives the random initialisation.
        folder: where the files go; created if missing.
        show_progress: on standard error. True: a progress bar per stage on a terminal, elsewhere one line per epoch;
            ``"last"``: only the last line of each stage; False: nothing.
        checkpoint_minutes: of training between two checkpoints within an epoch; 0: after every step. The last two
            checkpoints are kept, and those of the epochs that are selected.
        say: is told, in one line, about items that a warm start does not know.

    Raises:
        InputError: a mistake of the caller, or a folder with another run or in use by one.
        TrainingDivergedError: NaN or infinity in a step.
        TrainingStoppedError: SIGTERM came during training, which has written a checkpoint.
        OSError: a full disk or the like; earlier files are intact.
        ProcessLostError: another process ended or no longer answers.
    """
    if isinstance(checkpoint_minutes, bool) or not 0 <= checkpoint_minutes < float("inf"):
        raise InputError(f"checkpoint_minutes: expected a number of at least 0, got {checkpoint_minutes!r}")
    folder = Path(folder)
    processes = Processes(together=True)
    with processes.none_lost(), ExitStack() as held:
        config, corpus, start = processes.agreed(lambda: _read(source, recipe, processes))
        source = source.located(config)
        asked = manifest_of(source, recipe, corpus)
        check_alike(processes, {part: asked[part] for part in ("recipe", "corpus")})
        manifest = processes.by_first(lambda: claim(folder, asked, held))
        if start is not None and start.items is not None and processes.is_main_process:
            say(f"warm start: {start.items}")
        stages = PretrainStages(
            config=config,
            recipe=recipe,
            users=users_of(recipe, corpus),
            start=start,
            processes=processes,
            folder=folder,
            manifest=manifest,
            checkpoint_minutes=checkpoint_minutes,
            show_progress=show_progress,
        )
        encoder, warm_up, results = stages.run()
        if processes.is_main_process:
            card = _card(source, config, recipe, corpus, results)
            save_artefact(folder, encoder, recipe.encoder_arguments(corpus.n_items), card, corpus.item_tokens)
        processes.wait()
    return PretrainedModel(encoder, folder, results, warm_up)


def _read(source: Source, recipe: Recipe, processes: Processes) -> tuple[Config, BehaviourCorpus, WarmStart | None]:
    """Read everything that a run needs; errors as for :func:`pretrain`."""
    config = source.config(recipe.max_len)
    if processes.data_parallel:
        config["device"] = device_of_process(config, processes)
    corpus = load_user_sequences(config).corpus
    if recipe.history == "older":
        corpus, _ = corpus.halves()
    return config, corpus, warm_start(recipe, corpus)


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


def _card(
    source: Source, config: Config, recipe: Recipe, corpus: BehaviourCorpus, results: tuple[StageResult, ...]
) -> dict[str, Any]:
    return {
        "dataset": source.dataset,
        "recbole_options": as_json(source.options_and_files(config)),
        "users": len(corpus),
        "histories_crc32": corpus.checksum(),
        "recipe": dataclasses.asdict(recipe),
        "stages": [dataclasses.asdict(result) for result in results],
        "versions": versions(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
