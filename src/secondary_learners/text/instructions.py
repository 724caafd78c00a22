"""Instruction data before it is tokenized: prompts with completions, as text or as chats."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondary_learners.errors import CorpusError
from secondary_learners.text.corpus import Source, read_records

__all__ = ["COLUMNS", "TRUNCATIONS", "Group", "Instruction", "instruction", "read_groups"]

COLUMNS = ("prompt", "completion")
TRUNCATIONS = ("left", "refuse")

Turns = str | tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Instruction:
    """A prompt and its completion, both text or both chat messages.

    group: what it must not be divided from, by default its prompt. where: its place, for messages.
    """

    prompt: Turns
    completion: Turns
    group: str
    where: str


@dataclass(frozen=True)
class Group:
    """Instructions that are never divided between splits."""

    domain: str
    name: str
    instructions: tuple[Instruction, ...]

    @property
    def size(self) -> int:
        return len(self.instructions)


def instruction(
    row: Mapping[str, Any], where: str, columns: tuple[str, str] = COLUMNS
) -> Instruction:
    """The prompt and completion of a row: `columns`, or a chat in `messages`.

    Of `messages` the last one is the completion, and an assistant's. Prompt and completion may
    also be lists of messages, as in TRL. The text of both is taken as it is, white space included.
    Raises CorpusError, saying `where`, for a row that has no prompt or no completion.
    """
    if not any(name in row for name in columns) and "messages" in row:
        messages = _turns(row["messages"])
        if not messages or isinstance(messages, str) or messages[-1]["role"] != "assistant":
            raise CorpusError(
                f"{where} has no completion: the last of its messages is not the assistant's. "
                "Leave it out."
            )
        prompt, completion = messages[:-1], messages[-1:]
    else:
        absent = [name for name in columns if name not in row]
        if absent:
            raise CorpusError(
                f"{where} has no {absent[0]!r}; it has {', '.join(row) or 'nothing'}. "
                "Try `--columns PROMPT,COMPLETION` with the names of the two."
            )
        prompt, completion = (_turns(row[name]) for name in columns)
    if prompt is None or type(prompt) is not type(completion):
        raise CorpusError(
            f"{where} must have a prompt and a completion that are both text, or both lists of "
            "messages with a role and a content."
        )
    if not _text(completion).strip():
        raise CorpusError(f"{where} has no completion: it is empty. Leave it out.")
    group = row.get("group")
    own = json.dumps(["prompt", prompt] if group is None else ["group", group], default=str)
    return Instruction(prompt, completion, own, where)


def _turns(value: Any) -> Any:
    """Text as it is, messages as a tuple, None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(
        isinstance(message, Mapping) and {"role", "content"} <= message.keys() for message in value
    ):
        return tuple(value)
    return None


def _text(turns: Turns) -> str:
    if isinstance(turns, str):
        return turns
    return "".join(str(message["content"] or "") for message in turns)


def read_groups(
    sources: Iterable[Source], root: Path | None, columns: tuple[str, str] = COLUMNS
) -> list[Group]:
    """All instructions of `sources`, those of a group together, in the order of the groups' first.

    Rows with the same `group`, or without one with the same prompt, are a group within a domain.
    Raises CorpusError naming file and line of what is not an instruction.
    """
    groups: dict[tuple[str, str], list[Instruction]] = {}
    for source in sources:
        before = len(groups)
        for where, row in read_records(source, root):
            one = instruction(row, where, columns)
            groups.setdefault((source.domain, one.group), []).append(one)
        if len(groups) == before and not any(domain == source.domain for domain, _ in groups):
            raise CorpusError(
                f"no instructions for domain {source.domain!r} in "
                f"{source.files or source.dataset}. Name a .jsonl or .parquet file that has some."
            )
    return [Group(domain, name, tuple(members)) for (domain, name), members in groups.items()]
