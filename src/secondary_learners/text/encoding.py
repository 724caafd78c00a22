"""Instructions as tokens: which ids, and which of them are the completion's."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from secondary_learners.errors import CorpusError
from secondary_learners.text.instructions import TRUNCATIONS, Instruction

__all__ = ["tokenize"]

log = logging.getLogger(__name__)

_UNLIMITED = 10**6  # what transformers calls no limit is far above


def tokenize(
    instructions: Sequence[Instruction],
    tokenizer: Any,
    *,
    longest: int | None = None,
    truncate: str = "left",
) -> tuple[list[list[int]], list[list[bool]]]:
    """The token ids of each instruction, and which of them count: those of its completion.

    As TRL's SFTTrainer does it, so that a learner reads what the trainer trains on.

    Text gets the tokenizer's special tokens and ends with its end-of-text token, messages go
    through its chat template; the completion begins where the tokens of the prompt alone and those
    of the whole part. truncate: "left" takes what exceeds `longest` tokens from the prompt's
    beginning (not its beginning-of-text token) and, once one token is left there, from the
    completion's end; "refuse" raises CorpusError with the example's place instead.
    """
    if truncate not in TRUNCATIONS:
        raise CorpusError(f"truncate is {truncate!r}. Try {' or '.join(TRUNCATIONS)}.")
    if longest is None:
        longest = min(int(tokenizer.model_max_length), _UNLIMITED)
    if longest < 2:
        raise CorpusError(f"examples of {longest} tokens predict nothing. Try 2 or more.")
    ids: list[list[int]] = []
    counts: list[list[bool]] = []
    shortened = 0
    for one, (prompt, whole) in zip(instructions, _tokenized(instructions, tokenizer), strict=True):
        begin = _common(prompt, whole)
        over = len(whole) - longest
        if over > 0:
            if truncate == "refuse":
                raise CorpusError(
                    f"{one.where} has {len(whole)} tokens, more than {longest}. "
                    "Leave it out, or cut prompts from their left (truncate='left')."
                )
            kept = int(begin > 0 and whole[0] == tokenizer.bos_token_id)
            cut = max(0, min(over, begin - max(1, kept)))
            whole = [*whole[:kept], *whole[kept + cut :]]
            begin -= cut
            shortened += len(whole) > longest
            whole = whole[:longest]
        if max(1, begin) >= len(whole):
            raise CorpusError(f"{one.where} has no completion once it is tokenized. Leave it out.")
        ids.append(whole)
        counts.append([place >= max(1, begin) for place in range(len(whole))])
    if shortened:
        log.warning(
            "the completions of %d of %d examples were cut at their end: they alone exceed %d "
            "tokens",
            *(shortened, len(instructions), longest),
        )
    return ids, counts


def _tokenized(
    instructions: Sequence[Instruction], tokenizer: Any
) -> Iterable[tuple[list[int], list[int]]]:
    """The token ids of each prompt alone, and of the whole."""
    end = tokenizer.eos_token or ""
    texts: list[str] = []
    for one in instructions:
        if isinstance(one.prompt, str) and isinstance(one.completion, str):
            own = one.completion if one.completion.endswith(end) else one.completion + end
            texts += [one.prompt, one.prompt + own]
    # An empty batch has no type of its own; `verbose` would warn of what is cut below.
    encoded = iter(tokenizer(texts, verbose=False)["input_ids"] if texts else ())
    for one in instructions:
        if isinstance(one.prompt, str) or isinstance(one.completion, str):
            yield next(encoded), next(encoded)
        else:
            yield (
                _chat(tokenizer, one.prompt, one.where, add_generation_prompt=True),
                _chat(tokenizer, one.prompt + one.completion, one.where),
            )


def _chat(tokenizer: Any, messages: Sequence[Any], where: str, **options: bool) -> list[int]:
    if not messages:
        return []
    if not tokenizer.chat_template:
        raise CorpusError(
            f"{where} is a chat, and the base model's tokenizer has no chat template. Give prompt "
            "and completion as text, or set tokenizer.chat_template."
        )
    ids: list[int] = tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=True, return_dict=True, **options
    )["input_ids"]
    return ids


def _common(prompt: Sequence[int], whole: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(prompt, whole, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(prompt), len(whole)))
