"""What to do about each message of :mod:`error_messages`: the first rule that finds its pattern says it."""

import re

from error_messages import Message

_ARGUMENT = (
    "An argument of a call from Python: hand over what stands behind *expected*. "
    "The [API reference]({page}) says shapes, types and ranges."
)

# Patterns are looked for in "file | message", case and all.
SPECIFIC: list[tuple[str, str]] = [
    # What an installation, a device or a group of processes lacks.
    (
        r"needs triton|needs encodings on a CUDA",
        "Leave `implementation` at `auto`, or install triton and move to a GPU.",
    ),
    (
        r"implementation: expected 'auto' or 'torch'",
        "Leave `implementation` at `auto`: the Triton kernel has no such case.",
    ),
    (r"got ‹name› \(‹first›\)|gpu_id: ", "Name a device that this machine has; `cpu` always works."),
    (
        r"distributed\.py \|",
        "All processes have to make the same call, with encodings of one width, type and device. The message "
        "of the rank that was refused, on that rank's standard error, says what was wrong there.",
    ),
    (
        r"another process ended|find one another|come to an end",
        "See what the process says that ended first, or why its machine ended it; the same command again, or a run "
        "with `resume`, goes on from the last checkpoint. The address of the first process, torchrun's "
        "`--rdzv-endpoint`, has to be one that all machines reach, and its port free.",
    ),
    (
        r"‹text›‹where›|the same on every process",
        "All processes get the same command and the same data: what one of them refuses, with its number behind the "
        "message, all refuse.",
    ),
    (r"fetch: ", "pip could not get the wheel; see what it says, or give the file instead of `--fetch`."),
    (
        r"nproc|world_size: |group_offset: |port: |several processes",
        "Processes are started by `--nproc` of `adaptssr pretrain` and `adaptssr run`, by torchrun, or by the "
        "arguments of RecBole's own `run`, and not by an option of a run. What else the message names goes in one "
        "process only.",
    ),
    # Checkpoints, and folders of a run.
    (
        r"remove … to begin its training anew",
        "Neither of the two checkpoints can be read: delete what it names, and the same command trains that "
        "stage anew.",
    ),
    (
        r"is of another run|holds another run|of stage … in",
        "The folder belongs to a run with other options or data. Choose another `--output`, or delete the folder.",
    ),
    (r"\.json|‹manifest›.* is missing or damaged", "Take another folder; this one is no longer whole."),
    (r"TrainingStoppedError|stopped by SIGTERM", "Nothing is lost: give the same command again."),
    (
        r"NaN or infinite|‹what›; last good checkpoint",
        "Lower the learning rate, set `clip_grad_norm`, or train without mixed precision. The named "
        "checkpoint is from before; the named users are worth a look.",
    ),
    (
        r"has its pre-training finished",
        "Give the folder of a finished `adaptssr pretrain`; the same command again ends one that was interrupted.",
    ),
    (
        r"model: cannot read|model: the files|model: ‹error›|model: expected one from",
        "The model's files are damaged, or of another model: pre-train again, or copy them again.",
    ),
    (r"resume: |pretrained: ", "Give a checkpoint of the same model class, sizes and items, or leave the option out."),
    (
        r"warm_start: ",
        "`warm_start` takes `mlm`, `none` or a folder of a finished pre-training with the same encoder and items.",
    ),
    (
        r"checkpoint: |training/checkpoints\.py \|",
        "Give a whole checkpoint that this package has written, or delete it and train anew. Nothing in a "
        "file is executed.",
    ),
    (
        r"run_checkpoints\.py \| \w+ ‹error›",
        "RecBole's or torch's own words: most often a file of other software. `trusted_files` loads pickles "
        "that you made yourself.",
    ),
    # Data.
    (r"its items are not those", "Fine-tune on the dataset that the model was pre-trained on, with the same filters."),
    (r"correlation: ", "Give the `.safetensors` or `.npz` file of an `ItemCorrelation` that this package has saved."),
    (
        r"broken off; the same command|corpus/on_disk\.py",
        "Give the command of the conversion again, with `--overwrite` where files are damaged.",
    ),
    (r"is there already; --overwrite", "Choose another folder, or add `--overwrite`."),
    (r"output: ", "Give a path that can be written, of the kind that the message names."),
    (
        r"‹place›|‹path›, line|‹where› ‹row›|in row …",
        "Mend the line or row that the message names, or take it out of the file.",
    ),
    (
        r"input: expected a user with an item",
        "The file's item tokens have to be those of `items.json` in the model's folder: compare a few of them.",
    ),
    (r"(input|INPUT|--input): ", "Give the files that the command's `--help` names."),
    (
        r"cannot be read|cannot be unpacked|readable file|Parquet file|UTF-8|empty file|below the header|"
        r"‹_INNER›|no item called",
        "The file is missing, damaged, empty, or not what its name says: look at its first lines.",
    ),
    (
        r"LABEL_FIELD: |with the label 1",
        "Labels are a column of the `.inter` file that `LABEL_FIELD` names and `load_col` loads, or are made by "
        "`threshold`, such as `{'rating': 4}`.",
    ),
    (
        r"a column|_column: |columns|load_col: |‹field› in …|label: |name:type",
        "Name a column that the file has; the message lists them. For RecBole's files they are "
        "`USER_ID_FIELD`, `ITEM_ID_FIELD`, `TIME_FIELD`.",
    ),
    (r"bins: |field: ", "`--task` names a column of the `.user` file with two values or more; numbers need `--bins`."),
    (r"eval_args: .*nothing|eval_args: expected rows", "Give the training part of the split a larger share."),
    (
        r"raise valid_share|valid_share|validation users",
        "There are too few users, or too few held out: raise `--valid-share`.",
    ),
    (
        r"dataset: ",
        "Give the name of a dataset that RecBole finds, or a folder with `NAME.inter`; for one that is too "
        "small, filter less.",
    ),
    (r"ttl\.py|tafeng\.py", "Compare the file with the form that `adaptssr convert --help` describes."),
    (r"labels of the types of the first file", "All files of one conversion need labels of the same types."),
    # Options.
    (
        r"ssl_loss: ",
        "This model cannot have a self-supervised loss for the reason named; [the table of models](models.md)"
        " lists those that can.",
    ),
    (
        r"eval_args: ",
        "`eval_args` has RecBole's four parts: `split`, `order`, `group_by` and `mode`. What goes together depends on "
        "the model and on `metrics`, as the message says.",
    ),
    (
        r"valid_metric: |metrics: |topk: ",
        "Leave `valid_metric` out, and validation is by one of `metrics`; or name one of them, with a k of `topk` "
        "behind it where it has one: `NDCG@20`.",
    ),
    (r"model: ‹model› cannot be imported", "Install the package that the message names, or take another model."),
    (
        r"an unknown name|expected a new name",
        "See the list of names: `adaptssr pretrain --help`, or `adaptssr run MODEL DATASET --show-config`.",
    ),
    (r"config: |config_files: ", "A YAML file holds `option: value` lines, and nothing that would be executed."),
    (r"among the options of the recipe", "Give the option by its name in the recipe: `adaptssr pretrain --help`."),
    (r"task: |task_tables", "`--task` takes a column of the `.user` file, `cold:FILE` or `convert:ITEM`, each once."),
    (r"--set: |--bins: |Missing argument", "Write the option as the message shows it."),
    (
        r"options: |‹error›‹meant›",
        "RecBole's own words about its options: `adaptssr run MODEL DATASET --show-config` prints those that "
        "it would take.",
    ),
    # Arguments for which the reference is not enough.
    (
        r"expected one with item_weight|an encoder with item_weight|to fill masked items|"
        r"predicts masked items|mean_states",
        "The objective or command needs an encoder with `item_weight` and `hidden_states`: "
        "[encoders](api/encoders.md).",
    ),
    (
        r"active dropout|dropout: expected a number above 0",
        "Give the encoder dropout above 0, and train mode: without it both encodings of a view are the same.",
    ),
    (r"evaluation mode", "Call `.eval()` on it first."),
    (
        r"torch\.export can trace|whose graph gives",
        "Keep values of tensors out of Python's `if` and `int()` in the encoder's `forward`.",
    ),
    (r"rows to compare", "One user has nobody to be compared with: skip a last batch of one, as the stages do."),
    (
        r"micro_batch: ",
        "See [Several processes](guide.md#several-processes-and-large-batches): batch norm mixes rows, and "
        "DistributedDataParallel goes inside.",
    ),
    (r"candidates: …", "Lower the number of candidates, or take `random` correlation: the catalogue is small."),
    (r"no negative is left", "A user who has every item of the catalogue can have no negative: filter such users."),
]

# For messages of the form "name: expected ..., got ...", by the room that they come from.
BY_ROOM: dict[str, str] = {
    room: _ARGUMENT.format(page=f"api/{room}.md")
    for room in (
        "functional",
        "distributed",
        "losses",
        "augment",
        "encoders",
        "corpus",
        "training",
        "downstream",
        "experiments",
    )
} | {
    "methods": "An option of a recipe: `adaptssr pretrain --help` lists every option with its values.",
    "recbole": "An option of RecBole's, or one that begins with `ssl_`: `adaptssr run MODEL DATASET --show-config` "
    "lists them with their meaning.",
    "cli": "Put the command line right: the command's `--help` says what goes with what.",
    "errors.py": _ARGUMENT.format(page="api/shared.md"),  # for all rooms
    "seeding.py": _ARGUMENT.format(page="api/shared.md"),
}


def specific_rule(message: Message) -> int | None:
    """Find the first rule for a message; None if there is none of its own."""
    text = f"{message.where} | {message.error} {message.template}"
    return next((place for place, (pattern, _) in enumerate(SPECIFIC) if re.search(pattern, text)), None)


def advice(message: Message) -> str:
    """Say what to do about a message.

    Raises:
        LookupError: there is neither a rule for it nor the usual form.
    """
    place = specific_rule(message)
    if place is not None:
        return SPECIFIC[place][1]
    room = message.where.partition("/")[0]
    if room in BY_ROOM and (room == "cli" or re.search(r"expected|needed|cannot", message.template)):
        return BY_ROOM[room]
    raise LookupError(f"{message.where}, line {message.line}: no advice for {message.template!r}")
