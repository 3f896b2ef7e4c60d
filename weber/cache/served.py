"""Texts that another machine encodes: `weber serve-text`, or the hub's own server of one model. Nothing of a text encoder is read here.

The protocol is HTTP: `GET /model` says which model it is and what its parts are called in cache keys, `POST /encode` with a part and texts
answers with tensors as safetensors. The hub's server takes one prompt at a time and answers with a tensor that `torch.save` has written.
Legend: B texts.
"""

from __future__ import annotations

import io
import json
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from typing import NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from weber.errors import ModelError
from weber.families.family import Family
from weber.families.tokens import TEXT
from weber.version import VERSION

TOKEN = "token"
"""What the token is called in an address."""
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
PAUSES_SECONDS = (1.0, 4.0, 15.0)
"""Before each further try."""
PATIENCE_SECONDS = 600.0
"""For one answer: the other machine may have to read its text encoder first."""
_HUB_PATH = "/predict"
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_CLOSED = (401, 403)


class _StayHere(HTTPRedirectHandler):
    """A redirection is an answer like any other: the token goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """See urllib."""
        return


@dataclass(frozen=True)
class TextServer:
    """The machine at an address, asked for the texts of a model in a precision."""

    url: str
    family: Family
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """The address as it may be shown, without its token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{'' if parts.path == '/' else parts.path}"

    def identify(self, part: str) -> str:
        """What a part is called in cache keys: as if it were here, where the server knows. Raises ModelError."""
        return self._parts[part]

    def encode(self, part: str, texts: Sequence[str]) -> dict[str, Tensor]:
        """What `Family.encode_prompts` returns (B, ...), on the host. Raises ModelError."""
        if self._is_of_hub:
            rows = [self._predict(text) for text in texts]
            tensors = {TEXT: torch.cat(rows)}
        else:
            answer = self._ask("/encode", {"part": part, "texts": list(texts), "dtype": NAMES[self.dtype]})
            tensors = self._read_tensors(lambda: safetensors.torch.load(answer))
        self._check_shapes(part, tensors, num=len(texts))
        return tensors

    @property
    def _is_of_hub(self) -> bool:
        return urlsplit(self.url).path.rstrip("/").endswith(_HUB_PATH)

    @cached_property
    def _parts(self) -> Mapping[str, str]:
        if self._is_of_hub:
            return {part: f"{self.name} {part}" for part in self.family.text_parts}
        try:
            told = json.loads(self._ask("/model"))
            parts = {str(part): str(identity) for part, identity in told["parts"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            self._refuse("what it answers is not of weber serve-text", fix="correct model.text_encoder_url")
        if tuple(parts) != tuple(self.family.text_parts):
            self._refuse(
                f"it has the text encoders of {told.get('variant')} ({', '.join(parts)})",
                fix="start weber serve-text there with the model that is trained",
                expected=f"those of {self.family.variant} ({', '.join(self.family.text_parts)})",
            )
        if told.get("dtype") != NAMES[self.dtype]:
            self._refuse(
                f"it encodes in {told.get('dtype')}",
                fix=f'start weber serve-text there with memory.dtype={NAMES[self.dtype]}, or set memory.dtype = "{told.get("dtype")}" here',
                expected=f"{NAMES[self.dtype]}, as this run",
            )
        return parts

    def _predict(self, text: str) -> Tensor:
        """One prompt (1, T, D), of the hub's server."""
        answer = self._ask("", {"prompt": text})
        tensor = self._read_tensors(lambda: {TEXT: torch.load(io.BytesIO(answer), map_location="cpu", weights_only=True)})[TEXT]
        if not isinstance(tensor, Tensor) or tensor.ndim != 3:
            self._refuse("what it answers is no tensor of texts", fix="correct model.text_encoder_url")
        return tensor

    def _read_tensors(self, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        try:
            return read()
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError):
            self._refuse("what it answers cannot be read as tensors", fix="correct model.text_encoder_url")

    def _check_shapes(self, part: str, tensors: Mapping[str, Tensor], *, num: int) -> None:
        wanted = {name: (num, *shape) for name, shape in self.family.text_shapes(part).items()}
        got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        told = {name: (shape[0], wanted[name][1], *shape[2:]) for name, shape in got.items() if self._is_longer(shape, wanted.get(name))}
        if got | told != wanted:
            self._refuse(
                f"it answers with {got}",
                fix="serve the model that is trained, with the same model.text_tokens, or encode texts here: remove model.text_encoder_url",
                expected=f"{wanted}, as {self.family.variant} reads",
            )

    def _is_longer(self, shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> bool:
        """Where prompts are read one by one, long ones may have more tokens."""
        return self.family.prompts_per_batch is not None and wanted is not None and len(shape) > 1 and shape[1] % wanted[1] == 0

    def _ask(self, path: str, body: object = None) -> bytes:
        """The answer to a request; what passes is tried again. Raises ModelError."""
        parts = urlsplit(self.url)
        place = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{path}"
        data = None if body is None else json.dumps(body).encode()
        headers = {"User-Agent": f"weber/{VERSION}", "Content-Type": "application/json", "Authorization": f"Bearer {self._find_token()}"}
        pauses, opener = list(PAUSES_SECONDS), build_opener(_StayHere())
        while True:
            try:
                with opener.open(Request(place, data=data, headers=headers), timeout=PATIENCE_SECONDS) as answer:
                    content: bytes = answer.read()
                    return content
            except HTTPError as error:
                with error:
                    said, code = error.read(2**16).decode(errors="replace"), error.code
                if code not in _PASSING or not pauses:
                    self._explain(code, said)
            except (OSError, HTTPException) as error:
                reason = error.reason if isinstance(error, URLError) else error
                if not pauses:
                    self._refuse(
                        f"it cannot be reached ({reason})", fix="start weber serve-text there, or correct model.text_encoder_url"
                    )
            time.sleep(pauses.pop(0))

    def _find_token(self) -> str:
        if self._is_of_hub:
            from huggingface_hub import get_token

            token = get_token()
            if token is None:
                self._refuse("the hub's server wants a token of the hub", fix="log in with `hf auth login`, or set HF_TOKEN")
            return token
        return parse_qs(urlsplit(self.url).query).get(TOKEN, [""])[0]

    def _explain(self, code: int, said: str) -> NoReturn:
        if code in _CLOSED:
            again = "log in with `hf auth login` as somebody who may use the model"
            self._refuse(
                f"it does not take the token ({code})", fix=again if self._is_of_hub else "copy the address that weber serve-text prints"
            )
        try:
            said = str(json.loads(said)["error"])
        except (ValueError, TypeError, KeyError):
            said = " ".join(said.split())[:200]
        self._refuse(f"it answers {code}: {said}", fix="see what weber serve-text says there, or correct model.text_encoder_url")

    def _refuse(self, got: str, *, fix: str, expected: str = "") -> NoReturn:
        raise ModelError("The machine that is to encode texts does not.", got=f"{self.name}: {got}", expected=expected, fix=fix)
