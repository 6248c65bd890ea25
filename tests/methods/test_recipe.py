"""Recipes: the paper's defaults, the presets, what wins over what, and what a wrong option gets."""

import dataclasses
import sys

import pytest
from refusals import refusal_of
from training_cases import assert_origins, corpus_of, encoder_of

from adaptssr_plugin import AdaptSSRLoss, AugmentationAdaptiveFusion, InfoNCELoss
from adaptssr_plugin.augment import PeriodPair
from adaptssr_plugin.errors import InputError
from adaptssr_plugin.methods import Recipe, available, presets, recipe
from adaptssr_plugin.methods.options.comparison import pairwise_loss
from adaptssr_plugin.methods.plan import stage_plans
from adaptssr_plugin.methods.registry import make_views
from adaptssr_plugin.methods.views import UserHistories
from adaptssr_plugin.training import MLM_TO_RANKING, MaskedItemFiller, MaskedItemStage, PairwiseStage

# What the preset "paper" has; METHODS.md, and the help of each option, say where it comes from.
PAPER = {
    "encoder": "transformer",
    "dim": 64,
    "n_layers": 2,
    "n_heads": 2,
    "ff_dim": 256,
    "max_len": 100,
    "embed_norm": True,
    "embed_dropout": True,
    "interests": 1,
    "item_init": "random",
    "warm_start": "mlm",
    "mlm_epochs": 20,
    "mlm_learning_rate": 2e-4,
    "mlm_dropout": 0.1,
    "mlm_ratio": 0.3,
    "mlm_softmax": "full",
    "mlm_sample_share": 0.2,
    "mlm_select": "best",
    "loss": "adaptssr",
    "interest_penalty": 1.0,
    "ptum_negatives": 4,
    "ptum_next": 2,
    "ptum_weight": 1.0,
    "ptum_negatives_from": "history",
    "mask_ratio": 0.6,
    "crop_ratio": 0.4,
    "reorder_ratio": 0.6,
    "substitute_ratio": 0.1,
    "insert_ratio": 0.4,
    "distinct_ops": False,
    "views": "operators",
    "period": "disjoint",
    "fill_ratio": 0.3,
    "fill": "sample",
    "fill_top_k": 50,
    "fill_temperature": 1.0,
    "fill_ban_original": False,
    "fill_one_side": False,
    "curriculum": "none",
    "curriculum_epochs": 0,
    "curriculum_candidates": 5,
    "curriculum_stages": 0,
    "duorec_key": "last_kept",
    "skip_identical": False,
    "mask_same_key": False,
    "correlation": "memory",
    "correlation_warmup": -1,
    "lambda_mode": "sample",
    "lambda_terms": 4,
    "lambda_clamp": True,
    "lambda_detach": True,
    "negatives": "auto",
    "scale": 1.0,
    "temperature": 1.0,
    "similarity": "cosine",
    "epochs": 20,
    "learning_rate": 2e-4,
    "item_lr_share": 1.0,
    "dropout": 0.1,
    "batch_size": 128,
    "select": "best",
    "valid_share": 0.1,
    "clip_grad_norm": 0.0,
    "ft_epochs": 5,
    "ft_learning_rate": 2e-4,
    "ft_item_lr_share": 1.0,
    "ft_batch_size": 128,
    "ft_dropout": 0.1,
    "ft_hidden": 64,
    "ft_shuffle": True,
    "ft_coldrec_loss": "bpr",
    "ft_neg_exclude": "all",
    "ft_split_unit": "pair",
    "ft_ties": "pessimistic",
    "ft_tune": "all",
    "ft_rank": 8,
}
SOURCE = UserHistories(corpus_of(5, 3, 7), max_len=10)
# Of which the paper says nothing: names of the run, seeds, λ where it is constant, and how steps are computed.
OTHERS = {
    "method", "preset", "seed", "split_seed", "lambda_value", "stopping_step", "amp_dtype", "micro_batch",
    "cuda_graphs", "mlm_pooled",
    "mlm_beside", "history",
}  # fmt: skip
# METHODS.md, column `official_code`, where it differs from the paper.
OFFICIAL_CODE = {
    "lambda_mode": "batch",
    "lambda_terms": 2,
    "lambda_clamp": False,
    "max_len": 150,
    "mlm_learning_rate": 5e-4,
    "mlm_dropout": 0.5,
    "mlm_select": "last",
    "select": "epoch:1",
    "ft_dropout": 0.5,
    "ft_shuffle": False,
}


def refusal(*args, **kwargs):
    return refusal_of(recipe, *args, **kwargs)


class TestDefaults:
    @pytest.mark.parametrize(("name", "expected"), PAPER.items())
    def test_is_the_papers(self, name, expected):
        for made in (recipe(), recipe("adaptssr", "paper"), Recipe()):
            assert getattr(made, name) == expected
            assert type(getattr(made, name)) is type(expected)

    def test_every_option_is_accounted_for(self):
        assert {field.name for field in dataclasses.fields(Recipe)} == set(PAPER) | OTHERS

    def test_each_says_where_it_comes_from(self):
        assert_origins(Recipe)

    def test_official_code(self):
        made = recipe(preset="official_code")
        assert {name: here for name, (_, here) in made.departures().items()} == OFFICIAL_CODE
        assert {name: there for name, (there, _) in made.departures().items()} == {n: PAPER[n] for n in OFFICIAL_CODE}
        assert made.lambda_detach is True

    def test_names(self):
        assert {"adaptssr", "cl4srec", "clue", "coserec", "duorec", "none", "peterrec"} <= set(available())
        assert presets() == ["official_code", "original", "paper", "recommended"]
        assert recipe("peterrec", "official_code").method == "peterrec"

    @pytest.mark.parametrize("method", available())
    @pytest.mark.parametrize("preset", ["official_code", "paper", "recommended"])
    def test_every_method_goes_with_every_preset_for_all(self, method, preset):
        made = recipe(method, preset)
        assert (made.method, made.preset) == (method, preset)
        assert made.departures(made) == {}
        source = UserHistories(corpus_of(5, 3, 7), max_len=10)
        for plan in stage_plans(made):
            stage = plan.make(encoder_of(), source)
            assert stage.encoder is not None
            if plan.fills:
                source.filler = MaskedItemFiller(stage.encoder, stage.head)


class TestDepartures:
    def test_names_both_values(self):
        made = recipe(options={"epochs": 3, "seed": 1, "split_seed": 2, "learning_rate": 2e-4})
        assert made.departures() == {"epochs": (20, 3)}

    def test_are_those_from_the_same_method(self):
        assert recipe("none").departures() == {}
        assert recipe("none").departures(recipe("peterrec"))["epochs"] == (20, 0)

    def test_name_no_option_of_training_where_linear_reading_trains_nothing(self):
        options = {"ft_learning_rate": 1e-3, "ft_ties": "mean"}
        assert set(recipe(options=options).departures()) == set(options)
        linear = recipe(options={**options, "ft_tune": "linear"})
        assert set(linear.departures()) == {"ft_tune", "ft_ties"}


class TestPrecedence:
    def test_options_over_later_over_earlier_files_over_preset_over_method(self, tmp_path):
        first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
        first.write_text("max_len: 30\nepochs: 4\ndim: 32\nlearning_rate: 1e-3\n")
        second.write_text("epochs: 5\ndim: 16\n")
        made = recipe("none", "official_code", {"dim": 8, "select": "last"}, [first, str(second)])
        assert (made.dim, made.select) == (8, "last")  # options
        assert made.epochs == 5  # the later file, over the method's 0
        assert made.max_len == 30  # the earlier file, over the preset's 150
        assert made.learning_rate == 1e-3  # which yaml takes for text
        assert made.ft_dropout == 0.5  # the preset
        assert made.warm_start == "none"  # the method

    def test_a_preset_over_a_method(self):
        assert recipe("none").epochs == 0
        assert recipe("none", "recommended").epochs == recipe("adaptssr", "recommended").epochs > 0

    def test_other_methods_keep_their_views_and_loss_with_recommended(self):
        ours = recipe("adaptssr", "recommended")
        assert (ours.views, ours.negatives, ours.scale) == ("periods", 0.1, 10.0)
        for method in ("cl4srec", "duorec", "peterrec"):
            other, paper = recipe(method, "recommended"), recipe(method)
            assert (other.views, other.negatives) == (paper.views, paper.negatives) == ("operators", "auto")
            assert other.item_init == ours.item_init == "svd"

    def test_an_empty_file_changes_nothing(self, tmp_path):
        (tmp_path / "empty.yaml").write_text("# nothing\n")
        assert recipe(yaml_files=[tmp_path / "empty.yaml"]) == recipe()

    @pytest.mark.parametrize("line", ["method: peterrec", "preset: official_code"])
    def test_a_file_cannot_name_another_method_or_preset(self, tmp_path, line):
        (tmp_path / "run.yaml").write_text(line)
        name, other = line.split(": ")
        message = refusal(yaml_files=[tmp_path / "run.yaml"])
        assert message == f"{name}: expected {getattr(recipe(), name)!r} as asked for, got {other!r} among the options"
        assert recipe(**{name: other}, yaml_files=[tmp_path / "run.yaml"]) == recipe(**{name: other})


class TestWrongOptions:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("mask_ratio", 1.5, "mask_ratio: expected a number in (0, 1], got 1.5"),
            ("mask_ratio", 0, "mask_ratio: expected a number in (0, 1], got 0.0"),
            ("crop_ratio", -0.1, "crop_ratio: expected a number in (0, 1], got -0.1"),
            ("reorder_ratio", float("nan"), "reorder_ratio: expected a number in (0, 1], got nan"),
            ("mlm_ratio", "half", "mlm_ratio: expected a number, got 'half'"),
            ("dropout", 1.0, "dropout: expected a number in [0, 1), got 1.0"),
            ("mlm_dropout", -1e-9, "mlm_dropout: expected a number in [0, 1), got -1e-09"),
            ("learning_rate", 0, "learning_rate: expected a positive number, got 0.0"),
            ("ft_learning_rate", float("inf"), "ft_learning_rate: expected a positive number, got inf"),
            ("temperature", 0, "temperature: expected a positive number, got 0.0"),
            ("clip_grad_norm", -1, "clip_grad_norm: expected 0 or more, got -1.0"),
            ("valid_share", 1, "valid_share: expected a number in (0, 1), got 1.0"),
            ("lambda_value", 1.01, "lambda_value: expected in [0, 1], got 1.01"),
            ("lambda_terms", 3, "lambda_terms: expected 4 or 2, got 3"),
            ("epochs", -1, "epochs: expected an integer of at least 0, got -1"),
            ("epochs", 2.0, "epochs: expected an integer, got 2.0"),
            ("epochs", "2", "epochs: expected an integer, got '2'"),
            ("epochs", True, "epochs: expected an integer, got True"),
            ("batch_size", 1, "batch_size: expected an integer of at least 2, got 1"),
            ("n_heads", 3, "n_heads: expected a divisor of dim = 64, got 3"),
            ("ft_shuffle", 1, "ft_shuffle: expected true or false, got 1"),
            ("embed_norm", "no", "embed_norm: expected true or false, got 'no'"),
            ("learning_rate", True, "learning_rate: expected a number, got True"),
            ("learning_rate", None, "learning_rate: expected a number, got None"),
            ("mlm_softmax", "half", "mlm_softmax: expected full or sampled, got 'half'"),
            ("mlm_sample_share", 0, "mlm_sample_share: expected a number in (0, 1], got 0.0"),
            (
                "mlm_sample_share",
                0.5,
                "mlm_sample_share: expected mlm_softmax sampled beside it, got full, which takes all",
            ),
            ("loss", "bpr", "loss: expected adaptssr or infonce, got 'bpr'"),
            ("loss", 3, "loss: expected text, got 3"),
            ("negatives", "Hardest", "negatives: expected auto or hardest or all or a positive number, got 'Hardest'"),
            ("negatives", 0, "negatives: expected auto or hardest or all or a positive number, got 0.0"),
            ("negatives", "nan", "negatives: expected auto or hardest or all or a positive number, got nan"),
            ("negatives", True, "negatives: expected text or a number, got True"),
            ("warm_start", " ", "warm_start: expected mlm, none or the folder of a finished pre-training, got ' '"),
            ("curriculum", "linear", "curriculum: expected none or ratio_linear or scored, got 'linear'"),
            ("curriculum_candidates", 0, "curriculum_candidates: expected an integer of at least 1, got 0"),
            ("duorec_key", "last", "duorec_key: expected last_kept or last_dropped, got 'last'"),
            ("correlation", "item2vec", "correlation: expected memory or model or hybrid or random, got 'item2vec'"),
            ("correlation_warmup", -2, "correlation_warmup: expected an integer of at least -1, got -2"),
            ("select", "epoch:0", "select: expected best, last or epoch:K, got 'epoch:0'"),
            ("select", "epoch:x", "select: expected best, last or epoch:K, got 'epoch:x'"),
            ("select", "best ", "select: expected best, last or epoch:K, got 'best '"),
            ("select", "epoch:21", "select: expected one of the 20 epochs, got 'epoch:21'"),
            ("mlm_select", "epoch:21", "mlm_select: expected one of the 20 epochs, got 'epoch:21'"),
        ],
    )
    def test_gives_one_line(self, name, value, message):
        assert refusal(options={name: value}) == message

    def test_an_unknown_option_names_the_known_ones(self):
        message = refusal(options={"epoch": 3})
        assert message.startswith("epoch: expected an option of a recipe (")
        assert "(encoder, dim, " in message
        assert message.endswith("ft_tune, ft_rank, method, preset), got an unknown name")

    def test_an_unknown_method_or_preset_names_the_known_ones(self):
        assert refusal("CCL") == f"method: expected one of {', '.join(available())}, got 'CCL'"
        known = "official_code, original, paper, recommended"
        assert refusal(preset="fast") == f"preset: expected one of {known}, got 'fast'"
        assert refusal("../presets/paper").endswith(", got '../presets/paper'")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("epochs: [", "config: cannot read {file}: while parsing"),
            ("- epochs", "config: expected 'option: value' lines in {file}, got list"),
            ("epochs 3", "config: expected 'option: value' lines in {file}, got str"),
            ("epochs: 1.5", "epochs: expected an integer, got 1.5"),
            ("1: 2\nfoo: 3", "1: expected an option of a recipe"),
            ("a: !!python/object/apply:os.getcwd []", "config: cannot read {file}: could not determine a constructor"),
        ],
    )
    def test_a_wrong_file(self, tmp_path, content, message):
        file = tmp_path / "options.yaml"
        file.write_text(content)
        assert refusal(yaml_files=[file]).startswith(message.format(file=file))

    def test_a_missing_file(self, tmp_path):
        assert refusal(yaml_files=[tmp_path / "no.yaml"]).startswith(f"config: cannot read {tmp_path}/no.yaml: ")

    def test_an_epoch_to_select_only_counts_where_its_stage_runs(self):
        assert recipe("none", "official_code").select == "epoch:1"
        assert recipe(options={"warm_start": "none", "mlm_select": "epoch:99"}).mlm_select == "epoch:99"
        assert recipe(options={"epochs": 3, "select": "epoch:3"}).select == "epoch:3"


def loss_of(made):
    return pairwise_loss(made.loss, made)


class TestPlans:
    def test_adaptssr_is_masked_items_then_ranking(self):
        made = recipe(options={"mlm_epochs": 3, "mlm_learning_rate": 0.5, "mlm_dropout": 0.4, "mlm_select": "last"})
        warm_up, own = stage_plans(made)
        settings = ("name", "epochs", "learning_rate", "dropout", "select", "takes")
        assert [getattr(warm_up, name) for name in settings] == ["mlm", 3, 0.5, 0.4, "last", ()]
        assert [getattr(own, name) for name in settings] == ["adaptssr", 20, 2e-4, 0.1, "best", MLM_TO_RANKING]
        first, second = warm_up.make(encoder_of(), SOURCE), own.make(encoder_of(), SOURCE)
        assert isinstance(first, MaskedItemStage)
        assert (first.name, first.mask.ratio) == ("mlm", 0.3)
        assert isinstance(second, PairwiseStage)
        assert second.name == "adaptssr"

    @pytest.mark.parametrize(
        ("method", "options", "names"),
        [
            ("none", {}, []),
            ("peterrec", {}, ["peterrec"]),
            ("peterrec", {"warm_start": "mlm"}, ["mlm", "peterrec"]),
            ("adaptssr", {"warm_start": "none"}, ["adaptssr"]),
            ("adaptssr", {"epochs": 0}, ["mlm"]),
        ],
    )
    def test_stages(self, method, options, names):
        assert [plan.name for plan in stage_plans(recipe(method, options=options))] == names

    @pytest.mark.parametrize("method", ["adaptssr", "peterrec"])
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, ("full", 0.2)),
            ({"mlm_softmax": "sampled"}, ("sampled", 0.2)),
            ({"mlm_softmax": "sampled", "mlm_sample_share": 0.5}, ("sampled", 0.5)),
        ],
        ids=["full", "sampled", "sampled-half"],
    )
    def test_the_softmax_reaches_masked_items(self, method, options, expected):
        plan = stage_plans(recipe(method, options=options))[0]
        head = plan.make(encoder_of(), SOURCE).head
        assert (head.softmax, head.sample_share) == expected

    def test_a_ranking_without_dropout_is_refused_before_its_warm_up(self):
        with pytest.raises(InputError, match=r"^dropout: expected a number above 0.*, got 0\.0$"):
            stage_plans(recipe(options={"dropout": 0}))
        assert stage_plans(recipe(options={"dropout": 0, "loss": "infonce"}))
        assert stage_plans(recipe("peterrec", options={"dropout": 0}))

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, AdaptSSRLoss()),
            ({"negatives": "all"}, AdaptSSRLoss(negatives="all")),
            ({"negatives": "1e-1"}, AdaptSSRLoss(negatives=0.1)),
            ({"scale": 3}, AdaptSSRLoss(scale=3.0)),
            ({"lambda_mode": "const", "lambda_value": 0.2}, AdaptSSRLoss(0.2)),
            ({"lambda_mode": "batch"}, AdaptSSRLoss(AugmentationAdaptiveFusion("batch"))),
            ({"lambda_terms": 2}, AdaptSSRLoss(AugmentationAdaptiveFusion(terms=2))),
            ({"lambda_clamp": False}, AdaptSSRLoss(AugmentationAdaptiveFusion(clamp=False))),
            ({"lambda_detach": False}, AdaptSSRLoss(AugmentationAdaptiveFusion(detach=False))),
            ({"loss": "infonce"}, InfoNCELoss()),
            ({"loss": "infonce", "temperature": 0.2, "negatives": "hardest"}, InfoNCELoss(0.2, "hardest")),
            ({"loss": "infonce", "negatives": 2}, InfoNCELoss(negatives=2.0)),
        ],
    )
    def test_losses(self, options, expected):
        assert repr(loss_of(recipe(options=options))) == repr(expected)
        assert (repr(expected) == repr(AdaptSSRLoss())) is (
            not options
        )  # a repr that leaves something out shows nothing

    def test_the_preset_of_the_authors_code_has_the_loss_of_that_name(self):
        ours, named = loss_of(recipe(preset="official_code")), AdaptSSRLoss.from_preset("official_code")
        assert repr(ours) == repr(named)
        assert repr(ours) != repr(AdaptSSRLoss())

    def test_views(self):
        pair = make_views(
            "adaptssr", recipe(options={"mask_ratio": 0.1, "crop_ratio": 0.2, "reorder_ratio": 0.3}), SOURCE
        )
        assert [(type(one).__name__, one.ratio) for one in pair.operators] == [
            ("ItemMask", 0.1),
            ("ItemCrop", 0.2),
            ("ItemReorder", 0.3),
        ]
        assert pair.operators[0].mask_id == 12
        assert pair.distinct is False
        assert make_views("adaptssr", recipe(options={"distinct_ops": True}), SOURCE).distinct is True

    def test_periods_are_those_of_idicl(self):
        views = make_views("adaptssr", recipe(options={"views": "periods", "crop_ratio": 0.3}), SOURCE)
        assert (type(views.long), views.long.ratio, views.long.period) == (PeriodPair, 0.3, "disjoint")
        assert (type(views.short).__name__, views.least) == ("RandomPair", 10)


def test_without_yaml_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ModuleNotFoundError, match=r'^recipes are YAML and need PyYAML, .*pip install -e "') as missing:
        recipe()
    assert missing.value.name == "yaml"
