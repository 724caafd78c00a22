"""Texts as token ids: a tokenizer's own pairs, and the one joining for those that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from classification_helpers import write_task
from recipes_helpers import OTHER, WANTED, prose
from secondary_learners.errors import CorpusError
from secondary_learners.recipes.base_model.training import train_tokenizer
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import (
    Encoded,
    encode,
    encode_task,
    pad_token,
    read_encoded,
)
from secondary_learners.tasks.reading import TextRow, read_task
from secondary_learners.tasks.training import predict

CLASSES = ("no", "yes")
PAIRS = [TextRow("the sea", "a ship", "yes"), TextRow("a ship on the sea", "the", "no")]
SINGLE = [TextRow("the sea", None, "yes"), TextRow("a ship", None, "no")]


@pytest.fixture(scope="module")
def bert() -> Any:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "sea", "a", "ship", "on"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return train_tokenizer([prose(WANTED, 4000, 3), prose(OTHER, 4000, 4), "the sea\na ship"], 300)


def test_berts_own_pair_has_separators_and_token_types(bert: Any) -> None:
    encoded = encode(PAIRS, CLASSES, bert, 16)
    assert encoded.ids[0] == (2, 5, 6, 3, 7, 8, 3)  # [CLS] the sea [SEP] a ship [SEP]
    assert encoded.types is not None
    assert encoded.types[0] == (0, 0, 0, 0, 1, 1, 1)
    assert encoded.targets == (1, 0)
    alone = encode(SINGLE, CLASSES, bert, 16)
    assert alone.ids == ((2, 5, 6, 3), (2, 7, 8, 3))


def test_a_pair_that_is_too_long_loses_the_end_of_its_longer_text(bert: Any) -> None:
    encoded = encode(PAIRS, CLASSES, bert, 7)
    assert encoded.ids[1] == (2, 7, 8, 9, 3, 5, 3)  # a ship on | the
    assert encoded.types is not None and encoded.types[1] == (0, 0, 0, 0, 0, 1, 1)


def test_a_bert_classifier_is_told_the_types(bert: Any) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(bert),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    base = BertForMaskedLM(config).eval()
    model = classifier(base, 2)
    encoded = encode(PAIRS, CLASSES, bert, 16)
    with torch.no_grad():
        for place, row in enumerate(PAIRS):
            expected = model(**bert(row.first, row.second, return_tensors="pt")).logits
            np.testing.assert_allclose(predict(model, encoded)[place], expected[0], atol=1e-5)
    without = Encoded(encoded.ids, encoded.targets, encoded.classes)
    assert not np.allclose(predict(model, encoded), predict(model, without), atol=1e-4)


def test_gpt2_has_no_pairs_and_the_second_text_begins_on_a_new_line(gpt2: Any) -> None:
    encoded = encode(PAIRS, CLASSES, gpt2, 64)
    assert encoded.types is None
    assert gpt2.decode(encoded.ids[0]) == "the sea\na ship"
    assert encode(SINGLE, CLASSES, gpt2, 64).ids[0] == tuple(gpt2("the sea")["input_ids"])


def test_an_empty_text_is_one_token(gpt2: Any, bert: Any) -> None:
    rows = [TextRow("", None, "no")]
    assert encode(rows, CLASSES, gpt2, 8).ids == ((gpt2.eos_token_id,),)
    assert encode(rows, CLASSES, bert, 8).ids == ((2, 3),)


def test_the_token_to_pad_with(gpt2: Any, bert: Any) -> None:
    assert pad_token(gpt2) == gpt2.eos_token_id
    assert pad_token(bert) == 0

    class Strange:
        pad_token_id, eos_token_id = None, [1, 2]

    with pytest.raises(CorpusError, match=r"padding is \[1, 2\], not one token"):
        pad_token(Strange())  # type: ignore[arg-type]


def test_tokens_are_cut(gpt2: Any, tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path / "two", pairs=True))
    encoded = encode_task(task, gpt2, 64)
    row = task.train[0]
    assert gpt2.decode(encoded.train.ids[0]) == f"{row.first}\n{row.second}"
    assert encoded.classes[encoded.train.targets[0]] == row.name
    assert encoded.pad == gpt2.eos_token_id
    short = encode_task(task, gpt2, 9)
    longest = int(np.argmax(encoded.train.lengths))
    assert max(short.train.lengths) == len(short.train.ids[longest]) == 9
    ends = gpt2.decode(short.train.ids[longest]).split("\n")
    texts = (task.train[longest].first, str(task.train[longest].second))
    for end, text in zip(ends, texts, strict=False):
        assert end and text.startswith(end)
    assert short.digest != encoded.digest == encode_task(task, gpt2, 64).digest


def test_classes_of_a_file_are_sorted_or_those_that_are_known(gpt2: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("label\ttext\nyes\ta\nno\tb\nyes\tc\n")
    encoded = read_encoded(path, gpt2)
    assert (encoded.classes, encoded.targets) == (("no", "yes"), (1, 0, 1))
    known = read_encoded(path, gpt2, classes=["yes", "no"])
    assert (known.classes, known.targets) == (("yes", "no"), (0, 1, 0))
    with pytest.raises(CorpusError, match=r"class 'no'; known: 0, yes"):
        read_encoded(path, gpt2, classes=["0", "yes"])
    path.write_text("label\ttext\n1\ta\n1\tb\n")
    with pytest.raises(CorpusError, match="only the class '1'"):
        read_encoded(path, gpt2)


def test_samples() -> None:
    examples = Encoded(
        tuple((place, place + 1) for place in range(60)), (0, 1) * 30, CLASSES, ((0, 1),) * 60
    )
    few = examples.sample(30, seed=2)
    assert len(few) == 30
    assert few == examples.sample(30, seed=2) != examples.sample(30, seed=3)
    assert examples.sample(10**6) == examples
    assert few.digest != examples.digest == examples.sample(10**6).digest
    assert examples.digest != Encoded(examples.ids, examples.targets, CLASSES).digest


def test_the_digest_that_shipped_deltas_record() -> None:
    examples = Encoded(((1, 2), (3,)), (0, 1), CLASSES)
    assert examples.digest == "d45d86a6e1d03f4ef7fbf63d240fb999ddb802b852b898ac8a7bb35c7819d7e7"
