"""From words on a command line to a server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from weber.config.load import build_config, write_overrides
from weber.config.run import RunConfig
from weber.errors import ConfigError
from weber.families.table import build_family
from weber.memory.device import build_device, build_dtype
from weber.planning.encoders import build_encoders, check_encoders
from weber.remote.texts import TextService, TextSite
from weber.results.bases import read_base, speaking_of

_ACTING = {
    "model": {"text_encoder", "text_encoder_2", "tokenizer_path", "text_tokens", "revision"},
    "memory": {"device", "dtype", "quantize_text_encoder", "quantize_text_encoder_2", "quantize_on", "keep_quantized"},
    "objective": {"text_mask"},
}
_FEWEST_LETTERS = 16


def open_site(
    model: str, overrides: Sequence[str], *, place: tuple[str, int], token: str, write: Callable[[str], None]
) -> TextSite:
    """A server of a model's text encoders that listens already. Raises ConfigError, ModelError."""
    with speaking_of("MODEL"):
        base = read_base(model)
        config = _build_config(base.model_dump(exclude_defaults=True), overrides)
        family = build_family(config.model, hides_padding=config.objective.text_mask)
    check_encoders(config, family)
    device = build_device(config.memory)
    encoders = build_encoders(family, config.memory, device=device, dtype=build_dtype(config.memory, device))
    service = TextService(encoders, write=write)
    write(f"{family.variant}: {', '.join(family.text_parts)} on {device} in {service.dtype}.")
    try:
        return TextSite(place, service=service, token=token)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "The address cannot be listened at.", got=f"{place[0]}:{place[1]}, {error}", fix="choose another --port or --host"
        ) from error


def read_token(path: Path) -> str:
    """The one word of a file. Raises ConfigError."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("The file with the token cannot be read.", got=str(error), fix="correct --token-file") from error
    if len(token) < _FEWEST_LETTERS or not all(one.isascii() and (one.isalnum() or one in "-_") for one in token):
        raise ConfigError(
            "The file holds no token.",
            got=f"{path} with {len(token)} letters",
            expected=f"one word of at least {_FEWEST_LETTERS} letters, digits, - and _",
            fix="write a new one into it",
        )
    return token


def _build_config(model: dict[str, object], overrides: Sequence[str]) -> RunConfig:
    tree: dict[str, object] = {"model": model, "data": [{"path": "."}]}
    asked: dict[str, object] = {}
    write_overrides(asked, overrides)
    for section, table in asked.items():
        names = set(table) if isinstance(table, dict) else {""}
        idle = sorted(names - _ACTING.get(section, set()))
        if idle:
            raise ConfigError(
                "The setting has no effect where texts are encoded.",
                got=f"{section}.{idle[0]}",
                expected=", ".join(f"{one}.{name}" for one, some in _ACTING.items() for name in sorted(some)),
                fix=f"remove {section}.{idle[0]}",
            )
    for section, table in asked.items():
        present = tree.get(section)
        tree[section] = {**present, **table} if isinstance(present, dict) and isinstance(table, dict) else table
    return build_config(tree)
