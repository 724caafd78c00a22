"""Deltas: exact on, exact off, and refused wherever they do not belong."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from secondary_learners.artifacts.layout import FILES
from secondary_learners.deltas.artifact import (
    Delta,
    Origin,
    make_delta,
    read_delta,
    save_delta,
)
from secondary_learners.deltas.masks import mask_layers, masks_of, merge_masks
from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    IncompatibleError,
    SecondaryLearnersError,
)
from secondary_learners.learners.config import Reference
from secondary_learners.tasks.classifier import classifier
from secondary_learners.tasks.encoding import Encoded
from secondary_learners.tasks.training import predict

FC = "transformer.h.0.mlp.c_fc.weight"
KINDS = ("layers", "mask")
MATRICES = [
    f"transformer.h.{block}.{kind}.weight"
    for block in (0, 1)
    for kind in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
]


def state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Bit for bit: unlike torch.equal, 0 is not -0 here."""
    return first.keys() == second.keys() and all(
        first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first
    )


def save(delta: Delta, folder: Path) -> dict[str, str]:
    return save_delta(
        delta, folder, recipe_toml='name = "x"\n', evaluation={"a": 1}, readme="# x\n"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_through_the_folder_the_logits_are_the_trained_ones(
    deltas: dict[str, Delta],
    tuned: dict[str, PreTrainedModel],
    base: PreTrainedModel,
    examples: Encoded,
    tmp_path: Path,
    kind: str,
) -> None:
    digests = save(deltas[kind], tmp_path / "x")
    loaded = read_delta(tmp_path / "x", digests)
    assert loaded.config == deltas[kind].config
    assert loaded.config.kind == kind
    trained = predict(tuned[kind], examples)
    model = classifier(base, 2, seed=9)
    loaded.apply(model)
    assert np.array_equal(predict(model, examples), trained)
    assert np.array_equal(predict(loaded.merge(classifier(base, 2)), examples), trained)
    merged = copy.deepcopy(tuned[kind])
    merge_masks(merged)
    assert np.array_equal(predict(merged, examples), trained)
    assert model.config.id2label == {0: "no", 1: "yes"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_removed_leaves_no_trace(
    deltas: dict[str, Delta], model: PreTrainedModel, kind: str
) -> None:
    with torch.no_grad():
        model.get_parameter("score.weight")[0, 0] = -0.0
    before, labels = state(model), model.config.id2label
    applied = deltas[kind].apply(model)
    assert not same(state(model), before)
    applied.remove()
    applied.remove()
    assert same(state(model), before)
    assert model.config.id2label == labels
    with pytest.raises(RuntimeError, match="stop"), deltas[kind].apply(model):
        raise RuntimeError("stop")
    assert same(state(model), before)


@settings(max_examples=25, deadline=None)
@given(
    st.sets(st.sampled_from(MATRICES), min_size=1),
    st.floats(0, 0.999),
    st.sampled_from(["magnitude", "random"]),
    st.integers(0, 99),
)
def test_any_mask_goes_on_and_off_exactly(
    base: PreTrainedModel,
    names: set[str],
    sparsity: float,
    start: Literal["magnitude", "random"],
    seed: int,
) -> None:
    tuned = classifier(base, 2, seed=seed)
    mask_layers(tuned, names, sparsity=sparsity, start=start, seed=seed)
    delta = make(base, tuned)
    merge_masks(tuned)
    model = classifier(base, 2, seed=seed + 1)
    before = state(model)
    applied = delta.apply(model)
    assert same(state(model), state(tuned))
    applied.remove()
    assert same(state(model), before)


def test_a_half_precision_model_that_holds_the_numbers_is_accepted(
    base: PreTrainedModel,
) -> None:
    half = copy.deepcopy(base).half()
    full = copy.deepcopy(half).float()
    model = classifier(full, 2)
    mask_layers(model, [FC], sparsity=0.3)
    delta = make(full, model)
    other = classifier(half, 2).half()
    before = state(other)
    applied = delta.apply(other)
    assert other.get_parameter(FC).dtype == torch.float16
    assert torch.equal(other.get_parameter(FC) == 0, ~masks_of(model)[FC])
    applied.remove()
    assert same(state(other), before)


def make(base: PreTrainedModel, tuned: PreTrainedModel, **options: Any) -> Delta:
    origin = Origin(
        name="x", base_model=("tiny", None), tokenizer=Reference("tiny", None, "0" * 64)
    )
    return make_delta(base, tuned, origin, **{"classes": ["no", "yes"], **options})


def test_what_changed_is_found(base: PreTrainedModel, model: PreTrainedModel) -> None:
    assert list(make(base, model).config.layers) == []  # a head alone is a delta, too
    with torch.no_grad():
        model.get_parameter(FC)[0, 0] += 1
    delta = make(base, model)
    assert list(delta.config.layers) == [FC]
    assert delta.tensors[FC].dtype == torch.float16
    with torch.no_grad():
        model.get_parameter(FC)[0, 0] = 1e6
    with pytest.raises(ArtifactError, match="not finite in torch"):
        make(base, model)
    assert make(base, model, stored="bfloat16").tensors[FC].dtype == torch.bfloat16


def test_changes_beside_a_mask_are_refused(base: PreTrainedModel, model: PreTrainedModel) -> None:
    mask_layers(model, [FC])
    with torch.no_grad():
        model.get_parameter("transformer.ln_f.bias")[0] = 1
    with pytest.raises(SecondaryLearnersError, match=r"other changed weights.*ln_f\.bias"):
        make(base, model)


def nudge(model: PreTrainedModel) -> None:
    """One bit of a weight that is neither the embedding nor in the delta."""
    weight = model.get_parameter("transformer.h.1.mlp.c_proj.weight").data.view(-1)
    weight[5] = torch.nextafter(weight[5], torch.tensor(torch.inf))


WRONG: dict[str, tuple[Callable[[PreTrainedModel, Delta], Any], str]] = {
    "another base": (lambda model, _: nudge(model), "is for the weights of tiny"),
    "applied already": (lambda model, delta: delta.apply(model), "remove another delta first"),
    "bfloat16": (lambda model, _: model.bfloat16(), r"torch\.bfloat16.*float32"),
    "masks not merged": (lambda model, _: mask_layers(model, [FC]), "merge_masks"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_model_is_refused_and_left_alone(
    deltas: dict[str, Delta], model: PreTrainedModel, kind: str, wrong: str
) -> None:
    change, reason = WRONG[wrong]
    change(model, deltas[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for put in (deltas[kind].apply, deltas[kind].merge):
        with pytest.raises(IncompatibleError, match=reason):
            put(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_heads_are_refused(deltas: dict[str, Delta], base: PreTrainedModel) -> None:
    with pytest.raises(IncompatibleError, match=r"score\.weight.*GPT2LMHeadModel has none.*class"):
        deltas["mask"].apply(base)
    with pytest.raises(IncompatibleError, match=r"\[2, 20\].*\[3, 20\]"):
        deltas["mask"].apply(classifier(base, 3))
    renamed = dataclasses.replace(deltas["mask"].config, classes=["a", "b", "c"])
    with pytest.raises(IncompatibleError, match=r"3 classes \(a, b, c\), and this model has 2"):
        Delta(renamed, deltas["mask"].tensors).apply(classifier(base, 2))
    with pytest.raises(SecondaryLearnersError, match="2 classes, and 3 are named"):
        make(base, classifier(base, 2), classes=["a", "b", "c"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_content_gives_the_same_bytes(
    deltas: dict[str, Delta], tmp_path: Path, kind: str
) -> None:
    first = save(deltas[kind], tmp_path / "a")
    turned = Delta(deltas[kind].config, dict(reversed(deltas[kind].tensors.items())))
    assert save(turned, tmp_path / "b") == first
    (tmp_path / "b" / "README.md").write_text("old")
    assert save(turned, tmp_path / "b") == first
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(FILES)


def edit(**changes: Any) -> Callable[[Path], None]:
    """Change fields of config.json; a dotted name reaches inside, and ... deletes."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        data = json.loads(path.read_text())
        for name, value in changes.items():
            *outer, last = name.split("__")
            inner = data
            for step in outer:
                inner = inner[step]
            if value is ...:
                del inner[last]
            else:
                inner[last] = value
        path.write_text(json.dumps(data))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        found = safetensors.torch.load(path.read_bytes())
        change(found)
        path.write_bytes(safetensors.torch.save(found))

    return apply


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"no {name}": (lambda f, name=name: (f / name).unlink(), name) for name in FILES},
    "a pickle": (write("pytorch_model.bin", b"x"), r"pytorch_model\.bin could run code"),
    "code": (write("modeling.py", b"x"), r"modeling\.py could run code"),
    "pickled weights": (write("model.safetensors", b"\x80\x04x"), "no safetensors file"),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:-4]
        ),
        "truncated",
    ),
    "missing tensor": (tensors(lambda t: t.pop("score.weight")), r"'score\.weight' is in one"),
    "extra tensor": (tensors(lambda t: t.update(more=torch.zeros(1))), "'more' is in one"),
    "other head": (tensors(lambda t: t.update({"score.weight": torch.zeros(3, 20)})), r"\[2, 20\]"),
    "head not finite": (tensors(lambda t: t["score.weight"].fill_(torch.nan)), "not finite"),
    "shorter mask": (tensors(lambda t: t.update({FC: t[FC][:-1].clone()})), r"\[200\]"),
    "another mask's type": (tensors(lambda t: t.update({FC: t[FC].float()})), "uint8"),
    "other shape": (edit(layers={FC: [20, 81]}), "in one of them only"),
    "size 0": (edit(head={"score.weight": [0, 20]}), r"head\.score\.weight"),
    "huge shape": (edit(head={"score.weight": [2**40, 2**40]}), r"head\.score\.weight"),
    "no JSON": (write("config.json", b"{"), "not JSON"),
    "deep JSON": (write("config.json", b"[" * 100_000), "not JSON"),
    "a learner's config": (edit(kind=...), "'kind'"),
    "no version": (edit(format_version=...), "format_version"),
    "missing field": (edit(classes=...), "lacks the field 'classes'"),
    "unknown field": (edit(more=1), "unknown field 'more'"),
    "one class": (edit(classes=["a"]), "'classes'"),
    "the same classes": (edit(classes=["a", "a"]), "'classes'"),
    "a name that is a path": (edit(name="../x"), "'name'"),
    "no fingerprint": (edit(base_model__fingerprint="f"), r"base_model\.fingerprint"),
    "revision": (edit(base_model__revision=3), r"base_model\.revision"),
    "architecture": (edit(architecture="os.system"), "'architecture'"),
    "stored": (edit(stored="int8"), "'stored'"),
    "task": (edit(task=[]), "'task'"),
    "layers": (edit(layers=[]), "'layers'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_with_the_reason(
    deltas: dict[str, Delta], tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "x"
    save(deltas["mask"], folder)
    break_it, reason = DAMAGE[damage]
    break_it(folder)
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_delta(folder)
    assert not isinstance(caught.value, IncompatibleError | DigestMismatchError)


def test_stray_bits_are_refused(base: PreTrainedModel, model: PreTrainedModel) -> None:
    name = "transformer.h.0.attn.c_attn.weight"
    mask_layers(model, [name])
    delta = make(base, model)
    shape = delta.config.layers[name]
    odd = dataclasses.replace(delta.config, layers={name: [shape[0] * shape[1] - 1]})
    tensors = dict(delta.tensors)
    tensors[name] = torch.full_like(tensors[name], 255)
    with pytest.raises(ArtifactError, match="bits after the last"):
        Delta(odd, tensors)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused(deltas: dict[str, Delta], tmp_path: Path, name: str) -> None:
    digests = save(deltas["layers"], tmp_path / "x")
    path = tmp_path / "x" / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError, match=rf"{name}.*{digests[name]}.*learners show x"):
        read_delta(tmp_path / "x", digests)


def test_a_newer_format_says_to_upgrade(deltas: dict[str, Delta], tmp_path: Path) -> None:
    save(deltas["mask"], tmp_path / "x")
    edit(format_version=3, more=1)(tmp_path / "x")
    with pytest.raises(IncompatibleError, match="pip install --upgrade"):
        read_delta(tmp_path / "x")


def test_format_1_called_the_classes_labels(tmp_path: Path, deltas: dict[str, Delta]) -> None:
    save(deltas["mask"], tmp_path / "x")
    path = tmp_path / "x" / "config.json"
    config = json.loads(path.read_bytes())
    assert config["format_version"] == 2
    config["labels"] = config.pop("classes")
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="lacks the field 'classes'"):
        read_delta(tmp_path / "x")
    path.write_text(json.dumps({**config, "format_version": 1}))
    assert read_delta(tmp_path / "x").config.classes == ["no", "yes"]
