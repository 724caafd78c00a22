"""What `filtered` makes of a DataLoader: batches of survivors, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader

from secondary_learners.errors import SecondaryLearnersError
from secondary_learners.filtering.dealing import Dealer
from secondary_learners.filtering.reading import Candidates
from secondary_learners.filtering.selection import FilterReport, Selector, size

__all__ = ["FilteredLoader"]


class FilteredLoader:
    """What `filtered` makes of a DataLoader: iterate it for batches of survivors.

    The examples come in the loader's own order, from its own sampler and workers, and its own
    `collate_fn` makes the batches. It has no length: how many batches survive shows at the end.

    joint: all processes yield equally many batches, of one size. Each reads and filters its own
    shard; after every 64 candidates they exchange counts, and one with survivors to spare gives
    them to one that lacks some. At the end, fewer survivors than there are processes may be left
    out. Every process has to iterate as far as the others.

    `state_dict`, between two batches, says where an iteration stands; a loader of the same data
    that has loaded it goes on with the next batch. It can stand for a StatefulDataLoader.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        selector: Callable[..., Selector],
        *,
        batch_size: int | None,
        key: str,
        joint: bool,
    ) -> None:
        self.dataset, self.sampler = loader.dataset, loader.sampler
        self.collate_fn, self.drop_last = loader.collate_fn, loader.drop_last
        self.batch_size = batch_size or loader.batch_size or _size_of(loader.batch_sampler)
        self._device = getattr(loader, "device", None)  # where accelerate moves batches to
        self._candidates, self._key, self._joint = Candidates(loader), key, joint
        self._new_selector = selector
        self._selector = selector(batch_size=self.batch_size)
        self._dealer: Dealer | None = None
        self._pending: list[Any] = []
        self._batches = self._decided = 0
        self._running = False
        self._resumed: Mapping[str, Any] | None = None

    @property
    def report(self) -> FilterReport:
        """What the newest iteration did so far, with this process's own candidates."""
        return self._selector.report(self._batches)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to the sampler, before an iteration."""
        self._candidates.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        if self._dealer is None:
            self._dealer = Dealer(joint=self._joint)
        dealer, size = self._dealer, self.batch_size
        state, self._resumed = self._resumed, None
        self._begin(state, dealer)
        chunks = self._candidates.chunks(state["candidates"] if state else None)
        chunk = _Chunk(next(chunks, []) if state else [], self._selector, self._key)
        finished = False
        while True:
            waiting, all_finished = dealer.exchange(len(self._pending), finished)
            while sum(waiting) >= dealer.processes * size:
                yield self._batch(dealer.deal(self._pending, waiting, size))
            if all_finished:
                break
            if self._decided == len(chunk.examples) and not finished:
                chunk = _Chunk(next(chunks, []), self._selector, self._key)
                self._decided, finished = 0, not chunk.examples
            self._decide(chunk, until=None if self._joint else size)
        share = sum(waiting) // dealer.processes
        if share and not self.drop_last:
            yield self._batch(dealer.deal(self._pending, waiting, share))
        self._running = False

    def _begin(self, state: Mapping[str, Any] | None, dealer: Dealer) -> None:
        self._selector = self._new_selector(batch_size=self.batch_size)
        self._pending, self._batches, self._decided = [], 0, 0
        self._running = True
        if state is None:
            return
        if state["processes"] != dealer.processes:
            raise SecondaryLearnersError(
                f"the state of the loader is that of {state['processes']} processes, and these are "
                f"{dealer.processes}. Resume with as many."
            )
        self._selector.load_state_dict(state["selector"])
        self._pending, self._batches = list(state["pending"]), state["batches"]
        self._decided = state["decided"]

    def _decide(self, chunk: _Chunk, *, until: int | None) -> None:
        """Decide on the rest of a chunk, or on what makes `until` examples wait."""
        while self._decided < len(chunk.examples) and len(self._pending) != until:
            place = self._decided
            step = self._batches + len(self._pending) // self.batch_size
            if self._selector.decide(chunk.scores[place], chunk.lengths[place], step=step):
                self._pending.append(chunk.examples[place])
            self._decided += 1

    def _batch(self, examples: list[Any]) -> Any:
        self._batches += 1
        batch = self.collate_fn(examples)
        if self._device is None:
            return batch
        from accelerate.utils import send_to_device

        return send_to_device(batch, self._device)

    def state_dict(self) -> dict[str, Any]:
        """Where the newest iteration stands after the batch it yielded last.

        Returns:
            The filter's state, survivors that are not yet in a batch, and where the candidates
            begin that are not decided on; empty before and after an iteration.
        """
        if not self._running:
            return {}
        assert self._dealer is not None
        return {
            "selector": self._selector.state_dict(),
            "candidates": self._candidates.state_dict(),
            "decided": self._decided,
            "pending": list(self._pending),
            "batches": self._batches,
            "processes": self._dealer.processes,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on from `state`, as `state_dict` gave it in this process."""
        self._resumed = state or None


class _Chunk:
    """Candidates with their scores and numbers of tokens."""

    def __init__(self, examples: list[Any], selector: Selector, key: str) -> None:
        candidates = [selector.read(example, key) for example in examples]
        self.examples, self.scores = examples, selector.scores(candidates)
        self.lengths = list(map(size, candidates))


def _size_of(batch_sampler: Any) -> int:
    size = getattr(batch_sampler, "batch_size", None)
    if not isinstance(size, int):
        raise SecondaryLearnersError(
            f"the batch sampler {type(batch_sampler).__name__} does not tell its batch size. "
            "Try filtered(..., batch_size=16)."
        )
    return size
