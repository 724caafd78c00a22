"""A tiny model, data and a collator for every Auto class that transformers' Trainer trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers as tf
from torch import Tensor

PAD = 0
_TEXT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
_GPT2 = {
    "vocab_size": 64,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": PAD,
}
_BART = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
}
_SOUND = {
    "vocab_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_stride": (2, 2),
    "conv_kernel": (3, 3),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "mask_time_prob": 0.0,
    "classifier_proj_size": 8,
    "layerdrop": 0.0,
}
_IMAGE = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
    "encoder_stride": 4,
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One Auto class: its model, a row from random numbers, and what the row's columns are.

    tokens, targets: columns that run along the tokens and the targets; positions: places among the
    tokens; everything else is one value a row. known: whether an example's own loss is known.
    """

    auto: str
    model: Callable[[], Any]
    row: Callable[[np.random.Generator], Row]
    tokens: tuple[str, ...] = ("input_ids", "attention_mask")
    targets: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    known: bool = True
    sides: tuple[str, ...] = ("right", "left")

    def rows(self, count: int) -> list[Row]:
        random = np.random.default_rng(0)
        return [self.row(random) for _ in range(count)]

    def collate(self, side: str) -> Callable[[list[Row]], dict[str, Tensor]]:
        return lambda rows: self._collated(rows, side)

    def _collated(self, rows: list[Row], side: str) -> dict[str, Tensor]:
        columns = {}
        for name in rows[0]:
            values = [np.asarray(row[name]) for row in rows]
            if name in self.positions and side == "left":
                width = max(len(row["input_ids"]) for row in rows)
                values = [
                    value + width - len(row["input_ids"])
                    for value, row in zip(values, rows, strict=True)
                ]
            elif name in (*self.tokens, *self.targets):
                left = side == "left" and name in self.tokens
                width = max(value.shape[-1] for value in values)
                values = [_padded(value, width, name, left) for value in values]
            columns[name] = torch.from_numpy(np.stack(values))
        return columns


def _padded(value: np.ndarray, width: int, name: str, left: bool) -> np.ndarray:
    extra = width - value.shape[-1]
    sides = [(0, 0)] * (value.ndim - 1) + [(extra, 0) if left else (0, extra)]
    fill = -100 if name == "labels" else PAD
    return np.pad(value, sides, constant_values=fill)


def _text(random: np.random.Generator, low: int = 3, high: int = 12) -> Row:
    ids = random.integers(2, 64, random.integers(low, high))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _with(**makers: Callable[[np.random.Generator, Row], Any]) -> Callable[..., Row]:
    def row(random: np.random.Generator) -> Row:
        made = _text(random)
        return {**made, **{name: make(random, made) for name, make in makers.items()}}

    return row


def _class(random: np.random.Generator, row: Row) -> int:
    return int(random.integers(2))


def _span(random: np.random.Generator, row: Row) -> int:
    return int(random.integers(len(row["input_ids"])))


def _target(random: np.random.Generator, row: Row) -> np.ndarray:
    return random.integers(2, 64, random.integers(2, 9))


def _ended(random: np.random.Generator) -> Row:
    """A text that ends with the token from which BART classifies."""
    ids = np.append(random.integers(3, 64, random.integers(3, 9)), 2)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": _class(random, {})}


def _choices(random: np.random.Generator) -> Row:
    ids = random.integers(2, 64, (3, random.integers(3, 9)))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": _class(random, {})}


def _sound(label: Callable[[np.random.Generator], Any]) -> Callable[..., Row]:
    def row(random: np.random.Generator) -> Row:
        wave = random.normal(size=random.integers(80, 120)).astype(np.float32)
        return {
            "input_values": wave,
            "attention_mask": np.ones(len(wave), np.int64),
            "labels": label(random),
        }

    return row


def _pixels(**makers: Callable[[np.random.Generator], Any]) -> Callable[..., Row]:
    def row(random: np.random.Generator) -> Row:
        pixels = random.normal(size=(3, 8, 8)).astype(np.float32)
        return {"pixel_values": pixels, **{name: make(random) for name, make in makers.items()}}

    return row


def _speech(random: np.random.Generator) -> Row:
    return {
        "input_features": random.normal(size=(4, 16)).astype(np.float32),
        "labels": random.integers(4, 64, random.integers(2, 9)),
    }


def _xlnet(random: np.random.Generator) -> Row:
    row = _text(random)
    place = int(random.integers(len(row["input_ids"])))
    return {**row, "start_positions": place, "end_positions": place}


_TOKENS = ("input_ids", "attention_mask", "labels")
_SPAN = ("start_positions", "end_positions")
_WAVE = ("input_values", "attention_mask")

CASES = (
    Case(
        "AutoModelForCausalLM",
        lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**_GPT2)),
        _with(labels=lambda _, row: row["input_ids"]),
        tokens=_TOKENS,
    ),
    Case(
        "AutoModelForMaskedLM",
        lambda: tf.BertForMaskedLM(tf.BertConfig(**_TEXT)),
        _with(labels=lambda _, row: np.where(row["input_ids"] % 3, -100, row["input_ids"])),
        tokens=_TOKENS,
    ),
    Case(
        "AutoModelForPreTraining",
        lambda: tf.BertForPreTraining(tf.BertConfig(**_TEXT)),
        _with(labels=lambda _, row: row["input_ids"], next_sentence_label=_class),
        tokens=_TOKENS,
        known=False,
    ),
    Case(
        "AutoModelForTokenClassification",
        lambda: tf.BertForTokenClassification(tf.BertConfig(num_labels=3, **_TEXT)),
        _with(labels=lambda _, row: row["input_ids"] % 3),
        tokens=_TOKENS,
    ),
    Case(
        "AutoModelForTokenClassification (GPT-2)",
        lambda: tf.GPT2ForTokenClassification(tf.GPT2Config(num_labels=3, **_GPT2)),
        _with(labels=lambda _, row: row["input_ids"] % 3),
        tokens=_TOKENS,
    ),
    Case(
        "AutoModelForSequenceClassification",
        lambda: tf.BertForSequenceClassification(tf.BertConfig(**_TEXT)),
        _with(labels=_class, token_type_ids=lambda _, row: row["input_ids"] * 0),
        tokens=("input_ids", "attention_mask", "token_type_ids"),
    ),
    Case(  # as many classes as some batches have tokens
        "AutoModelForSequenceClassification (multi-label)",
        lambda: tf.BertForSequenceClassification(
            tf.BertConfig(num_labels=11, problem_type="multi_label_classification", **_TEXT)
        ),
        _with(labels=lambda random, _: random.integers(2, size=11).astype(np.float32)),
    ),
    Case(
        "AutoModelForSequenceClassification (regression)",
        lambda: tf.BertForSequenceClassification(tf.BertConfig(num_labels=1, **_TEXT)),
        _with(labels=lambda random, _: np.float32(random.normal())),
    ),
    Case(
        "AutoModelForSequenceClassification (BART)",
        lambda: tf.BartForSequenceClassification(tf.BartConfig(num_labels=2, **_BART)),
        _ended,
        sides=("right",),
    ),
    Case(
        "AutoModelForMultipleChoice",
        lambda: tf.BertForMultipleChoice(tf.BertConfig(**_TEXT)),
        _choices,
    ),
    Case(
        "AutoModelForNextSentencePrediction",
        lambda: tf.BertForNextSentencePrediction(tf.BertConfig(**_TEXT)),
        _with(labels=_class),
    ),
    Case(
        "AutoModelForQuestionAnswering",
        lambda: tf.BertForQuestionAnswering(tf.BertConfig(**_TEXT)),
        _with(start_positions=_span, end_positions=_span),
        positions=_SPAN,
    ),
    Case(
        "AutoModelForQuestionAnswering (XLNet)",
        lambda: tf.XLNetForQuestionAnsweringSimple(
            tf.XLNetConfig(
                vocab_size=64, d_model=16, n_layer=1, n_head=2, d_inner=32, pad_token_id=PAD
            )
        ),
        _xlnet,
        positions=_SPAN,
    ),
    Case(
        "AutoModelForSeq2SeqLM",
        lambda: tf.T5ForConditionalGeneration(
            tf.T5Config(
                vocab_size=64,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                decoder_start_token_id=PAD,
            )
        ),
        _with(labels=_target),
        targets=("labels",),
    ),
    Case(
        "AutoModelForSpeechSeq2Seq",
        lambda: tf.WhisperForConditionalGeneration(
            tf.WhisperConfig(
                **{name: value for name, value in _BART.items() if "position" not in name},
                num_mel_bins=4,
                max_source_positions=8,
                max_target_positions=32,
                bos_token_id=1,
                eos_token_id=2,
                decoder_start_token_id=3,
            )
        ),
        _speech,
        tokens=(),
        targets=("labels",),
        sides=("right",),
    ),
    Case(
        "AutoModelForCTC",
        lambda: tf.Wav2Vec2ForCTC(tf.Wav2Vec2Config(**_SOUND)),
        _sound(lambda random: random.integers(1, 16, random.integers(2, 5))),
        tokens=_WAVE,
        targets=("labels",),
        known=False,
        sides=("right",),
    ),
    Case(
        "AutoModelForAudioClassification",
        lambda: tf.Wav2Vec2ForSequenceClassification(tf.Wav2Vec2Config(**_SOUND)),
        _sound(lambda random: _class(random, {})),
        tokens=_WAVE,
        sides=("right",),
    ),
    Case(
        "AutoModelForImageClassification",
        lambda: tf.ViTForImageClassification(tf.ViTConfig(num_labels=3, **_IMAGE)),
        _pixels(labels=lambda random: _class(random, {})),
        tokens=(),
        sides=("right",),
    ),
    Case(
        "AutoModelForMaskedImageModeling",
        lambda: tf.ViTForMaskedImageModeling(tf.ViTConfig(**_IMAGE)),
        _pixels(bool_masked_pos=lambda random: random.integers(2, size=4).astype(bool)),
        tokens=(),
        known=False,
        sides=("right",),
    ),
    Case(
        "AutoModelForSemanticSegmentation",
        lambda: tf.SegformerForSemanticSegmentation(
            tf.SegformerConfig(
                num_encoder_blocks=1,
                depths=[1],
                sr_ratios=[1],
                hidden_sizes=[8],
                patch_sizes=[3],
                strides=[2],
                num_attention_heads=[1],
                mlp_ratios=[2],
                decoder_hidden_size=8,
                num_labels=3,
            )
        ),
        _pixels(labels=lambda random: random.integers(3, size=(8, 8))),
        tokens=(),
        known=False,
        sides=("right",),
    ),
)
