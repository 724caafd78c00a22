"""Two processes on one machine: they decide apart, step together and stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("accelerate")

TESTS = Path(__file__).parents[1]
SCRIPT = '''
import gc, json, sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, {tests!r})
from trainer_helpers import collate, make_arguments, make_model, make_rows
from secondary_learners.filtering.decisions import RandomFilter
from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.filtering.predictors import NaiveBayes
from secondary_learners.trainers.trainer import FilteredTrainer
from transformers import Trainer

folder = Path(sys.argv[1])
result = {{}}
gc.freeze()  # every run collects garbage first


class OneSided(RandomFilter):
    """Finds all of the second process's shard uninformative."""

    def admit(self, input_ids, attention_mask, *, step, total):
        import torch.distributed

        chosen = np.full(len(input_ids), torch.distributed.get_rank() == 0)
        return self._count(chosen)


class Chatty(FilteredTrainer):
    """Exchanges something at every loss, as TRL does: it must be called equally often."""

    def compute_loss(self, *args, **kwargs):
        self.accelerator.gather(torch.ones(1))
        return super().compute_loss(*args, **kwargs)


def train(name, kind, resume=None, dropout=0.1, **options):
    extra = {{key: options.pop(key) for key in ("filter", "forwards") if key in options}}
    arguments = make_arguments(folder / name, ddp_backend="gloo", num_train_epochs=1, **options)
    arguments.per_device_train_batch_size = 4
    trainer = kind(make_model(dropout=dropout), arguments, train_dataset=make_rows(60),
                   data_collator=collate, **extra)
    trainer.remove_callback(type(trainer.callback_handler.callbacks[-1]))
    trainer.train(resume_from_checkpoint=resume)
    weights = torch.cat([value.flatten() for value in trainer.model.parameters()]).detach()
    both = trainer.accelerator.gather(weights[None])
    result[name] = {{
        "equal": bool((both[0] == both[1]).all()),
        "sum": float(weights.double().sum()),
        "steps": trainer.state.global_step,
    }}
    if hasattr(trainer, "savings"):
        result[name]["savings"] = trainer.savings.to_dict()
    return weights


def staged():
    predictor = NaiveBayes(together=4)
    return MultistageFilter(predictor, warmup=0.2, bound=0.0, latest=0.5, keep_at_least=0.4)


plain = train("plain", Trainer, dropout=0.0)
everything = train("everything", FilteredTrainer, filter=RandomFilter(1.0), dropout=0.0)
result["distance"] = float((plain - everything).abs().max())
train("one-sided", Chatty, filter=OneSided(0.5))
train("accumulated", FilteredTrainer, filter=RandomFilter(0.4), gradient_accumulation_steps=2)
whole = train("staged", FilteredTrainer, filter=staged(), save_strategy="steps", save_steps=2)
again = train("again", FilteredTrainer, filter=staged(), save_strategy="steps", save_steps=2,
              resume=str(folder / "staged" / "checkpoint-4"))
result["resumed"] = bool((whole == again).all())
twice = {{"gradient_accumulation_steps": 2, "dropout": 0.0}}
plain = train("plain-twice", Trainer, **twice)
everything = train("everything-twice", FilteredTrainer, filter=RandomFilter(1.0), **twice)
result["distance-twice"] = float((plain - everything).abs().max())
for forwards in ("same", "again"):
    options = {{"forwards": forwards, "gradient_accumulation_steps": 2, "save_steps": 2}}
    options["save_strategy"] = "steps"
    name, kind = f"twice-{{forwards}}", Chatty if forwards == "again" else FilteredTrainer
    whole = train(name, kind, filter=staged(), **options)
    again = train(f"{{name}}-again", FilteredTrainer, filter=staged(), **options,
                  resume=str(folder / name / "checkpoint-2"))
    result[f"{{name}}-resumed"] = bool((whole == again).all())
if torch.distributed.get_rank() == 0:
    (folder / "result.json").write_text(json.dumps(result))
torch.distributed.destroy_process_group()
'''


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=str(TESTS)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", "0", "--standalone", str(script), str(folder)]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,  # a deadlock would show here
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result.json").read_text())


def test_train_as_the_plain_trainer_while_everything_is_kept(result):
    assert result["distance"] < 1e-4
    assert result["plain"]["steps"] == result["everything"]["steps"] == 8
    assert result["everything"]["savings"]["seen"] == 64  # 60, made even by accelerate


def test_have_the_same_weights_in_the_end(result):
    names = [name for name, value in result.items() if isinstance(value, dict)]
    assert len(names) == 12
    for name in names:
        assert result[name]["equal"], name


def test_step_together_when_one_keeps_nothing(result):
    savings = result["one-sided"]["savings"]
    assert savings["trained"] == savings["skipped_forward"] == 32
    assert (savings["updates"], savings["waiting"]) == (4, 0)
    assert result["one-sided"]["steps"] == 8


def test_accumulate_over_several_batches(result):
    assert result["distance-twice"] < 1e-4
    assert result["everything-twice"]["steps"] == 4
    for name in ("twice-same", "twice-again"):
        assert result[f"{name}-resumed"]
        savings, again = result[name]["savings"], result[f"{name}-again"]["savings"]
        assert savings["waiting"] == 0
        kept = savings["seen"] - savings["skipped_forward"] - savings["skipped_backward"]
        assert savings["trained"] == again["trained"] == kept
        assert savings["skipped_backward"] > 0


def test_resume(result):
    assert result["resumed"]
    savings, again = result["staged"]["savings"], result["again"]["savings"]
    for name in ("seen", "trained", "skipped_forward", "skipped_backward", "updates"):
        assert savings[name] == again[name] > 0
