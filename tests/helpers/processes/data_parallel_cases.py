"""What a process does of a RecBole run in one process or several, without anything random: tests compare the weights.

Jobs for the worker of tests/helpers/processes/process_cases.py.
"""

from contextlib import contextmanager
from pathlib import Path

import torch

STILL = {
    "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
    "learner": "sgd",
    "learning_rate": 1.0,
    "faster_layers": False,
}
JOINT = {
    f"{loss} {rows}": {"ssl_loss": loss, "ssl_mode": "joint", "ssl_rows": rows, "ssl_weight": 2.0}
    for loss in ("adaptssr", "infonce")
    for rows in ("newest", "user", "all")
}
JOINT["same target"] = JOINT["infonce all"] | {"ssl_mask_same_target": True}
JOINT["infonce user faster"] = JOINT["infonce user"] | {"faster_layers": True}
STAGE = {"ssl_loss": "infonce", "ssl_mode": "pretrain", "ssl_warmup_epochs": 0, "ssl_epochs": 2}
STAGE |= {"ssl_batch_size": 26, "ssl_learning_rate": 0.5}  # 54 users: the last batch has two, one for each process


def shifted(item_seq, item_seq_len, _generator):
    """Give a sequence, and one of the items behind its own, as views."""
    from adaptssr_plugin.augment import Sequences, ViewPair

    second = torch.where(item_seq > 0, item_seq % 500 + 1, 0)
    return ViewPair(Sequences(item_seq, item_seq_len), Sequences(second, item_seq_len), None)


@contextmanager
def trainer_of(options):
    """Make what a run trains by, on the slice in the folder."""
    from recbole.trainer import Trainer
    from recbole.utils import init_seed
    from run_cases import SMALL

    from adaptssr_plugin.recbole import installed
    from adaptssr_plugin.recbole.recommender.config import RunConfig

    with installed():
        from recbole.quick_start import quick_start

        config = RunConfig("SASRec", "slice", config_dict={**SMALL, **STILL, **options})
        init_seed(config["seed"], config["reproducibility"])
        train_data, valid_data, _ = quick_start.data_preparation(config, quick_start.create_dataset(config))
        init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
        model = quick_start.get_model("SASRec")(config, train_data._dataset)
        trainer = quick_start.get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
        assert isinstance(trainer, Trainer)
        trainer._train_data = train_data
        trainer._begin_together()
        yield trainer, train_data, valid_data


def joint_steps(folder):
    """Write the weights after a step of every joint loss, on rows some of whose users another process has too."""
    results = {}
    for name, options in JOINT.items():
        for which in ("apart", "shared"):
            with trainer_of(options) as (trainer, train_data, _):
                rows = train_data._dataset.inter_feat
                user = rows["user_id"]
                newest = [(user == number).nonzero()[-2:, 0] for number in range(1, 9)]
                # Apart: each process has users of its own. Shared: the second has no user that the first has not.
                batch = torch.cat(newest) if which == "apart" else torch.stack(newest).T.flatten()
                processes = trainer.processes
                own = batch.chunk(processes.number)[processes.rank]
                trainer.model.eval()  # ssl_dropout is for training
                del trainer.term.stage.views  # a module, whose place only modules can take
                trainer.term.stage.views = shifted
                trainer.term.stage._dropout_seen = True
                compared = trainer.term.compared_rows(rows[own]).tolist()
                losses = trainer._step(trainer.model.calculate_loss, rows[own])
                results[name, which] = {
                    "compared": [int(own[row]) for row in compared],
                    "losses": [float(loss) for loss in losses],
                    "weights": {key: value.clone() for key, value in trainer.model.state_dict().items()},
                }
    torch.save(results, Path(folder) / f"joint-{processes.number}-{processes.rank}.pt")


def user_stage(folder):
    """Write the weights that the stage on whole users leaves in the model, and what its file beside has."""
    from adaptssr_plugin.recbole.compat.patches import temporary_attribute
    from adaptssr_plugin.recbole.recommender import pretraining

    with (
        trainer_of({**STAGE, "checkpoint_dir": str(Path(folder) / "saved")}) as (trainer, train_data, _),
        temporary_attribute(pretraining, "make_views", lambda *_: shifted),
    ):
        trainer.term.stage.encoder.drops_out = True  # so that no dropout is put in
        trainer._pretrain(trainer.term, train_data, saved=True, show_progress=False)
        processes = trainer.processes
        torch.save(trainer.model.state_dict(), Path(folder) / f"stage-{processes.number}-{processes.rank}.pt")


def evaluation(folder):
    """Write the metrics of the untrained model, of which each process gives the first one's."""
    with trainer_of({"ssl_loss": "none", "metric_decimal_place": 8, "topk": [50], "valid_metric": "NDCG@50"}) as (
        trainer,
        _,
        valid_data,
    ):
        torch.manual_seed(trainer.processes.rank)
        result = trainer.evaluate(valid_data, load_best_model=False)
        number, rank = trainer.processes.number, trainer.processes.rank
        torch.save({name: float(value) for name, value in result.items()}, Path(folder) / f"valid-{number}-{rank}.pt")
