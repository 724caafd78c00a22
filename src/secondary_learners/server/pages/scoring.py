"""Texts that learners of a hub score: what visitors paste, and the probe set, once for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from secondary_learners.server.errors import Refused
from secondary_learners.server.judge import Explained, Judge, Material, NotScored
from secondary_learners.server.pages.artifacts import Artifact
from secondary_learners.server.pages.probe import probe_texts
from secondary_learners.server.rates import Buckets

__all__ = ["LONGEST_TEXT", "MATERIAL", "Scoring", "probed"]

MATERIAL = ("README.md", "config.json", "evaluation.json", "model.safetensors", "recipe.toml")
LONGEST_TEXT = 10_000
_A_MINUTE = 30
_REMEMBERED, _COMPARED = 20_000, 200
_SOON = "The probe set is being scored: look again in some seconds."
_NOT_HERE = "The probe set was not scored: its files are not all here, or too large."
Find = Callable[[], Material | None]


class Scoring:
    """What has been worked out is remembered by the digests of the learner's files."""

    def __init__(self, judge: Judge) -> None:
        self._judge, self._beside = judge, ThreadPoolExecutor(1, "probe set")
        self._known: dict[Sequence[str], tuple[float, ...] | str] = {}
        self._rate = Buckets(_A_MINUTE)

    def close(self) -> None:
        self._beside.shutdown(wait=False, cancel_futures=True)
        self._judge.close()

    def probed(self, artifact: Artifact, find: Find) -> Artifact:
        """With its scores of the probe set, or with why it has none; the first time it is soon.

        `find`: its files, looked for only when they are needed.
        """
        if not artifact.measured.quantiles:
            return artifact
        key = _key(artifact)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = _SOON
            self._beside.submit(self._probe, key, find)
        return self._with(artifact, key)

    def known(self, artifacts: Iterable[Artifact]) -> list[Artifact]:
        """Those whose scores of the probe set are known already, with them; not more than some."""
        keys = ((artifact, _key(artifact)) for artifact in artifacts if self._known)
        known = (self._with(artifact, key) for artifact, key in keys if key in self._known)
        return list(islice((artifact for artifact in known if artifact.probe), _COMPARED))

    def explain(self, sender: object, material: Material, text: str) -> Explained | None:
        """Blocks. Raises Refused for a text too long or too many of them, and NotScored."""
        if len(text) > LONGEST_TEXT:
            raise Refused(413, f"A text to try has at most {LONGEST_TEXT:,} characters.")
        wait = self._rate.take(sender)
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            raise Refused(429, "You try texts too often. Wait a few seconds.", headers=headers)
        return self._judge.explain(material, [text])[0]

    def _probe(self, key: Sequence[str], find: Find) -> None:
        try:
            material = find()
            self._known[key] = _probe(self._judge, material) if material else _NOT_HERE
        except Exception:  # such as a server that has too much to do: the next visitor asks again
            self._known.pop(key, None)
            raise

    def _with(self, artifact: Artifact, key: Sequence[str]) -> Artifact:
        return _with(artifact, self._known.get(key, ""))


def probed(artifact: Artifact, judge: Judge, material: Material) -> Artifact:
    """The same for one artifact, at once. Blocks."""
    return _with(artifact, _probe(judge, material)) if artifact.measured.quantiles else artifact


def _probe(judge: Judge, material: Material) -> tuple[float, ...] | str:
    """The scores of the probe set, or why there are none."""
    try:
        explained = judge.explain(material, [each.text for each in probe_texts()])
    except NotScored as error:
        return f"The probe set was not scored: {error}"
    return tuple(each.score if each else 0.0 for each in explained)


def _with(artifact: Artifact, known: tuple[float, ...] | str) -> Artifact:
    if isinstance(known, str):
        return replace(artifact, unscored=known)
    return replace(artifact, probe=known)


def _key(artifact: Artifact) -> tuple[str, ...]:
    return tuple(file.digest for file in artifact.source.files if file.path in MATERIAL)
