"""Filters that need no losses under FSDP and DeepSpeed: the weights of DDP, whatever is kept."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from processes_helpers import launch_two

pytestmark = pytest.mark.slow

pytest.importorskip("accelerate")

SCRIPT = """
import copy, gc, json, os, sys
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from transformers import Trainer

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.weights import ScoreWeights
from secondary_learners.trainers.trainer import FilteredTrainer
from trainer_helpers import collate, make_arguments, make_model, make_rows

folder, engine, result = Path(sys.argv[1]), sys.argv[2], {}
gc.freeze()  # every run collects garbage first


class OneSided(RandomFilter):
    '''Finds nothing in the second process's shard worth keeping.'''

    def admit(self, input_ids, attention_mask, *, step, total):
        return self._count(np.full(len(input_ids), torch.distributed.get_rank() == 0))


class Long:
    '''Scores an example by its length.'''

    def score(self, ids, mask):
        return mask.sum(dim=1) / 4

    def check_vocabulary(self, size):
        pass


class OnCpu:
    '''accelerate shards models on accelerators alone, though torch can on a CPU too.'''

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
        AcceleratorState._shared_state["distributed_type"] = DistributedType.FSDP
        AcceleratorState._shared_state["fsdp_plugin"] = plugin
        self.is_fsdp_enabled = True


def whole_of(model):
    if engine == "zero3":
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(model.parameters())):
            return torch.cat([value.flatten() for value in model.parameters()]).detach().clone()
    values = (
        value.full_tensor() if hasattr(value, "full_tensor") else value
        for value in model.parameters()
    )
    return torch.cat([value.flatten() for value in values]).detach()


LAYERS = {"transformer_layer_cls_to_wrap": "GPT2Block", "state_dict_type": "SHARDED_STATE_DICT"}
ZERO = {
    "zero_optimization": {"stage": int(engine[-1]) if engine != "fsdp" else 0},
    "zero_allow_untested_optimizer": True,
    **dict.fromkeys(
        ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
        "auto",
    ),
}


def train(name, kind, *, sharded, resume=None, **options):
    extra = {key: options.pop(key) for key in ("filter", "weights") if key in options}
    if sharded and engine == "fsdp":
        kind = type("Sharded", (OnCpu, kind), {})
        options |= {"fsdp": True, "fsdp_config": LAYERS}
    elif sharded:
        options["deepspeed"] = copy.deepcopy(ZERO)
    arguments = make_arguments(
        folder / name, ddp_backend="gloo", num_train_epochs=2, optim="sgd", learning_rate=0.1,
        per_device_train_batch_size=4, **options,
    )
    trainer = kind(make_model(dropout=0.0), arguments, train_dataset=make_rows(60),
                   data_collator=collate, **extra)
    trainer.remove_callback(type(trainer.callback_handler.callbacks[-1]))
    trainer.train(resume_from_checkpoint=resume)
    weights = whole_of(trainer.model) if sharded else torch.cat(
        [value.flatten() for value in trainer.model.parameters()]
    ).detach()
    result[name] = {"steps": trainer.state.global_step, "norms": [
        line["grad_norm"] for line in trainer.state.log_history if "grad_norm" in line
    ]}
    if hasattr(trainer, "savings"):
        result[name]["savings"] = trainer.savings.to_dict()
    return weights


CASES = {
    "all": dict(filter=lambda: RandomFilter(1.0)),
    "some": dict(filter=lambda: RandomFilter(0.4), gradient_accumulation_steps=2),
    "one-sided": dict(filter=lambda: OneSided(0.5)),
    "weighted": dict(filter=lambda: RandomFilter(0.6), weights=lambda: ScoreWeights(Long())),
}
made = {}
for sharded in (False, True):
    if sharded and engine == "fsdp":
        os.environ["ACCELERATE_USE_FSDP"] = "true"
    for case, options in CASES.items():
        options = {key: value() if callable(value) else value for key, value in options.items()}
        name = f"{case}-{sharded}"
        made[case, sharded] = train(name, FilteredTrainer, sharded=sharded, **options)
for case in CASES:
    result[case] = float((made[case, False] - made[case, True]).abs().max())
plain = train("plain", Trainer, sharded=True)
result["distance"] = float((plain - made["all", True]).abs().max())
saving = {"save_strategy": "steps", "save_steps": 3, "sharded": True}
whole = train("whole", FilteredTrainer, filter=OneSided(0.5), **saving)
again = train("again", FilteredTrainer, filter=OneSided(0.5), **saving,
              resume=str(folder / "whole" / "checkpoint-9"))
result["resumed"] = bool((whole == again).all())
try:
    train("refused", FilteredTrainer, filter=MultistageFilter(), sharded=True)
except SecondaryLearnersError as error:
    result["refused"] = str(error)
if torch.distributed.get_rank() == 0:
    (folder / "result.json").write_text(json.dumps(result))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.fixture(
    scope="module",
    params=[
        "fsdp",
        *(
            pytest.param(
                engine,
                marks=pytest.mark.skipif(
                    find_spec("deepspeed") is None, reason="deepspeed is not installed"
                ),
            )
            for engine in ("zero2", "zero3")
        ),
    ],
)
def result(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    for code, message in launch_two(SCRIPT, folder, request.param, timeout=540):
        assert code == 0, message
    return json.loads((folder / "result.json").read_text())


def test_have_the_weights_of_processes_with_whole_models(result):
    assert result["distance"] < 1e-5  # plain training of a sharded model
    for case in ("all", "some", "one-sided", "weighted"):
        assert result[case] < 1e-5
        whole, sharded = result[f"{case}-False"], result[f"{case}-True"]
        assert whole["steps"] == sharded["steps"]
        assert whole["norms"] == pytest.approx(sharded["norms"], rel=1e-4)
        for name in ("seen", "trained", "updates", "waiting"):
            assert whole["savings"][name] == sharded["savings"][name]


def test_step_together_when_one_keeps_nothing(result):
    savings = result["one-sided-True"]["savings"]
    assert savings["trained"] == savings["skipped_forward"] == 64
    assert (savings["updates"], savings["waiting"]) == (8, 0)


def test_resume(result):
    assert result["resumed"]


def test_filters_that_need_losses_are_refused_by_name(result):
    assert "MultistageFilter decides by losses, and under " in result["refused"]
    assert "Try a LearnerFilter" in result["refused"]
