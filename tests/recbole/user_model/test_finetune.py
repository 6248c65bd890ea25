"""`fine_tune`: weights really loaded and all trained, the best validation epoch, one look at the test users."""

import numpy as np
import pytest
import torch
from training_cases import N_ITEMS, TINY, assert_same_weights, corpus_of, encoder_of, write_profiled_dataset

from adaptssr_plugin import UserEncoder
from adaptssr_plugin.corpus import BatchLoader, BehaviourCorpus
from adaptssr_plugin.downstream import ColdRecommendationTask, ProfileTask, fewer_labels, logistic_regression
from adaptssr_plugin.downstream.tasks.profile import ProfileStage
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import recipe
from adaptssr_plugin.recbole.compat.user_sequences import load_user_sequences
from adaptssr_plugin.recbole.user_model import finetune as module
from adaptssr_plugin.recbole.user_model.finetune import check_same_items, fine_tune, profile_task
from adaptssr_plugin.recbole.user_model.pretrain import PretrainedModel, Source, fresh_encoder

MADE = recipe(options={**TINY, "ft_epochs": 6})
SIZES = {"dim": 8, "max_len": 10, "ff_dim": 16}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    dataset = write_profiled_dataset(tmp_path_factory.mktemp("data") / "small", n_users=30)
    return Source(str(dataset), {"use_gpu": False}).config(10)


@pytest.fixture(scope="module")
def corpus():
    return corpus_of(*range(1, 41))


def task_of(n_classes=3, n_users=40):
    labels = np.random.default_rng(1).integers(0, n_classes, n_users)
    return ProfileTask.from_labels("kind", np.arange(n_users), labels, [str(name) for name in range(n_classes)])


class Watched(module.StageTrainer):
    """Keeps the trainer, and the weights that it began with."""

    made: list = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.first_state = {name: tensor.clone() for name, tensor in self.stage.state_dict().items()}
        self.made.append(self)


@pytest.fixture(autouse=True)
def trainers(monkeypatch):
    monkeypatch.setattr(module, "StageTrainer", Watched)
    Watched.made = []
    return Watched.made


def of_encoder(state):
    return {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}


def test_the_same_seed_gives_the_same_numbers(config, corpus, trainers):
    results = []
    for seed, global_seed in ((3, 1), (3, 2), (4, 1)):
        torch.manual_seed(global_seed)
        results.append(fine_tune(config, corpus, task_of(), MADE, seed))
    numbers = [(result.valid, result.test, result.best_epoch) for result in results]
    losses = [[epoch["loss"] for epoch in trainer.history] for trainer in trainers]
    assert numbers[0] == numbers[1]
    assert losses[0] == losses[1] != losses[2]
    assert_same_weights(trainers[0].stage.state_dict(), trainers[1].stage.state_dict())
    assert all(result.seconds > 0 for result in results)


def test_the_seed_is_that_of_head_dropout_and_order(config, corpus, trainers):
    pretrained = encoder_of(UserEncoder, **SIZES)
    for seed in (3, 4):
        fine_tune(config, corpus, task_of(), MADE, seed, pretrained)
    heads = [trainer.first_state["head.hidden.weight"] for trainer in trainers]
    assert not torch.equal(*heads)
    assert [trainer.seed for trainer in trainers] == [3, 4]


def test_starts_from_the_pre_trained_weights_and_leaves_them_alone(config, corpus, trainers):
    pretrained = encoder_of(UserEncoder, seed=5, **SIZES)
    kept = {name: tensor.clone() for name, tensor in pretrained.state_dict().items()}
    fine_tune(config, corpus, task_of(), MADE, 0, pretrained)
    fine_tune(config, corpus, task_of(), MADE, 0)
    from_model, from_scratch = trainers
    assert_same_weights(of_encoder(from_model.first_state), kept)
    fresh = fresh_encoder(MADE, N_ITEMS, MADE.ft_dropout, 0)
    assert_same_weights(of_encoder(from_scratch.first_state), fresh.state_dict())
    heads = [{n: t for n, t in one.first_state.items() if n.startswith("head.")} for one in trainers]
    assert_same_weights(*heads)  # the same fresh head for either start
    assert from_model.history[0]["loss"] != from_scratch.history[0]["loss"]
    assert_same_weights(pretrained.state_dict(), kept)


def test_all_weights_are_trained(config, corpus, trainers):
    fine_tune(config, corpus, task_of(), MADE, 0, encoder_of(UserEncoder, **SIZES))
    (trainer,) = trainers
    after = trainer.stage.state_dict()
    same = [name for name, tensor in trainer.first_state.items() if torch.equal(tensor, after[name])]
    assert same == ["encoder.items.mask"]  # no behaviour is masked here (METHODS.md, row 17)


def test_the_recipes_options_hold(config, corpus, trainers):
    made = recipe(options={**TINY, "ft_epochs": 1, "ft_dropout": 0.4, "ft_learning_rate": 0.25, "ft_hidden": 5})
    fine_tune(config, corpus, task_of(), made, 0, encoder_of(UserEncoder, dropout=0.1, **SIZES))
    (trainer,) = trainers
    assert {one.p for one in trainer.stage.modules() if isinstance(one, torch.nn.Dropout)} == {0.4}
    assert trainer.optimizer.defaults["lr"] == 0.25
    assert trainer.stage.head.hidden.out_features == 5


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_best_validation_epoch_is_tested_once(config, corpus, trainers, monkeypatch, n_classes):
    looked = []
    metric = ProfileTask.metric

    def watched(self, scores, labels):
        looked.append((len(labels), metric(self, scores, labels)))
        return looked[-1][1]

    monkeypatch.setattr(ProfileTask, "metric", watched)
    task = task_of(n_classes)
    result = fine_tune(config, corpus, task, MADE, 1)
    (trainer,) = trainers
    scores = [epoch["valid_metric"] for epoch in trainer.history]
    assert len(set(scores)) > 1
    assert (result.valid, result.best_epoch) == (max(scores), scores.index(max(scores)) + 1)
    assert [value for _, value in looked[:-1]] == scores  # one look at the validation users per epoch, then the test
    assert result.test == looked[-1][1]
    split = task.split(MADE.split_seed)
    assert [count for count, _ in looked] == [len(split.valid.rows)] * 6 + [len(split.test.rows)]

    def value_of(part):  # of the weights that are left, with another batch size
        loader = BatchLoader(corpus, part.rows, batch_size=3, max_len=10, seed=0, shuffle=False, labels=part.labels)
        return metric(task, *trainer.stage.predict(loader))

    assert value_of(split.valid) == pytest.approx(result.valid)
    assert value_of(split.test) == pytest.approx(result.test)


def test_the_split_is_the_recipes_and_not_the_seeds(config, corpus, monkeypatch):
    seen = []
    split = ProfileTask.split
    monkeypatch.setattr(ProfileTask, "split", lambda self, seed: seen.append(seed) or split(self, seed))
    for seed in (0, 1):
        fine_tune(config, corpus, task_of(), MADE, seed)
    assert seen == [MADE.split_seed] * 2


@pytest.mark.parametrize("shuffle", [True, False])
def test_order_of_users(config, corpus, trainers, monkeypatch, shuffle):
    orders = []

    class Noted(BatchLoader):
        def from_step(self, step):
            rows = []
            for batch in super().from_step(step):
                rows += batch.user_ids.tolist()
                yield batch
            orders.append((self.epoch, rows))

    monkeypatch.setattr(module, "BatchLoader", Noted)
    fine_tune(config, corpus, task_of(), recipe(options={**TINY, "ft_shuffle": shuffle, "ft_epochs": 2}), 0)
    first, second = (rows for _, rows in orders if len(rows) == 24)
    assert sorted(first) == sorted(second)
    assert (first != second) is shuffle


def test_it_learns_what_can_be_learnt(config, trainers):
    """Users of even items against users of odd ones."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    histories = [(2 * random.integers(1, 6, 6) - label).tolist() for label in labels]
    corpus = BehaviourCorpus.from_lists(histories, N_ITEMS)
    task = ProfileTask.from_labels("parity", np.arange(60), labels, ["even", "odd"])
    result = fine_tune(config, corpus, task, recipe(options={**TINY, "ft_epochs": 15}), 0)
    assert result.test > 0.95


class TestLinearReading:
    MADE = recipe(options={**TINY, "ft_tune": "linear"})

    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize("labels", [None, 12])
    @pytest.mark.parametrize("pretrained", [None, encoder_of(UserEncoder, seed=5, dropout=0.5, **SIZES)])
    def test_it_is_a_regression_on_vectors_without_dropout(
        self, config, corpus, trainers, n_classes, labels, pretrained
    ):
        task = task_of(n_classes)
        done = fine_tune(config, corpus, task, self.MADE, 3, pretrained, labels)
        encoder = (pretrained or fresh_encoder(self.MADE, N_ITEMS, 0.0, 3)).eval()
        vectors = np.stack([
            encoder(torch.tensor([corpus.history(row)[-10:].tolist()]), torch.tensor([min(10, row + 1)]))[0]
            .detach().numpy()
            for row in range(40)
        ]).astype(np.float64)  # fmt: skip
        split = task.split(self.MADE.split_seed)
        known = vectors[split.train.rows]
        features = (vectors - known.mean(axis=0)) / known.std(axis=0) / 8**0.5
        few = split if labels is None else fewer_labels(split, labels, self.MADE.split_seed)
        expected = logistic_regression(task, few, features.__getitem__)
        assert (done.valid, done.test) == pytest.approx((expected.valid, expected.test))
        assert (done.best_epoch, done.trained, trainers) == (None, 0.0, [])
        assert (dict(done.valid_metrics), dict(done.test_metrics)) == (
            {task.metric_name: done.valid}, {task.metric_name: done.test}
        )  # fmt: skip

    def test_labels_of_test_users_change_nothing_but_the_test_metric(self, config, corpus):
        task = task_of()
        (_, _, test), labels = task.split(self.MADE.split_seed), task.labels.copy()
        labels[test.rows] = (labels[test.rows] + 1) % 3
        other = ProfileTask.from_labels("kind", task.rows, labels, task.classes)
        first, second = (fine_tune(config, corpus, one, self.MADE, 0) for one in (task, other))
        assert first.valid == second.valid
        assert first.test != second.test

    def test_other_forms_of_tasks_are_refused(self, config, corpus):
        pairs = ColdRecommendationTask("toys", np.arange(40), np.arange(40) % 4, ["a", "b", "c", "d"])
        line = "^ft_tune: expected anything but linear for toys, which has no classes, got linear$"
        with pytest.raises(InputError, match=line):
            fine_tune(config, corpus, pairs, self.MADE, 0)


def test_few_labels_of_fine_tuning(config, corpus, trainers, monkeypatch):
    seen = []
    loader = module.BatchLoader
    monkeypatch.setattr(
        module, "BatchLoader", lambda c, rows, **more: seen.append(set(rows)) or loader(c, rows, **more)
    )
    fine_tune(config, corpus, task_of(), MADE, 0, labels=12)
    few = fewer_labels(task_of().split(MADE.split_seed), 12, MADE.split_seed)
    assert seen == [set(part.rows) for part in few]


def test_weights_of_other_sizes_are_refused(config, corpus):
    with pytest.raises(InputError, match=r"^model: items\.weight: expected shape \(12, 8\), got \(13, 8\)"):
        fine_tune(config, corpus, task_of(), MADE, 0, encoder_of(UserEncoder, n_items=13, **SIZES))


def test_a_task_from_the_user_file(config):
    corpus = load_user_sequences(config).corpus
    gender, job, age = (
        profile_task(config, corpus, name, bins) for name, bins in (("gender", None), ("job", None), ("age", (30, 50)))
    )
    assert [task.kind for task in (gender, job, age)] == ["binary", "multiclass", "multiclass"]
    assert (gender.classes, job.classes, age.classes) == (("F", "M"), ("a", "b", "c"), ("under 30", "30-49", "50+"))
    users = [int(token.removeprefix("u")) for token in corpus.user_tokens[gender.rows]]
    assert gender.labels.tolist() == [user % 2 for user in users]


class TestSameItems:
    def model(self, folder):
        return PretrainedModel(encoder_of(UserEncoder), folder, ())

    def test_the_same(self, tmp_path, corpus):
        check_same_items(self.model(tmp_path), corpus.item_tokens.tolist(), corpus)

    @pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: [*t, "new"], lambda t: [t[0], t[2], t[1], *t[3:]]])
    def test_others(self, tmp_path, corpus, change):
        tokens = change(corpus.item_tokens.tolist())
        with pytest.raises(
            InputError, match=rf"^dataset: its items are not those .*\({len(tokens) - 1} there, 11 here\)$"
        ):
            check_same_items(self.model(tmp_path), tokens, corpus)


@pytest.mark.parametrize(("what", "share"), [("head", 0.0), ("lora", 0.5), ("adapter", 0.5), ("all", 1.0)])
def test_ft_tune_trains_its_share_and_leaves_the_rest_as_pretrained(config, corpus, what, share, monkeypatch):
    kept = {}

    def watch(stage, *arguments):
        kept["stage"] = stage
        return predict(stage, *arguments)

    predict = ProfileStage.predict
    monkeypatch.setattr(ProfileStage, "predict", watch)
    made = recipe(options={**TINY, "ft_tune": what, "ft_rank": 1})
    done = fine_tune(config, corpus, task_of(), made, 0)
    start = fresh_encoder(made, corpus.n_items, made.ft_dropout, 0).state_dict()
    after = kept["stage"].encoder.state_dict()
    assert done.trained == share if what in ("head", "all") else 0 < done.trained < share
    assert torch.equal(after["items.weight"], start["items.weight"]) is (what != "all")
