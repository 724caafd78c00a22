"""What to copy to use an artifact: one line of it is its name. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

__all__ = ["Snippet", "snippets_for"]


@dataclass(frozen=True)
class Snippet:
    """`text` as it is to be run, and what runs it: Python or a shell."""

    title: str
    language: str
    text: str


def snippets_for(kind: str, reference: str, endpoint: str = "") -> tuple[Snippet, ...]:
    """`reference`: as load_learner takes it. `endpoint`: of its hub, "" for the usual one."""
    there = f", endpoint={endpoint!r}" if endpoint else ""
    word = shlex.quote(reference)
    values = {
        "reference": repr(reference),
        "name": f"{reference!r}{there}",
        "word": word,
        "prefix": f"HF_ENDPOINT={shlex.quote(endpoint)} " if endpoint else "",
        "setting": _ENDPOINT.format(endpoint=endpoint) if endpoint else "",
    }
    return tuple(
        replace(snippet, text=snippet.text.format(**values))
        for snippet in _SNIPPETS.get(kind, _OTHERS)
    )


_ENDPOINT = """\
import os

os.environ["HF_ENDPOINT"] = {endpoint!r}  # before anything is imported that reads it
"""
_LOADER = "from secondary_learners import load_learner\n\nlearner = load_learner({name})"
_LOOP = """\
from secondary_learners import Shifting, filtered, load_learner

learner = load_learner({name})
loader = filtered(loader, learner, Shifting(start=1.0, end=-1.0, after=10))"""
_TRAINER = """\
from secondary_learners import TRAINER, LearnerFilter, load_learner

learner = load_learner({name})
trainer = TRAINER(model, args, train_dataset=train, filter=LearnerFilter(learner, 1.0))"""
_DATATROVE = """\
{setting}from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from secondary_learners.engines.datatrove import LearnerFilter

pipeline = [
    JsonlReader("corpus/"),
    LearnerFilter({reference}, threshold=1.0),
    JsonlWriter("best/"),
]"""
_SCORE = "{prefix}learners score mixed.jsonl -l {word} --keep 0.3 --out best.jsonl"
_DELTA = "from secondary_learners import load_delta\n\ndelta = load_delta({name})"
_BASE = (
    "{setting}from secondary_learners import load_base\n\nmodel, tokenizer = load_base({reference})"
)
_FOLDER = "from huggingface_hub import snapshot_download\n\nfolder = snapshot_download({name})"

_SHOW = Snippet("Command line", "shell", "{prefix}learners show {word}")
_LOCK = Snippet("Lock", "shell", "{prefix}learners lock {word}")
_SNIPPETS = {
    "learner": (
        Snippet("Loader", "python", _LOADER),
        Snippet("Any loop", "python", _LOOP),
        Snippet("Trainer", "python", _TRAINER.replace("TRAINER", "FilteredTrainer")),
        Snippet("TRL", "python", _TRAINER.replace("TRAINER", "FilteredSFTTrainer")),
        Snippet("datatrove", "python", _DATATROVE),
        Snippet("Command line", "shell", _SCORE),
        _LOCK,
    ),
    "delta": (Snippet("Loader", "python", _DELTA), _SHOW, _LOCK),
    "base model": (Snippet("Loader", "python", _BASE), _SHOW),
}
"""By the kind that a page shows; any other repository is downloaded."""
_OTHERS = (Snippet("Download", "python", _FOLDER),)
