"""A process that scores texts for another one, which so never loads torch nor what was uploaded.

    python -m secondary_learners.engines.answering

It reads a JSON object a line: `files` (where each file of a learner lies, by its name), `digests`
(their sha256) and `texts`. For each it writes one: `explained`, a list with `score` and `tokens`
for each text, null for a text without a token; or `error`, a message. It ends with its input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondary_learners.errors import IncompatibleError, SecondaryLearnersError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from secondary_learners.engines.explaining import Explanation
    from secondary_learners.learners.artifact import Learner

__all__ = ["COMMAND", "main"]

COMMAND = (sys.executable, "-m", "secondary_learners.engines.answering")
_TOKENIZER = "tokenizer.json"


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is not an answer
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        explained = _explained(asked["files"], asked["digests"], asked["texts"])
    except SecondaryLearnersError as error:
        return {"error": str(error)}
    except Exception as error:  # files that somebody sent: whatever they do, the next are read
        return {"error": f"its files cannot be used ({type(error).__name__})."}
    return {"explained": [asdict(each) if each else None for each in explained]}


def _explained(
    files: Mapping[str, str], digests: Mapping[str, str], texts: Sequence[str]
) -> list[Explanation | None]:
    from secondary_learners.engines.explaining import explain
    from secondary_learners.learners.artifact import read_learner

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, place in files.items():
            (folder / file).symlink_to(Path(place).resolve())
        learner = read_learner(folder, digests)
        reads_text = learner.config.reads_text
        tokenizer = None if reads_text else _tokenizer(learner, folder / _TOKENIZER)
    return [explain(learner, tokenizer, text) for text in texts]


def _tokenizer(learner: Learner, own: Path) -> PreTrainedTokenizerBase:
    """That among the learner's files, else the one that is on this machine already."""
    from secondary_learners.registry.load import load_tokenizer

    try:
        return load_tokenizer(learner, own if own.exists() else None)
    except IncompatibleError:
        raise
    except SecondaryLearnersError as error:
        raise SecondaryLearnersError(
            f"the tokenizer of {learner.tokenizer_reference.repo} is not on this machine. Run "
            "`learners explain TEXT -l NAME` there once with this learner, which fetches it."
        ) from error


if __name__ == "__main__":
    main()
