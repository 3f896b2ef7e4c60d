"""The rows of the table of models, pinned."""

from __future__ import annotations

from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

from weber.families.family import PictureInputs, SampleDefaults
from weber.families.flux1.variants import KONTEXT_SIZES, POCKET, VARIANTS

ROWS = {row.name: row for row in VARIANTS}
BFL = "black-forest-labs/FLUX.1-"


def test_homes_and_samplers() -> None:
    assert {name: (row.home, row.sample_defaults) for name, row in ROWS.items()} == {
        "flux1-krea": (BFL + "Krea-dev", SampleDefaults(28, 4.5, 1.0)),
        "flux1-dev": (BFL + "dev", SampleDefaults(28, 3.5, 1.0)),
        "flux1-schnell": (BFL + "schnell", SampleDefaults(4, None, None, timesteps="fast")),
        "flux1-kontext": (BFL + "Kontext-dev", SampleDefaults(28, 2.5, 1.0)),
        "flux1-fill": (BFL + "Fill-dev", SampleDefaults(50, 30.0, 1.0)),
        "fluxbooru": ("terminusresearch/fluxbooru-v0.3", SampleDefaults(28, 3.5, 3.5, cfg=6.0)),
        "libreflux": ("jimmycarter/LibreFlux-SimpleTuner", SampleDefaults(28, None, None, cfg=6.0)),
        "pocket": (str(POCKET), SampleDefaults(20, 2.0, 1.0)),
    }


def test_inputs() -> None:
    assert {name: (row.in_channels, row.has_guidance, row.text_tokens, row.masks_text) for name, row in ROWS.items()} == {
        "flux1-krea": (64, True, 512, False),
        "flux1-dev": (64, True, 512, False),
        "flux1-schnell": (64, False, 256, False),
        "flux1-kontext": (64, True, 512, False),
        "flux1-fill": (384, True, 512, False),
        "fluxbooru": (64, True, 512, False),
        "libreflux": (64, False, 512, True),
        "pocket": (64, True, 24, False),
    }


def test_pictures() -> None:
    assert {name: row.picture_inputs for name, row in ROWS.items() if row.picture_inputs != PictureInputs()} == {
        "flux1-kontext": PictureInputs(max_references=8, sizes=tuple(PREFERRED_KONTEXT_RESOLUTIONS)),
        "flux1-fill": PictureInputs(repaints=True, mask_channels=64),
    }
    assert len(set(KONTEXT_SIZES)) == 17


def test_what_files_say_of_themselves() -> None:
    assert {name: row.architecture for name, row in ROWS.items()} == {
        "flux1-krea": "flux-1-dev",
        "flux1-dev": "flux-1-dev",
        "flux1-schnell": "flux-1-schnell",
        "flux1-kontext": "flux-1-kontext",
        "flux1-fill": "flux-1-fill",
        "fluxbooru": "flux-1-dev",
        "libreflux": "flux-1-schnell",
        "pocket": "flux-1-pocket",
    }


def test_only_the_distilled_one_has_an_assistant() -> None:
    assert {name: row.assistant for name, row in ROWS.items() if row.assistant} == {
        "flux1-schnell": "ostris/FLUX.1-schnell-training-adapter"
    }


def test_the_first_row_is_the_default_and_summaries_are_one_line() -> None:
    assert VARIANTS[0].name == "flux1-krea"
    assert all(row.summary and "\n" not in row.summary for row in VARIANTS)


def test_rows_that_are_recognized_differ_in_their_files() -> None:
    looks = [(row.in_channels, row.has_guidance, row.pipeline, row.text_width) for row in VARIANTS if not row.is_twin]
    assert len(looks) == len(set(looks)) == 5
