"""Under which license each variant is given, as cards of the hub say it."""

from __future__ import annotations

from weber.families.table import FAMILIES

LICENSES = {name: row.licenses[name].build_lines() for row in FAMILIES for name in row.variants}


def test_every_variant_has_one() -> None:
    assert all(row.licenses.keys() == row.variants.keys() for row in FAMILIES)
    assert {lines["license"] for lines in LICENSES.values()} == {"apache-2.0", "other"}
    for name, lines in LICENSES.items():
        is_own = lines["license"] == "other"
        assert set(lines) == {"license", "license_name", "license_link"} if is_own else set(lines) == {"license"}, name
        if is_own:
            link = lines["license_link"]
            assert link.startswith("https://huggingface.co/black-forest-labs/") and "/blob/main/LICENSE" in link


def test_of_the_published_ones() -> None:
    assert LICENSES["flux1-schnell"] == LICENSES["flux2-klein-4b"] == {"license": "apache-2.0"}
    assert LICENSES["flux1-dev"]["license_name"] == "flux-1-dev-non-commercial-license"
    assert LICENSES["flux2-klein-base-9b"] == {
        "license": "other",
        "license_name": "flux-non-commercial-license",
        "license_link": "https://huggingface.co/black-forest-labs/FLUX.2-klein-base-9B/blob/main/LICENSE.md",
    }
