"""What other programs show of an adapter, and the settings that they compute with."""

from __future__ import annotations

import json

import pytest
import torch

from weber.adapters.factors import Factors
from weber.adapters.metadata import build_metadata, build_settings, find_most_common, read_alphas, read_facts

FACTS: dict[str, object] = {
    "steps": 800,
    "num_pictures": 12,
    "lr": 1e-4,
    "optimizer": "adamw",
    "seed": 42,
    "batch_size": 4,
    "guidance": 1.0,
    "timesteps": "sigmoid",
    "model": "owner/name",
    "resolutions": ["832x1216", "1024x1024", "512x512"],
}


def _build(*pairs: tuple[int, float]) -> dict[str, Factors]:
    return {f"blocks.{number}.m": Factors(torch.ones(rank, 2), torch.ones(3, rank), alpha) for number, (rank, alpha) in enumerate(pairs)}


def test_what_is_shown() -> None:
    tags = {"10_fluent": {"red apple": 3}}
    metadata = build_metadata(_build((4, 8.0), (4, 8.0)), architecture="flux-1-dev", title="fluent", facts=FACTS, tags=tags)
    assert metadata == {
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": "4",
        "ss_network_alpha": "8.0",
        "ss_output_name": "fluent",
        "ss_tag_frequency": '{"10_fluent": {"red apple": 3}}',
        "ss_steps": "800",
        "ss_num_train_images": "12",
        "ss_learning_rate": "0.0001",
        "ss_optimizer": "adamw",
        "ss_seed": "42",
        "ss_total_batch_size": "4",
        "ss_guidance_scale": "1.0",
        "ss_timestep_sampling": "sigmoid",
        "ss_sd_model_name": "owner/name",
        "ss_resolution": "1024x1024",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "flux-1-dev/lora",
        "modelspec.title": "fluent",
        "modelspec.resolution": "1024x1024",
    }


def test_only_what_is_known_is_said() -> None:
    metadata = build_metadata(_build((4, 8.0)), architecture="flux-2-klein-4b", title="t", facts={"guidance": None})
    assert not any("None" in value for value in metadata.values())
    assert (metadata["ss_base_model_version"], metadata["ss_network_module"]) == ("flux2", "networks.lora_flux_2")
    assert metadata["modelspec.architecture"] == "flux-2-klein-4b/lora"
    assert "ss_steps" not in metadata and "ss_resolution" not in metadata


def test_settings_name_the_exceptions() -> None:
    settings = json.loads(build_settings(_build((4, 8.0), (4, 8.0), (2, 0.5))))
    assert (settings["transformer.r"], settings["transformer.lora_alpha"]) == (4, 8)
    assert settings["transformer.rank_pattern"] == {"^blocks.2.m": 2}
    assert settings["transformer.alpha_pattern"] == {"^blocks.2.m": 0.5}
    assert "transformer.use_dora" not in settings


@pytest.mark.parametrize("pairs", [((4, 8.0),) * 3, ((4, 8.0), (2, 0.1), (1, 3.0)), ((1, 1.0), (2, 2.0), (3, 3.0))])
def test_alphas_come_back(pairs: tuple[tuple[int, float], ...]) -> None:
    modules = _build(*pairs)
    read = read_alphas(build_settings(modules), {name: factors.rank for name, factors in modules.items()}).by_module
    assert read == {name: factors.alpha for name, factors in modules.items()}


def test_a_name_that_is_the_end_of_another_has_its_own_alpha() -> None:
    modules = {name: Factors(torch.ones(2, 2), torch.ones(2, 2), alpha) for name, alpha in (("a.out", 2.0), ("b.out", 2.0), ("out", 5.0))}
    assert read_alphas(build_settings(modules), dict.fromkeys(modules, 2)).by_module == {"a.out": 2.0, "b.out": 2.0, "out": 5.0}


def test_the_most_common_and_of_several_the_largest() -> None:
    assert find_most_common([1, 2, 2, 3, 3]) == 3
    assert find_most_common([1.5, 1.5, 2.0]) == 1.5


@pytest.mark.parametrize(("text", "facts"), [('{"a": 1}', {"a": 1}), ("[1]", {}), ("{", {}), (None, {})])
def test_facts_of_ours_where_they_are(text: str | None, facts: dict[str, object]) -> None:
    assert read_facts({} if text is None else {"weber": text}) == facts


def test_the_pocket_models_are_of_their_family() -> None:
    facts: dict[str, object] = dict.fromkeys(FACTS)
    metadata = build_metadata(_build((4, 8.0)), architecture="flux-1-pocket", title="t", facts=facts)
    assert metadata == {
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": "4",
        "ss_network_alpha": "8.0",
        "ss_output_name": "t",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "flux-1-pocket/lora",
        "modelspec.title": "t",
    }


@pytest.mark.parametrize("architecture", ["", "unknown"])
def test_nothing_is_said_of_a_model_that_is_not_known(architecture: str) -> None:
    metadata = build_metadata(_build((4, 8.0)), architecture=architecture, title="t", facts={"steps": 3})
    assert metadata == {
        "ss_network_dim": "4",
        "ss_network_alpha": "8.0",
        "ss_output_name": "t",
        "ss_steps": "3",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": "t",
    }
