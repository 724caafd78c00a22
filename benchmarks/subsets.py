"""Labels of a step on a subset of the parameters against those of a step on all of them.

    python benchmarks/subsets.py --corpus DATA

Of `mini`, on the mixture and the objective of the recipe books-mini: rank agreement with exact
labels of all parameters, CPU time and the memory that training takes. Then what labels of a
7-billion-parameter Llama take, counted on weights that exist in shape only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, cpu_seconds, table, write_result
from numpy.typing import NDArray
from torch import nn

from secondary_learners.gains.labels import information_gain
from secondary_learners.gains.objective import context_losses, evaluation_mode
from secondary_learners.gains.rows import Rows
from secondary_learners.gains.subsets import LORA_RANK, Trainable, trained
from secondary_learners.gains.trunk import frozen_blocks
from secondary_learners.learners.statistics import spearman, spearman_interval
from secondary_learners.recipes.gain_learner.data import labelling_data, read_splits
from secondary_learners.recipes.gain_learner.recipe import LearnerRecipe
from secondary_learners.recipes.parsing import find_recipe
from secondary_learners.registry.load import load_base
from secondary_learners.text.sequences import Examples

SUBSETS: tuple[Trainable, ...] = ("all", "last-layers:2", "last-layers:1", "lora", ["*ln_*"])
# Held at once for each trained parameter: gradient, a copy to restore, |gradient| + eps, the step.
_COPIES = 4
_GPU_BYTES = 80e9


def state_bytes(model: nn.Module, trainable: Trainable, objective_tokens: int) -> dict[str, int]:
    """Bytes that a step on the subset takes, and the hidden states that it lets be kept."""
    with trained(model, trainable):
        moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
        state = _COPIES * sum(parameter.nbytes for parameter in moving)
        frozen, _ = frozen_blocks(model)
        width = int(getattr(model.config, "hidden_size", 0)) if frozen else 0
        return {
            "parameters": sum(parameter.numel() for parameter in moving),
            "state_bytes": state,
            "kept_bytes": 4 * width * objective_tokens,
        }


class _Masked(nn.Module):
    """`model` with its causal mask given, which is else worked out from what weightless ids are."""

    def __init__(self, model: nn.Module, length: int) -> None:
        super().__init__()
        self.model, self.mask = model, torch.ones(1, 1, length, length).tril().bool()

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return self.model(input_ids=input_ids, attention_mask=self.mask, use_cache=use_cache)


def llama_bytes(
    trainable: Trainable, *, contexts: int, length: int, **sizes: Any
) -> dict[str, int]:
    """Bytes of one gradient of `contexts` x `length` tokens on a Llama in bfloat16, and its step.

    Counted, not estimated: the model is built without memory, and every tensor that the backward
    pass would need is looked at. sizes: of LlamaConfig, by default those of Llama 2 7B.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**{"max_position_embeddings": 4096, **sizes})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        weights = {p.untyped_storage()._cdata: p.nbytes for p in model.parameters()}
        ids = torch.zeros((contexts, length), dtype=torch.int64)
        saved: dict[int, torch.Tensor] = {}

        def save(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.untyped_storage()._cdata] = tensor  # kept, so that no id is used twice
            return tensor

        with trained(model, trainable), evaluation_mode(model):
            moving = [p for p in model.parameters() if p.requires_grad]
            own = {p.untyped_storage()._cdata for p in model.parameters()}
            with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
                losses = context_losses(_Masked(model, length), Rows(ids))
            assert losses.requires_grad
            activations = sum(
                tensor.untyped_storage().nbytes() for key, tensor in saved.items() if key not in own
            )
            logits = 4 * contexts * length * config.vocab_size
            return {
                "weights": sum(weights.values()),
                "trained_parameters": sum(p.numel() for p in moving),
                # float32 whatever the frozen weights are; adapters are weights of their own too
                "step": (_COPIES + 1) * 4 * sum(p.numel() for p in moving),
                "activations": activations,
                "logits_and_their_gradient": 2 * logits,
            }


def compare(options: argparse.Namespace) -> dict[str, Any]:
    recipe = find_recipe("python-docs-mini" if options.quick else "books-mini")
    assert isinstance(recipe, LearnerRecipe)
    plan = replace(
        recipe.labels, contexts=options.contexts, objective_contexts=options.objective_contexts
    )
    recipe = replace(recipe, labels=plan)
    model, tokenizer = load_base(recipe.base)
    data = labelling_data(recipe, read_splits(recipe, options.corpus), tokenizer)
    tokens = len(data.objective) * recipe.context_length
    rows: list[dict[str, Any]] = []
    reference: NDArray[Any] | None = None
    for trainable in SUBSETS:
        for method in ("exact", "swapped"):
            row, gains = _measured(model, data.candidates, data.objective, trainable, method)
            reference = gains if reference is None else reference  # the first: all, exact
            low, high = spearman_interval(gains, reference, data.candidates.document)
            row |= {"spearman": spearman(gains, reference), "interval": [low, high]}
            row |= state_bytes(model, trainable, tokens)
            rows.append(row)
            print(row, flush=True)
    for row in rows:
        whole = next(other for other in rows if other["method"] == row["method"])
        row["seconds_to_all"] = row["seconds"] / whole["seconds"]
        row["state_to_all"] = (row["state_bytes"] + row["kept_bytes"]) / whole["state_bytes"]
    return {
        "base": recipe.base,
        "recipe": recipe.name,
        "contexts": len(data.candidates),
        "objective_contexts": len(data.objective),
        "context_length": recipe.context_length,
        "lora_rank": LORA_RANK,
        "rows": rows,
    }


def _measured(
    model: nn.Module, contexts: Examples, objective: Examples, trainable: Trainable, method: str
) -> tuple[dict[str, Any], NDArray[Any]]:
    found: list[NDArray[Any]] = []
    seconds = cpu_seconds(
        lambda: found.append(
            information_gain(model, contexts, objective, method=method, trainable=trainable)
        )
    )
    named = trainable if isinstance(trainable, str) else " ".join(trainable or ())
    return {"trainable": named, "method": method, "seconds": seconds}, found[0]


def seven_billion(length: int = 32) -> dict[str, Any]:
    """Llama 2 7B in bfloat16 with LoRA: bytes of one context's gradient and of 32 at once."""
    found: dict[str, Any] = {"gpu_bytes": _GPU_BYTES, "context_length": length}
    for contexts in (1, 32):
        parts = llama_bytes("lora", contexts=contexts, length=length)
        count = parts.pop("trained_parameters")
        found |= {"trained_parameters": count}
        found[f"bytes_at_{contexts}"] = {**parts, "all": sum(parts.values())}
    one, many = (found[f"bytes_at_{contexts}"]["all"] for contexts in (1, 32))
    found["fits"] = bool(many < _GPU_BYTES)
    found["most_contexts_at_once"] = int((_GPU_BYTES - one) // ((many - one) / 31)) + 1
    whole = 4 * 6_738_415_616  # float32, as all of them are trained
    found["all_parameters_bytes"] = whole + _COPIES * whole
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="with books and general text")
    parser.add_argument("--contexts", type=int, default=300)
    parser.add_argument("--objective-contexts", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="a smoke run: figures mean nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for subsets.json")
    options = parser.parse_args(arguments)
    if options.corpus is None and not options.quick:
        print("subsets: skipped, as it needs --corpus DATA")
        return
    if options.quick:
        options.contexts, options.objective_contexts = 6, 4
    torch.set_num_threads(1)
    found = compare(options)
    header = ("subset", "method", "Spearman", "from", "to", "seconds", "time", "state")
    keys = ("seconds", "seconds_to_all", "state_to_all")
    lines = [
        (
            row["trainable"],
            row["method"],
            row["spearman"],
            *row["interval"],
            *(row[k] for k in keys),
        )
        for row in found["rows"]
    ]
    print(table(header, lines))
    large = seven_billion()
    sizes = large["bytes_at_32"].items()
    print(table(("bytes, 32 contexts", "GB"), [(name, size / 1e9) for name, size in sizes]))
    write_result(options.out / "subsets.json", {**found, "llama_2_7b": large})


if __name__ == "__main__":
    main(sys.argv[1:])
