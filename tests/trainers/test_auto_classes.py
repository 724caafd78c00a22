"""Every Auto class that Trainer trains: plain, with a filter that keeps all, and with half."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from transformers import Trainer

from auto_classes import CASES, Case
from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import LearnerFilter, RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.trainers.trainer import FilteredTrainer
from trainer_helpers import make_arguments

pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")

EACH = [pytest.param(case, side, id=f"{case.auto}-{side}") for case in CASES for side in case.sides]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Every run collects garbage first, which takes long with all that the tests have imported."""
    gc.freeze()
    yield
    gc.unfreeze()


class EveryOther(RandomFilter):
    """Keeps the first, third, fifth example."""

    def admit(self, input_ids, attention_mask, *, step, total):
        places = self.counts.seen + np.arange(len(input_ids))
        return self._count(places % 2 == 0)


def train(folder, kind, case: Case, side: str, rows, **options):
    class InOrder(kind):
        def _get_train_sampler(self, train_dataset=None):
            return torch.utils.data.SequentialSampler(rows)

    torch.manual_seed(0)
    trainer = InOrder(
        case.model(),
        make_arguments(
            folder,
            num_train_epochs=1,
            optim="sgd",
            learning_rate=0.05,
            lr_scheduler_type="constant",
            remove_unused_columns=False,
        ),
        train_dataset=rows,
        data_collator=case.collate(side),
        **options,
    )
    trainer.train()
    return trainer


def assert_same(first, second):
    for (name, one), two in zip(
        first.model.state_dict().items(), second.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


@pytest.mark.parametrize(("case", "side"), EACH)
def test_keeping_all_is_plain_training_to_the_bit(tmp_path, case, side):
    rows = case.rows(24)
    plain = train(tmp_path, Trainer, case, side, rows)
    kept = train(tmp_path, FilteredTrainer, case, side, rows, filter=RandomFilter(1.0))
    assert_same(plain, kept)
    assert kept.savings.trained == 24


@pytest.mark.parametrize(("case", "side"), EACH)
def test_keeping_half_is_plain_training_on_that_half(tmp_path, case, side):
    rows = case.rows(32)
    plain = train(tmp_path, Trainer, case, side, rows[::2])
    half = train(tmp_path, FilteredTrainer, case, side, rows, filter=EveryOther(1.0))
    assert half.savings.updates == plain.state.global_step == 2
    for (name, one), two in zip(
        plain.model.state_dict().items(), half.model.state_dict().values(), strict=True
    ):
        assert torch.allclose(one, two, atol=1e-6), name


@pytest.mark.parametrize(("case", "side"), EACH)
def test_filters_by_loss_run_or_say_that_the_loss_is_not_known(tmp_path, case, side):
    class Losing(EveryOther):
        needs_losses = True

        def keep(self, losses, input_ids, attention_mask):
            assert np.isfinite(losses).all() and len(set(losses)) > 1
            return losses > np.median(losses)

    def run():
        return train(tmp_path, FilteredTrainer, case, side, case.rows(32), filter=Losing(1.0))

    if case.known:
        assert run().savings.trained == 8
    else:
        with pytest.raises(SecondaryLearnersError, match="own loss is not known"):
            run()


@pytest.mark.parametrize("auto", ["AutoModelForImageClassification", "AutoModelForCTC"])
def test_what_is_not_token_ids_is_not_read_as_such(tmp_path, learner, auto):
    case = next(case for case in CASES if case.auto == auto)
    for filter_ in (LearnerFilter(learner, 0.0), MultistageFilter()):
        with pytest.raises(SecondaryLearnersError, match=r"input is '.*_values'"):
            train(tmp_path, FilteredTrainer, case, "right", case.rows(8), filter=filter_)
