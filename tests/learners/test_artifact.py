"""A learner's folder: what comes back, and every way in which a folder can be wrong."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from secondary_learners.errors import (
    ArtifactError,
    DigestMismatchError,
    IncompatibleError,
    SecondaryLearnersError,
)
from secondary_learners.files import sha256_file
from secondary_learners.learners.artifact import (
    FILES,
    Learner,
    read_learner,
    save_learner,
    tokenizer_fingerprint,
)
from secondary_learners.learners.config import Calibration, LearnerConfig, Reference, Score
from secondary_learners.learners.nets import build_net
from tiny_models import Vocabulary, tiny_config

SIZES: dict[str, dict[str, int | str]] = {
    "linear": {"vocabulary": 9, "bigrams": 4, "counts": "sqrt"},
    "conv": {"vocabulary": 9, "embedding": 4, "channels": 4, "kernel": 3, "hidden": 4},
}


def make_learner(architecture: str = "linear") -> Learner:
    config = tiny_config(
        architecture=architecture,
        sizes=SIZES[architecture],
        score=Score(mean=0.25, sd=0.5, unit="nats per token"),
        calibration=Calibration(
            mean=0.1, sd=0.4, quantiles=tuple(np.linspace(-0.7, 0.9, 101).tolist())
        ),
        context_length=4,
        base_model=Reference("tiny-gpt", None, "f" * 64),
        tokenizer=Reference("tiny-tokens", "0" * 40, tokenizer_fingerprint(Vocabulary(9))),
        objective={"contexts": 3},
        corpus={"sources": ["a"]},
        optimizer={"name": "AdamW", "eps": 1e-8},
        labels={"count": 10, "method": "exact"},
        versions={"torch": "2"},
    )
    net = build_net(architecture, config.sizes)
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data.normal_(generator=generator)
    return Learner(config, net)


def save(folder: Path, architecture: str = "linear") -> dict[str, str]:
    return save_learner(
        make_learner(architecture),
        folder,
        recipe_toml='name = "tiny"\n',
        evaluation={"spearman": 0.5},
        readme="# tiny\n",
    )


IDS = [[1, 2, 3, 2], [8, 0, 0, 1]]


@pytest.mark.parametrize("architecture", ["linear", "conv"])
def test_what_is_saved_comes_back(tmp_path: Path, architecture: str) -> None:
    digests = save(tmp_path / "tiny", architecture)
    assert digests == {name: sha256_file(tmp_path / "tiny" / name) for name in FILES}
    assert sorted(os.listdir(tmp_path)) == ["tiny"]
    loaded = read_learner(tmp_path / "tiny", digests)
    assert loaded.config == make_learner(architecture).config
    assert torch.equal(loaded.score(IDS), make_learner(architecture).score(IDS))
    assert not any(parameter.requires_grad for parameter in loaded.net.parameters())


def save_half(learner: Learner, folder: Path) -> dict[str, str]:
    return save_learner(
        learner, folder, recipe_toml='name = "tiny"\n', evaluation={}, readme="# tiny\n", half=True
    )


@pytest.mark.parametrize("architecture", ["linear", "conv"])
def test_weights_in_half_are_those_that_the_learner_goes_on_with(
    tmp_path: Path, architecture: str
) -> None:
    learner, whole = make_learner(architecture), make_learner(architecture)
    digests = save_half(learner, tmp_path / "half")
    stored = safetensors.torch.load((tmp_path / "half" / "model.safetensors").read_bytes())
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = read_learner(tmp_path / "half", digests)
    assert {parameter.dtype for parameter in loaded.net.parameters()} == {torch.float32}
    assert torch.equal(loaded.score(IDS), learner.score(IDS))
    assert not torch.equal(learner.score(IDS), whole.score(IDS))  # it was rounded
    assert torch.allclose(learner.score(IDS), whole.score(IDS), rtol=2e-3, atol=0.02)
    assert loaded.config == whole.config  # which says nothing of it
    assert save_half(loaded, tmp_path / "again") == digests


def test_a_weight_beyond_float16_is_refused_and_stays(tmp_path: Path) -> None:
    learner = make_learner()
    learner.net.bias.data.fill_(70_000.0)  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="not finite"):
        save_half(learner, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert float(learner.net.bias) == 70_000  # type: ignore[arg-type]


def test_same_content_gives_same_bytes_and_an_old_folder_is_replaced(tmp_path: Path) -> None:
    first, second = save(tmp_path / "a"), save(tmp_path / "b")
    assert first == second
    (tmp_path / "b" / "README.md").write_text("old")
    assert save(tmp_path / "b") == first
    read_learner(tmp_path / "b", first)


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    learner = make_learner()
    with pytest.raises(ValueError, match="JSON"):
        save_learner(
            learner, tmp_path / "x", recipe_toml="", evaluation={"a": float("nan")}, readme=""
        )
    learner.net.bias.data.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="not finite"):
        save_learner(learner, tmp_path / "x", recipe_toml="", evaluation={}, readme="")
    assert list(tmp_path.iterdir()) == []


def test_scores_are_standardised_predictions_and_gains_have_the_unit_of_labels() -> None:
    learner = make_learner()
    raw = learner.net(torch.tensor(IDS), torch.ones(2, 4, dtype=torch.bool))
    assert torch.allclose(learner.score(IDS), (raw - 0.1) / 0.4)
    assert torch.allclose(learner.predict_gain(IDS), raw * 0.5 + 0.25)
    assert learner.score(IDS).dtype == torch.float32
    empty = float(learner.score([[]]))
    assert torch.allclose(
        learner.contributions(IDS).sum(dim=1), learner.score(IDS) - empty, atol=1e-5
    )


def test_quantiles_are_scores() -> None:
    learner = make_learner()
    assert learner.quantile(0) == pytest.approx((-0.7 - 0.1) / 0.4)
    assert learner.quantile(0.5) == pytest.approx(0.0)
    assert learner.quantile(0.755) == pytest.approx((-0.7 + 1.6 * 0.755 - 0.1) / 0.4)
    with pytest.raises(SecondaryLearnersError, match=r"1\.5"):
        learner.quantile(1.5)


def frozen(values: Any) -> np.ndarray:
    array = np.array(values, np.uint16)
    array.flags.writeable = False  # as memory-mapped data sets are
    return array


@pytest.mark.parametrize(
    "kind", [torch.tensor, np.array, frozen, lambda rows: [np.array(r) for r in rows]]
)
def test_ids_may_be_lists_arrays_or_tensors(kind: Callable[[Any], Any]) -> None:
    learner = make_learner()
    assert torch.equal(learner.score(kind(IDS)), learner.score(IDS))
    mask = [[1, 1, 0, 0], [0, 1, 1, 1]]
    assert torch.equal(learner.score(kind(IDS), kind(mask)), learner.score(IDS, mask))


def test_empty_and_hidden_contexts() -> None:
    learner = make_learner()
    nothing = float(learner.score([[], []])[0])
    assert learner.score([]).shape == (0,)
    assert learner.score(np.zeros((0, 4), np.int64)).shape == (0,)
    hidden = learner.score([[1, 2], [-100, 5000]], [[0, 0], [0, 0]])
    assert hidden.tolist() == [nothing] * 2
    assert nothing == pytest.approx((float(learner.net.bias) - 0.1) / 0.4)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [9, -1, 2**40])
def test_ids_outside_the_vocabulary_are_refused(bad: int) -> None:
    with pytest.raises(IncompatibleError, match=rf"token id {bad} .*'tiny'.*tiny-tokens"):
        make_learner().score([[0, bad]])


@pytest.mark.parametrize(
    ("ids", "mask", "word"),
    [
        ([1, 2], None, r"\[batch, length\]"),
        ([[0.5, 1.0]], None, "integers"),
        ([[1, 2], [1]], None, "different lengths"),
        ([["a"]], None, "integers"),
        ([[1, 2]], [[1]], "same shape"),
    ],
)
def test_ids_of_a_wrong_kind_are_refused(ids: Any, mask: Any, word: str) -> None:
    with pytest.raises(SecondaryLearnersError, match=word):
        make_learner().score(ids, mask)


def test_another_tokenizer_is_refused_and_the_right_one_remembered() -> None:
    learner, right = make_learner(), Vocabulary(9)
    for _ in range(3):
        learner.check_tokenizer(right)
    assert right.asked == 1
    other = tokenizer_fingerprint(Vocabulary(8))
    with pytest.raises(
        IncompatibleError, match=rf"{learner.config.tokenizer.fingerprint}.*{other}"
    ):
        learner.check_tokenizer(Vocabulary(8))


def test_a_fingerprint_depends_on_the_vocabulary_and_not_on_its_order() -> None:
    class Plain:
        def __init__(self, vocabulary: dict[str, int]) -> None:
            self.get_vocab = lambda: vocabulary

    same = {tokenizer_fingerprint(Plain(v)) for v in ({"a": 0, "é": 1}, {"é": 1, "a": 0})}
    assert same == {"3fcbedae7fc54749bab2c32b5de405321aba1fdee208b93a1efd72307ca11c0d"}
    assert tokenizer_fingerprint(Plain({"a": 1, "é": 0})) not in same


def edit(**changes: Any) -> Callable[[Path], None]:
    """Change fields of config.json; a dotted name reaches inside, and ... deletes."""

    def apply(folder: Path) -> None:
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

    return apply


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        weights = safetensors.torch.load(path.read_bytes())
        change(weights)
        path.write_bytes(safetensors.torch.save(weights))

    return apply


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None  # type: ignore[func-returns-value]


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    **{f"no {name}": (lambda f, name=name: (f / name).unlink(), name) for name in FILES},
    **{
        f"a {suffix}": (write(f"weights{suffix}", b"x"), rf"weights\{suffix} could run code")
        for suffix in (".bin", ".pt", ".pkl", ".pth", ".ckpt", ".joblib", ".npy", ".py", ".PKL")
    },
    "truncated weights": (truncate, "truncated"),
    "no safetensors": (write("model.safetensors", b"\x80\x04pickle"), "no safetensors file"),
    "empty weights": (write("model.safetensors", b""), "no safetensors file"),
    "missing tensor": (tensors(lambda w: w.pop("bias")), "are weight, and .* has bias, weight"),
    "extra tensor": (tensors(lambda w: w.update(more=torch.zeros(1))), "bias, more, weight"),
    "wrong shape": (tensors(lambda w: w.update(weight=torch.zeros(12))), r"\[12\].*\[13\]"),
    "bfloat16": (tensors(lambda w: w.update(weight=w["weight"].bfloat16())), "bfloat16"),
    "float64": (tensors(lambda w: w.update(weight=w["weight"].double())), "float64"),
    "integers": (tensors(lambda w: w.update(weight=w["weight"].short())), "int16"),
    "half, not finite": (
        tensors(lambda w: w.update(weight=torch.full((13,), torch.nan).half())),
        "not finite",
    ),
    "half, wrong shape": (
        tensors(lambda w: w.update(weight=torch.zeros(12).half())),
        r"\[12\].*\[13\]",
    ),
    "not finite": (tensors(lambda w: w["weight"].__setitem__(3, torch.inf)), "not finite"),
    "not JSON": (write("config.json", b"{"), "not JSON"),
    "not UTF-8": (write("config.json", b'{"\xff": 1}'), "not JSON"),
    "deep JSON": (write("config.json", b"[" * 100_000), "not JSON"),
    "no object": (write("config.json", b"[]"), "no JSON object"),
    "missing field": (edit(corpus=...), "lacks the field 'corpus'"),
    "missing inner field": (edit(score__sd=...), r"lacks the field 'score\.sd'"),
    "unknown field": (edit(extra=1), "unknown field 'extra'"),
    "no version": (edit(format_version="1"), "format_version"),
    "version 0": (edit(format_version=0), "format_version"),
    "no name": (edit(name=""), "'name'"),
    "other architecture": (edit(architecture="mlp"), "'architecture'"),
    "unhashable architecture": (edit(architecture=[]), "'architecture'"),
    "other sizes": (edit(sizes__bigrams=8), "'weight'"),
    "huge sizes": (edit(sizes__vocabulary=10**15), r"sizes\.vocabulary"),
    "true size": (edit(sizes__vocabulary=True), r"sizes\.vocabulary"),
    "sd of zero": (edit(score__sd=0), r"score\.sd"),
    "sd not finite": (edit(calibration__sd=float("nan")), r"calibration\.sd"),
    "few quantiles": (edit(calibration__quantiles=[1.0]), r"calibration\.quantiles"),
    "falling quantiles": (edit(calibration__quantiles=[*range(101)][::-1]), "rising"),
    "text quantiles": (edit(calibration__quantiles=["a"] * 101), r"calibration\.quantiles"),
    "no calibration": (edit(calibration=None), "'calibration'"),
    "no length": (edit(context_length=0), "context_length"),
    "revision": (edit(base_model__revision=7), r"base_model\.revision"),
    "labels": (edit(labels=[]), "'labels'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_with_the_reason(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "tiny"
    save(folder)
    break_it, reason = DAMAGE[damage]
    break_it(folder)
    with pytest.raises(ArtifactError, match=reason) as caught:
        read_learner(folder)
    assert not isinstance(caught.value, IncompatibleError | DigestMismatchError)


def test_a_newer_format_says_to_upgrade_even_with_other_fields(tmp_path: Path) -> None:
    save(tmp_path / "tiny")
    edit(format_version=2, extra=1, corpus=...)(tmp_path / "tiny")
    with pytest.raises(IncompatibleError, match=r"version 2.*pip install --upgrade"):
        read_learner(tmp_path / "tiny")


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tiny"
    digests = save(folder)
    path = folder / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    found = sha256_file(path)
    with pytest.raises(
        DigestMismatchError, match=rf"{name}.*{digests[name]}.*{found}.*learners show"
    ):
        read_learner(folder, digests)


def test_a_file_without_a_recorded_digest_is_refused(tmp_path: Path) -> None:
    digests = save(tmp_path / "tiny")
    del digests["model.safetensors"]
    with pytest.raises(DigestMismatchError, match=r"model\.safetensors"):
        read_learner(tmp_path / "tiny", digests)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no folder"):
        read_learner(tmp_path / "none")


def test_a_config_is_checked_when_made_and_survives_json() -> None:
    config = make_learner().config
    assert LearnerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ArtifactError, match="context_length"):
        dataclasses.replace(config, context_length=-1)
