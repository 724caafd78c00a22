from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.errors import CorpusError
from secondary_learners.text.contexts import cut, mixture, split_documents
from secondary_learners.text.corpus import Document
from secondary_learners.text.sequences import Examples
from tiny_models import word_tokenizer

END = 1000


def numbers(*, end: bool = True) -> Any:
    """A tokenizer that reads "17" as token 17."""
    words = [*map(str, range(END)), "<end>"]
    return word_tokenizer(words, "<end>", eos_token="<end>" if end else None)


NUMBERS = numbers()


def document(domain: str, ids: Sequence[int]) -> Document:
    return Document(domain, f"{domain} {ids[:1]}", " ".join(map(str, ids)))


def some_contexts(*sizes: int) -> Examples:
    """Numbered contexts, so many of each domain "a", "b", …"""
    domain = np.repeat(np.arange(len(sizes)), sizes)
    count = len(domain)
    ids = np.arange(count)[:, None] * np.ones((1, 4), np.int64)
    return Examples.contexts(
        ids.astype(np.int64), np.arange(count), domain, tuple("abcdef"[: len(sizes)])
    )


def test_a_long_document_is_cut_into_whole_runs_and_its_rest_dropped() -> None:
    contexts = cut([document("a", range(11))], NUMBERS, 4)
    assert contexts.input_ids.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert contexts.input_ids.dtype == np.int64
    assert contexts.document.tolist() == [0, 0]
    assert (contexts.length, len(contexts)) == (4, 2)


def test_no_context_spans_two_long_documents() -> None:
    contexts = cut([document("a", range(10, 16)), document("a", range(20, 29))], NUMBERS, 4)
    assert contexts.input_ids.tolist() == [[10, 11, 12, 13], [20, 21, 22, 23], [24, 25, 26, 27]]
    assert contexts.document.tolist() == [0, 1, 1]


def test_short_neighbors_are_packed_with_the_end_of_text_between() -> None:
    short = [document("a", [1]), document("a", [2, 3]), document("a", [4]), document("a", [5, 6])]
    contexts = cut(short, NUMBERS, 5)
    assert contexts.input_ids.tolist() == [[1, END, 2, 3, END], [4, END, 5, 6, END]]
    assert contexts.document.tolist() == [0, 1]


def test_without_an_end_of_text_short_documents_are_joined() -> None:
    contexts = cut([document("a", [1, 2]), document("a", [3, 4])], numbers(end=False), 4)
    assert contexts.input_ids.tolist() == [[1, 2, 3, 4]]


def test_packing_keeps_documents_of_other_domains_apart() -> None:
    mixed = [document("b", [1, 2]), document("a", [3, 4]), document("b", [5]), document("a", [6])]
    contexts = cut(mixed, NUMBERS, 4)
    assert contexts.domains == ("a", "b")
    assert contexts.input_ids.tolist() == [[3, 4, END, 6], [1, 2, END, 5]]
    assert contexts.domain.tolist() == [0, 1]
    assert contexts.in_domain("b").input_ids.tolist() == [[1, 2, END, 5]]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 30)), min_size=1, max_size=20),
    st.integers(2, 9),  # of one token nothing is predicted
)
def test_every_token_of_a_context_was_in_its_document(
    sizes: list[tuple[str, int]], length: int
) -> None:
    """Each document holds one number of its own, so that mixing would show."""
    documents = [document(d, [n] * size) for n, (d, size) in enumerate(sizes)]
    try:
        contexts = cut(documents, NUMBERS, length)
    except CorpusError:
        # Every domain must fill one context, ends of text included.
        assert any(
            sum(size + 1 for d, size in sizes if d == domain) < length + len(sizes)
            for domain, _ in sizes
        )
        return
    for row, domain in zip(contexts.input_ids, contexts.domain, strict=True):
        held = set(row.tolist()) - {END}
        assert len(held) == 1 or all(sizes[n][1] < length for n in held)
        assert {sizes[n][0] for n in held} == {contexts.domains[domain]}
    # One owner never stands for two long documents.
    for owner in set(contexts.document.tolist()):
        held = set(contexts.input_ids[contexts.document == owner].ravel().tolist()) - {END}
        assert len(held) == 1 or all(sizes[n][1] < length for n in held)
    used = Counter(contexts.input_ids.ravel().tolist())
    assert all(used[n] <= size for n, (_, size) in enumerate(sizes))


def test_a_domain_too_short_for_one_context_is_named_with_its_length() -> None:
    documents = [document("long", range(50)), document("short", [1, 2, 3])]
    with pytest.raises(CorpusError, match=r"'short' has 1 documents with 3 tokens.*needs 8"):
        cut(documents, NUMBERS, 8)


def test_no_documents_at_all() -> None:
    with pytest.raises(CorpusError, match="--corpus"):
        cut([], NUMBERS, 8)


documents_of = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 500)), min_size=1, max_size=60
).map(
    lambda sizes: [Document(domain, str(n), "x" * size) for n, (domain, size) in enumerate(sizes)]
)
shares_of = st.dictionaries(
    st.sampled_from(["one", "two", "three"]), st.floats(0.05, 1.0), min_size=1
)


@given(documents_of, shares_of, st.integers(0, 5))
def test_whole_documents_are_dealt_near_the_shares(
    documents: list[Document], shares: dict[str, float], seed: int
) -> None:
    splits = split_documents(documents, shares, seed=seed)
    assert list(splits) == list(shares)
    dealt = [document for part in splits.values() for document in part]
    assert Counter(dealt) == Counter(documents)
    for domain in {document.domain for document in documents}:
        sizes = [len(document.text) for document in documents if document.domain == domain]
        for name, part in splits.items():
            share = shares[name] / sum(shares.values())
            held = sum(len(document.text) for document in part if document.domain == domain)
            # No split passes its share by more than one document.
            assert held <= share * sum(sizes) + max(sizes)


@given(documents_of, st.integers(0, 5))
def test_a_split_depends_on_the_seed_alone(documents: list[Document], seed: int) -> None:
    shares = {"one": 0.5, "two": 0.5}
    assert split_documents(documents, shares, seed=seed) == split_documents(
        documents, shares, seed=seed
    )


def test_another_seed_deals_otherwise() -> None:
    documents = [Document("a", str(n), "x" * (n + 1)) for n in range(40)]
    splits = [split_documents(documents, {"one": 1, "two": 1}, seed=seed) for seed in (0, 1)]
    assert splits[0] != splits[1]


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=5),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
    st.data(),
)
def test_a_mixture_has_its_share_and_no_repeats(
    sizes: list[int], share: float, seed: int, data: st.DataObject
) -> None:
    contexts = some_contexts(*sizes)
    most = int(min(sizes[0] / share, sum(sizes[1:]) / (1 - share)))
    if most == 0:
        with pytest.raises(CorpusError, match="add text"):
            mixture(contexts, None, domain="a", share=share, seed=seed)
        return
    count = data.draw(st.none() | st.integers(1, most))
    mixed = mixture(contexts, count, domain="a", share=share, seed=seed)
    assert len(mixed) == (most if count is None else count)
    assert len(np.unique(mixed.input_ids[:, 0])) == len(mixed)
    assert len(mixed.in_domain("a")) == round(len(mixed) * share)
    again = mixture(contexts, count, domain="a", share=share, seed=seed)
    assert again.digest == mixed.digest
    # Document and domain travel with their tokens.
    np.testing.assert_array_equal(mixed.document, mixed.input_ids[:, 0])


def test_other_domains_share_the_rest_equally_as_far_as_they_go() -> None:
    mixed = mixture(some_contexts(100, 5, 200, 200), 100, domain="a", share=0.25, seed=0)
    assert np.bincount(mixed.domain).tolist() == [25, 5, 35, 35]


def test_a_mixture_of_one_domain_alone() -> None:
    mixed = mixture(some_contexts(9), None, domain="a", share=1.0, seed=0)
    assert len(mixed) == 9


def test_a_mixture_is_shuffled_and_follows_its_seed() -> None:
    contexts = some_contexts(60, 60)
    first, second = (mixture(contexts, 100, domain="a", share=0.5, seed=s) for s in (0, 1))
    assert first.digest != second.digest
    assert 35 < np.flatnonzero(first.domain == 0).mean() < 65  # not one block, then the other


@pytest.mark.parametrize(("sizes", "count"), [((3, 100), 50), ((100, 3), 50), ((0, 10), None)])
def test_too_few_contexts_for_a_mixture_say_how_many_there_are(
    sizes: tuple[int, ...], count: int | None
) -> None:
    with pytest.raises(CorpusError, match=rf"{sizes[0]} from 'a', {sizes[1]} from elsewhere"):
        mixture(some_contexts(*sizes), count, domain="a", share=0.5, seed=0)


def test_selection_keeps_rows_together_and_the_digest_sees_every_part() -> None:
    contexts = some_contexts(3, 3)
    chosen = contexts.select([4, 1])
    assert chosen.input_ids[:, 0].tolist() == chosen.document.tolist() == [4, 1]
    assert chosen.domain.tolist() == [1, 0]
    changed = [
        Examples.contexts(
            contexts.input_ids + 1, contexts.document, contexts.domain, contexts.domains
        ),
        Examples.contexts(
            contexts.input_ids, contexts.document + 1, contexts.domain, contexts.domains
        ),
        Examples.contexts(
            contexts.input_ids, contexts.document, 1 - contexts.domain, contexts.domains
        ),
        Examples.contexts(contexts.input_ids, contexts.document, contexts.domain, ("a", "c")),
        contexts.select([1, 0, 2, 3, 4, 5]),
    ]
    assert len({contexts.digest, *(other.digest for other in changed)}) == 6
