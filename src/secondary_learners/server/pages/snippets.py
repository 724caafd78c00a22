"""What to copy to use an artifact: one line of it is its name. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

__all__ = ["Snippet", "snippets_for"]


@dataclass(frozen=True)
class Snippet:
    """`text` as it is to be run, and what runs it: Python or a shell."""

    title: str
    language: str
    text: str


def snippets_for(kind: str, reference: str, endpoint: str = "") -> tuple[Snippet, ...]:
    """`reference`: as load_learner takes it. `endpoint`: of its hub, "" for the usual one."""
    word = shlex.quote(reference)
    there = f", endpoint={endpoint!r}" if endpoint else ""
    name = f"{reference!r}{there}"
    prefix = f"HF_ENDPOINT={shlex.quote(endpoint)} " if endpoint else ""
    lock = Snippet("Lock", "shell", f"{prefix}learners lock {word}")
    show = Snippet("Command line", "shell", f"{prefix}learners show {word}")
    if kind == "learner":
        load = f"from secondary_learners import load_learner\n\nlearner = load_learner({name})"
        score = f"learners score mixed.jsonl -l {word} --keep 0.3 --out best.jsonl"
        return (
            Snippet("Loader", "python", load),
            Snippet("Any loop", "python", _LOOP.format(name=name)),
            Snippet("Trainer", "python", _TRAINER.format(name=name, trainer="FilteredTrainer")),
            Snippet("TRL", "python", _TRAINER.format(name=name, trainer="FilteredSFTTrainer")),
            Snippet("Command line", "shell", prefix + score),
            lock,
        )
    if kind == "delta":
        load = f"from secondary_learners import load_delta\n\ndelta = load_delta({name})"
        return (Snippet("Loader", "python", load), show, lock)
    if kind.startswith("base"):
        base = _ENDPOINT.format(endpoint=endpoint) if endpoint else ""
        base += (
            "from secondary_learners import load_base\n\n"
            f"model, tokenizer = load_base({reference!r})"
        )
        return (Snippet("Loader", "python", base), show)
    download = (
        f"from huggingface_hub import snapshot_download\n\nfolder = snapshot_download({name})"
    )
    return (Snippet("Download", "python", download),)


_ENDPOINT = """\
import os

os.environ["HF_ENDPOINT"] = {endpoint!r}  # before anything is imported that reads it
"""
_LOOP = """\
from secondary_learners import Shifting, filtered, load_learner

learner = load_learner({name})
loader = filtered(loader, learner, Shifting(start=1.0, end=-1.0, after=10))"""
_TRAINER = """\
from secondary_learners import {trainer}, LearnerFilter, load_learner

learner = load_learner({name})
trainer = {trainer}(model, args, train_dataset=train, filter=LearnerFilter(learner, 1.0))"""
