"""Filters in TRL's own SFTTrainer, with a learner loaded by name and with PEFT."""

from __future__ import annotations

import gc
import sys

import datasets
import pytest

from secondary_learners.errors import MissingExtraError, SecondaryLearnersError
from secondary_learners.filtering.decisions import LearnerFilter, RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.weights import ScoreWeights
from secondary_learners.registry.load import load_base, load_learner
from secondary_learners.text.sequences import Examples

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing:FutureWarning"
)  # in peft
pytest.importorskip("accelerate")
trl = pytest.importorskip("trl")
peft = pytest.importorskip("peft")

from secondary_learners.trainers.sft import FilteredSFTTrainer  # noqa: E402

STORY = '"Come in," she said, looking round at me; and so I sat down, and we were silent awhile. '
MANUAL = "The military budget, including program support for economic areas, is output as code. "


@pytest.fixture(scope="module", autouse=True)
def quick():
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def sft(tmp_path):
    def sft(
        kind=FilteredSFTTrainer,
        *,
        rows=None,
        tokenizer=None,
        filter=None,
        peft_config=None,
        weights=None,
        **options,
    ):
        model, own = load_base("mini")
        rows = rows or [{"text": text} for text in [STORY, MANUAL] * 16]
        arguments = trl.SFTConfig(
            str(tmp_path),
            **{
                "per_device_train_batch_size": 4,
                "num_train_epochs": 1,
                "learning_rate": 1e-3,
                "max_length": 24,
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": [],
                "disable_tqdm": True,
                "use_cpu": True,
                "bf16": False,
                "activation_checkpointing": False,
                "dataloader_pin_memory": False,
                **options,
            },
        )
        trainer = kind(
            model,
            arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer or own,
            peft_config=peft_config,
            **({"filter": filter} if filter else {}),
            **({"weights": weights} if weights else {}),
        )
        trainer.train()
        return trainer

    return sft


def test_a_learner_by_name_picks_the_stories(sft):
    trainer = sft(filter=LearnerFilter(load_learner("books-mini"), 0.0))
    savings = trainer.savings
    assert (savings.seen, savings.trained, savings.skipped_forward) == (32, 16, 16)
    assert trainer.state.global_step == 8
    assert savings.updates < 8
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert {"mean_token_accuracy", "filter_seen", "filter_threshold"} <= lines[-1].keys()


@pytest.mark.slow
def test_is_plain_sft_while_everything_is_kept(sft):
    plain = sft(trl.SFTTrainer).model.state_dict()
    for filter_ in (RandomFilter(1.0), MultistageFilter(warmup=1.0)):
        filtered = sft(filter=filter_).model.state_dict()
        assert all((plain[name] == filtered[name]).all() for name in plain)


def test_weights_of_what_the_learner_prefers(sft):
    learner = load_learner("books-mini")
    plain = sft(learning_rate=0.0)
    weighted = sft(learning_rate=0.0, weights=ScoreWeights(learner, 0.05))
    stories = sft(learning_rate=0.0, rows=[{"text": STORY}] * 32)

    def first(trainer):
        return next(line["loss"] for line in trainer.state.log_history if "loss" in line)

    lines = [line for line in weighted.state.log_history if "loss" in line]
    assert all("mean_token_accuracy" in line for line in lines)
    # With this temperature nothing but stories counts.
    assert first(weighted) == pytest.approx(first(stories), rel=1e-3)
    assert abs(first(plain) - first(stories)) > 0.05


def test_multistage_with_peft(sft):
    filter_ = MultistageFilter(warmup=0.25, bound=0.0, latest=0.6)
    config = peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    trainer = sft(filter=filter_, peft_config=config)
    assert filter_.stage == 2
    assert 0 < trainer.savings.trained < 32
    assert trainer.savings.waiting == 0
    assert filter_.threshold == pytest.approx(5, abs=2)  # nats per token


CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize("chat", [False, True])
def test_examples_are_what_sft_makes_of_the_same_rows(sft, chat):
    rows = [
        {"prompt": text * n, "completion": f" {text[:20]}"}
        for n in (1, 2)
        for text in (STORY, MANUAL)
    ]
    if chat:
        rows = [
            {
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "completion": [{"role": "assistant", "content": row["completion"]}],
            }
            for row in rows
        ]
    _, tokenizer = load_base("mini")
    if chat:
        tokenizer.chat_template = CHAT
    examples = Examples.of(rows, tokenizer)
    found = sft(rows=rows, tokenizer=tokenizer, filter=RandomFilter(1.0), max_length=None)
    expected = examples.rows()
    for name in ("input_ids", "labels"):
        assert list(found.train_dataset[name]) == [row[name] for row in expected]
    again = sft(rows=expected, filter=RandomFilter(1.0), max_length=None)  # its own rows, as well
    assert all(
        (again.model.state_dict()[name] == value).all()
        for name, value in found.model.state_dict().items()
    )


def test_refuses_padding_free_batches(sft):
    with pytest.raises(SecondaryLearnersError, match="padding-free"):
        sft(filter=RandomFilter(0.5), packing=True)


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "secondary_learners.trainers.sft")
    with pytest.raises(MissingExtraError, match=r"secondary-learners\[trl\]"):
        import secondary_learners.trainers.sft  # noqa: F401
