"""`weber caption`, `weber tag`: texts for pictures, by models that look at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from weber.commands.terminal import build_watcher, read_memory, say
from weber.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from weber.captioners.run import Job, Outcome
    from weber.captioners.tag_choice import Choice
    from weber.captioners.wish import Describe


@dataclass(frozen=True)
class Files:
    """Which files are written, and how."""

    batch: Annotated[int, Parameter(help="Pictures that are looked at at once.")] = 1
    prefix: Annotated[str, Parameter(help="What every text begins with.")] = ""
    suffix: Annotated[str, Parameter(help="What every text ends with.")] = ""
    recursive: Annotated[bool, Parameter(help="Look into subfolders too.")] = True
    overwrite: Annotated[bool, Parameter(help="Replace files that are there; else their pictures are left out.", negative="")] = False

    def build_job(self, folder: Path, ending: str, *, what: str, join: Callable[[str, str], str] | None = None) -> Job:
        """What is written where; `what`: all that decides a text, `join`: how a new one is added to one that is there."""
        from weber.captioners.run import Job

        return Job(
            folder,
            ending,
            what,
            batch_size=self.batch,
            prefix=self.prefix,
            suffix=self.suffix,
            recursive=self.recursive,
            overwrites=self.overwrite,
            join=join,
        )


@dataclass(frozen=True)
class Said:
    """What a captioner is told, and how it makes its text."""

    question: Annotated[str | None, Parameter(help="What it is asked, or how its text begins; as each captioner needs it if left out.")] = (
        None
    )
    system: Annotated[str | None, Parameter(help="Who it is told to be, for those that are talked to.")] = None
    beams: Annotated[int | None, Parameter(help="Follow so many texts and take the likeliest; 1 if left out.")] = None
    top_p: Annotated[float | None, Parameter(help="Draw words, of the likeliest that have this probability together, such as 0.9.")] = None
    temperature: Annotated[float | None, Parameter(help="Draw words: below 1 more likely ones, above 1 less likely ones.")] = None
    min_length: Annotated[int | None, Parameter(help="Fewest tokens of a text.")] = None
    max_length: Annotated[int | None, Parameter(help="Most tokens of a text; 75 or 512, as the captioner is, if left out.")] = None
    seed: Annotated[int, Parameter(help="Seed of what is drawn.")] = 0


def caption(
    folder: Path | None = None,
    /,
    *overrides: str,
    with_: Annotated[str, Parameter(name="--with")] = "florence2",
    model: str | None = None,
    ending: str = ".txt",
    said: Annotated[Said | None, Parameter(name="*")] = None,
    files: Annotated[Files | None, Parameter(name="*")] = None,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
) -> None:
    """Describe the pictures of a folder in sentences, one text file beside each. What is there is left alone, so a killed run goes on.

    Parameters
    ----------
    folder
        The folder of pictures.
    overrides
        `memory.device`, `memory.dtype` or `memory.quantize`, such as `memory.quantize=nf4`.
    with_
        blip, blip2, git, florence2, qwen-vl, joycaption or llava (`--list` says what each is).
    model
        A model of that kind: a folder, a hub id, or of BLIP its makers' *.pth file; the usual one if left out.
    ending
        Ending of the text files, such as .caption.
    list_
        List the captioners.
    """
    from weber.captioners.loaded import read_memory_config
    from weber.captioners.run import write_texts
    from weber.captioners.table import CAPTIONERS, find_captioner
    from weber.captioners.wish import Wish

    if list_:
        for name, captioner in CAPTIONERS.items():
            say(f"{name:12} {captioner.summary} ({captioner.home})")
        return
    if folder is None:
        raise ConfigError(
            "weber caption needs FOLDER.", got="no folder", expected="a folder of pictures", fix="write weber caption pictures"
        )
    told, given = said or Said(), files or Files()
    wish = Wish(told.question, told.system, told.beams, told.top_p, told.temperature, told.min_length, told.max_length, told.seed)
    row, memory = find_captioner(with_, wish), read_memory_config(read_memory(overrides))
    place = model or row.home
    job = given.build_job(folder, ending, what=repr((with_, place, wish)))
    watcher = build_watcher()
    with watcher.shown():
        outcome = write_texts(job, lambda: row.build(place, wish, memory=memory), progress=watcher.report)
    _say_outcome(outcome)


@dataclass(frozen=True)
class Tags:
    """Which tags a picture gets."""

    threshold: Annotated[float, Parameter(help="How likely a tag is at least.")] = 0.35
    general_threshold: Annotated[float | None, Parameter(help="The same for general tags.")] = None
    character_threshold: Annotated[float | None, Parameter(help="The same for characters.")] = None
    thresholds: Annotated[str | None, Parameter(help="The same by category, such as artist=0.5,copyright=0.4,meta=0.6,model=0.5.")] = None
    undesired: Annotated[str | None, Parameter(help="Tags that are left out, with commas between them; * stands for any text.")] = None
    first: Annotated[str | None, Parameter(help="Tags that come before the others in that order, where a picture has them.")] = None
    replace: Annotated[list[str], Parameter(help="old=new, written for that tag; may be given several times.", negative="")] = field(
        default_factory=list
    )
    rating: Annotated[Literal["first", "last"] | None, Parameter(help="Put the rating there; left out if not given.")] = None
    quality: Annotated[Literal["first", "last"] | None, Parameter(help="Put the quality there, of taggers that say it.")] = None
    remove_underscore: Annotated[
        bool, Parameter(help="Write spaces for underscores, but in tags of three signs, such as ^_^.", negative="")
    ] = False
    characters_first: Annotated[bool, Parameter(help="Characters come before other tags.", negative="")] = False
    expand: Annotated[bool, Parameter(help="Write name_(series) as two tags.", negative="")] = False
    order: Annotated[Literal["probability", "list"], Parameter(help="The likeliest first, or in the order of the tagger's list.")] = (
        "probability"
    )
    separator: Annotated[str, Parameter(help="What stands between tags.")] = ", "
    append: Annotated[bool, Parameter(help="Add tags to files that are there, each once.", negative="")] = False
    frequency: Annotated[bool, Parameter(help="Say how many pictures have which tags.", negative="")] = False


def tag(
    folder: Path,
    /,
    *,
    with_: Annotated[str, Parameter(name="--with")] = "wd14",
    model_dir: Path | None = None,
    ending: str = ".txt",
    device: str = "auto",
    tags: Annotated[Tags | None, Parameter(name="*")] = None,
    files: Annotated[Files | None, Parameter(name="*")] = None,
) -> None:
    """Write tags for the pictures of a folder, one text file beside each. What is there is left alone, so a killed run goes on.

    Parameters
    ----------
    folder
        The folder of pictures.
    with_
        wd14, wd14-moat, wd14-swinv2, wd14-vit, wd-v3, wd-v3-vit, wd-v3-large or cl; a folder with an ONNX file and its list; or a hub id.
    model_dir
        Folder in which taggers lie under their ids; nothing is fetched then.
    ending
        Ending of the text files.
    device
        auto, cpu, or cuda where onnxruntime-gpu is installed.
    """
    from weber.captioners.run import write_texts
    from weber.captioners.tag_choice import append_tags, check_choice, choose_tags, count_frequency
    from weber.captioners.tagger import check_name, open_tagger

    chosen, given = tags or Tags(), files or Files()
    choice = _build_choice(chosen)
    check_choice(choice)
    check_name(with_, model_dir)
    found: list[list[str]] = []

    def build() -> Describe:
        tagger = open_tagger(with_, model_dir=model_dir, device=device)

        def describe(images: Sequence[Image.Image]) -> list[str]:
            new = [choose_tags(one, choice) for one in tagger.look(images)]
            found.extend(new)
            return [chosen.separator.join(one) for one in new]

        return describe

    def join(old: str, new: str) -> str:
        return append_tags(old, new, separator=chosen.separator)

    job = given.build_job(folder, ending, what=repr((with_, model_dir, chosen)), join=join if chosen.append else None)
    watcher = build_watcher()
    with watcher.shown():
        outcome = write_texts(job, build, progress=watcher.report)
    _say_outcome(outcome)
    for name, number in count_frequency(found) if chosen.frequency else []:
        say(f"{number:7} {name}")


def _say_outcome(outcome: Outcome) -> None:
    for line in outcome.left:
        say(f"left out: {line}")
    there = f"; {outcome.num_there} were there" if outcome.num_there else ""
    say(f"{outcome.num_written} texts written{there}")
    if outcome.record is not None:
        say(f"`weber data undo {outcome.record}` gives back what they held.")


def _build_choice(tags: Tags) -> Choice:
    from weber.captioners.tag_choice import Choice

    thresholds = _read_thresholds(tags.thresholds)
    thresholds |= {} if tags.general_threshold is None else {"general": tags.general_threshold}
    thresholds |= {} if tags.character_threshold is None else {"character": tags.character_threshold}
    replaced = {}
    for pair in tags.replace:
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise ConfigError("A tag is replaced by another one.", got=f"--replace {pair!r}", expected="old=new", fix="write it so")
        replaced[old] = new
    return Choice(
        tags.threshold,
        thresholds,
        _split(tags.undesired),
        replaced,
        _split(tags.first),
        rating=tags.rating,
        quality=tags.quality,
        removes_underscores=tags.remove_underscore,
        characters_first=tags.characters_first,
        expands=tags.expand,
        order=tags.order,
    )


def _split(text: str | None) -> list[str]:
    return [one.strip() for one in (text or "").split(",") if one.strip()]


def _read_thresholds(text: str | None) -> dict[str, float]:
    found = {}
    for pair in _split(text):
        name, _, number = pair.partition("=")
        try:
            found[name.strip().lower()] = float(number)
        except ValueError as error:
            raise ConfigError(
                "A threshold by category is a number.", got=f"--thresholds {pair}", expected="such as artist=0.5", fix="write it so"
            ) from error
    return found
