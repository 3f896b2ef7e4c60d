"""Answers, and the file of settings that they become: each line with a remark that says why it is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from weber.config.toml import write_value
from weber.questions.folder import Folder

_PER_PICTURE, _FEWEST, _MOST, _SMALL = 100, 500, 3000, 300
_SMALL_RATE = 6e-4
_WIDTH = 118


@dataclass(frozen=True)
class Model:
    """A model that can be chosen: its name, what it is, where it comes from; `is_small`: it comes with weber, and needs no GPU."""

    name: str
    summary: str
    home: str
    is_small: bool = False


@dataclass(frozen=True)
class Answers:
    """What somebody has said. None, or nothing: they do not know, or it is to be as usual.

    `word`: what they will say in prompts; `card`: the GPU, where it is not that of this machine; `has_gpu`: whether this one has any.
    """

    folder: Folder
    word: str | None = None
    model: Model | None = None
    card: str | None = None
    has_gpu: bool = False
    steps: int | None = None
    prompts: Sequence[str] = field(default_factory=tuple)
    name: str | None = None

    @property
    def is_small(self) -> bool:
        """Whether the model needs no GPU."""
        return self.model is not None and self.model.is_small

    @property
    def chosen_word(self) -> str | None:
        """The word, or one made of the folder's name where pictures have no captions: something has to be said of them."""
        return self.word or (self.folder.word if self.folder.num_captions < self.folder.num_pictures else None)

    @property
    def chosen_steps(self) -> int:
        """As many as were said, or as usual for so many pictures."""
        return self.steps or count_steps(self.folder.num_pictures, is_small=self.is_small)

    @property
    def chosen_prompts(self) -> list[str]:
        """Those that were said, or what the pictures are called."""
        if self.prompts:
            return list(self.prompts)
        return propose_prompts(self.folder, self.chosen_word)

    @property
    def chosen_name(self) -> str:
        """Of the run's folder."""
        name = self.name or re.sub(r"\W+", "-", self.word or self.folder.word).strip("-")
        return name or "lora"


def count_steps(num_pictures: int, *, is_small: bool = False) -> int:
    """How many are usual: a hundred for each picture, within bounds."""
    return _SMALL if is_small else min(max(_PER_PICTURE * num_pictures, _FEWEST), _MOST)


def propose_prompts(folder: Folder, word: str | None) -> list[str]:
    """A prompt as the pictures are called, and one that is none of them."""
    first = folder.captions[0] if folder.captions else word or folder.word
    if word and word.lower() not in first.lower():
        first = f"{word}, {first}"
    second = f"{word or first} on a beach at sunset"
    return [first, second]


def write_run(answers: Answers, *, file: str = "run.toml") -> str:
    """The file of settings. `file`: what it will be called, for the remarks."""
    folder, model = answers.folder, answers.model
    blocks = [
        [
            "# Made by `weber new`. Everything that is not said here has a default; `weber train --help` lists all settings.",
            "# From the folder that `weber new` was called in, since paths are seen from there:",
            f"#   weber plan {file}     what would happen; no model is loaded",
            f"#   weber train {file}    starts it; after a stop, `weber train {file} --resume` goes on",
        ]
    ]
    if model is not None:
        blocks.append(["[model]", _write("variant", model.name, f"{model.summary}; `weber variants` lists the others")])
    blocks.append(["[[data]]", _write("path", folder.path.as_posix(), folder.describe()), *_write_captions(answers)])
    blocks += _write_captions_steps(answers)
    if answers.is_small:
        blocks.append(["[memory]", _write("gradient_checkpointing", "none", "the model is small: nothing need be computed twice")])
        blocks.append(["[optim]", _write("lr", _SMALL_RATE, "small models want more than the default")])
    elif answers.card is not None or answers.has_gpu:
        remark = "settings of memory are chosen so that the run fits on " + (answers.card or "the GPU that is here")
        blocks.append(["[memory]", _write("fit", answers.card or "auto", remark)])
    steps = "" if answers.steps is not None else "for so few pictures of a small model" if answers.is_small else _explain_steps(answers)
    blocks.append(["[train]", _write("steps", answers.chosen_steps, steps)])
    if answers.is_small:
        blocks[-1].append(_write("batch_size", min(4, folder.num_pictures), "pictures in a step"))
    blocks.append(["[sampling]", _write("prompts", answers.chosen_prompts, "painted before, during and after")])
    remark = "checkpoints, pictures, and in the end adapter.safetensors"
    blocks.append(["[output]", _write("folder", f"runs/{answers.chosen_name}", remark)])
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _explain_steps(answers: Answers) -> str:
    return f"about {_PER_PICTURE} for each picture, at least {_FEWEST} and at most {_MOST}"


def _write_captions(answers: Answers) -> list[str]:
    """What is said of the pictures: in their files, else by the word."""
    folder, word = answers.folder, answers.chosen_word
    if folder.num_captions == folder.num_pictures or word is None:
        return []
    if not folder.num_captions:
        return [
            _write("captions", "instance", "the pictures have no captions, so that each has the same one:"),
            _write("instance_prompt", word, "the word for your prompts"),
        ]
    return [_write("caption_fallback", word, "of pictures without a caption")]


def _write_captions_steps(answers: Answers) -> list[list[str]]:
    if answers.word is None or not answers.folder.num_captions:
        return []
    return [
        ["[[data.caption_steps]]", _write("kind", "trigger", "puts the word into captions that lack it"), _write("text", answers.word, "")]
    ]


def _write(key: str, value: object, remark: str) -> str:
    """A line with its remark, behind it or where it is long above it."""
    line = f"{key} = {write_value(value)}"
    if not remark:
        return line
    return f"{line}  # {remark}" if len(line) + len(remark) + 4 <= _WIDTH else f"# {remark}\n{line}"
