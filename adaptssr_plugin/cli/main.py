"""The commands. A user's mistake ends with one line on standard error and exit status 2."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import InputError, ProcessLostError, TrainingDivergedError
from ..methods import available, presets
from .compare import compare
from .compare_losses import compare_losses
from .convert import convert
from .describe import describe
from .embed import embed, export
from .memory import give_freed_memory_back
from .options import (
    FINE_TUNING,
    PATH,
    PRETRAINING,
    QUIET,
    given,
    list_files,
    numbers,
    recbole_options,
    recipe_options,
    shown,
)
from .reidentify import reidentify

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="adaptssr")
def cli() -> None:
    """Pre-train user models with augmentation-adaptive self-supervised ranking (AdaptSSR, NeurIPS 2023).

    \b
    To begin, each in minutes:
      adaptssr quickstart
      adaptssr pretrain --dataset ml-100k --preset recommended --output model
      adaptssr finetune model --task gender --tune linear --splits 8
      adaptssr run SASRec ml-100k --ssl_loss=adaptssr --epochs=5

    adaptssr COMMAND --help says more.
    """  # noqa: D301 - \b keeps click from wrapping the lines


@cli.command(short_help="Try the whole procedure on ml-100k, in minutes.")
@click.option("--output", type=PATH, default=Path("adaptssr-quickstart"), show_default=True, help="Folder for results.")
@click.option(
    "--splits", type=click.IntRange(2), default=8, metavar="N", show_default=True, help="Random splits of the users."
)
@click.option("--quiet", is_flag=True, help=QUIET)
@recipe_options(PRETRAINING + FINE_TUNING)
def quickstart(output: Path, splits: int, quiet: bool, **options: Any) -> None:
    """Pre-train on ml-100k and show what user vectors tell about gender, age and the users themselves.

    It uses the preset recommended: item vectors of an SVD, masked items, then self-supervised ranking, on the older
    halves of histories. Logistic regression predicts profiles from the frozen vectors, beside TF-IDF and LSA. Each
    user's older half has to be found by the newer one. One task is fine-tuned. ml-100k ships with RecBole: nothing is
    downloaded. An interrupted pre-training resumes when the command is given again.

    The defaults below are those of the preset paper. The quickstart has other values for some options; the first line
    that it prints names them. An option that is given overrides both.
    """
    from ..experiments.quickstart import quickstart as run

    files, seconds = run(output, splits, given(options), show_progress=shown(quiet), say=click.echo)
    click.echo(f"\n{seconds:.0f} seconds. Files:")
    list_files(files)


@cli.command(short_help="Pre-train a user model on a dataset, without labels.")
@click.option(
    "--dataset", required=True, metavar="NAME|FOLDER", help="RecBole dataset, or a folder of atomic files or a corpus."
)
@click.option("--method", type=str, default="adaptssr", show_default=True, help=f"One of {', '.join(available())}.")
@click.option(
    "--preset",
    type=str,
    default="paper",
    show_default=True,
    help=f"One of {', '.join(presets())}; recommended is for thousands of users with tens of behaviours each.",
)
@click.option("--output", type=PATH, required=True, help="Folder for the model; resumes an interrupted run in it.")
@click.option("--config", "configs", type=PATH, multiple=True, help="YAML file of the options below; may be repeated.")
@click.option("--recbole-config", type=PATH, multiple=True, help="RecBole YAML file (columns, filters, device …).")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="RecBole option, e.g. enable_amp=True.")
@click.option(
    "--checkpoint-minutes",
    type=float,
    metavar="X",
    default=5.0,
    show_default=True,
    help="Minutes of training between two checkpoints within an epoch; 0: after every step.",
)
@click.option(
    "--nproc",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Processes on this machine that train together, as under torchrun.",
)
@click.option("--quiet", is_flag=True, help=QUIET)
@recipe_options(PRETRAINING)
def pretrain(
    dataset: str,
    method: str,
    preset: str,
    output: Path,
    configs: Sequence[Path],
    recbole_config: Sequence[Path],
    pairs: tuple[str, ...],
    checkpoint_minutes: float,
    nproc: int,
    quiet: bool,
    **options: Any,
) -> None:
    """Pre-train a user model on the training histories of a RecBole dataset.

    Items that RecBole's split (eval_args) holds out for validation and test are not seen; a corpus written by adaptssr
    convert --corpus is used whole. 90 % of the users are trained on, 10 % choose the epoch. The folder gets
    checkpoints, TensorBoard curves and the model as safetensors. A run that was killed or stopped by SIGTERM (exit
    status 143) resumes when the command is given again.

    The defaults below are those of --method adaptssr --preset paper; other methods and presets may have other defaults.

    Several processes share every batch, and negatives come from all of them. They can also be started by torchrun, on
    several machines too; the first one prints and writes files.

    \b
    adaptssr pretrain --dataset ml-100k --output adaptssr-run --epochs 5
    adaptssr pretrain --dataset folder --output run --set USER_ID_FIELD=uid
    adaptssr pretrain --dataset ml-100k --output adaptssr-run --nproc 2
    torchrun --nproc-per-node 2 -m adaptssr_plugin \\
        pretrain --dataset ml-100k --output adaptssr-run
    """  # noqa: D301
    from ..methods import recipe
    from ..recbole.user_model.pretrain import Source

    plan = recipe(method, preset, given(options), configs)
    source = Source(dataset, recbole_options(pairs), [str(path.resolve()) for path in recbole_config])
    _train(nproc, _pretrain, source, plan, output, shown(quiet), checkpoint_minutes)


def _pretrain(source: Any, plan: Any, output: Path, show_progress: Any, checkpoint_minutes: float) -> None:
    from ..recbole.user_model.pretrain import pretrain as run
    from ..training import collapse_note

    model = run(source, plan, output, show_progress, checkpoint_minutes, say=click.echo)
    if not _speaks():
        return
    for stage in model.stages:
        numbers = stage.history[stage.selected_epoch - 1]
        shown = ", ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name.startswith("valid_"))
        click.echo(f"{stage.name}: epoch {stage.selected_epoch} of {len(stage.history)} selected ({shown})")
        if note := collapse_note(numbers):
            click.echo(f"{stage.name}: {note}")
    click.echo("Files:")
    list_files([output / name for name in ("model.safetensors", "model.json", "items.json")])


@cli.command(short_help="Predict profiles, cold items or conversion from a model.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--task",
    "tasks",
    required=True,
    multiple=True,
    metavar="COLUMN|cold:FILE|convert:ITEM",
    help="Column of the .user file, pairs of users and items, or an item that users may come to; may be repeated.",
)
@click.option(
    "--dataset", metavar="NAME|FOLDER", help="Where the dataset of the pre-training is now; its RecBole options stay."
)
@click.option("--bins", metavar="A,B,…", help="Lower bounds that turn a column of numbers into classes, e.g. 18,25,35.")
@click.option("--seeds", type=click.IntRange(1), metavar="N", default=5, show_default=True, help="Runs per row.")
@click.option(
    "--splits",
    type=click.IntRange(1),
    metavar="N",
    default=1,
    show_default=True,
    help="Random splits of a task's rows.",
)
@click.option("--labels", metavar="N,…,all", help="Also a curve over numbers of training labels, e.g. 50,100,200,all.")
@click.option("--scratch/--no-scratch", default=True, show_default=True, help="Also from a random initialisation.")
@click.option("--baselines/--no-baselines", default=True, show_default=True, help="Also baselines without an encoder.")
@click.option("--quiet", is_flag=True, help=QUIET)
@recipe_options(FINE_TUNING)
def finetune(
    folder: Path,
    tasks: Sequence[str],
    dataset: str | None,
    bins: str | None,
    seeds: int,
    splits: int,
    labels: str | None,
    scratch: bool,
    baselines: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Fine-tune the model in DIR on tasks over its dataset: all weights, a two-layer head, rows split 6:2:2.

    The epoch is chosen on validation rows; the test rows are used once. A COLUMN of the .user file with two classes is
    measured by AUC, one with more by accuracy.

    cold:FILE recommends items outside the dataset. FILE has tab-separated columns user_id:token, target_id:token and
    optionally input_length:float: the number of the user's oldest behaviours in the .inter file that come before the
    target. The table shows NDCG@10; the CSV file also has MRR and HR.

    convert:ITEM predicts whether a user comes to an item from the behaviours before it; measured by AUC.

    --tune linear trains nothing: a logistic regression reads the frozen vectors, in seconds. With --splits the rows are
    split several times, and tests are paired by split.

    The defaults below are those of the preset paper. A model keeps the values with which it was pre-trained; an option
    that is given overrides them.

    \b
    adaptssr finetune adaptssr-run --task gender
    adaptssr finetune adaptssr-run --task age --bins 18,25,35,45,50,56
    adaptssr finetune adaptssr-run --task cold:toys.cold --ft-coldrec-loss ce
    adaptssr finetune adaptssr-run --task convert:50
    adaptssr finetune adaptssr-run --task gender --tune linear --splits 8 \\
        --labels 50,100,200,all
    """  # noqa: D301
    from ..experiments.task_tables import finetune as run

    done = run(
        folder, tasks, numbers("--bins", bins, "18,25,35"), tuple(range(seeds)), scratch, baselines, given(options),
        shown(quiet), dataset, splits, _label_counts(labels),
    )  # fmt: skip
    click.echo(done.table.text())
    if done.curve:
        click.echo(done.curve)
    click.echo("\n" + "".join(f"* {sentence}\n" for sentence in done.conclusions) + "Files:")
    list_files(done.files)


# Without -h, which click would also find in -epochs=5.
@cli.command(
    short_help="Train a RecBole model, with or without ssl_loss.",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)
@click.argument("words", metavar="MODEL DATASET [--KEY=VALUE]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--config_files", metavar='"A.YAML B.YAML"', help="YAML files, separated by blanks; later ones win.")
@click.option("--show-config", is_flag=True, help="Print the options of the run as YAML, and do not train.")
def run(words: tuple[str, ...], config_files: str | None, show_config: bool) -> None:
    """Train and test a RecBole model, with a self-supervised loss if ssl_loss asks for one.

    MODEL is one of RecBole's, CL4SRec, CoSeRec or DuoRec. DATASET is a RecBole dataset by name or a folder of atomic
    files. Every --KEY=VALUE is an option of RecBole's or of this package (ssl_loss, faster_layers, resume, ...), and
    overrides the YAML files. The results are printed; RecBole writes log/, log_tensorboard/ and the checkpoint in
    saved/. With --nproc=2 two processes of this machine share every batch; torchrun can start them too.

    \b
    adaptssr run SASRec ml-100k --ssl_loss=adaptssr --epochs=5
    adaptssr run GRU4Rec path/to/folder --config_files="common.yaml ssl.yaml"

    To show what can be set, what it means, and its value:

    \b
    adaptssr run SASRec ml-100k --ssl_loss=adaptssr --show-config
    """  # noqa: D301
    from ..training.processes import GO_ON_BY_RESUME
    from .run import check, parse, show
    from .run import run as run_model

    call = parse(words, config_files)
    if show_config:
        show(call)
        return
    if call.nproc > 1:
        check(call)
    _train(call.nproc, run_model, call, go_on=GO_ON_BY_RESUME)


for _command in (compare, compare_losses, convert, describe, embed, export, reidentify):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake exits with status 2 and one line."""
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        cli.main(args=words or ["--help"], prog_name="adaptssr", standalone_mode=False)
    except click.ClickException as error:
        _fail(f"{error.format_message()}", error.exit_code)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:  # a folder that cannot be written, a full disk
        _fail(_line_of(error), 2, alone=True)
    except (UnicodeEncodeError, ImportError) as error:
        _fail(_line_of(error), 2)
    except TrainingDivergedError as error:
        _fail(str(error), 1)
    except ProcessLostError as error:
        _fail(str(error), 1, alone=True)


def _train(nproc: int, function: Callable[..., None], *arguments: Any, **options: str) -> None:
    """Call a function here, as one of torchrun's processes if it started this one, or in several new processes."""
    from ..training.launch import launch
    from ..training.processes import process_group

    if nproc > 1:
        if "WORLD_SIZE" in os.environ:
            raise InputError(f"--nproc: expected 1 under torchrun, which starts processes itself, got {nproc}")
        launch(_train_in_process, (function, *arguments), nproc, **options)
    else:
        with process_group():
            function(*arguments)


def _train_in_process(function: Callable[..., None], *arguments: Any) -> None:
    """Run as one of several processes; the process that started them reports errors."""
    give_freed_memory_back()
    try:
        _train(1, function, *arguments)
    except (OSError, UnicodeEncodeError, ImportError) as error:
        raise InputError(_line_of(error)) from None


def _line_of(error: OSError | UnicodeEncodeError | ImportError) -> str:
    if isinstance(error, UnicodeEncodeError):  # the system allows such file names, pyarrow does not
        return f"expected names of files in UTF-8, got {error.object!r}"
    return f"{error.filename or 'files'}: {error.strerror or error}" if isinstance(error, OSError) else str(error)


def _speaks() -> bool:
    """Whether this is the first of the processes started by torchrun, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def _fail(message: str, status: int, alone: bool = False) -> None:
    """Exit with one line. If all processes fail the same way, the first one prints it; otherwise each that fails."""
    if not (alone or _speaks()):
        sys.exit(status)
    click.echo(f"adaptssr: {' '.join(message.split())}", err=True)
    sys.exit(status)


def _label_counts(text: str | None) -> tuple[int | None, ...]:
    words = [] if text is None else text.split(",")
    if not all(word == "all" or (word.isdecimal() and int(word) > 1) for word in words):
        raise InputError(f"--labels: expected numbers above 1 and all, such as 50,100,all, got {text!r}")
    return tuple(dict.fromkeys(None if word == "all" else int(word) for word in words))
