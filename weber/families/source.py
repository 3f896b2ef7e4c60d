"""Where each part of a model is: given by its own setting, or with the model, or with the variant's own place on the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import constants

from weber.errors import ModelError
from weber.families.identity import build_file_identity, build_identity
from weber.families.places import Folder, Place, Root, build_root

PARTS = ("transformer", "vae", "text_encoder", "tokenizer")
"""The parts that every model has."""

StandIn = Callable[[str], str]
"""From a variant's own place to a folder with the same sizes."""

_TOKENIZERS = "tokenizer_path"
_NONE: Mapping[str, str] = MappingProxyType({})


class Source:
    """The parts of one model. Nothing is fetched or read before it is asked for.

    `path`: the model, None where only parts are given. `own`: parts that have a place of their own, by the names of the settings
    (`transformer`, `vae`, `text_encoder`, `text_encoder_2`, `tokenizer_path`). `stand_in`: gives a folder without weights in place of a
    variant's own place on the hub, for a model of which only the sizes are asked. `has_texts`: whether the weights of text encoders are
    wanted here, not on another machine.
    """

    def __init__(
        self,
        path: str | None,
        revision: str | None = None,
        *,
        own: Mapping[str, str] = _NONE,
        stand_in: StandIn | None = None,
        has_texts: bool = True,
    ) -> None:
        self.revision, self._stand_in, self.has_texts = revision, stand_in, has_texts
        self.parts: Sequence[str] = PARTS
        self._home: Root | None = None
        self._main = build_root("model.path", path, revision=revision) if path is not None else None
        self._own = {
            # Without a model the revision is that of the transformer, which stands for it.
            name: build_root(
                f"model.{name}",
                text,
                revision=revision if name == "transformer" and path is None else None,
                part=name.removesuffix("_path"),
            )
            for name, text in own.items()
        }
        self.path = path or own.get("transformer", "")

    @property
    def is_local(self) -> bool:
        """True where nothing has to be fetched for any part."""
        if self._stand_in is not None:
            return False
        given = [root for root in (self._main, *self._own.values()) if root is not None]
        chosen = (self._choose(part) for part in self.parts)
        return all(root.is_local for root in given) and all(root is None or root.is_local for root in chosen)

    def with_home(self, home: str) -> Source:
        """The same, where parts that are nowhere come from the variant's own place (a hub id or a folder)."""
        source = copy(self)
        is_model = self._main is None and "transformer" not in self._own
        if self._stand_in is not None:
            source._home = build_root("model.path", self._stand_in(home))
        else:
            source._home = build_root("model.path", home, revision=self.revision if is_model else None)
        return source

    def with_parts(self, parts: Sequence[str]) -> Source:
        """The same, for a model that has these parts. Raises ModelError where a part is given that it does not have."""
        surplus = [name for name in self._own if name != _TOKENIZERS and name not in parts]
        if surplus:
            raise ModelError(
                f"model.{surplus[0]} has no effect: the model has no such part.",
                got=f"model.{surplus[0]} = {self._own[surplus[0]].text!r}",
                expected=", ".join(f"model.{part}" for part in parts if not part.startswith("tokenizer")),
                fix=f"remove model.{surplus[0]}",
            )
        source = copy(self)
        source.parts = parts
        if self._main is not None and self._main not in map(source._choose, parts):
            raise ModelError(
                "model.path has no effect: all that it holds is given by other settings.",
                got=f"model.path = {self._main.text!r} with {self._main.describe()}, {self.name_part('transformer')}",
                fix="remove model.path or model.transformer",
            )
        return source

    def list_given(self) -> list[str]:
        """The parts of the model that the person has given, so not those from the variant's own place."""
        return [part for part in self.parts if (root := self._choose(part)) is not None and root is not self._home]

    def find(self, part: str) -> Place:
        """Where a part is, whole, fetched if it is on the hub. Raises ModelError."""
        return self._root(part).find(part)

    def is_single(self, part: str) -> bool:
        """True where the part is in a file as the makers or ComfyUI have it. Fetches no weights of folders."""
        return self._root(part).is_single

    def load_folder(self, part: str) -> Path:
        """Folder of a part that is not in a single file, with all its files, fetched if it is on the hub."""
        place = self.find(part)
        assert not place.is_single, part
        return place.path

    def read_config(self, part: str, name: str = "config.json") -> dict[str, object] | None:
        """A part's JSON configuration; fetches configuration files only. None for a single file, and for a scheduler that is nowhere.

        An empty part is the place of the transformer itself. Raises ModelError where the file is missing or not JSON.
        """
        if part == "scheduler":
            # A home that no part is taken from is asked for nothing: it may be gated.
            has_home = any(self._choose(other) is self._home for other in self.parts)
            root = self._main or (self._home if has_home else None)
            return root.read_config(part, name) if root is not None and root.holds(part) else None
        if not part:
            return self._root("transformer").read_config(part, name)
        return self._root(part).read_config(part, name)

    def check_part(self, part: str) -> None:
        """Raise ModelError now where a part is missing or not complete, before anything is loaded.

        Of the hub, configurations and tokenizers are fetched here; weights are looked for only where HF_HUB_OFFLINE is set.
        """
        if not has_weights(self, part):
            return
        try:
            root = self._root(part)
            if root.is_local or part.startswith("tokenizer") or constants.HF_HUB_OFFLINE:
                root.find(part)
        except ModelError as error:
            if self._home is None or self._choose(part) is not self._home or part == "transformer":
                raise
            raise self._not_at_home(part, self._home, error) from error

    def identify(self, part: str, *, extra: Iterable[str] = ()) -> str:
        """Identity of a part's files and of further facts that the result depends on; part of every cache key made with it."""
        place = self.find(part)
        return build_file_identity(place.files, extra=extra) if place.is_single else build_identity(place.path, place.files, extra=extra)

    def name_part(self, part: str) -> str:
        """Setting and value that a part comes from, for messages."""
        root = self._root(part)
        return f"{root.key} = {root.text!r}"

    def _choose(self, part: str) -> Root | None:
        own = self._own.get(_TOKENIZERS if part.startswith("tokenizer") else part)
        if own is not None:
            return own if own.holds(part) else None
        if self._main is not None and self._main.holds(part):
            return self._main
        return None if part == "transformer" and self._main is not None else self._home

    def _root(self, part: str) -> Root:
        root = self._choose(part)
        own = self._own.get(_TOKENIZERS if part.startswith("tokenizer") else part)
        if root is None or not root.holds(part):
            raise _miss(part, own or root or self._main)
        if part == "tokenizer_2" and isinstance(root, Folder) and root.find("tokenizer").path == root.find(part).path:
            raise ModelError(
                "The model has two tokenizers, and one was given.",
                got=f"{root.key} = {root.text!r} with {root.describe()}",
                expected="a folder with subfolders tokenizer and tokenizer_2",
                fix=f"point {root.key} at such a folder, for example a model in diffusers layout",
            )
        return root

    def _not_at_home(self, part: str, home: Root, error: ModelError) -> ModelError:
        """Nothing that was given holds the part, and the variant's own place does not have it either."""
        from huggingface_hub.errors import LocalEntryNotFoundError

        parts = [other for other in self.parts if self._choose(other) is home]
        command = " ".join(["hf download", home.text, *(f'--include "{other}/*"' for other in parts)])
        steps = f"run `{command}` where there is a connection, which fetches all that is missing"
        if not isinstance(error.__cause__, LocalEntryNotFoundError):
            steps = error.fix
        key = _TOKENIZERS if part.startswith("tokenizer") else part
        tokenizers = " and ".join(other for other in parts if other.startswith("tokenizer"))
        what = f"a folder with {tokenizers}" if key == _TOKENIZERS else "a file or folder"
        return ModelError(
            f"The {part} of the model is not with what was given, and cannot be had from {home.text}.",
            got=f"{error.what} {error.got}".strip(),
            expected=f"the {part} with the model, in model.{key}, or in the cache of the hub",
            fix=f"{steps}; or set model.{key} to {what}",
        )


def name_file(source: Source, part: str) -> str | None:
    """What a part is called as a file, as it was given; None for that of the variant's own place."""
    root = source._choose(part)
    if root is None or source._home is None or root.text == source._home.text:
        return None
    return name_single(source, part) or f"{Path(root.text.partition('?')[0]).name}.safetensors"


def name_single(source: Source, part: str) -> str | None:
    """Name of the single file that a part is in; None for a folder."""
    root = source._choose(part)
    return source.find(part).path.name if root is not None and root.is_single else None


def _miss(part: str, root: Root | None) -> ModelError:
    key = _TOKENIZERS if part.startswith("tokenizer") else part
    if root is None:
        return ModelError(f"The model's part {part} is nowhere.", got="no model.path", fix=f"set model.path or model.{key}")
    files = [] if part.startswith("tokenizer") else root.list_singles()
    if part.startswith("tokenizer"):
        expected = f"a folder with a subfolder {part}, or with the tokenizer's own files"
    else:
        expected = f"a folder in diffusers layout (a subfolder {part}), one with config.json and weights of a {part}, or a single file"
    return ModelError(
        f"The model has no part named {part}.",
        got=f"{root.key} = {root.text!r} with {root.describe()}",
        expected=expected,
        fix=(f"set {root.key} to a file in it ({', '.join(files[:3])})" if files else f"correct {root.key}")
        + ("" if root.key == f"model.{key}" else f", or set model.{key}"),
    )


def has_weights(source: Source, part: str) -> bool:
    """Whether the weights of a part are wanted on this machine."""
    return source.has_texts or not part.startswith("text_encoder")
