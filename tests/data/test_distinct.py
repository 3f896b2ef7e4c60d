"""Distinct texts of several lists are those of a dictionary, in its order."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weber.data.distinct import DistinctTexts


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "ä", "\udcff", "a "]), max_size=6), max_size=4))
def test_they_are_those_of_a_dictionary(sources: list[list[str]]) -> None:
    texts, expected = DistinctTexts(sources), list(dict.fromkeys(chain.from_iterable(sources)))
    assert list(texts) == expected and len(texts) == len(expected)
    assert [texts[number] for number in range(-len(expected), len(expected))] == expected * 2
    assert texts[1:3] == expected[1:3]
    with pytest.raises(IndexError):
        texts[len(expected)]
