"""Gains of prompts with completions: one at a time in float64, whatever they are padded with."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from gains_helpers import OF_A_MODEL, VOCABULARY, contexts_of, examples_of
from secondary_learners.errors import CorpusError
from secondary_learners.gains import labels as labels_module
from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.methods import method_named
from secondary_learners.gains.objective import context_losses, in_batches
from secondary_learners.gains.rows import Rows, rows_of
from secondary_learners.gains.store import LabelSettings, label_to_store, read_labels
from secondary_learners.recipes.base_model.training import train_tokenizer
from secondary_learners.text.sequences import Examples
from tiny_models import BigramModel, tiny_llama

RATE = 5e-2  # of plain gradient descent, so that no gain is near a rounding error
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def row_loss(model: Any, row: dict[str, list[int]]) -> torch.Tensor:
    """The loss of one example alone, as transformers defines it (but it rounds to float32)."""
    logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row["labels"])[1:])


def references(model: Any, contexts: Examples, objective: Examples) -> dict[str, list[float]]:
    """The three definitions, every example by itself, in float64."""
    model = copy.deepcopy(model).eval().double()

    def mean(model: Any) -> torch.Tensor:
        return torch.stack([row_loss(model, row) for row in objective.rows()]).mean()

    def stepped(loss_of: Any) -> Any:
        other = copy.deepcopy(model)
        loss_of(other).backward()
        torch.optim.SGD(other.parameters(), lr=RATE).step()
        return other

    towards = torch.autograd.grad(mean(model), list(model.parameters()))
    after = stepped(mean)
    before = float(mean(model).detach())
    found: dict[str, list[float]] = {method: [] for method in OF_A_MODEL}
    for row in contexts.rows():
        own = torch.autograd.grad(row_loss(model, row), list(model.parameters()))
        with torch.no_grad():
            found["swapped"].append(float(row_loss(model, row) - row_loss(after, row)))
        found["per-example"].append(
            RATE * sum(float((a * b).sum()) for a, b in zip(towards, own, strict=True))
        )
        other = stepped(lambda m, row=row: row_loss(m, row))
        with torch.no_grad():
            found["exact"].append(before - float(mean(other)))
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_method_is_its_definition_one_example_at_a_time(
    model: PreTrainedModel, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "_TOGETHER", 5)
    model = model.double() if family == "gpt2" else tiny_llama(VOCABULARY).double()
    contexts, objective = examples_of(12, seed=0), examples_of(9, seed=1)
    expected = references(model, contexts, objective)
    for method in OF_A_MODEL:
        for batch_size in (None, 1, 3):
            gains = information_gain(
                model,
                contexts,
                objective,
                method=method,
                optimizer="sgd",
                learning_rate=RATE,
                batch_size=batch_size,
            )
            np.testing.assert_allclose(gains, expected[method], rtol=1e-7, atol=1e-11)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 8), tokens=st.integers(1, 90))
@torch.no_grad()
def test_neither_padding_nor_order_changes_a_loss(seed: int, count: int, tokens: int) -> None:
    model = BigramModel().double()
    examples = examples_of(count, seed=seed)
    alone = [float(context_losses(model, rows_of(examples.select([n])))) for n in range(count)]
    for row, loss in zip(examples.rows(), alone, strict=True):
        logits = model(torch.tensor(row["input_ids"])).logits[:-1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"])[1:])
        assert loss == pytest.approx(float(expected), rel=1e-12)
    rows = rows_of(examples)
    pad = torch.nn.functional.pad
    counts = torch.ones_like(rows.ids, dtype=torch.bool) if rows.counts is None else rows.counts
    wide = Rows(pad(rows.ids, (0, 7)), pad(counts, (0, 7)))
    found = in_batches(lambda part: context_losses(model, part), wide, tokens)
    np.testing.assert_allclose(found.numpy(), alone, rtol=1e-12)


def test_batches_of_examples_hold_little_padding() -> None:
    examples = examples_of(400, seed=2, longest=60)
    parts: list[torch.Tensor] = []

    def seen(part: Rows) -> torch.Tensor:
        parts.append(part.ids)
        return part.ids[:, 0]

    rows = rows_of(examples)
    assert torch.equal(in_batches(seen, rows, 600), rows.ids[:, 0])
    assert sum(map(len, parts)) == 400
    assert all(part.shape[0] * part.shape[1] <= 600 for part in parts)
    run = sum(part.shape[0] * part.shape[1] for part in parts)
    assert run < 1.1 * examples.lengths.sum()
    assert 1.7 * examples.lengths.sum() < 400 * 60  # what one width for all would take


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_contexts_are_examples_without_a_prompt(model: PreTrainedModel, method: str) -> None:
    contexts, objective = contexts_of(6, seed=0), contexts_of(5, seed=1)
    kept = np.ones(contexts.input_ids.size, np.bool_)
    same = Examples(
        contexts.tokens,
        kept,
        np.full(6, 12),
        contexts.document,
        contexts.domain,
        contexts.domains,
    )
    options: dict[str, Any] = {"method": method, "optimizer": "sgd", "learning_rate": RATE}
    expected = information_gain(model, contexts, objective, **options)
    found = information_gain(model, same, objective, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-7)
    target = Examples(
        objective.tokens, kept[:60], np.full(5, 12), *[np.zeros(5, np.int64)] * 2, ("o",)
    )
    for candidates in (contexts, same):
        again = information_gain(model, candidates, target, **options)
        np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-7)


def test_selection_and_padding_keep_examples_whole() -> None:
    examples = examples_of(20, seed=3, domains=2)
    rows = examples.rows()
    chosen = examples.select(np.array([7, 3, 3]))
    assert chosen.rows() == [rows[7], rows[3], rows[3]]
    assert examples.select(examples.domain == 1).digest == examples.in_domain("domain 1").digest
    assert len(examples.select(np.array([], np.int64))) == 0
    ids, attention, loss = examples.input_ids, examples.attention_mask, examples.counted
    for n, row in enumerate(rows):
        assert ids[n][attention[n]].tolist() == row["input_ids"]
        assert np.where(loss[n], ids[n], -100)[attention[n]].tolist() == row["labels"]
    changed = Examples(
        examples.tokens,
        np.ones_like(examples.loss_mask),
        examples.lengths,
        examples.document,
        examples.domain,
        examples.domains,
    )
    assert changed.digest != examples.digest


def test_an_example_that_predicts_nothing_is_refused_with_its_number() -> None:
    ids, mask = np.arange(6), np.array([0, 1, 1, 0, 0, 0], np.bool_)
    where = np.zeros(2, np.int64)
    with pytest.raises(CorpusError, match="example 1 has no completion"):
        Examples(ids, mask, np.array([3, 3]), where, where, ("a",))
    first = np.array([0, 1, 1, 1, 0, 0], np.bool_)  # a first token is predicted by nothing
    with pytest.raises(CorpusError, match="example 1 has no completion"):
        Examples(ids, first, np.array([3, 3]), where, where, ("a",))
    with pytest.raises(CorpusError, match="do not fit"):
        Examples(ids, mask, np.array([3, 2]), where, where, ("a",))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["What is a sea? Water, and salt. user assistant <>\n"] * 4, 280)


def test_text_is_prompt_completion_and_end_of_text(tokenizer: Any) -> None:
    row = {"prompt": "What is a sea?", "completion": " Water"}
    (found,) = Examples.of([row], tokenizer, longest=60).rows()
    assert tokenizer.decode(found["input_ids"]) == "What is a sea? Water" + tokenizer.eos_token
    counted = [token for token in found["labels"] if token != -100]
    assert tokenizer.decode(counted) == " Water" + tokenizer.eos_token
    ended = {**row, "completion": " Water" + tokenizer.eos_token}
    assert Examples.of([ended], tokenizer, longest=60).rows() == [found]
    named = {"question": row["prompt"], "answer": row["completion"], "prompt": "no"}
    columns = ("question", "answer")
    assert Examples.of([named], tokenizer, longest=60, columns=columns).rows() == [found]


def test_messages_go_through_the_chat_template(tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    turns = [{"role": "user", "content": "a sea?"}, {"role": "assistant", "content": "Water"}]
    with pytest.raises(CorpusError, match=r"example 0 is a chat.*no chat template"):
        Examples.of([{"messages": turns}], tokenizer)
    tokenizer.chat_template = CHAT
    (found,) = Examples.of([{"messages": turns}], tokenizer).rows()
    assert tokenizer.decode(found["input_ids"]) == "<user>a sea?\n<assistant>Water\n"
    assert tokenizer.decode([t for t in found["labels"] if t != -100]) == "Water\n"
    both = {"prompt": turns[:1], "completion": turns[1:]}
    assert Examples.of([both], tokenizer).rows() == [found]
    with pytest.raises(CorpusError, match=r"example 0 has no completion.*not the assistant's"):
        Examples.of([{"messages": turns[:1]}], tokenizer)


def test_what_is_too_long_loses_the_left_of_its_prompt(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"prompt": "What is a sea? " * 5, "completion": "Water, and salt."}
    (whole,) = Examples.of([row], tokenizer, longest=10**5).rows()
    counted = sum(token != -100 for token in whole["labels"])
    (short,) = Examples.of([row], tokenizer, longest=counted + 3).rows()
    assert short["input_ids"] == whole["input_ids"][-(counted + 3) :]
    assert sum(token != -100 for token in short["labels"]) == counted
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        (cut,) = Examples.of([row], tokenizer, longest=counted - 1).rows()
    begin = len(whole["input_ids"]) - counted
    assert cut["input_ids"] == whole["input_ids"][begin - 1 :][: counted - 1]
    assert "1 of 1 examples were cut" in caplog.text
    with pytest.raises(
        CorpusError, match=rf"example 0 has {len(whole['input_ids'])} tokens.*'left'"
    ):
        Examples.of([row], tokenizer, longest=20, truncate="refuse")
    with pytest.raises(CorpusError, match="truncate is 'right'"):
        Examples.of([row], tokenizer, truncate="right")


def test_a_beginning_of_text_token_stays_at_the_beginning(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tokenizer)
    pair = (tokenizer.bos_token, tokenizer.bos_token_id)
    single = f"{pair[0]} $A"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=[pair]
    )
    row = {"prompt": "What is a sea? " * 5, "completion": "Water"}
    (whole,) = Examples.of([row], tokenizer, longest=10**5).rows()
    (short,) = Examples.of([row], tokenizer, longest=20).rows()
    assert whole["input_ids"][0] == pair[1]
    assert short["input_ids"] == [pair[1], *whole["input_ids"][-19:]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": " \n"}, "example 1 has no completion: it is empty"),
        ({"prompt": "a"}, "example 1 has no 'completion'; it has prompt.*--columns"),
        ({"prompt": "a", "completion": None}, "example 1 must have a prompt and a completion"),
        ({"prompt": "a", "completion": [{"role": "x", "content": "y"}]}, "both text, or both"),
        ({"text": "a"}, "example 1 has no 'prompt'; it has text"),
    ],
)
def test_rows_that_are_no_examples_are_named(row: Any, message: str, tokenizer: Any) -> None:
    with pytest.raises(CorpusError, match=message):
        Examples.of([{"prompt": "a", "completion": "b"}, row], tokenizer)


def test_the_same_prompt_or_group_is_one_document(tokenizer: Any) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": prompt, "completion": "b", "group": group}
        for prompt, group in (("a", None), ("c", None), ("a", None), ("d", 1), ("e", 1), ("a", 1))
    ]
    assert Examples.of(rows, tokenizer).document.tolist() == [0, 1, 0, 2, 2, 2]


def test_rows_of_a_data_set_are_those_of_a_list(tokenizer: Any) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": f"What {n}", "completion": "Water " * n} for n in range(1, 5)]
    found = Examples.of(datasets.Dataset.from_list(rows), tokenizer)
    assert found.digest == Examples.of(rows, tokenizer).digest


class Counting(BigramModel):
    """Counts the backward passes of single examples: one for each exact label."""

    labelled = 0

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        self.labelled += torch.is_grad_enabled() and len(input_ids) == 1
        return super().forward(input_ids, use_cache)


def test_a_store_of_examples_goes_on_to_the_same_bits_and_keeps_the_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_named("exact"), "PART", 16)
    examples, objective = examples_of(40, seed=4, domains=2), examples_of(8, seed=5)
    settings_ = LabelSettings(method="exact")

    def label(folder: Path, model: BigramModel) -> Any:
        return label_to_store(model, examples, objective, folder, settings_, progress=False)

    whole = label(tmp_path / "whole", BigramModel())
    resumed = tmp_path / "resumed"
    label(resumed, BigramModel())
    (resumed / "part-00001.parquet").unlink()
    model = Counting()
    found = label(resumed, model)
    assert model.labelled == 16
    np.testing.assert_array_equal(found.gains, whole.gains)
    assert isinstance(found.contexts, Examples)
    assert found.contexts.digest == examples.digest
    expected = information_gain(BigramModel(), examples, objective, method="exact")
    np.testing.assert_allclose(found.gains, expected, rtol=1e-4, atol=1e-9)
    facts = json.loads((resumed / "labels.json").read_text())["examples"]
    assert (facts["loss"], facts["tokens"]) == ("completion", examples.lengths.sum())
    assert (facts["shortest"], facts["longest"]) == (min(examples.lengths), max(examples.lengths))
    (resumed / "part-00002.parquet").unlink()
    assert len(read_labels(resumed).gains) == 32
