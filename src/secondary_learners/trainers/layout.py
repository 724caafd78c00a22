"""What the columns of a batch are: along the tokens, along the targets, one value a row, positions.

Decided by a column's name and by what the model declares itself to be, never by a width that
happens to match another's. Users' own columns are declared: `FilteredTrainer(columns=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["Layout", "Role"]


class Role(StrEnum):
    """What a column of a batch [rows, ...] is."""

    TOKENS = "tokens"  # runs along the tokens: cut and padded with them
    TARGETS = "targets"  # runs along a decoder's tokens, which have a width of their own
    VALUE = "value"  # one value, or an array of one shape, for each row
    POSITIONS = "positions"  # places among the tokens, which move when the left side is cut


_NAMES: dict[str, Role] = {
    **dict.fromkeys(
        (
            "input_ids",
            "attention_mask",
            "token_type_ids",
            "position_ids",
            "inputs_embeds",
            "input_values",
            "special_tokens_mask",
            "global_attention_mask",
            "completion_mask",
            "assistant_masks",
            "langs",
            "bbox",
            "input_mask",
            "perm_mask",
            "target_mapping",
        ),
        Role.TOKENS,
    ),
    **dict.fromkeys(
        (
            "decoder_input_ids",
            "decoder_attention_mask",
            "decoder_inputs_embeds",
            "decoder_position_ids",
        ),
        Role.TARGETS,
    ),
    **dict.fromkeys(("start_positions", "end_positions", "mc_token_ids"), Role.POSITIONS),
    **dict.fromkeys(
        (
            "pixel_values",
            "pixel_mask",
            "bool_masked_pos",
            "input_features",
            "next_sentence_label",
            "sentence_order_label",
        ),
        Role.VALUE,
    ),
}
# Columns whose tokens are not along the first dimension after the rows alone.
_AXES = {"perm_mask": (1, 2), "target_mapping": (2,)}

_LABELS = {
    "CAUSAL_LM": Role.TOKENS,
    "MASKED_LM": Role.TOKENS,
    "PRETRAINING": Role.TOKENS,
    "TOKEN_CLASSIFICATION": Role.TOKENS,
    "IMAGE_TEXT_TO_TEXT": Role.TOKENS,
    "SEQ_TO_SEQ_CAUSAL_LM": Role.TARGETS,
    "SPEECH_SEQ_2_SEQ": Role.TARGETS,
    "CTC": Role.TARGETS,
    "SEQUENCE_CLASSIFICATION": Role.VALUE,
    "MULTIPLE_CHOICE": Role.VALUE,
    "NEXT_SENTENCE_PREDICTION": Role.VALUE,
    "AUDIO_CLASSIFICATION": Role.VALUE,
    "IMAGE_CLASSIFICATION": Role.VALUE,
    "VIDEO_CLASSIFICATION": Role.VALUE,
    "SEMANTIC_SEGMENTATION": Role.VALUE,
    "DEPTH_ESTIMATION": Role.VALUE,
    "MASKED_IMAGE_MODELING": Role.VALUE,
    "TIME_SERIES_PREDICTION": Role.VALUE,
}
# Speech models whose features run along the frames that attention_mask speaks of.
_FRAMES = frozenset(("speech_to_text", "speech_to_text_2"))


def _tasks(network: nn.Module) -> frozenset[str]:
    """The tasks of transformers' Auto classes that the model, or the first one inside it, has."""
    for module in network.modules():
        names = {cls.__name__ for cls in type(module).__mro__}
        tasks = frozenset(
            task
            for task in (*_LABELS, "QUESTION_ANSWERING")
            if names & _classes(getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"))
        )
        if tasks:
            return tasks
    return frozenset()


def _classes(mapping: Mapping[str, Any]) -> set[str]:
    values = (value if isinstance(value, tuple) else (value,) for value in mapping.values())
    return {name for names in values for name in names}


@dataclass(frozen=True)
class Layout:
    """What each column of a model's batches is, and what rows are padded with.

    main: the model's main input. choices: whether a row is several texts, [rows, choices, length].
    labels: what the column "labels" is; None where the model does not say. own: roles of columns
    that the user declared. token, token_type: what `input_ids` and `token_type_ids` are padded
    with.
    """

    main: str = "input_ids"
    choices: bool = False
    labels: Role | None = Role.VALUE
    own: Mapping[str, Role] = field(default_factory=dict)
    token: int = 0
    token_type: int = 0

    @classmethod
    def of_model(
        cls, model: nn.Module, tokenizer: Any = None, own: Mapping[str, str] | None = None
    ) -> Layout:
        """The layout of a model's batches.

        Raises SecondaryLearnersError for a role in `own` that does not exist.
        """
        config = getattr(model, "config", None)
        tasks = _tasks(model)
        roles = {_LABELS[task] for task in tasks if task in _LABELS}
        encoder_decoder = bool(getattr(config, "is_encoder_decoder", False))
        if encoder_decoder and roles & {Role.TOKENS, Role.TARGETS}:
            roles = {Role.TARGETS}  # T5's class is in the tables of both
        if "CTC" in tasks:
            roles = {Role.TARGETS}
        pads = (getattr(source, "pad_token_id", None) for source in (tokenizer, config))
        main = getattr(model, "main_input_name", "input_ids")
        declared = {name: _role(name, role) for name, role in (own or {}).items()}
        if getattr(config, "model_type", None) in _FRAMES:
            declared = {"input_features": Role.TOKENS, **declared}
        elif main in ("input_features", "pixel_values"):
            # Masks speak of frames or patches there, in arrays of one shape.
            declared = {"attention_mask": Role.VALUE, **declared}
        return cls(
            main=main,
            choices="MULTIPLE_CHOICE" in tasks and "SEQUENCE_CLASSIFICATION" not in tasks,
            labels=roles.pop() if len(roles) == 1 else None,
            own=declared,
            token=next((number for number in pads if number is not None), 0),
            token_type=getattr(tokenizer, "pad_token_type_id", 0) or 0,
        )

    def role(self, name: str, value: Tensor) -> Role:
        """What a column is; raises SecondaryLearnersError for one that nobody declared."""
        if name in self.own:
            return self.own[name]
        if name == "labels":
            return self._role_of_labels(value)
        if name in _NAMES:
            return _NAMES[name]
        if value.ndim == 1:  # nothing that runs along anything
            return Role.VALUE
        raise SecondaryLearnersError(
            f"a batch has the column {name!r} of shape {list(value.shape)}, and it is not known "
            "whether it runs along the tokens. Say so with FilteredTrainer(..., "
            f"columns={{{name!r}: 'tokens'}}), or 'targets', 'value' or 'positions'."
        )

    def _role_of_labels(self, value: Tensor) -> Role:
        if value.ndim == 1 or (value.is_floating_point() and self.labels is not Role.TOKENS):
            return Role.VALUE
        if self.labels is None:
            raise SecondaryLearnersError(
                f"labels have the shape {list(value.shape)}, and the model is not of a class that "
                "says what they are. Say so with FilteredTrainer(..., columns={'labels': "
                "'tokens'}), or 'targets' or 'value'."
            )
        return self.labels

    def axes(self, name: str) -> tuple[int, ...]:
        """The dimensions of a column that run along the tokens or targets."""
        return _AXES.get(name, (2 if self.choices else 1,))

    def fill(self, name: str) -> int:
        """What the column is padded with."""
        if name in ("input_ids", "decoder_input_ids"):
            return self.token
        fills = {"labels": -100, "token_type_ids": self.token_type, "special_tokens_mask": 1}
        return fills.get(name, 0)


def _role(name: str, role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise SecondaryLearnersError(
            f"columns says that {name!r} is {role!r}. Try one of {', '.join(Role)}."
        ) from None
