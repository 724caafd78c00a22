from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secondary_learners.text.splitting import deal


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(0, 5))
def test_every_document_has_one_part_near_its_share(sizes: list[int], seed: int) -> None:
    shares = [0.5, 0.3, 0.2]
    parts = deal(sizes, shares, seed=seed)
    filled = np.bincount(parts, weights=sizes, minlength=3)
    # Greedy: a part stops being the emptiest once past its share, by one document at the most.
    assert (filled <= np.array(shares) * sum(sizes) + max(sizes)).all()
    np.testing.assert_array_equal(parts, deal(sizes, shares, seed=seed))
