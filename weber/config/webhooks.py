"""`[[output.webhooks]]`: addresses that are told how a run goes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from weber.config.elsewhere import check_url, split_url
from weber.config.every import Every
from weber.config.section import HIDDEN, Secret, Section

_DISCORD = ("discord.com", "discordapp.com")
_COPY = "in Discord: the channel's settings, Integrations, Webhooks, Copy Webhook URL"


def _check_token(token: str) -> str:
    if any(not 32 < ord(one) < 127 for one in token):
        raise ValueError("it holds a blank, a line break or a letter that no header can have; copy it again")
    return token


class WebhookConfig(Section):
    """An address that is told how the run goes: it starts, ends or fails, its pictures, checkpoints and warnings. Sent beside training,
    which neither waits for it nor fails with it."""

    kind: Literal["discord", "raw"]
    """`discord`: messages for people, with pictures, to a channel of Discord. `raw`: events for a program, as JSON, in the shape that
    receivers of SimpleTuner's raw webhooks read."""

    url: Annotated[str, AfterValidator(check_url), Secret()]
    """Where messages go, by POST: with https:// in front. Whoever knows it can write there: it is in no message and in no file but the
    settings of the run (`config.toml`), which then nobody but you can read."""

    token: Annotated[Annotated[str, AfterValidator(_check_token)] | None, Secret()] = None
    """Sent to a raw address as the header X-API-Key; as secret as `url`. Left out: no such header."""

    level: Literal["error", "warning", "info", "debug"] = "info"
    """What is sent. `error`: that the run has failed; `warning`: what a person should know, too; `info`: start, end, pictures,
    checkpoints and how far it is, too; `debug`: every line that the run says."""

    every: Every | None = None
    """Steps, or epochs, between messages of how far the run is, with its numbers. Left out: 10 steps for `raw`, no such messages for
    `discord`. Refused where `level` leaves them out."""

    message_prefix: str | None = None
    """What messages to Discord begin with. Left out: the name of the run folder."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        secret = ("url", "token")
        return [(name, HIDDEN if name in secret and value is not None else value) for name, value in super().__repr_args__()]

    @model_validator(mode="after")
    def _refuse_unused(self) -> WebhookConfig:
        if self.kind == "discord" and self.token is not None:
            raise ValueError('token has no effect with kind = "discord", whose address holds what is secret; remove it')
        if self.kind == "raw" and self.message_prefix is not None:
            raise ValueError('message_prefix has no effect with kind = "raw", whose events name the run in job_id; remove it')
        if self.every is not None and self.level in ("error", "warning"):
            raise ValueError(f'every has no effect with level = "{self.level}"; set level = "info", or remove every')
        parts = split_url(self.url)
        if self.kind == "discord" and parts.hostname in _DISCORD and not parts.path.startswith("/api/"):
            raise ValueError(f"url is that of a page of Discord, not of a webhook; copy it anew, {_COPY}")
        if self.kind == "raw" and parts.hostname in _DISCORD:
            raise ValueError('url is one of Discord, which takes no events; set kind = "discord"')
        return self
