"""FilteredTrainer: plain training when all is kept, a plain loop's weights when it is not."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    get_linear_schedule_with_warmup,
)

from secondary_learners.errors import (
    IncompatibleError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.filtering.decisions import LearnerFilter, RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.sampling import ScoreSampler
from secondary_learners.filtering.thresholds import Shifting
from secondary_learners.filtering.weights import ScoreWeights
from secondary_learners.learners.artifact import Learner
from secondary_learners.learners.nets import LinearNet
from secondary_learners.trainers.checks import check_engine
from secondary_learners.trainers.trainer import FilteredTrainer
from secondary_learners.trainers.updating import shares
from trainer_helpers import collate, make_arguments, make_model, make_rows

pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Every run collects garbage first, which takes long with all that the tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def train(tmp_path):
    def train(kind=FilteredTrainer, *, causal=False, dropout=0.1, rows=64, resume=None, **options):
        names = ("filter", "forwards", "hold", "callbacks", "eval_dataset", "weights", "sampler")
        names += ("compute_loss_func",)
        extra = {name: options.pop(name) for name in names if name in options}
        trainer = kind(
            make_model(causal=causal, dropout=dropout),
            make_arguments(options.pop("folder", tmp_path), **options),
            train_dataset=make_rows(rows, causal=causal),
            data_collator=collate,
            **extra,
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return train


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(first, second):
    one, two = weights(first), weights(second)
    return all(torch.equal(one[name], two[name]) for name in one)


def timeless(trainer, without=()):
    """The log without its last line, which has times, and without some names."""
    return [
        {name: value for name, value in line.items() if not name.startswith(tuple(without))}
        for line in trainer.state.log_history[:-1]
    ]


def test_is_the_plain_trainer_while_everything_is_kept(train, subtests):
    cases = (
        {},
        {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.1},
        {"causal": True, "gradient_accumulation_steps": 3, "max_steps": 4},
        {"bf16": True},
    )
    for options in cases:
        with subtests.test(str(options)):
            plain = train(Trainer, **options)
            filtered = train(filter=RandomFilter(1.0), **options)
            assert same(plain, filtered)
            for one, two in zip(timeless(plain), timeless(filtered, ["filter_"]), strict=True):
                assert one == pytest.approx(two)
            assert plain.state.total_flos == filtered.state.total_flos
            assert filtered.savings.plain_flops == filtered.savings.flops
            assert same(plain, train(filter=MultistageFilter(warmup=1.0), **options))


class Recorder(MultistageFilter):
    """Notes what was admitted, and the first tokens of what was run together."""

    def __init__(self, **options):
        super().__init__(**options)
        self.log = []

    def admit(self, input_ids, attention_mask, *, step, total):
        admitted = super().admit(input_ids, attention_mask, step=step, total=total)
        self.log.append((step, self.stage, admitted.tolist()))
        return admitted

    def keep(self, losses, input_ids, attention_mask):
        self.log.append(input_ids[:, 0].tolist())  # all that were run together
        return super().keep(losses, input_ids, attention_mask)


def plain_loop(filter_, rows, *, causal, order, hold=False, weigh=lambda row: 1):
    """What FilteredTrainer computes, written straight down in float64; without dropout."""
    epochs, size, rate = 2, 8, 0.1
    model = make_model(causal=causal, dropout=0.0).double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    total = epochs * math.ceil(len(rows) / size)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, total)
    asking, waiting, step, trained, updates = [], [], 0, 0, 0

    def loss_of(row):
        return model(**collate([row])).loss

    for epoch in range(epochs):
        for begin in range(0, len(rows), size):
            batch = [rows[place] for place in order[epoch][begin : begin + size]]
            inputs = collate(batch)
            ids, mask = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy().astype(bool)
            admitted = filter_.admit(ids, mask, step=step, total=total)
            asking += [row for row, flag in zip(batch, admitted, strict=True) if flag]
            asked, last = filter_.needs_losses, begin + size >= len(rows)
            while asking and (last or not asked or len(asking) >= size):
                batch, asking = asking[:size], asking[size:]
                if asked:
                    inputs = collate(batch)
                    ids, mask = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy()
                    losses = np.array([loss_of(row).item() for row in batch])
                    kept = filter_.keep(losses, ids, mask.astype(bool))
                    batch = [row for row, flag in zip(batch, kept, strict=True) if flag]
                waiting += batch
            whole = last or (hold and asked)
            least = math.ceil(2 / 3 * size) if hold and asked else size
            if len(waiting) >= least or (last and waiting):
                taken, waiting = (waiting, []) if whole else (waiting[:size], waiting[size:])
                optimizer.zero_grad()
                terms = [len(row["labels"]) - 1 if causal else 1 for row in taken]
                weights = [weigh(row) for row in taken]
                # transformers counts a first label that GPT-2 does not predict
                count = sum(w * (n + causal) for w, n in zip(weights, terms, strict=True))
                each = [loss_of(row) for row in taken]
                if not asked:
                    filter_.observe(np.array([loss.item() for loss in each]))
                parts = zip(weights, each, terms, strict=True)
                loss = sum(w * value * n for w, value, n in parts) / count
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                trained, updates = trained + len(taken), updates + 1
            schedule.step()
            step += 1
    return model, trained, updates


class Order(torch.utils.data.Sampler):
    """A different fixed order in every epoch."""

    def __init__(self, order):
        self.order, self.epoch = order, 0

    def __iter__(self):
        self.epoch += 1
        return iter(self.order[self.epoch - 1])

    def __len__(self):
        return len(self.order[0])


WAYS = [(False, "again"), (False, "same"), (True, "again"), (True, "same")]
ORDER = [np.random.default_rng(seed).permutation(60).tolist() for seed in (1, 2)]


def ordered(folder, rows, *, causal, **options):
    """A trainer of the plain loop's rows in the plain loop's order."""
    return FilteredTrainer(
        make_model(causal=causal, dropout=0.0),
        make_arguments(folder, optim="sgd", learning_rate=0.1),
        train_dataset=rows,
        data_collator=collate,
        sampler=Order(ORDER),
        hold=100,
        **options,
    )


def staged():
    return Recorder(warmup=0.15, bound=0.0, latest=0.5, keep_at_least=0.4)


def assert_weights(trainer, model):
    for (name, value), expected in zip(
        trainer.model.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.allclose(value.double(), expected.double(), atol=1e-5), name


@pytest.mark.parametrize(("causal", "forwards"), WAYS)
def test_trains_as_a_plain_loop_does(tmp_path, causal, forwards):
    rows = make_rows(60, causal=causal)
    trainer = ordered(tmp_path, rows, causal=causal, filter=staged(), forwards=forwards)
    trainer.train()
    reference = staged()
    model, trained, updates = plain_loop(
        reference, rows, causal=causal, order=ORDER, hold=forwards == "same"
    )
    assert trainer.filter.log == reference.log
    run = [len(tokens) for tokens in trainer.filter.log if isinstance(tokens, list)]
    assert sum(count < 8 for count in run) == 2 < len(run)  # full batches, but at an epoch's end
    assert trainer.filter.counts == reference.counts
    assert min(reference.counts.skipped_forward, reference.counts.skipped_backward) > 0
    savings = trainer.savings
    assert (savings.trained, savings.updates, savings.waiting) == (trained, updates, 0)
    assert_weights(trainer, model)


@pytest.mark.parametrize(("causal", "forwards"), [*WAYS, (False, "auto"), (True, "auto")])
def test_weights_examples_as_a_plain_loop_does(tmp_path, learner, causal, forwards):
    rows = make_rows(60, causal=causal)
    # "auto" without a filter: all that is weighted is trained on.
    filters = [None, RandomFilter(1.0)] if forwards == "auto" else [staged(), staged()]
    options = {"causal": causal, "filter": filters[0], "forwards": forwards}
    trainer = ordered(tmp_path, rows, weights=ScoreWeights(learner, 0.5), **options)
    trainer.train()

    def weigh(row):
        return math.exp(2 * float(learner.score(torch.tensor([row["input_ids"]]))[0]))

    drawn = [weigh(row) for row in rows]
    assert max(drawn) > 20 * min(drawn)
    same_pass = {"order": ORDER, "hold": forwards == "same"}
    model, trained, _ = plain_loop(filters[1], rows, causal=causal, weigh=weigh, **same_pass)
    assert trainer.savings.trained == trained
    assert_weights(trainer, model)


def test_equal_weights_are_none(train, learner):
    options = {"gradient_accumulation_steps": 2, "causal": True, "dropout": 0.0, "optim": "sgd"}
    plain = train(learning_rate=0.1, **options)
    weighted = train(learning_rate=0.1, weights=ScoreWeights(learner, 1e9), **options)
    for (name, one), two in zip(weights(plain).items(), weights(weighted).values(), strict=True):
        assert torch.allclose(one, two, atol=1e-5), name
    for one, two in zip(timeless(plain), timeless(weighted, ["filter_"]), strict=True):
        assert one == pytest.approx(two, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"compute_loss_func": lambda *args, **kwargs: None}, "compute_loss_func"),
    ],
)
def test_weights_do_not_go_with_another_loss(train, learner, options, message):
    with pytest.raises(SecondaryLearnersError, match=f"do not go with {message}"):
        train(weights=ScoreWeights(learner), **options)


def test_weights_are_of_the_same_tokens(train, learner):
    other = dataclasses.replace(learner.config, sizes={**learner.config.sizes, "vocabulary": 6144})
    with pytest.raises(IncompatibleError, match="6,144 token ids"):
        train(weights=ScoreWeights(Learner(other, LinearNet(6144))))
    with pytest.raises(SecondaryLearnersError, match="temperature is 0"):
        ScoreWeights(learner, 0)


def test_a_sampler_gives_the_order(train):
    scores = np.arange(64)
    log = Recorder(warmup=1.0)
    train(filter=log, sampler=ScoreSampler(scores, count=20, order="descending"))
    assert [len(admitted) for _, _, admitted in log.log] == [8, 8, 4] * 2
    firsts = []
    for _ in range(2):
        seen = Tokens(1.0)
        train(filter=seen, sampler=ScoreSampler(scores, count=8, temperature=9.0))
        firsts.append(seen.batches)
    assert firsts[0] == firsts[1]
    assert firsts[0][0] != firsts[0][1]  # each epoch has its own draw


class Tokens(RandomFilter):
    """Notes the first tokens of every batch."""

    def __init__(self, share):
        super().__init__(share)
        self.batches = []

    def admit(self, input_ids, attention_mask, *, step, total):
        self.batches.append(input_ids[:, 0].tolist())
        return super().admit(input_ids, attention_mask, step=step, total=total)


class KeepAll(MultistageFilter):
    """Asks for every loss, and keeps the example all the same."""

    def keep(self, losses, *rows):
        return np.ones_like(super().keep(losses, *rows))


@pytest.mark.parametrize(
    ("forwards", "hold", "passes"),
    [
        ("again", 2, 1 + 7 + 7),  # after stage 0, one to decide and one to train
        ("same", 2, 1 + 7),
        ("same", 0, 1 + 7 + 7),  # no memory for it
        ("auto", 2, 1 + 7 + 1),  # the first one shows that most are kept
    ],
)
def test_forward_passes(train, forwards, hold, passes):
    calls = []

    class Counting(FilteredTrainer):
        def create_optimizer(self, *args):
            self.model.register_forward_pre_hook(lambda model, _: calls.append(model.training))
            return super().create_optimizer(*args)

    filter_ = KeepAll(warmup=0.1, latest=1.0, bound=0.0)
    trainer = train(Counting, filter=filter_, forwards=forwards, hold=hold, num_train_epochs=1)
    assert calls == [True] * passes  # with dropout
    savings = trainer.savings
    assert (savings.trained, savings.updates) == (64, 8)
    extra = (passes - 8) / 8 / 3  # every forward pass is a third of training
    assert savings.flops == pytest.approx(savings.plain_flops * (1 + extra), rel=0.05)


@pytest.mark.parametrize(("forwards", "accumulate"), [("again", 1), ("same", 2)])
def test_a_resumed_run_is_the_uninterrupted_one(train, tmp_path, forwards, accumulate):
    def new():
        return MultistageFilter(warmup=0.2, bound=0.0, latest=0.6, keep_at_least=0.4)

    options = {
        "forwards": forwards,
        "gradient_accumulation_steps": accumulate,
        "per_device_train_batch_size": 8 // accumulate,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 8,
    }
    whole = train(filter=new(), **options)
    stages = {line["step"]: line["filter_stage"] for line in whole.state.log_history[:-1]}
    undecided = []
    for step in (2, 6, 12):
        resumed = train(
            filter=new(), resume=f"{tmp_path}/checkpoint-{step}", folder=tmp_path / "b", **options
        )
        assert same(whole, resumed)
        assert resumed.filter.counts == whole.filter.counts
        assert resumed.savings.updates == whole.savings.updates
        assert timeless(resumed) == timeless(whole)
        file = tmp_path / f"checkpoint-{step}" / "filter_0.pt"
        undecided.append(torch.load(file, weights_only=True)["admitted"])
    assert any(undecided)  # rows that were admitted and wait to be run
    assert [stages[step] for step in (2, 6, 12)] == [0, 1, 2]


def test_nothing_admitted_is_left_when_losses_are_needed_no_more(train):
    class Tiring(MultistageFilter):
        @property
        def needs_losses(self):
            return super().needs_losses and self._step < 11

    filter_ = Tiring(warmup=0.2, bound=0.0, latest=0.4, keep_at_least=0.4)
    savings = train(filter=filter_).savings
    assert savings.seen == savings.trained + savings.skipped_forward + savings.skipped_backward
    assert savings.skipped_forward > 0 < savings.skipped_backward


@pytest.mark.parametrize("forwards", ["again", "same"])
def test_mixed_precision_and_accumulation(train, forwards):
    filter_ = MultistageFilter(warmup=0.2, bound=0.0, latest=0.6, keep_at_least=0.4)
    trainer = train(filter=filter_, forwards=forwards, bf16=True, gradient_accumulation_steps=2)
    assert all(value.dtype == torch.float32 for value in trainer.model.parameters())
    assert trainer.savings.trained == filter_.counts.kept
    assert filter_.counts.skipped_forward > 0 < filter_.counts.skipped_backward
    assert all(math.isfinite(line["loss"]) for line in timeless(trainer))


def test_the_schedule_ends_with_the_data(train):
    plain = train(Trainer)
    filtered = train(filter=RandomFilter(0.2))
    rates = [
        [line["learning_rate"] for line in t.state.log_history[:-1]] for t in (plain, filtered)
    ]
    assert rates[0] == rates[1]
    assert plain.state.global_step == filtered.state.global_step == 16
    assert plain.state.epoch == filtered.state.epoch == 2
    savings = filtered.savings
    assert savings.updates < 6
    assert savings.trained == filtered.filter.counts.kept == savings.seen - savings.skipped_forward
    assert savings.seen == 128


def test_thresholds_follow_the_step(train, learner):
    filter_ = LearnerFilter(learner, Shifting(start=0.5, end=-0.5, after=4))
    trainer = train(filter=filter_, num_train_epochs=1)
    lines = [line["filter_threshold"] for line in trainer.state.log_history]
    assert lines == [0.5] * 4 + [-0.5] * 5
    assert 0 < trainer.savings.trained < 64


class Nothing(RandomFilter):
    def admit(self, input_ids, attention_mask, *, step, total):
        return self._count(np.zeros(len(input_ids), np.bool_))


def test_a_filter_that_keeps_nothing_ends_the_run_in_time(train):
    trainer = train(filter=Nothing(0.5))
    assert trainer.state.global_step == 16
    assert trainer.savings.updates == 0
    untouched = make_model().state_dict()
    assert all(torch.equal(value, untouched[name]) for name, value in weights(trainer).items())
    json.dumps(trainer.state.log_history)


class Count(TrainerCallback):
    def __init__(self):
        self.steps, self.logs = 0, []

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))


def test_evaluation_and_callbacks_work_as_before(train):
    count = Count()
    trainer = train(
        filter=MultistageFilter(warmup=0.2),
        callbacks=[count, EarlyStoppingCallback(early_stopping_patience=100)],
        eval_dataset=make_rows(20, seed=1),
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="steps",
        save_steps=5,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    assert count.steps == 16
    evaluated = [line["step"] for line in trainer.state.log_history if "eval_loss" in line]
    assert evaluated == [5, 10, 15, 16]
    assert not any(
        name.startswith("filter_") for line in count.logs for name in line if "eval_loss" in line
    )
    expected = {"seen", "kept", "skipped_backward", "skipped_forward", "updates", "stage"}
    assert {f"filter_{name}" for name in expected} <= count.logs[-1].keys()
    assert count.logs[-1]["filter_seen"] == 128
    assert {"filter_seconds_saved", "filter_flops_saved"} <= count.logs[-1].keys()
    assert trainer.evaluate()["eval_loss"] == min(
        line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line
    )


def test_the_table_adds_up(train):
    trainer = train(filter=RandomFilter(0.25), rows=160, num_train_epochs=1)
    savings = trainer.savings
    assert savings.flops == savings.training_flops
    assert savings.plain_flops > 2 * savings.flops
    assert trainer.state.total_flos == pytest.approx(savings.flops, rel=1e-3)
    table = str(savings).splitlines()
    assert len(table) == 5
    assert table[2].split()[-3:] == [str(savings.trained), "160", f"{160 / savings.trained:.1f}"]


def test_streams_without_a_length_train_what_is_left(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(make_rows(40))

    trainer = FilteredTrainer(
        make_model(),
        make_arguments(tmp_path, max_steps=10),
        train_dataset=Stream(),
        data_collator=collate,
        filter=RandomFilter(0.5),
    )
    trainer.train()
    assert trainer.state.global_step == 10
    assert trainer.savings.waiting == 0
    assert trainer.savings.trained == trainer.filter.counts.kept


class Foreign:
    pad_token_id = 0

    def get_vocab(self):
        return {"a": 0}


def test_a_learner_refuses_a_foreign_tokenizer(tmp_path, learner):
    with pytest.raises(SecondaryLearnersError, match="tokenizer"):
        FilteredTrainer(
            make_model(),
            make_arguments(tmp_path),
            train_dataset=make_rows(8),
            data_collator=collate,
            filter=LearnerFilter(learner, 0.0),
            processing_class=Foreign(),
        )


def test_says_what_it_cannot_do(train, tmp_path):
    with pytest.raises(UnknownNameError, match="twice"):
        train(filter=RandomFilter(0.5), forwards="twice")
    plain = train(Trainer, save_strategy="steps", save_steps=5, num_train_epochs=1)
    with pytest.raises(SecondaryLearnersError, match=r"has no filter_0\.pt"):
        train(filter=RandomFilter(0.5), resume=f"{plain.args.output_dir}/checkpoint-5")

    def packed(rows):
        return {"input_ids": collate(rows)["input_ids"], "labels": torch.tensor([1])}

    trainer = FilteredTrainer(
        make_model(),
        make_arguments(tmp_path),
        train_dataset=make_rows(16),
        data_collator=packed,
        filter=RandomFilter(0.5),
    )
    with pytest.raises(SecondaryLearnersError, match="one row for each of its 8 examples"):
        trainer.train()


@pytest.mark.parametrize(
    ("waiting", "whole", "expected"),
    [([9, 1, 4], 8, [4, 1, 3]), ([0, 8], 8, [0, 8]), ([5, 5], 9, [5, 4]), ([8], 8, [8])],
)
def test_processes_share_a_batch(waiting, whole, expected):
    assert shares(waiting, whole) == expected


def test_every_run_begins_with_the_filter_as_it_was_given(train):
    filter_ = MultistageFilter(warmup=0.2, bound=0.0, latest=0.5, keep_at_least=0.4)
    trainer = train(filter=filter_)
    first = [line["filter_stage"] for line in timeless(trainer)]
    trainer.train()
    second = [line["filter_stage"] for line in timeless(trainer)]
    assert second == first == sorted(first)
    assert (first[0], first[-1]) == (0, 2)
    assert filter_.counts.seen == trainer.savings.seen == 128


def test_each_trial_of_a_search_begins_with_a_fresh_filter(tmp_path):
    pytest.importorskip("optuna")
    filter_, begun = MultistageFilter(warmup=0.2, bound=0.0, latest=0.5), []

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            begun.append((filter_.counts.seen, filter_.stage))

    trainer = FilteredTrainer(
        None,
        make_arguments(tmp_path, max_steps=8),
        model_init=lambda trial=None: make_model(),
        train_dataset=make_rows(64),
        eval_dataset=make_rows(8),
        data_collator=collate,
        filter=filter_,
        callbacks=[Look()],
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": 1e-3}, n_trials=2, backend="optuna"
    )
    assert begun == [(0, 0), (0, 0)]
    assert filter_.stage == 2


def test_a_smaller_batch_size_is_found_with_a_fresh_filter(train, monkeypatch):
    filter_, sizes = RandomFilter(0.5), []
    step = FilteredTrainer.training_step

    def short_of_memory(self, model, inputs, *args):
        sizes.append(len(inputs["labels"]))
        if len(inputs["labels"]) > 4 and len(sizes) > 2:
            raise RuntimeError("CUDA out of memory.")
        return step(self, model, inputs, *args)

    monkeypatch.setattr(FilteredTrainer, "training_step", short_of_memory)
    trainer = train(filter=filter_, auto_find_batch_size=True, num_train_epochs=1)
    assert sizes == [8, 8, 8, 7, 6, 5, *[4] * 16]
    assert trainer.savings.seen == filter_.counts.seen == 64
    assert trainer.savings.trained == filter_.counts.kept


def test_no_filter_is_plain_training(train, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 4}
    plain = train(Trainer, **options)
    unfiltered = train(filter=None, **options)
    assert same(plain, unfiltered)
    assert timeless(plain) == timeless(unfiltered)
    assert not list(tmp_path.glob("checkpoint-*/filter_*"))


@pytest.mark.parametrize("make", [lambda learner: "books-mini", lambda learner: learner, int])
def test_what_is_no_filter_is_answered_with_the_line_that_makes_one(train, learner, make):
    with pytest.raises(SecondaryLearnersError, match=r"filter=\w+Filter\("):
        train(filter=make(learner) if make is not int else 3)


def test_a_learner_for_another_vocabulary_is_refused_without_any_tokenizer(train, learner):
    other = dataclasses.replace(learner.config, sizes={**learner.config.sizes, "vocabulary": 6144})
    with pytest.raises(IncompatibleError, match="6,144 token ids"):
        train(filter=LearnerFilter(Learner(other, LinearNet(6144)), 0.0))


def test_columns_of_ones_own_are_declared(tmp_path):
    class Weighted(torch.nn.Module):
        """Reads a number for each token, and a name for each row, beside what GPT-2 reads."""

        def __init__(self):
            super().__init__()
            self.model, self.config, self.widths, self.names = make_model(), None, [], []

        def forward(self, input_ids, attention_mask, labels, importance, source):
            self.widths.append((importance.shape[1], input_ids.shape[1]))
            self.names += source
            return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    def collated(rows):
        batch = collate([{n: v for n, v in row.items() if n != "source"} for row in rows])
        return {
            **batch,
            "importance": batch["attention_mask"] * 0.5,
            "source": [row["source"] for row in rows],
        }

    rows = [{**row, "source": f"row {place}"} for place, row in enumerate(make_rows(32))]

    def run(**columns):
        trainer = FilteredTrainer(
            Weighted(),
            make_arguments(tmp_path, remove_unused_columns=False, num_train_epochs=1),
            train_dataset=rows,
            data_collator=collated,
            filter=RandomFilter(0.5),
            **columns,
        )
        trainer.train()
        return trainer

    with pytest.raises(SecondaryLearnersError, match=r"'importance'.*columns="):
        run()
    trainer = run(columns={"importance": "tokens"})
    assert all(one == two for one, two in trainer.model.widths)
    assert len(set(trainer.model.names)) == trainer.savings.trained < 32
    with pytest.raises(SecondaryLearnersError, match="'token'"):
        run(columns={"importance": "token"})


@pytest.mark.parametrize(
    ("engine", "make", "message"),
    [
        ({"n_gpu": 2}, RandomFilter, "cannot run under nn.DataParallel"),
        ({"deepspeed": True}, MultistageFilter, "MultistageFilter decides by losses.*DeepSpeed"),
        ({"fsdp": True}, MultistageFilter, "MultistageFilter decides by losses.*FSDP"),
        ({"deepspeed": True}, RandomFilter, None),
        ({"fsdp": True}, RandomFilter, None),
    ],
)
def test_filters_are_refused_by_name_where_they_cannot_work(engine, make, message):
    trainer = SimpleNamespace(
        is_deepspeed_enabled=engine.get("deepspeed", False),
        is_fsdp_enabled=engine.get("fsdp", False),
        args=SimpleNamespace(n_gpu=engine.get("n_gpu", 1)),
    )
    filter_ = make(0.5) if make is RandomFilter else make()
    if message is None:
        check_engine(filter_, trainer)
        return
    with pytest.raises(SecondaryLearnersError, match=f"{message}.*accelerate launch --multi_gpu"):
        check_engine(filter_, trainer)
