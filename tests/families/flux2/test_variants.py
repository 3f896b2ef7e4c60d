"""The rows of the table of FLUX.2 models, pinned."""

from __future__ import annotations

from weber.families.family import SampleDefaults
from weber.families.flux2.variants import VARIANTS

BFL = "black-forest-labs/FLUX.2"


def test_rows() -> None:
    rows = {row.name: (row.home, row.architecture, row.text_part, row.text_width, row.sample_defaults) for row in VARIANTS}
    base, distilled = SampleDefaults(50, None, None, 4.0), SampleDefaults(4, None, None, 1.0)
    assert rows == {
        "flux2-dev": (f"{BFL}-dev", "flux-2-dev", "mistral", 15360, SampleDefaults(50, 4.0, 1.0)),
        "flux2-klein-base-4b": (f"{BFL}-klein-base-4B", "flux-2-klein-4b", "qwen", 7680, base),
        "flux2-klein-base-9b": (f"{BFL}-klein-base-9B", "flux-2-klein-9b", "qwen", 12288, base),
        "flux2-klein-4b": (f"{BFL}-klein-4B", "flux-2-klein-4b", "qwen", 7680, distilled),
        "flux2-klein-9b": (f"{BFL}-klein-9B", "flux-2-klein-9b", "qwen", 12288, distilled),
    }


def test_native_size_and_summaries() -> None:
    assert {row.native_pixels for row in VARIANTS} == {1024}
    assert all(row.summary and "\n" not in row.summary for row in VARIANTS)
    assert len({row.summary for row in VARIANTS}) == len(VARIANTS)
