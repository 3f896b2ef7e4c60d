"""Cards and amounts of memory, as people write them."""

from __future__ import annotations

import pytest

from weber.errors import ConfigError
from weber.memory.cards import CARDS, find_card, find_driver_card, read_amount, read_wish
from weber.memory.rates import GIB, build_rates

GB = 10**9


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("24", 24 * GB),
        ("24.5", int(24.5 * GB)),
        ("24G", 24 * GB),
        ("24 gb", 24 * GB),
        ("11.5 GiB", int(11.5 * GIB)),
        ("11,5GiB", int(11.5 * GIB)),
        ("24000MB", 24 * GB),
        ("24576 MiB", 24 * GIB),
        ("512m", 512 * 10**6),
        ("RTX 4090", None),
        ("GB", None),
        ("24 apples", None),
        ("", None),
    ],
)
def test_any_number_and_unit_is_an_amount(text: str, num_bytes: int | None) -> None:
    assert read_amount(text) == num_bytes


@pytest.mark.parametrize(
    ("text", "name", "num_gb"),
    [
        ("RTX 4090", "RTX 4090", 24),
        ("rtx4090", "RTX 4090", 24),
        ("4090", "RTX 4090", 24),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 24),
        ("RTX 4070 Ti Super", "RTX 4070 Ti SUPER", 16),
        ("3090ti", "RTX 3090 Ti", 24),
        ("RTX 3080", "RTX 3080", 10),
        ("RTX 3080 12GB", "RTX 3080", 12),
        ("RTX 3080 12 GB", "RTX 3080", 12),
        ("A100-80GB", "A100", 80),
        ("A100", "A100", 40),
        ("T4", "Tesla T4", 16),
        ("h100 pcie", "H100 PCIe", 80),
        ("RTX A6000", "RTX A6000", 48),
    ],
)
def test_a_card_is_known_by_the_names_that_people_give_it(text: str, name: str, num_gb: int) -> None:
    wish = read_wish(text, key="--card")
    assert (wish.card.name, wish.num_bytes, wish.is_named) == (name, num_gb * GB, True)
    assert wish.title == f"{name} ({num_gb} GB)"


@pytest.mark.parametrize(
    ("text", "name"), [("24GB", "RTX 4090"), ("24GiB", "RTX 4090"), ("6GB", "RTX 4060"), ("14", "RTX 4080"), ("300GB", "B200")]
)
def test_an_amount_is_a_card_that_has_so_much(text: str, name: str) -> None:
    wish = read_wish(text, key="memory.fit")
    assert wish.card.name == name and not wish.is_named and wish.title.startswith("a GPU with ")
    assert wish.card.has_bf16


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("RTX 4090 Laptop", "how much memory the card has"),
        ("RTX 4095", "how much memory the card has"),
        ("GTX 4090", "'RTX 4090'"),
        ("Voodoo 2", "how much memory the card has"),
        ("M2 Max", "how much memory it has"),
        ("24TB", "how much memory the card has"),
        ("all", "write 'auto'"),
        ("24GB VRAM", "write '24GB'"),
        ("24gb of vram", "write '24GB'"),
        ("24 gigabytes", "write '24GB'"),
        ("24Go", "write '24GB'"),
        ("~24GB", "write '24GB'"),
        ("24GB free", "write '24GB'"),
        ("1e3GB", "write '1000GB'"),
        ("A100 40", "write 'A100 40GB'"),
        ("3080-12", "write 'RTX 3080 12GB'"),
        ("H100x8", "write 'H100': a run trains on one GPU"),
        ("8xH100", "write 'H100': a run trains on one GPU"),
        ("2 x 24GB", "write '24GB': a run trains on one GPU"),
        ("24GB+16GB", "write '24GB': a run trains on one GPU"),
        ("4090 Ti", "write 'RTX 4090'"),
        ("2080 super", "write 'RTX 2080'"),
        ("A100 PCIe", "write 'A100'"),
        ("RTX PRO 6000 Blackwell", "write 'RTX PRO 6000'"),
        ("P100", "how much memory the card has"),
        ("M3 Max", "of NVIDIA's GPUs only"),
        ("RX 7900 XTX", "of NVIDIA's GPUs only"),
        ("MI300X", "of NVIDIA's GPUs only"),
        ("Arc A770 16GB", "of NVIDIA's GPUs only"),
        ("TPU v4", "of NVIDIA's GPUs only"),
        ("cuda:0", "write 'auto'"),
        ("gpu", "write 'auto'"),
        ("-3GB", "write '3GB'"),
        ("inf", "how much memory the card has"),
        ("4090 Laptop 16", "how much memory the card has"),
    ],
)
def test_what_is_no_card_is_refused_with_all_that_are(text: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_wish(text, key="memory.fit")
    assert fix in caught.value.fix and f"memory.fit = {text!r}" in caught.value.got and "RTX 4090" in caught.value.expected


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("24000", "No GPU has so much memory.", "write '24000MB', if these are MB"),
        ("24576", "No GPU has so much memory.", "write '24576MB', if these are MB"),
        ("10000GB", "No GPU has so much memory.", "the memory of one card"),
        ("0", "A GPU without memory", "the memory of one card"),
        ("0GB", "A GPU without memory", "the memory of one card"),
    ],
)
def test_an_amount_that_no_card_has_is_refused(text: str, what: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_wish(text, key="--card")
    assert caught.value.what.startswith(what) and fix in caught.value.fix and f"--card = {text!r}" in caught.value.got


def test_this_gpu_needs_no_card() -> None:
    with pytest.raises(ConfigError, match="leave --card out"):
        read_wish("gpu", key="--card")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_is_found_by_its_own_name(card: object) -> None:
    name = getattr(card, "name")  # noqa: B009
    assert find_card(name) is card and find_driver_card(f"NVIDIA {name}") is card
    assert build_rates(name) is not None


@pytest.mark.parametrize(("name", "has_bf16"), [("RTX 3060", True), ("RTX 2080 Ti", False), ("T4", False), ("V100", False), ("A10", True)])
def test_old_cards_do_not_compute_in_bf16(name: str, has_bf16: bool) -> None:
    assert read_wish(name, key="--card").card.has_bf16 == has_bf16


def test_a_card_of_a_laptop_is_not_that_of_its_name() -> None:
    assert find_driver_card("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    assert build_rates("NVIDIA GeForce RTX 3080 with Max-Q Design") is None
