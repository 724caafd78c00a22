"""A run that is killed in stage 1, and again in stage 2, is the uninterrupted one in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("accelerate")

TESTS = Path(__file__).parents[1]
# Goes on from the last checkpoint, tells each decision, and waits to be killed after step `stop`.
SCRIPT = """
import gc, hashlib, json, sys
from pathlib import Path

sys.path.insert(0, {tests!r})
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from secondary_learners.filtering.multistage import MultistageFilter
from secondary_learners.trainers.trainer import FilteredTrainer
from trainer_helpers import collate, make_arguments, make_model, make_rows

folder, stop = Path(sys.argv[1]), int(sys.argv[2])
gc.freeze()  # every run collects garbage first


def tell(**what):
    print(json.dumps(what), flush=True)


class Telling(MultistageFilter):
    def admit(self, input_ids, attention_mask, *, step, total):
        admitted = super().admit(input_ids, attention_mask, step=step, total=total)
        self.asked = 0  # the last step of an epoch may ask twice
        tell(step=step, stage=self.stage, admitted=admitted.tolist())
        return admitted

    def keep(self, losses, *rows):
        kept = super().keep(losses, *rows)
        self.asked += 1
        tell(step=self._step, asked=self.asked, losses=losses.tolist(), kept=kept.tolist())
        return kept


class Wait(TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        if state.global_step == stop:
            tell(waiting=stop)
            sys.stdin.read()


def train(name, stop):
    arguments = make_arguments(folder / name, save_strategy="steps", save_steps=2)
    trainer = FilteredTrainer(
        make_model(),
        arguments,
        train_dataset=make_rows(64),
        data_collator=collate,
        callbacks=[Wait()] if stop else [],
        filter=Telling(warmup=0.2, bound=0.0, latest=0.6, keep_at_least=0.4),
    )
    checkpoints = list((folder / name).glob("checkpoint-*"))
    found = get_last_checkpoint(folder / name) if checkpoints else None
    trainer.train(resume_from_checkpoint=found)
    weights = hashlib.sha256()
    for key, value in sorted(trainer.model.state_dict().items()):
        weights.update(key.encode() + value.numpy().tobytes())
    tell(
        finished=name,
        began=found and Path(found).name,
        weights=weights.hexdigest(),
        updates=trainer.savings.updates,
        counts=vars(trainer.filter.counts),
    )


train("killed", stop)
if not stop:
    train("whole", 0)
"""


def run(script: Path, folder: Path, stop: int) -> list[dict]:
    """What the process told; it was killed when it said that step `stop` was done."""
    process = subprocess.Popen(
        [sys.executable, script, folder, str(stop)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told = []
    for line in process.stdout:
        if not line.startswith('{"'):  # the Trainer prints its log too
            continue
        told.append(json.loads(line))
        if "waiting" in told[-1]:
            process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == (-signal.SIGKILL if stop else 0), errors
    return told


def decisions(told: list[dict]) -> dict[tuple[int, int], dict]:
    """By step and question (0: which to run); a step that was told twice was decided alike."""
    found = {}
    for what in told:
        if "step" in what:
            key = (what["step"], what.get("asked", 0))
            assert found.setdefault(key, what) == what
    return found


def test_killed_in_both_stages(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(TESTS)))
    first, second, last = (run(script, tmp_path, stop) for stop in (7, 13, 0))
    end = next(place for place, what in enumerate(last) if "finished" in what)
    third, killed, whole = last[:end], last[end], last[-1]
    stages = [[what["stage"] for what in told if "stage" in what][-1] for told in (first, second)]
    assert stages == [1, 2]
    # Each went on from the checkpoint before the step at which it was killed.
    begun = [min(what["step"] for what in told if "step" in what) for told in (second, third)]
    assert begun == [6, 12]
    assert killed["began"] == "checkpoint-12"
    assert whole["began"] is None
    assert decisions(first + second + third) == decisions(last[end + 1 :])
    for name in ("weights", "updates", "counts"):
        assert killed[name] == whole[name]
    assert whole["counts"]["skipped_forward"] > 0 < whole["counts"]["skipped_backward"]
