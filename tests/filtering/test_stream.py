from __future__ import annotations

import math
import pickle
from itertools import count, islice

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler
from transformers import BatchEncoding, DataCollatorForSeq2Seq

from secondary_learners.errors import (
    IncompatibleError,
    SecondaryLearnersError,
    UnknownNameError,
)
from secondary_learners.filtering.stream import FilterReport, Selector, filtered
from secondary_learners.filtering.thresholds import Constant, Quantile, Shifting
from tiny_models import word_tokenizer

ALL = Constant(-1e9)
NONE = Constant(1e9)


def flat(batches):
    return [example for batch in batches for example in batch]


def as_limit(threshold, learner):
    match threshold:
        case Constant(value):
            return lambda step, earlier: value
        case Shifting(start, end, after):
            return lambda step, earlier: start if step < after else end
        case Quantile(keep):
            return lambda step, earlier: (
                learner.quantile(1 - keep)
                if len(earlier) < 256
                else np.quantile(earlier[-2048:], 1 - keep)
            )


thresholds = st.one_of(
    st.builds(Constant, st.floats(-3, 3)),
    st.builds(Shifting, st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 6)),
    st.builds(Quantile, st.floats(0.05, 0.95)),
)


@settings(deadline=None, max_examples=20)
@given(thresholds, st.integers(0, 400), st.integers(1, 9), st.integers(1, 7), st.integers(0, 99))
def test_survivors_are_those_of_a_plain_loop(
    learner, make_ids, reference, threshold, size, batch_size, max_skips, seed
):
    sequences = make_ids(size, seed)
    source = [{"place": place, "input_ids": ids} for place, ids in enumerate(sequences)]
    stream = filtered(source, learner, threshold, batch_size=batch_size, max_skips=max_skips)
    batches = list(stream)
    kept, forced = reference(sequences, as_limit(threshold, learner), batch_size, max_skips)
    assert [example["place"] for example in flat(batches)] == kept
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert stream.report == FilterReport(
        seen=size,
        kept=len(kept),
        forced=forced,
        batches=-(-len(kept) // batch_size),
        tokens_seen=sum(map(len, sequences)),
        tokens_kept=sum(len(sequences[place]) for place in kept),
    )
    assert [example["place"] for example in flat(stream)] == kept  # and again, afresh


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 40), max_size=15), thresholds)
def test_select_does_not_depend_on_how_candidates_are_grouped(
    learner, make_ids, reference, sizes, threshold
):
    sequences = make_ids(sum(sizes), 5)
    selector = Selector(learner, threshold, batch_size=4, max_skips=9)
    flags, start = [], 0
    for size in sizes:
        group = [np.array(ids) for ids in sequences[start : start + size]]
        flags += selector.select(group)
        start += size
    kept, _ = reference(sequences, as_limit(threshold, learner), 4, 9)
    assert [place for place, flag in enumerate(flags) if flag] == kept


def test_a_cap_on_skips_takes_the_next_candidate(learner, make_ids):
    stream = filtered(make_ids(100), learner, NONE, max_skips=9)
    assert list(stream) == make_ids(100)[9::10]
    assert (stream.report.kept, stream.report.forced) == (10, 10)


def test_shifting_switches_after_the_batches_it_says(learner, make_ids):
    stream = filtered(make_ids(400), learner, Shifting(1e9, -1e9, 3), batch_size=2, max_skips=7)
    seen = []
    for _ in stream:
        seen.append(stream.report.seen)
    # Each of the first 6 examples comes after 7 skips; from then on all are taken.
    assert seen[:5] == [16, 32, 48, 50, 52]


def test_the_report_counts_no_candidate_that_was_only_read_ahead(learner, make_ids, reference):
    sequences = make_ids(300)
    kept, _ = reference(sequences, lambda step, earlier: 0.5, 4)
    stream = filtered(sequences, learner, 0.5, batch_size=4)
    for number, _ in enumerate(stream, start=1):
        report = stream.report
        assert (report.batches, report.kept) == (number, min(4 * number, len(kept)))
        if 4 * number <= len(kept):
            assert report.seen == kept[4 * number - 1] + 1


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.8, 1.0])
def test_quantile_keeps_about_its_share_of_any_stream(learner, keep):
    random = np.random.default_rng(1)
    # Only tokens 0 to 5: scores far from the learner's own calibration.
    stream = filtered(random.integers(0, 6, (6000, 20)).tolist(), learner, Quantile(keep))
    assert sum(1 for _ in stream) / 6000 == pytest.approx(keep, abs=0.05)
    assert stream.report.forced == 0


def test_leaving_a_one_shot_source_loses_nothing(learner, make_ids):
    sequences = make_ids(300)
    stream = filtered(iter(sequences), learner, ALL, batch_size=4)
    first = [batch for _, batch in zip(range(3), stream, strict=False)]
    assert flat(first) + flat(stream) == sequences
    rows = torch.arange(60).view(20, 3)
    stream = filtered(iter(rows.split(8)), learner, ALL)
    first = next(iter(stream))
    assert torch.equal(torch.cat([first, *stream]), rows)


def test_an_endless_source_is_read_as_needed(learner):
    read = []
    source = ([read.append(number) or number % 64] for number in count())
    assert len(list(islice(filtered(source, learner, 0.0, batch_size=8), 5))) == 5
    assert len(read) < 400


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_examples_of_any_kind_come_back_themselves(learner, kind):
    source = [kind([1, 2, 3]), kind([4]), kind([5, 6])]
    if kind is tuple:
        source = [(torch.tensor([1, 2, 3]), 0), (torch.tensor([4]), 1)]
    assert all(a is b for a, b in zip(filtered(source, learner, ALL), source, strict=True))


def test_padding_changes_neither_choice_nor_token_counts(learner, make_ids):
    sequences = make_ids(200)
    padded = [
        {
            "input_ids": [63] * (12 - len(ids)) + ids,
            "attention_mask": [0] * (12 - len(ids)) + [1] * len(ids),
        }
        for ids in sequences
    ]
    plain, masked = filtered(sequences, learner, 0.3), filtered(padded, learner, 0.3)
    assert [padded.index(example) for example in masked] == [sequences.index(ids) for ids in plain]
    assert masked.report == plain.report


def test_batches_come_back_in_their_own_type_and_size(learner):
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 64, (96, 6)))
    keep = learner.score(ids) >= 0.2
    tensors = list(filtered(ids.split(8), learner, 0.2))
    assert {len(batch) for batch in tensors[:-1]} == {8}
    assert torch.equal(torch.cat(tensors), ids[keep])
    arrays = list(filtered(np.split(ids.numpy(), 12), learner, 0.2))
    assert np.array_equal(np.concatenate(arrays), ids[keep].numpy())
    lists = list(filtered([part.tolist() for part in ids.split(8)], learner, 0.2, batch_size=5))
    assert flat(lists) == ids[keep].tolist()
    assert len(lists[0]) == 5
    encodings = [
        BatchEncoding({"input_ids": part, "labels": part, "weight": part[:, 0].float()})
        for part in ids.split(8)
    ]
    out = list(filtered(encodings, learner, 0.2))
    assert all(isinstance(batch, BatchEncoding) for batch in out)
    assert torch.equal(torch.cat([batch["labels"] for batch in out]), ids[keep])
    assert torch.equal(torch.cat([batch["weight"] for batch in out]), ids[keep][:, 0].float())


def test_batches_of_different_widths_need_a_mask(learner):
    wide, narrow = torch.ones((2, 5), dtype=torch.long), torch.ones((2, 3), dtype=torch.long)
    for source in ([wide, narrow], [{"input_ids": wide}, {"input_ids": narrow}]):
        with pytest.raises(SecondaryLearnersError, match="3 to 5 tokens"):
            list(filtered(source, learner, ALL, batch_size=4))
    masked = [
        {"input_ids": part, "attention_mask": torch.ones_like(part), "labels": part}
        for part in (wide, narrow)
    ]
    (batch,) = filtered(masked, learner, ALL, batch_size=4)
    assert batch["attention_mask"].sum(1).tolist() == [5, 5, 3, 3]
    assert batch["labels"][2].tolist() == [1, 1, 1, -100, -100]


class Examples(torch.utils.data.Dataset):
    def __init__(self, sequences):
        self.sequences = sequences

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, place):
        return {"input_ids": self.sequences[place], "place": place}


class Stream(IterableDataset):
    def __init__(self, sequences):
        self.sequences = sequences

    def __iter__(self):
        yield from ({"input_ids": ids, "place": n} for n, ids in enumerate(self.sequences))


class Collator:
    """Pads; has a tokenizer, as the collators of transformers do."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, examples):
        rows = [torch.tensor(example["input_ids"]) for example in examples]
        return {
            "input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            "place": torch.tensor([example["place"] for example in examples]),
        }


def places(batches):
    return [place for batch in batches for place in batch["place"].tolist()]


@pytest.mark.parametrize("kind", [Examples, Stream])
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_loader_gives_full_batches_of_survivors(
    learner, make_ids, reference, tokenizer, kind, drop_last
):
    sequences = make_ids(203)
    kept, _ = reference(sequences, lambda step, earlier: 0.4, 8)
    loader = DataLoader(
        kind(sequences), batch_size=8, collate_fn=Collator(tokenizer), drop_last=drop_last
    )
    stream = filtered(loader, learner, 0.4)
    batches = list(stream)
    whole = len(kept) // 8
    assert len(kept) % 8  # or drop_last would have nothing to drop
    assert places(batches) == (kept[: whole * 8] if drop_last else kept)
    assert len(batches) == stream.report.batches == whole + (not drop_last)
    assert stream.report.seen == 203
    assert all(batch["input_ids"].shape[0] == 8 for batch in batches[:whole])


def test_a_shuffled_loader_keeps_the_order_it_would_have_without_a_filter(
    learner, make_ids, tokenizer
):
    def make(generator=None):
        return DataLoader(
            Examples(make_ids(90)),
            8,
            shuffle=True,
            collate_fn=Collator(tokenizer),
            generator=generator,
        )

    seeded = make(torch.Generator().manual_seed(3))
    plain = [places(seeded) for _ in range(2)]
    stream = filtered(make(torch.Generator().manual_seed(3)), learner, ALL)
    assert [places(stream) for _ in range(2)] == plain
    assert plain[0] != plain[1]
    assert sorted(plain[0]) == list(range(90))
    torch.manual_seed(5)
    plain_global = places(make())
    torch.manual_seed(5)
    assert places(filtered(make(), learner, ALL)) == plain_global


def test_workers_change_nothing(learner, make_ids, tokenizer):
    results = [
        places(
            filtered(
                DataLoader(
                    Examples(make_ids(70)),
                    8,
                    collate_fn=Collator(tokenizer),
                    num_workers=workers,
                    multiprocessing_context="fork" if workers else None,
                ),
                learner,
                0.0,
            )
        )
        for workers in (0, 2)
    ]
    assert results[0] == results[1] != []


def test_loaders_with_their_own_batching(learner, make_ids, tokenizer):
    examples = Examples(make_ids(50))
    sampler = BatchSampler(SequentialSampler(examples), 6, drop_last=False)
    loader = DataLoader(examples, batch_sampler=sampler, collate_fn=Collator(tokenizer))
    batches = list(filtered(loader, learner, ALL))
    assert [len(batch["place"]) for batch in batches] == [6] * 8 + [2]
    assert places(batches) == list(range(50))
    groups = DataLoader(examples, batch_sampler=[[3, 4], [5]], collate_fn=Collator(tokenizer))
    with pytest.raises(SecondaryLearnersError, match="batch_size=16"):
        filtered(groups, learner, ALL)
    assert places(filtered(groups, learner, ALL, batch_size=3)) == [3, 4, 5]
    ready = DataLoader([torch.full((4, 5), n) for n in range(3)], batch_size=None)
    batches = list(filtered(ready, learner, ALL, batch_size=6))
    assert [tuple(batch.shape) for batch in batches] == [(6, 5), (6, 5)]


def test_a_collator_of_transformers_and_a_tensor_dataset(learner):
    tokenizer = word_tokenizer([f"t{number}" for number in range(64)], "t0", pad_token="t0")
    source = [{"input_ids": [n] * (1 + n % 3), "labels": [n] * (1 + n % 3)} for n in range(20)]
    loader = DataLoader(source, 4, collate_fn=DataCollatorForSeq2Seq(tokenizer))
    batches = list(filtered(loader, learner, ALL))
    assert torch.equal(batches[0]["labels"][0], torch.tensor([0, -100, -100]))
    assert [row[0] for batch in batches for row in batch["input_ids"].tolist()] == list(range(20))
    ids = torch.randint(0, 64, (30, 5))
    pairs = DataLoader(torch.utils.data.TensorDataset(ids, torch.arange(30)), 4)
    out = list(filtered(pairs, learner, 0.1))
    assert torch.equal(torch.cat([n for _, n in out]), torch.where(learner.score(ids) >= 0.1)[0])


def test_a_foreign_tokenizer_is_refused(learner, tokenizer, make_ids):
    foreign = type(tokenizer)(65)
    loader = DataLoader(Examples(make_ids(9)), 3, collate_fn=Collator(foreign))
    with pytest.raises(IncompatibleError, match="tiny/base"):
        filtered(loader, learner, 0.0)
    with pytest.raises(IncompatibleError, match="tiny/base"):
        filtered(make_ids(9), learner, 0.0, tokenizer=foreign)
    assert list(filtered(make_ids(9), learner, ALL, tokenizer=tokenizer)) == make_ids(9)


def test_a_dataset_keeps_its_columns_and_order(learner, make_ids, reference):
    sequences = make_ids(1300)
    source = datasets.Dataset.from_dict(
        {"input_ids": sequences, "place": list(range(1300))}
    ).with_format("torch")
    out = filtered(source, learner, 0.5)
    kept, _ = reference(sequences, lambda step, earlier: 0.5, 1)
    assert isinstance(out, datasets.Dataset)
    assert out.features == source.features
    assert out.format["type"] == "torch"
    assert out["place"][:].tolist() == kept
    assert (out.report.seen, out.report.kept) == (1300, len(kept))
    with pytest.raises(SecondaryLearnersError, match=r"it has input_ids, place.*key=NAME"):
        filtered(source, learner, 0.5, key="ids")
    shifted = filtered(source, learner, Shifting(1e9, -1e9, 2), batch_size=5, max_skips=10)
    assert shifted["place"][:3].tolist() == [10, 21, 32]
    assert shifted["place"][:].tolist()[10:] == list(range(110, 1300))


def test_a_streamed_parquet_file_is_filtered_on_the_fly(learner, make_ids, reference, tmp_path):
    sequences = make_ids(500)
    table = pyarrow.table({"input_ids": sequences, "place": list(range(500))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=70)
    source = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "a.parquet"),
        split="train",
        streaming=True,
        cache_dir=str(tmp_path / "cache"),
    )
    out = filtered(source, learner, Shifting(0.8, -0.2, 3), batch_size=4)
    kept, _ = reference(sequences, as_limit(Shifting(0.8, -0.2, 3), learner), 4)
    assert isinstance(out, datasets.IterableDataset)
    assert out.features == source.features
    for _ in range(2):  # every iteration starts the filter afresh
        assert [example["place"] for example in out] == kept
        assert (out.report.seen, out.report.kept) == (500, len(kept))
        assert out.report.batches == math.ceil(len(kept) / 4)
    assert next(iter(out))["place"] == kept[0]
    assert out.report.seen < 500
    assert [example["place"] for example in out.with_format("torch")] == kept
    assert str(len(kept)) in str(pickle.loads(pickle.dumps(out)).report)
    with pytest.raises(SecondaryLearnersError, match="no column 'text'"):
        filtered(source, learner, 0.0, key="text")


def test_an_iterable_dataset_from_a_generator(learner, make_ids):
    def generate():
        yield from ({"input_ids": ids} for ids in make_ids(150))

    source = datasets.IterableDataset.from_generator(generate)
    out = list(filtered(source, learner, 0.0))
    assert out == [{"input_ids": ids} for ids in filtered(make_ids(150), learner, 0.0)]
    loader = DataLoader(filtered(source, learner, 0.0), batch_size=None)
    assert [example["input_ids"] for example in loader] == [row["input_ids"] for row in out]


def test_candidates_are_scored_together(learner, make_ids):
    learner.calls = 0
    list(filtered(make_ids(640), learner, ALL, batch_size=16))
    assert learner.calls == 10


@pytest.mark.parametrize(
    ("source", "threshold", "options", "message"),
    [
        ([[1]], Shifting(), {}, "batch_size=16"),
        ([{"text": "a"}], 0.0, {}, "it has 'text'.*key=NAME"),
        ([{"input_ids": "a"}], 0.0, {}, "not one row of integers"),
        ([[0.5]], 0.0, {}, "not one row of integers"),
        (["text"], 0.0, {}, "not one row of integers"),
        ("text", 0.0, {}, "many examples, not one str"),
        ({"train": [[1]]}, 0.0, {}, "one split of it"),
        ([[1]], 0.0, {"max_skips": 0}, "max_skips is 0"),
        ([[1]], 0.0, {"batch_size": -2}, "batch_size is -2"),
        ([{"input_ids": [[1], [2]], "n": 3}], 0.0, {}, "'n' of a batch does not have one row"),
    ],
)
def test_misuse_says_what_to_try(learner, source, threshold, options, message):
    with pytest.raises(SecondaryLearnersError, match=message):
        list(filtered(source, learner, threshold, **options))


def test_thresholds_may_be_numbers_and_text(learner, make_ids):
    for threshold in (1, 1.0, "1", "constant:1", Constant(1.0)):
        assert list(filtered(make_ids(99), learner, threshold)) == list(
            filtered(make_ids(99), learner, Constant(1.0))
        )
    with pytest.raises(UnknownNameError, match="constnat"):
        filtered(make_ids(9), learner, "constnat:1")


def test_empty_examples_and_sources(learner):
    assert list(filtered([], learner, ALL, batch_size=4)) == []
    assert list(filtered([[], [1], []], learner, ALL)) == [[], [1], []]


def test_reports_read_well():
    report = FilterReport(seen=1000, kept=250, forced=2, batches=16, tokens_seen=9, tokens_kept=3)
    assert str(report) == (
        "250 of 1,000 candidates kept (25 %, 2 forced), 3 of 9 tokens, 16 batches"
    )
