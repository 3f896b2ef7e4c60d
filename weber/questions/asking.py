"""The questions in a terminal: answered with arrow keys, a word, or Enter for what is usual."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import questionary
from questionary import Choice

from weber.errors import DataError
from weber.questions.answers import Model
from weber.questions.folder import Folder, read_folder

UNKNOWN = "I do not know"
_OTHER, _STOP = "another one", "stop"


def ask_folder(say: Callable[[str], None], *, first: Path | None = None) -> Folder:
    """Until one with pictures is named."""
    path = first
    while True:
        if path is None:
            text = questionary.path("Which folder holds your pictures?", only_directories=True).unsafe_ask()
            path = Path(text.strip() or ".")
        try:
            folder = read_folder(path)
        except DataError as error:
            say(str(error))
            path = None
            continue
        say(f"{folder.path}: {folder.describe()}.")
        return folder


def ask_word(folder: Folder) -> str | None:
    """The word that prompts will have."""
    if folder.num_captions == folder.num_pictures:
        text = "A word that is to be in all captions? (Enter: they are good as they are)"
        return questionary.text(text).unsafe_ask().strip() or None
    said = f"What are the pictures of? A word that you will use in prompts. (Enter: {UNKNOWN}; then it is {folder.word!r})"
    return questionary.text(said).unsafe_ask().strip() or None


def ask_model(models: Sequence[Model], *, usual: Model) -> Model:
    """One of those that there are."""
    choices = [Choice(f"{UNKNOWN}: take {usual.name}", usual)]
    choices += [Choice(f"{one.name}: {one.summary}", one) for one in models]
    chosen: Model = questionary.select("Which model is to learn them?", choices=choices).unsafe_ask()
    return chosen


def ask_card(cards: Sequence[str], *, here: str | None) -> str | None:
    """The name of a card, or None for the machine that asks."""
    this = f"this machine ({here})" if here is not None else "this machine, which has no GPU"
    choices = [Choice(this, ""), Choice(f"{UNKNOWN}: this machine", ""), *(Choice(name, name) for name in cards), Choice(_OTHER, _OTHER)]
    chosen: str = questionary.select("Which GPU will it run on?", choices=choices).unsafe_ask()
    if chosen == _OTHER:
        chosen = questionary.text("Its name, or its memory such as 24GB?").unsafe_ask().strip()
    return chosen or None


def ask_steps(usual: int, *, describe: Callable[[int], str]) -> int | None:
    """How long; None for as long as usual. `describe` says how long so many steps take."""
    choices = [
        Choice(f"as usual: {usual} steps, {describe(usual)}", 0),
        Choice(f"{UNKNOWN}: as usual", 0),
        Choice(f"a first look: {usual // 4} steps, {describe(usual // 4)}", usual // 4),
        Choice(f"thoroughly: {2 * usual} steps, {describe(2 * usual)}", 2 * usual),
    ]
    chosen: int = questionary.select("How long is it to train?", choices=choices).unsafe_ask()
    return chosen or None


def ask_prompts(proposed: Sequence[str]) -> list[str]:
    """Prompts of which pictures are painted on the way."""
    text = questionary.text("What is to be painted on the way? Prompts, with | between them.", default=" | ".join(proposed)).unsafe_ask()
    return [one.strip() for one in text.split("|") if one.strip()]


def ask_file(file: Path) -> Path | None:
    """Where to write, where a file is there already: there all the same, or elsewhere; None: nowhere."""
    number = next(number for number in range(2, 10_000) if not file.with_stem(f"{file.stem}-{number}").exists())
    other = file.with_stem(f"{file.stem}-{number}")
    choices = [Choice(f"write {other}", other), Choice(f"write over {file}", file), Choice(_STOP, "")]
    chosen: Path | str = questionary.select(f"{file} is there already. What is to be done?", choices=choices).unsafe_ask()
    return chosen if isinstance(chosen, Path) else None
