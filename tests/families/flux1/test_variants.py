"""The rows of the table of models, pinned."""

from __future__ import annotations

from weber.families.family import SampleDefaults
from weber.families.flux1.variants import POCKET, VARIANTS


def test_rows() -> None:
    rows = {row.name: (row.home, row.has_guidance, row.text_tokens, row.native_pixels, row.sample_defaults) for row in VARIANTS}
    assert rows == {
        "flux1-dev": ("black-forest-labs/FLUX.1-dev", True, 512, 1024, SampleDefaults(28, 3.5, 1.0)),
        "flux1-krea": ("black-forest-labs/FLUX.1-Krea-dev", True, 512, 1024, SampleDefaults(28, 4.5, 1.0)),
        "flux1-schnell": ("black-forest-labs/FLUX.1-schnell", False, 256, 1024, SampleDefaults(4, None, None)),
        "pocket": (str(POCKET), True, 24, 64, SampleDefaults(20, 2.0, 1.0)),
    }


def test_the_first_row_is_the_default_and_summaries_are_one_line() -> None:
    assert VARIANTS[0].name == "flux1-dev"
    assert all(row.summary and "\n" not in row.summary for row in VARIANTS)
