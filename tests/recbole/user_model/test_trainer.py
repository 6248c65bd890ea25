"""`StageTrainer`: a RecBole Trainer that selects epochs, stops, keeps precision, and reads nothing back in a step."""

import math
import threading
from types import SimpleNamespace

import pytest
import torch
from readbacks import count_readbacks
from refusals import refusal_of
from torch import nn
from torch.overrides import TorchFunctionMode
from training_cases import (
    STAGES,
    TINY,
    assert_same_weights,
    batch_of,
    contrast,
    corpus_of,
    interrupt,
    masked_items,
    ranking,
    streams,
    write_profiled_dataset,
)

from adaptssr_plugin.corpus import BatchLoader
from adaptssr_plugin.errors import InputError, TrainingDivergedError
from adaptssr_plugin.methods.plan import StagePlan
from adaptssr_plugin.recbole.user_model.pretrain import Source
from adaptssr_plugin.recbole.user_model.trainer import StageTrainer
from adaptssr_plugin.training import Stage, StepResult, load_checkpoint, write_checkpoint

STEPS = 3  # of an epoch of the scripted stage: five users in batches of two


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_profiled_dataset(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def config(dataset):
    return Source(str(dataset), {"use_gpu": False}).config(TINY["max_len"])


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path_factory, monkeypatch):
    """Where nothing may be left behind."""
    folder = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(folder)
    yield
    assert list(folder.iterdir()) == []


class Scripted(Stage):
    """A weight that grows by one in every step, and validation scores by epoch; ``spoil`` breaks a (epoch, step)."""

    name = "scripted"
    criterion = "score"

    def __init__(self, scores, bigger=True, spoil=None, how="loss"):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.scores, self.bigger_is_better = scores, bigger
        self.spoil, self.how = spoil, how

    def step(self, batch, streams):
        epoch, step = streams.key[2:]
        loss = -self.weight.sum()  # SGD at learning rate 1 adds 1
        if (epoch + 1, step + 1) == self.spoil:
            if self.how == "interrupt":
                raise KeyboardInterrupt
            if self.how == "loss":
                loss = loss * torch.nan
            if self.how == "huge gradient":  # whose square is infinite
                loss = loss * 1e30
            if self.how == "gradient":  # a finite value with an infinite slope
                loss = (self.weight - self.weight.detach()).sqrt().sum()
        return StepResult(loss, {"loss": loss.detach()})

    def validate(self, batches, streams):
        assert streams.key[2:] == ("valid",)
        assert sum(len(batch) for batch in batches) == 2
        return {"score": self.scores[round(self.weight.item() / STEPS) - 1], "beside": 1.0}


def plan(epochs, select="best", learning_rate=1.0, name="scripted"):
    return StagePlan(name, lambda _: None, epochs, learning_rate, 0.1, select)


def loaders(n_train=5, batch_size=2):
    train, valid = (
        BatchLoader(corpus_of(*[4] * n), batch_size=batch_size, max_len=10, seed=0, name=name)
        for n, name in ((n_train, "train"), (2, "valid"))
    )
    return train, valid


def with_options(config, **options):
    made = Source(config["data_path"], {"use_gpu": False, **options})
    return made.config(TINY["max_len"])


def scripted(config, scores, directory=None, select="best", bigger=True, spoil=None, how="loss", **options):
    stage = Scripted(scores, bigger, spoil, how)
    options = {"seed": 0, "stopping_step": 100, **options}
    return StageTrainer(with_options(config, learner="sgd"), stage, plan(len(scores), select), directory, **options)


def run(trainer, **sizes):
    trainer.run(*loaders(**sizes), show_progress=False)
    return trainer


class TestSelection:
    @pytest.mark.parametrize("in_memory", [True, False])
    @pytest.mark.parametrize(
        ("scores", "bigger", "best"),
        [
            ([1, 3, 2], True, 2),
            ([1, 3, 2], False, 1),
            ([3, 2, 1], False, 3),
            ([2, 2, 2], True, 1),  # of equal epochs the earlier
            ([2, 2, 2], False, 1),
            ([0.0, -1.0, 0.0], True, 1),
            ([1, 3, 3, 2, 3], True, 2),
            ([-1.5], True, 1),
        ],
    )
    def test_best_epoch(self, config, tmp_path, scores, bigger, best, in_memory):
        trainer = run(scripted(config, scores, None if in_memory else tmp_path, bigger=bigger))
        assert trainer.selected_epoch == best
        assert trainer.stage.weight.item() == best * STEPS
        assert trainer.best_valid_score == scores[best - 1]
        assert [epoch["valid_score"] for epoch in trainer.history] == scores
        assert [epoch["epoch"] for epoch in trainer.history] == list(range(1, len(scores) + 1))
        assert all(epoch["valid_beside"] == 1.0 and epoch["seconds"] > 0 for epoch in trainer.history)

    @pytest.mark.parametrize(("select", "chosen"), [("last", 4), ("epoch:1", 1), ("epoch:3", 3), ("epoch:4", 4)])
    def test_last_and_nth_epoch(self, config, tmp_path, select, chosen):
        trainer = run(scripted(config, [9, 1, 1, 1], tmp_path, select, stopping_step=1))
        assert len(trainer.history) == 4  # early stopping is for the best epoch only
        assert trainer.selected_epoch == chosen
        assert trainer.stage.weight.item() == chosen * STEPS

    @pytest.mark.parametrize(
        ("scores", "stopping_step", "n_epochs"),
        [
            ([5, 1, 1, 1, 1, 1], 1, 2),
            ([5, 1, 1, 1, 1, 1], 3, 4),
            ([5, 5, 5, 5], 2, 3),  # an equal epoch is no better one
            ([1, 0, 2, 0, 0, 3], 2, 5),
            ([1, 0, 2, 0, 3, 0], 2, 6),
        ],
    )
    def test_stops_after_so_many_epochs_without_a_better_one(self, config, scores, stopping_step, n_epochs):
        trainer = run(scripted(config, scores, stopping_step=stopping_step))
        assert len(trainer.history) == n_epochs
        assert trainer.stage.weight.item() == (scores.index(max(scores[:n_epochs])) + 1) * STEPS

    def test_the_callers_config_stays_as_it_is(self, config):
        before = dict(config.final_config_dict)
        run(StageTrainer(config, Scripted([1.0]), plan(1), None, seed=0))
        assert config.final_config_dict == before

    def test_metrics_of_recbole_that_need_its_dataset_are_not_asked_for(self, config):
        made = with_options(config, metrics=["ItemCoverage"], valid_metric="ItemCoverage@10")
        assert len(run(StageTrainer(made, Scripted([1.0, 2.0]), plan(2), None, seed=0)).history) == 2


class TestOptimiser:
    @pytest.mark.parametrize("learner", ["adam", "AdamW", "sgd", "adagrad", "rmsprop"])
    def test_is_recboles(self, config, learner):
        made = with_options(config, learner=learner, weight_decay=0.25)
        trainer = StageTrainer(made, Scripted([1.0]), plan(1, learning_rate=0.125), None, seed=0)
        assert type(trainer.optimizer).__name__.lower() == learner.lower()
        assert (trainer.optimizer.defaults["lr"], trainer.optimizer.defaults["weight_decay"]) == (0.125, 0.25)
        before = trainer.stage.weight.item()
        run(trainer)
        assert trainer.stage.weight.item() > before

    def test_is_by_default_the_papers_adam(self, config):
        settings = StageTrainer(config, Scripted([1.0]), plan(1), None, seed=0).optimizer.defaults
        assert (settings["betas"], settings["eps"], settings["weight_decay"]) == ((0.9, 0.999), 1e-8, 0)

    @pytest.mark.parametrize("learner", ["sparse_adam", "lion", 3])
    def test_any_other_is_refused(self, config, learner):
        message = rf"^learner: expected one of adam, adamw, sgd, adagrad, rmsprop, got {learner!r}$"
        with pytest.raises(InputError, match=message):
            StageTrainer(with_options(config, learner=learner), Scripted([1.0]), plan(1), None, seed=0)


class TestDivergence:
    @pytest.mark.parametrize(
        ("spoil", "users", "kept"), [((1, 2), "2, 1", None), ((3, 1), "1, 4", 2), ((2, 3), "4", 1)]
    )
    def test_a_bad_loss_stops_the_run_and_names_the_place(self, config, tmp_path, spoil, users, kept):
        trainer = scripted(config, [1, 2, 3], tmp_path, spoil=spoil)
        with pytest.raises(TrainingDivergedError) as stopped:
            run(trainer)
        last = tmp_path / "last.pt"
        assert str(stopped.value) == (
            f"scripted: the loss was not finite at epoch {spoil[0]}, step {spoil[1]}, users {users}; "
            f"last good checkpoint: {last if kept else 'none yet'}"
        )
        assert last.exists() is (kept is not None)
        if kept:
            for name in ("last.pt", "best.pt"):
                state = load_checkpoint(tmp_path / name)
                assert state["epoch"] == kept - 1
                assert state["state_dict"]["weight"].item() == kept * STEPS

    @pytest.mark.parametrize("spoil", [(2, STEPS), (1, STEPS)])
    def test_weights_spoilt_by_the_last_step_of_an_epoch_do_not_become_a_checkpoint(self, config, tmp_path, spoil):
        trainer = scripted(config, [1, 2, 3], tmp_path, spoil=spoil, how="gradient")
        with pytest.raises(
            TrainingDivergedError, match=rf"the weights were not finite after epoch {spoil[0]}, step 3;"
        ):
            run(trainer)
        assert (tmp_path / "last.pt").exists() is (spoil[0] > 1)
        if spoil[0] > 1:
            assert load_checkpoint(tmp_path / "last.pt")["state_dict"]["weight"].isfinite()

    def test_a_criterion_that_is_no_number_stops_the_run(self, config, tmp_path):
        with pytest.raises(TrainingDivergedError, match=r"^scripted: score was nan in validation after epoch 2; last"):
            run(scripted(config, [1, math.nan, 3], tmp_path))
        assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 0

    def test_a_late_bad_step_is_named_in_spite_of_the_log_interval(self, config):
        trainer = scripted(config, [1], spoil=(1, 53))
        with pytest.raises(
            TrainingDivergedError, match=r"epoch 1, step 53, users 110, 25; last good checkpoint: none yet$"
        ):
            run(trainer, n_train=130)

    def test_of_a_large_batch_some_users_are_named(self, config):
        with pytest.raises(TrainingDivergedError, match=r"step 1, users \d, \d, \d, \d, \d and 2 more; last"):
            run(scripted(config, [1], spoil=(1, 1)), n_train=7, batch_size=20)

    @pytest.mark.parametrize("how", ["loss", "gradient"])
    def test_no_checkpoint_within_an_epoch_is_of_weights_after_the_bad_step(self, config, tmp_path, how):
        trainer = scripted(config, [1, 2], tmp_path, spoil=(2, 2), how=how, checkpoint_minutes=0.0)
        with pytest.raises(TrainingDivergedError, match=rf"step 2.*; last good checkpoint: {tmp_path}/last\.pt$"):
            run(trainer)
        for name, steps in (("last.pt", STEPS + 1), ("previous.pt", STEPS)):
            assert load_checkpoint(tmp_path / name)["state_dict"]["weight"].item() == steps

    def test_an_infinite_moment_of_adam_is_found_though_the_weights_are_finite(self, config, tmp_path):
        """Its weight would never move again."""
        stage = Scripted([1.0], spoil=(1, 2), how="huge gradient")
        with pytest.raises(
            TrainingDivergedError, match=r"the optimiser's moments were not finite after epoch 1, step 3"
        ):
            run(StageTrainer(config, stage, plan(1), tmp_path, seed=0))
        assert stage.weight.isfinite().all()


class TestGoingOn:
    """What a second trainer over the same folder does; test_resume.py kills whole processes."""

    @pytest.mark.parametrize("spoil", [(1, 2), (2, 1), (4, 3), (5, 1)])
    def test_an_interrupted_stage_ends_as_an_uninterrupted_one(self, config, tmp_path, spoil):
        scores = [1, 4, 3, 2, 4, 5]
        whole = run(scripted(config, scores, tmp_path / "whole", stopping_step=3))
        with pytest.raises(KeyboardInterrupt):
            run(scripted(config, scores, tmp_path / "cut", spoil=spoil, how="interrupt", stopping_step=3))
        resumed = run(scripted(config, scores, tmp_path / "cut", stopping_step=3))
        assert len(whole.history) == 5  # it stopped early, three epochs after the second
        timeless = [[{**epoch, "seconds": 0} for epoch in trainer.history] for trainer in (whole, resumed)]
        assert timeless[0] == timeless[1]
        assert resumed.selected_epoch == whole.selected_epoch == 2
        assert resumed.start_epoch == spoil[0] - 1
        for name in ("last.pt", "previous.pt", "best.pt"):
            states = [load_checkpoint(tmp_path / folder / name) for folder in ("whole", "cut")]
            assert_same_weights(*(state.pop("state_dict") for state in states))
            timeless = [{**state, "history": None} for state in states]
            assert timeless[0] == timeless[1]

    @pytest.mark.parametrize(("scores", "stopping_step"), [([1, 2, 3], 9), ([3, 1, 1, 1], 2)])
    def test_a_finished_stage_is_not_trained_again(self, config, tmp_path, scores, stopping_step):
        run(scripted(config, scores, tmp_path, stopping_step=stopping_step))
        files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        again = scripted(config, scores, tmp_path, spoil=(1, 1), how="interrupt", stopping_step=stopping_step)
        run(again)
        assert again.stage.weight.item() == again.selected_epoch * STEPS
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files

    @pytest.mark.parametrize("content", [b"", b"no checkpoint"])
    def test_a_damaged_checkpoint_gives_way_to_the_one_before(self, config, tmp_path, content, caplog):
        run(scripted(config, [1, 2, 3], tmp_path))
        (tmp_path / "last.pt").write_bytes(content)
        again = run(scripted(config, [1, 2, 3], tmp_path))
        assert (again.start_epoch, again.stage.weight.item()) == (2, 3 * STEPS)
        (line,) = [record.getMessage() for record in caplog.records]
        assert line == (
            f"scripted: checkpoint: expected one written by this package, got {tmp_path}/last.pt, which is damaged or "
            f"foreign; going on from {tmp_path}/previous.pt, the one before it"
        )
        for name, epoch in (("last.pt", 2), ("previous.pt", 1)):  # the damaged one took nobody's place
            assert load_checkpoint(tmp_path / name)["epoch"] == epoch

    @pytest.mark.parametrize("previous", [True, False])
    def test_without_any_that_is_whole_it_stops(self, config, tmp_path, previous):
        run(scripted(config, [1, 2], tmp_path))
        (tmp_path / "last.pt").write_bytes(b"no checkpoint")
        (tmp_path / "previous.pt").write_bytes(b"") if previous else (tmp_path / "previous.pt").unlink()
        other = "as is the one before it" if previous else "and there is none before it"
        assert refusal_of(run, scripted(config, [1, 2], tmp_path)) == (
            f"checkpoint: expected one written by this package, got {tmp_path}/last.pt, which is damaged or foreign, "
            f"{other}; remove {tmp_path} to begin its training anew"
        )

    @pytest.mark.parametrize("damage", [b"no checkpoint", None])
    def test_selected_weights_that_are_damaged_or_gone_are_missed_before_training_goes_on(
        self, config, tmp_path, damage
    ):
        with pytest.raises(KeyboardInterrupt):
            run(scripted(config, [1, 2, 3], tmp_path, spoil=(3, 2), how="interrupt"))
        (tmp_path / "best.pt").unlink() if damage is None else (tmp_path / "best.pt").write_bytes(damage)
        with pytest.raises(InputError, match=r"^checkpoint: expected .*, got .*best\.pt, which"):
            run(scripted(config, [1, 2, 3], tmp_path, spoil=(3, 1), how="interrupt"))

    def test_selected_weights_of_an_earlier_epoch_are_refused(self, config, tmp_path):
        run(scripted(config, [1, 2, 3], tmp_path))
        state = load_checkpoint(tmp_path / "best.pt")
        write_checkpoint(tmp_path / "best.pt", {**state, "epoch": 1})
        with pytest.raises(InputError, match=r"^checkpoint: expected epoch 3 in .*best\.pt, got epoch 2$"):
            run(scripted(config, [1, 2, 3], tmp_path))

    def test_a_better_epoch_that_did_not_come_out_as_good_again_is_selected(self, config, tmp_path):
        """As on a GPU, where an epoch that is run again may come out a little different."""
        assert run(scripted(config, [2, 1, 1], tmp_path)).selected_epoch == 1
        # What a first try leaves that was killed between best.pt and last.pt.
        write_checkpoint(tmp_path / "best.pt", {**load_checkpoint(tmp_path / "best.pt"), "epoch": 1})
        assert run(scripted(config, [2, 1, 1], tmp_path)).selected_epoch == 2

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"seed": 1}, "seed: 0 there, 1 here"),
            ({"clip_grad_norm": 0.5}, "clip_grad_norm: 0.0 there, 0.5 here"),
            ({"run": {"recipe": {"mask_ratio": 0.5}}}, "mask_ratio: 0.6 there, 0.5 here"),
        ],
    )
    @pytest.mark.parametrize("name", ["last.pt", "best.pt"])
    def test_a_checkpoint_of_another_run_is_refused(self, config, tmp_path, name, changed, named):
        options = {"seed": 0, "run": {"recipe": {"mask_ratio": 0.6}}}
        for folder, more in (("ours", options), ("theirs", {**options, **changed})):
            run(scripted(config, [1, 2], tmp_path / folder, **more))
        (tmp_path / "theirs" / name).write_bytes((tmp_path / "ours" / name).read_bytes())
        refusal = refusal_of(run, scripted(config, [1, 2], tmp_path / "theirs", **{**options, **changed}))
        assert refusal == f"checkpoint: {tmp_path}/theirs/{name} is of another run ({named})"

    def test_a_checkpoint_of_other_batches_is_refused(self, config, tmp_path):
        run(scripted(config, [1, 2], tmp_path))
        with pytest.raises(InputError, match=r"is of another run \(steps: 3 there, 4 here\)$"):
            run(scripted(config, [1, 2], tmp_path), n_train=7)

    def test_another_version_is_mentioned(self, config, tmp_path, caplog):
        run(scripted(config, [1, 2], tmp_path))
        state = load_checkpoint(tmp_path / "last.pt")
        write_checkpoint(tmp_path / "last.pt", {**state, "versions": {**state["versions"], "torch": "1.0"}})
        run(scripted(config, [1, 2], tmp_path))
        assert "last.pt was written with other versions of torch; weights may" in caplog.text

    def test_a_checkpoint_of_another_stage_or_model_is_refused(self, config, tmp_path):
        run(scripted(config, [1, 2], tmp_path))
        other = StageTrainer(config, Scripted([1, 2]), plan(2, name="other"), tmp_path, seed=0)
        with pytest.raises(InputError, match=r"^checkpoint: expected one of stage other in .*last\.pt, got another$"):
            run(other)
        stage = Scripted([1, 2])
        stage.weight = nn.Parameter(torch.zeros(2))
        with pytest.raises(InputError, match=r"^checkpoint: .*last\.pt does not fit this model: size mismatch"):
            run(StageTrainer(with_options(config, learner="sgd"), stage, plan(2), tmp_path, seed=0))


class _BornOnTheCPU(TorchFunctionMode):
    """Notes tensors made of Python numbers: on a GPU the CPU would wait until each is copied there."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor):
            self.made.append(func.__name__)
        return func(*args, **(kwargs or {}))


class TestOneStep:
    @STAGES
    @pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16, scaled and clipped"])
    def test_reads_at_most_one_value_back(self, config, make, precision):
        amp = {"enable_amp": precision != "float32", "enable_scaler": precision.startswith("float16")}
        trainer = StageTrainer(
            with_options(config, **amp),
            make(),
            plan(1),
            None,
            seed=0,
            amp_dtype=precision.split(",")[0] if amp["enable_amp"] else "auto",
            clip_grad_norm=1.0 if amp["enable_scaler"] else 0.0,
        )
        batch = batch_of(*range(1, 10), *range(1, 10))
        trainer.model.train()
        trainer._step(batch, streams(0, "x", 0, 0))  # the first looks whether dropout is on
        for step in range(1, 4):
            with count_readbacks() as reads, _BornOnTheCPU() as born:
                trainer._step(batch, streams(0, "x", 0, step))
            # Length groups only: with fused Adam, torch keeps its step counters beside the weights, unread.
            assert len(reads) <= 1, reads
            assert born.made == []

    def test_the_counter_sees_what_it_should(self, config):
        trainer = StageTrainer(config, ranking(), plan(1), None, seed=0)
        with count_readbacks() as reads, _BornOnTheCPU() as born:
            trainer._step(batch_of(4, 5), streams())
            torch.ones(1).new_tensor([1.0])
        assert "aten.equal.default" in reads  # the look at dropout, in the first step alone
        assert born.made == ["new_tensor"]

    @STAGES
    @pytest.mark.parametrize("amp_dtype", ["auto", "bfloat16", "float16"])
    def test_mixed_precision_is_used_and_the_loss_is_finite_float32(self, config, make, amp_dtype):
        trainer = StageTrainer(
            with_options(config, enable_amp=True), make(), plan(1), None, seed=0, amp_dtype=amp_dtype
        )
        dtypes = set()
        for module in trainer.stage.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda _module, _input, output: dtypes.add(output.dtype))
        result = trainer._step(batch_of(4, 9, 1, 7), streams())
        assert dtypes == {torch.float16 if amp_dtype == "float16" else torch.bfloat16}
        assert result.loss.dtype == torch.float32
        assert result.loss.isfinite()
        assert all(
            parameter.dtype == torch.float32 and parameter.isfinite().all() for parameter in trainer.stage.parameters()
        )

    @STAGES
    def test_clipping_sees_unscaled_gradients(self, config, make):
        """The gradients of a float16 step with a scale of 65,536, clipped, are those of a float32 step, clipped."""
        gradients = []
        for amp in (False, True):
            made = with_options(config, enable_amp=amp, enable_scaler=amp)
            trainer = StageTrainer(made, make(), plan(1), None, seed=0, amp_dtype="float16", clip_grad_norm=1e-3)
            assert trainer.scaler.get_scale() == (65536 if amp else 1)
            torch.manual_seed(1)
            trainer._step(batch_of(4, 9, 1, 7), streams())
            found = [p.grad.flatten() for p in trainer.stage.parameters() if p.grad is not None]
            gradients.append(torch.cat(found))
        full, half = gradients
        assert full.norm().item() == pytest.approx(1e-3, rel=1e-3)
        assert half.norm().item() == pytest.approx(1e-3, rel=1e-3)
        assert torch.cosine_similarity(full, half, dim=0) > 0.99

    def test_without_clipping_gradients_stay_large(self, config):
        trainer = StageTrainer(config, masked_items(), plan(1), None, seed=0)
        trainer._step(batch_of(4, 9, 1, 7), streams())
        assert torch.cat([p.grad.flatten() for p in trainer.stage.parameters() if p.grad is not None]).norm() > 0.1

    def test_an_overflowing_step_is_left_out_and_the_scale_halved(self, config):
        made = with_options(config, enable_scaler=True, learner="adam")
        trainer = StageTrainer(made, Scripted([1.0], spoil=(1, 1), how="gradient"), plan(1), None, seed=0)
        trainer._step(batch_of(4, 4), streams(0, "scripted", 0, 0))
        assert trainer.stage.weight.item() == 0
        assert trainer.scaler.get_scale() == 32768
        trainer._step(batch_of(4, 4), streams(0, "scripted", 0, 1))
        assert trainer.stage.weight.item() == pytest.approx(1)

    def test_the_scalers_state_is_kept_and_taken_up(self, config, tmp_path):
        made = with_options(config, enable_scaler=True, learner="sgd")

        def trainer(spoil, how):
            stage = Scripted([1, 2, 3], spoil=spoil, how=how)
            return StageTrainer(made, stage, plan(3), tmp_path, seed=0)

        first = trainer((2, 2), "interrupt")
        first.scaler.load_state_dict({**first.scaler.state_dict(), "scale": 4096.0})
        with pytest.raises(KeyboardInterrupt):
            run(first)
        saved = load_checkpoint(tmp_path / "last.pt")["scaler"]
        assert (saved["scale"], saved["_growth_tracker"]) == (4096.0, STEPS)
        second = trainer(None, None)
        second.resume_checkpoint(tmp_path / "last.pt")
        assert second.scaler.state_dict() == saved
        run(second)
        assert second.scaler.state_dict()["_growth_tracker"] == 3 * STEPS

    def test_the_pooling_query_is_not_trained_by_masked_items(self, config):
        trainer = StageTrainer(config, masked_items(), plan(2), None, seed=0)
        before = {name: tensor.clone() for name, tensor in trainer.stage.state_dict().items()}
        run(trainer)
        same = [name for name, tensor in trainer.stage.state_dict().items() if torch.equal(tensor, before[name])]
        assert same == ["encoder.pooling.query"]


class TestWithinAnEpoch:
    """Checkpoints after every step; whole processes are killed in tests/recbole/user_model/test_kills.py."""

    def trainer(self, config, make, directory, scaled=False, minutes=0.0, interrupted_at=None):
        options = {"enable_amp": True, "enable_scaler": True} if scaled else {}
        made = with_options(config, **options)
        trainer = StageTrainer(
            made,
            make(),
            plan(2, learning_rate=1e-2, name="stage"),
            directory,
            seed=0,
            checkpoint_minutes=minutes,
            amp_dtype="float16" if scaled else "auto",
        )
        interrupt(trainer, interrupted_at)
        return trainer

    @STAGES
    @pytest.mark.parametrize("scaled", [False, True], ids=["float32", "float16, scaled"])
    def test_a_run_of_single_steps_ends_as_one_without_interruption(self, config, tmp_path, make, scaled):
        whole = run(self.trainer(config, make, tmp_path / "whole", scaled, minutes=60.0), n_train=9, batch_size=3)
        for _ in range(2 * STEPS - 1):
            with pytest.raises(KeyboardInterrupt):
                run(self.trainer(config, make, tmp_path / "cut", scaled, interrupted_at=1), n_train=9, batch_size=3)
        cut = run(self.trainer(config, make, tmp_path / "cut", scaled, interrupted_at=1), n_train=9, batch_size=3)
        assert_same_weights(cut.stage.state_dict(), whole.stage.state_dict())
        timeless = [[{**epoch, "seconds": 0} for epoch in trainer.history] for trainer in (whole, cut)]
        assert timeless[0] == timeless[1]
        ends = [load_checkpoint(tmp_path / folder / "last.pt") for folder in ("whole", "cut")]
        assert ends[0]["scaler"] == ends[1]["scaler"]
        for number, ours in ends[1]["optimizer"]["state"].items():
            assert_same_weights(ours, ends[0]["optimizer"]["state"][number])

    def test_is_written_when_it_is_time(self, config, tmp_path, monkeypatch):
        clock = iter(range(1000))  # every look at it takes a second
        time = SimpleNamespace(monotonic=lambda: next(clock))
        monkeypatch.setattr("adaptssr_plugin.recbole.user_model.checkpoints.time", time)
        trainer = scripted(config, [1.0], tmp_path, checkpoint_minutes=4.5 / 60)
        trainer.stage.scores = [1.0] * 9  # its weight grows beyond one epoch's
        written = []
        write = trainer.checkpoints.write
        trainer.checkpoints.write = lambda state: (written.append(state["within"]), write(state))
        run(trainer, n_train=24)
        assert [within and within["steps"] for within in written] == [5, 10, None]
        assert load_checkpoint(tmp_path / "previous.pt")["within"]["steps"] == 10

    def test_a_steps_seconds_are_counted_once(self, config, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            run(self.trainer(config, masked_items, tmp_path, interrupted_at=2), n_train=9, batch_size=3)
        state = load_checkpoint(tmp_path / "last.pt")
        assert 0 < state["within"]["seconds"] < 60
        state["within"]["seconds"] = 1000.0
        write_checkpoint(tmp_path / "last.pt", state)
        trainer = run(self.trainer(config, masked_items, tmp_path), n_train=9, batch_size=3)
        assert 1000 < trainer.history[0]["seconds"] < 1060
        assert trainer.history[1]["seconds"] < 60

    @STAGES
    def test_an_epoch_reads_nothing_back_but_in_its_steps(self, config, tmp_path, make):
        """The means of the epoch and whether a step was bad are read at its end, however many steps it has."""
        reads = []
        for steps in (4, 14):
            trainer = self.trainer(config, make, tmp_path / str(steps), minutes=60.0)
            train = loaders(n_train=3 * steps, batch_size=3)[0]
            trainer._train_epoch(train, 0)  # in whose first step some look whether dropout is on
            with count_readbacks() as counted:
                trainer._train_epoch(train, 1)
            reads.append(len(counted))
        assert reads[1] - reads[0] <= 10  # one a step


class TestBatchesThatAreSkipped:
    @pytest.mark.parametrize("make", [ranking, contrast], ids=lambda make: make.__name__)
    def test_one_user_left_over_does_no_harm(self, config, make):
        trainer = run(StageTrainer(config, make(), plan(2, learning_rate=1e-3), None, seed=0), n_train=5)
        assert [math.isfinite(epoch["loss"]) for epoch in trainer.history] == [True, True]
        assert all(parameter.isfinite().all() for parameter in trainer.stage.parameters())

    def test_users_of_one_behaviour_do_no_harm_to_masked_items(self, config):
        train = BatchLoader(corpus_of(1, 1, 1, 1, 5), batch_size=2, max_len=10, seed=0, shuffle=False)
        trainer = StageTrainer(config, masked_items(), plan(1, learning_rate=1e-3), None, seed=0)
        trainer.run(train, loaders()[1], show_progress=False)
        assert math.isfinite(trainer.history[0]["loss"])


def test_fit_of_recbole_itself_works_too(config):
    trainer = scripted(config, [1.0, 3.0, 2.0])
    assert trainer.fit(*loaders(), verbose=False) == (3.0, {"score": 3.0, "beside": 1.0})


def test_the_model_has_a_loss_as_recbole_calls_it(config):
    trainer = StageTrainer(config, ranking(), plan(1), None, seed=0)
    loss = trainer.model.calculate_loss(batch_of(4, 9, 7))
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in trainer.stage.parameters())


class Diary(Scripted):
    """Notes who is in a batch, what dropout would draw, and the key of the streams."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.users, self.draws, self.keys = [], [], []

    def step(self, batch, streams):
        self.users.append(batch.user_ids.tolist())
        self.draws.append(torch.rand(()).item())
        self.keys.append(streams.key)
        return super().step(batch, streams)


def test_order_dropout_and_streams_are_keyed_by_seed_epoch_and_step(config, tmp_path):
    def diary(folder, seed=7, **options):
        stage = Diary([1.0, 2.0, 3.0], **options)
        made = with_options(config, learner="sgd")
        return StageTrainer(made, stage, plan(3), tmp_path / folder, seed=seed), stage

    trainer, whole = diary("whole")
    run(trainer)
    assert whole.keys == [(7, "scripted", epoch, step) for epoch in range(3) for step in range(STEPS)]
    assert len(set(whole.draws)) == 3 * STEPS
    epochs = [[user for batch in whole.users[STEPS * epoch :][:STEPS] for user in batch] for epoch in range(3)]
    assert all(sorted(order) == list(range(5)) for order in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    trainer, cut = diary("cut", spoil=(2, 2), how="interrupt")
    with pytest.raises(KeyboardInterrupt):
        run(trainer)
    trainer, rest = diary("cut")
    run(trainer)
    assert cut.users[:STEPS] + rest.users == whole.users
    assert cut.draws[:STEPS] + rest.draws == whole.draws
    trainer, other = diary("other", seed=8)
    run(trainer)
    assert other.draws != whole.draws


def test_writers_of_curves_are_closed(config, tmp_path):
    before = set(threading.enumerate())
    run(scripted(config, [1.0, 2.0], tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run(scripted(config, [1.0, 2.0], tmp_path / "cut", spoil=(2, 1), how="interrupt"))
    assert not [thread for thread in set(threading.enumerate()) - before if "Writer" in type(thread).__name__]


def test_an_epoch_trains_on_keyed_batches_dropout_and_streams(config):
    """Two trainers whose surroundings differ do the same."""
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer = StageTrainer(config, ranking(), plan(2, learning_rate=1e-2), None, seed=7)
        run(trainer)
        ends.append(trainer.stage.state_dict())
    assert_same_weights(*ends)
    other = run(StageTrainer(config, ranking(), plan(2, learning_rate=1e-2), None, seed=8))
    assert not torch.equal(other.stage.encoder.items.weight, ends[0]["encoder.items.weight"])
