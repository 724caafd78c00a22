"""Pretraining a small base model: corpus → tokenizer → GPT-2 → folder, resumable.

Hidden matrices are stepped by Muon and everything else by AdamW, both from torch.optim; the rates
warm up over the first 2 % of the steps and fall linearly to zero from the middle on.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save, save_file
from tqdm import tqdm

from secondary_learners.errors import CorpusError, DivergedError
from secondary_learners.experiments.checkpoint import held, restore
from secondary_learners.experiments.tracking import track
from secondary_learners.files import atomic_path, json_bytes, sha256_bytes, write_bytes, write_json
from secondary_learners.learners.artifact import tokenizer_fingerprint
from secondary_learners.learners.nets import round_to_half
from secondary_learners.recipes.base_model.next_token_loss import next_token_loss
from secondary_learners.recipes.base_model.recipe import PretrainRecipe
from secondary_learners.recipes.base_model.tokenizer import (
    END_OF_TEXT,
    read_tokenizer,
    train_tokenizer,
)
from secondary_learners.recipes.provenance import device_name
from secondary_learners.recipes.run import Run
from secondary_learners.text.corpus import Document, read_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["Material", "pretrain", "read", "read_tokenizer", "train_tokenizer", "unigram_entropy"]

_CHECKPOINT_EVERY = 250  # steps,
_CHECKPOINT_SECONDS = 120  # or earlier, where a step takes long
# Logits that may be held at once, in float32; a batch with more of them takes `next_token_loss`.
_LOGITS_BYTES = 256 * 2**20
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Material:
    """The text, and the tokenizer where the recipe has one of its own."""

    documents: list[Document]
    tokenizer: PreTrainedTokenizerFast | None


def read(recipe: PretrainRecipe, run: Run) -> Material:
    """The recipe's text and tokenizer from the corpus folder."""
    given = None if recipe.tokenizer is None else read_tokenizer(recipe, run.corpus)
    return Material(read_documents(recipe.sources, run.corpus), given)


def pretrain(recipe: PretrainRecipe, material: Material, run: Run) -> dict[str, Any]:
    """Train the base model of `recipe` into `run.out`; its evaluation, also written there.

    A killed run goes on from its last checkpoint in `work/checkpoint` (one every 250 steps
    or two minutes) when the recipe is the same one; the folder is removed when the model is
    written. Without a bar, there is a line in the log at each checkpoint.
    """
    documents, given, device = material.documents, material.tokenizer, run.device
    tokenizer = given or train_tokenizer(
        (document.text for document in documents), recipe.vocabulary
    )
    train, held_out = _token_streams(documents, tokenizer, recipe)
    log.info("%d training tokens, %d held out", len(train), len(held_out))
    model = _new_model(recipe, tokenizer).to(device)
    with run.measured("pretraining", _recipe_digest(recipe)) as energy:
        seconds = _fit(
            model,
            train,
            recipe,
            run.work / "checkpoint",
            device=device,
            progress=run.progress,
        )
    round_to_half(model)  # before it is evaluated
    entropy = unigram_entropy(train, held_out, recipe.vocabulary)
    loss = _held_out_loss(model, held_out, recipe)
    if not math.isfinite(loss):
        raise _diverged("the held-out loss", loss)
    evaluation = {
        "held_out_loss": loss,
        "held_out_tokens": len(held_out),
        "unigram_entropy": entropy,
        "loss_to_unigram_entropy": loss / entropy,
        "unit": "nats per token",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens_seen": recipe.steps * recipe.batch_size * recipe.context_length,
        "tokens_in_corpus": len(train),
        "training_seconds": round(seconds),
        "device": device_name(device),
        "torch": torch.__version__,
        **energy(),
    }
    if given is not None:
        evaluation["tokenizer_fingerprint"] = tokenizer_fingerprint(given)
    _write(model, tokenizer, recipe, evaluation, run)
    return evaluation


def unigram_entropy(train: np.ndarray, held_out: np.ndarray, vocabulary: int) -> float:
    """Cross-entropy (nats per token) of `held_out` under the add-one unigram model of `train`."""
    counts = np.bincount(train, minlength=vocabulary) + 1.0
    return float(-np.log(counts / counts.sum())[held_out].mean())


def _token_streams(
    documents: list[Document], tokenizer: PreTrainedTokenizerFast, recipe: PretrainRecipe
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of the training documents and of the held-out ones, each ended by end-of-text."""
    order = np.random.default_rng(recipe.seed).permutation(len(documents))
    cut = max(1, round(recipe.held_out * len(documents)))
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    end = tokenizer.eos_token_id
    streams = []
    for part in (order[cut:], order[:cut]):
        encoded = encode([documents[i].text for i in part], add_special_tokens=False)
        ids = [np.array([*document.ids, end], dtype=np.uint16) for document in encoded]
        streams.append(np.concatenate(ids) if ids else np.empty(0, np.uint16))
    train, held_out = streams[0], streams[1][: recipe.held_out_tokens]
    needed = recipe.batch_size * recipe.context_length
    if len(train) < needed or len(held_out) < recipe.context_length:
        raise CorpusError(
            f"{len(train)} training and {len(held_out)} held-out tokens: one batch needs {needed}, "
            f"the evaluation {recipe.context_length}. Add text to the corpus."
        )
    return train, held_out


def _new_model(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerFast) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(recipe.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=recipe.vocabulary,
            n_positions=recipe.context_length,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _batch(train: np.ndarray, recipe: PretrainRecipe, step: int) -> torch.Tensor:
    """Batch `step`: consecutive rows of a shuffled epoch, rows cut anew each epoch. [batch, length]

    Derived from the step alone, so that a resumed run sees what an uninterrupted one would.
    """
    length, size = recipe.context_length, recipe.batch_size
    batches_an_epoch = (len(train) - length) // length // size or 1
    epoch, index = divmod(step, batches_an_epoch)
    random = np.random.default_rng([recipe.seed, epoch])
    offset = int(random.integers(0, min(length, len(train) - size * length) or 1))
    rows = random.permutation((len(train) - offset) // length)[index * size : (index + 1) * size]
    starts = offset + rows * length
    return torch.from_numpy(train[starts[:, None] + np.arange(length)].astype(np.int64))


def _optimizers(model: torch.nn.Module, recipe: PretrainRecipe) -> list[torch.optim.Optimizer]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and not name.startswith(("transformer.wte", "transformer.wpe"))
        (matrices if hidden else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(
            others, lr=recipe.other_learning_rate, betas=(0.9, 0.95), weight_decay=0.0
        ),
    ]


def _rate(step: int, steps: int) -> float:
    warm_up = max(1, steps // 50)
    return min(1.0, (step + 1) / warm_up, 2 * (steps - step) / steps)


def _fit(
    model: torch.nn.Module,
    train: np.ndarray,
    recipe: PretrainRecipe,
    checkpoint: Path,
    *,
    device: str,
    progress: bool,
) -> float:
    """Run all steps; returns the seconds spent, over all resumed parts."""
    optimizers = _optimizers(model, recipe)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    begun, seconds = _resume(model, optimizers, recipe, checkpoint)
    clock = saved = time.monotonic()
    model.train()
    bar = tqdm(
        range(begun, recipe.steps),
        desc="pretraining",
        initial=begun,
        total=recipe.steps,
        disable=not progress,
    )
    for step in bar:
        ids = _batch(train, recipe, step).to(device)
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=recipe.mixed_precision):
            loss = _loss(model, ids, recipe)
        loss.backward()
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * _rate(step, recipe.steps)
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 49:
            if not math.isfinite(loss.item()):
                raise _diverged(f"the loss of step {step + 1}", loss.item())
            bar.set_postfix(loss=f"{loss.item():.3f}")
            track({"loss": loss.item()}, step + 1)
        now = time.monotonic()
        if (step + 1) % _CHECKPOINT_EVERY == 0 or now - saved >= _CHECKPOINT_SECONDS:
            if not progress:
                log.info("step %d of %d: loss %.3f", step + 1, recipe.steps, loss.item())
            spent = seconds + now - clock
            _save_checkpoint(model, optimizers, recipe, step + 1, spent, checkpoint)
            saved = now
    return seconds + time.monotonic() - clock


def _loss(model: Any, ids: torch.Tensor, recipe: PretrainRecipe) -> torch.Tensor:
    if 4 * ids.numel() * recipe.vocabulary > _LOGITS_BYTES:
        dtype = torch.bfloat16 if recipe.mixed_precision else torch.float32
        return next_token_loss(model, ids, dtype)
    loss: torch.Tensor = model(input_ids=ids, labels=ids).loss
    return loss


def _diverged(what: str, value: float) -> DivergedError:
    return DivergedError(f"{what} is {value}. Try a lower matrix_learning_rate in the recipe.")


def _recipe_digest(recipe: PretrainRecipe) -> str:
    return sha256_bytes(json_bytes(asdict(recipe)))


def _save_checkpoint(
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    recipe: PretrainRecipe,
    step: int,
    seconds: float,
    folder: Path,
) -> None:
    meta = {"step": str(step), "seconds": str(seconds), "recipe": _recipe_digest(recipe)}
    with atomic_path(folder / "checkpoint.safetensors") as path:
        save_file(held(model, optimizers), path, metadata=meta)


def _resume(
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    recipe: PretrainRecipe,
    folder: Path,
) -> tuple[int, float]:
    """Restore the last checkpoint of this very recipe; (0, 0.0) where there is none."""
    from safetensors import safe_open

    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return 0, 0.0
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    if meta["recipe"] != _recipe_digest(recipe):
        log.warning("%s belongs to another recipe: starting again", path)
        return 0, 0.0
    restore(model, optimizers, load_file(path))
    return int(meta["step"]), float(meta["seconds"])


@torch.inference_mode()
def _held_out_loss(model: torch.nn.Module, held_out: np.ndarray, recipe: PretrainRecipe) -> float:
    model.eval()
    device = next(model.parameters()).device
    length = recipe.context_length
    together = max(1, min(32, _LOGITS_BYTES // (4 * length * recipe.vocabulary)))
    rows = len(held_out) // length
    ids = torch.from_numpy(held_out[: rows * length].astype(np.int64)).view(rows, length)
    losses = [
        model(input_ids=batch.to(device), labels=batch.to(device)).loss.item() * len(batch)
        for batch in ids.split(together)
    ]
    return float(sum(losses) / rows)


def _write(
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    recipe: PretrainRecipe,
    evaluation: dict[str, Any],
    run: Run,
) -> None:
    """Weights stored in float16 (half the size) with a config that loads them as float32."""
    tensors = {
        name: parameter.detach().half().cpu() for name, parameter in model.named_parameters()
    }
    out = run.out
    write_bytes(out / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    config = json.loads(model.config.to_json_string(use_diff=True))
    config |= {"architectures": ["GPT2LMHeadModel"], "dtype": "float32"}
    write_json(out / "config.json", config)
    write_json(out / "evaluation.json", evaluation)
    with atomic_path(out / "tokenizer.json") as path:
        tokenizer.backend_tokenizer.save(str(path), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": recipe.context_length,
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
    }
    write_json(out / "tokenizer_config.json", settings)
    shutil.rmtree(run.work / "checkpoint", ignore_errors=True)
