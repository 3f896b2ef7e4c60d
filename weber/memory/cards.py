"""GPUs by their names: what their datasheets say, for plans of machines that are not here, and for times.

A card may be named as its maker does, or shortly (`4090`), with an amount of memory behind it where there are several (`RTX 3080 12GB`); or
by its memory alone (`24GB`), for which a common one stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from weber.config.near import find_near
from weber.errors import ConfigError

_GB, _GIB, _MB, _MIB = 10**9, 2**30, 10**6, 2**20
_UNITS = {"": _GB, "g": _GB, "gb": _GB, "gib": _GIB, "m": _MB, "mb": _MB, "mib": _MIB}
_AMOUNT = re.compile(r"(\d+(?:[.,]\d+)?)\s*(g|gb|gib|m|mb|mib)?", re.IGNORECASE)
_BOTH = re.compile(r"(.+?)[\s-]+(\d+(?:[.,]\d+)?\s*(?:g|gb|gib|m|mb|mib))", re.IGNORECASE)
_WORDY = re.compile(r"\D*?(\d+(?:[.,]\d+)?(?:e\d+)?)\s*(g|m)(?:i?b|o|iga|ega|igabytes?|egabytes?)?\b[^\d+x*]*", re.IGNORECASE)
_BARE = re.compile(r"(.+?)[\s-]+(\d+)")
_SEVERAL = re.compile(r"(?:(\d+)\s*[x*×]\s*(?P<last>.+)|(?P<first>.+?)\s*[x*×]\s*(\d+)|(?P<one>[^+,]+?)\s*[+,].+)", re.IGNORECASE)
_OTHERS = re.compile(r"\b(apple|m[1-5]|mps|amd|radeon|rx|mi\d+x?|intel|arc|tpu|cpu)\b", re.IGNORECASE)
_THIS = ("auto", "gpu", "cuda", "this", "local", "here", "max", "all", "full", "on", "true")
_NOISE = re.compile(r"nvidia|geforce|quadro|tesla|gpu|generation|graphics|card|sxm\d?|hbm\d?e?")


@dataclass(frozen=True)
class Card:
    """A GPU: TFLOP/s dense with fp32 accumulation (bf16, fp32 without tensor cores, fp8, int8), GB/s of its memory and from the host as
    measured, GB of memory of each kind that is sold.

    0: it has no such units, and computes in the next wider ones.
    """

    name: str
    bf16: float
    fp32: float
    fp8: float
    int8: float
    bandwidth: float
    link: float
    sizes_gb: tuple[int, ...]

    @property
    def has_bf16(self) -> bool:
        """Whether it computes in bf16: those before 2020 do not."""
        return self.bf16 > self.fp32


CARDS = (
    Card("B200", 2250, 80, 4500, 4500, 8000, 50, (180,)),
    Card("GH200", 989, 67, 1979, 1979, 4000, 300, (96,)),
    Card("H200", 989, 67, 1979, 1979, 4800, 50, (141,)),
    Card("H100 PCIe", 756, 51, 1513, 1513, 2000, 50, (80,)),
    Card("H100 NVL", 835, 60, 1671, 1671, 3938, 50, (94,)),
    Card("H100", 989, 67, 1979, 1979, 3350, 50, (80,)),
    Card("H20", 148, 44, 296, 296, 4000, 50, (96,)),
    Card("A100", 312, 19.5, 0, 624, 1555, 24, (40, 80)),
    Card("A40", 149.7, 37.4, 0, 299, 696, 24, (48,)),
    Card("A30", 165, 10.3, 0, 330, 933, 24, (24,)),
    Card("A10G", 70, 35, 0, 140, 600, 24, (24,)),
    Card("A10", 125, 31.2, 0, 250, 600, 24, (24,)),
    Card("L40S", 362, 91.6, 733, 733, 864, 24, (48,)),
    Card("L40", 181, 90.5, 362, 362, 864, 24, (48,)),
    Card("L4", 121, 30.3, 242, 242, 300, 24, (24,)),
    Card("RTX PRO 6000", 503, 125, 1007, 1007, 1792, 50, (96,)),
    Card("RTX 6000 Ada", 364, 91, 728, 728, 960, 24, (48,)),
    Card("RTX A6000", 154.8, 38.7, 0, 309, 768, 24, (48,)),
    Card("RTX A5000", 111, 27.8, 0, 222, 768, 24, (24,)),
    Card("RTX A4000", 76.7, 19.2, 0, 153, 448, 24, (16,)),
    Card("RTX 5090", 209.5, 104.8, 419, 838, 1792, 50, (32,)),
    Card("RTX 5080", 112.6, 56.3, 225, 450, 960, 50, (16,)),
    Card("RTX 5070 Ti", 88, 44, 176, 352, 896, 50, (16,)),
    Card("RTX 5070", 61.7, 30.9, 123, 247, 672, 50, (12,)),
    Card("RTX 5060 Ti", 47.4, 23.7, 95, 190, 448, 25, (8, 16)),
    Card("RTX 5060", 38.4, 19.2, 77, 154, 448, 25, (8,)),
    Card("RTX 4090", 165.2, 82.6, 330, 660, 1008, 24, (24,)),
    Card("RTX 4080 SUPER", 104.4, 52.2, 209, 418, 736, 24, (16,)),
    Card("RTX 4080", 97.5, 48.7, 195, 390, 717, 24, (16,)),
    Card("RTX 4070 Ti SUPER", 88.2, 44.1, 176, 353, 672, 24, (16,)),
    Card("RTX 4070 Ti", 80.2, 40.1, 160, 321, 504, 24, (12,)),
    Card("RTX 4070 SUPER", 71, 35.5, 142, 284, 504, 24, (12,)),
    Card("RTX 4070", 58.3, 29.1, 117, 233, 504, 24, (12,)),
    Card("RTX 4060 Ti", 44.1, 22.1, 88, 177, 288, 12, (8, 16)),
    Card("RTX 4060", 30.2, 15.1, 60, 121, 272, 12, (8,)),
    Card("RTX 3090 Ti", 80, 40, 0, 320, 1008, 24, (24,)),
    Card("RTX 3090", 71, 35.6, 0, 284, 936, 24, (24,)),
    Card("RTX 3080 Ti", 68, 34.1, 0, 273, 912, 24, (12,)),
    Card("RTX 3080", 59.5, 29.8, 0, 238, 760, 24, (10, 12)),
    Card("RTX 3070 Ti", 43.5, 21.7, 0, 174, 608, 24, (8,)),
    Card("RTX 3070", 40.6, 20.3, 0, 163, 448, 24, (8,)),
    Card("RTX 3060 Ti", 32.4, 16.2, 0, 130, 448, 24, (8,)),
    Card("RTX 3060", 25.5, 12.7, 0, 102, 360, 24, (8, 12)),
    Card("RTX 2080 Ti", 13.4, 13.4, 0, 215, 616, 12, (11,)),
    Card("RTX 2080", 10.1, 10.1, 0, 161, 448, 12, (8,)),
    Card("RTX 2070", 7.5, 7.5, 0, 119, 448, 12, (8,)),
    Card("RTX 2060", 6.5, 6.5, 0, 103, 336, 12, (6, 12)),
    Card("Tesla T4", 8.1, 8.1, 0, 130, 320, 12, (16,)),
    Card("V100", 15.7, 15.7, 0, 0, 900, 12, (16, 32)),
)

_COMMON = {8: "RTX 4060", 10: "RTX 3080", 12: "RTX 4070", 16: "RTX 4080", 24: "RTX 4090", 32: "RTX 5090", 48: "L40S", 80: "H100"}
_COMMON |= {96: "RTX PRO 6000", 141: "H200", 180: "B200"}
"""What stands for a card of which only the memory is known, GB -> name."""


_MOST_BYTES = 1000 * _GB
_NUM_LETTERS = 4


@dataclass(frozen=True)
class Wish:
    """A card that was asked for. `is_named`: not by its memory alone."""

    card: Card
    num_bytes: int
    is_named: bool

    @property
    def title(self) -> str:
        """For a person."""
        size = f"{self.num_bytes / _GB:.3g} GB"
        return f"{self.card.name} ({size})" if self.is_named else f"a GPU with {size}"


def read_amount(text: str) -> int | None:
    """Bytes of an amount of memory: a number of GB, or with G, GB, GiB, M, MB or MiB; None for anything else."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        return None
    return int(float(match[1].replace(",", ".")) * _UNITS[(match[2] or "").lower()])


def read_wish(text: str, *, key: str) -> Wish:
    """The card that a text means. Raises ConfigError, naming `key`, for what is none, with what is near."""
    found = find_card(text)
    if found is not None:
        return Wish(found, min(found.sizes_gb) * _GB, True)
    amount = read_amount(text)
    if amount is not None:
        _check_amount(amount, text, key=key)
        size = next((size for size in _COMMON if size * _GIB >= amount), max(_COMMON))
        return Wish(next(card for card in CARDS if card.name == _COMMON[size]), amount, False)
    both = _BOTH.fullmatch(text.strip())
    card, amount = (None, None) if both is None else (find_card(both[1]), read_amount(both[2]))
    if card is not None and amount is not None:
        return Wish(card, amount, True)
    raise ConfigError(
        "This is neither an amount of memory nor a card that weber knows.",
        got=f"{key} = {text!r}",
        expected="an amount, such as 24GB or 11.5GiB, or " + ", ".join(card.name for card in CARDS),
        fix=_propose(text.strip(), key=key),
    )


def _check_amount(num_bytes: int, text: str, *, key: str) -> None:
    """Refuse what no GPU has: nothing, and more than any, which is most often a number of MB."""
    if 0 < num_bytes <= _MOST_BYTES:
        return
    is_bare, megabytes = text.strip().isdecimal(), num_bytes // _GB * _MB
    raise ConfigError(
        "No GPU has so much memory." if num_bytes else "A GPU without memory can do nothing.",
        got=f"{key} = {text!r}" + (", and a bare number is one of GB" if is_bare else ""),
        expected=f"an amount up to {_MOST_BYTES // _GB} GB, such as 24GB or 11.5GiB, or a card, such as RTX 4090",
        fix=f"write '{text.strip()}MB', if these are MB" if is_bare and 0 < megabytes <= _MOST_BYTES else "write the memory of one card",
    )


def _propose(text: str, *, key: str) -> str:
    """What to write in place of a text that is no card and no amount."""
    if text.lower().partition(":")[0] in _THIS:
        return "leave --card out: the plan is then for this machine" if key == "--card" else "write 'auto', which takes the GPU here"
    several, wordy, bare = _SEVERAL.fullmatch(text), _WORDY.fullmatch(text), _BARE.fullmatch(text)
    if several is not None:
        one = next(name.strip() for name in several.groupdict().values() if name)
        if find_card(one) is not None or read_amount(one) is not None:
            return f"write {one!r}: a run trains on one GPU"
    if wordy is not None and not _OTHERS.search(text) and float(wordy[1].replace(",", ".")) > 0:
        return f"write '{float(wordy[1].replace(',', '.')):g}{wordy[2].upper()}B'"
    card = None if bare is None else find_card(bare[1])
    if card is not None and bare is not None:
        return f"write '{card.name} {bare[2]}GB'"
    if _OTHERS.search(text):
        return "write how much memory it has, such as '24GB': weber has figures of NVIDIA's GPUs only, and one of these stands for it"
    meant = None if _is_mobile(text) else _find_named(text) or _find_near(text)
    return f"write {meant!r}" if meant is not None else "write how much memory the card has, such as '24GB'"


def _find_named(text: str) -> str | None:
    """The card whose whole name is in the text, beside other words."""
    words = f" {re.sub(r'[^a-z0-9]+', ' ', text.lower())} "
    known = [card.name for card in CARDS if f" {card.name.lower().removeprefix('rtx ')} " in words]
    return max(known, key=len, default=None)


def _find_near(text: str) -> str | None:
    """The card whose name may have been misspelled; short names say too little."""
    short = _shorten(text)
    near = find_near(short, [_shorten(card.name) for card in CARDS]) if len(short) > _NUM_LETTERS else None
    return next((card.name for card in CARDS if _shorten(card.name) == near), None)


def _is_mobile(name: str) -> bool:
    return "laptop" in name.lower() or "max-q" in name.lower()


def find_card(text: str) -> Card | None:
    """The card of that name, as a person or a driver writes it; None for one that is not known, such as one of a laptop."""
    short = _shorten(text)
    for card in CARDS:
        if short in (_shorten(card.name), _shorten(card.name).removeprefix("rtx")):
            return card
    return None


def find_driver_card(name: str) -> Card | None:
    """The card that a driver's name means, which may say more: `NVIDIA A100-SXM4-80GB`. Those of laptops are other ones."""
    if _is_mobile(name):
        return None
    known = [card for card in CARDS if re.search(rf"\b{re.escape(card.name)}\b", name, re.IGNORECASE)]
    return max(known, key=lambda card: len(card.name), default=None)


def _shorten(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", _NOISE.sub("", name.lower()))
