"""`weber sample`, `weber grid`: pictures."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from weber.commands.terminal import Texts, build_watcher, read_memory, say
from weber.errors import ConfigError

if TYPE_CHECKING:
    from weber.training.paint import Wish


@dataclass(frozen=True)
class Look:
    """How pictures are painted; what is left out comes from the run, else from the model."""

    steps: Annotated[int | None, Parameter(help="Sampling steps.")] = None
    guidance: Annotated[float | None, Parameter(help="Guidance, for models that have that input.")] = None
    cfg: Annotated[float | None, Parameter(help="Scale of classifier-free guidance; 1 is off.")] = None
    no_cfg_until: Annotated[
        int | None, Parameter(help="The first so many steps are without classifier-free guidance, as `sampling.no_cfg_until`.")
    ] = None
    negative: Annotated[str | None, Parameter(help="What classifier-free guidance leads away from.")] = None
    size: Annotated[str | None, Parameter(help="WIDTHxHEIGHT in pixels, such as 1024x768; the training resolution if left out.")] = None
    conditioning: Annotated[
        list[Path],
        Parameter(help="Reference picture, or the picture to be repainted; all that are given go with every prompt.", negative=""),
    ] = field(default_factory=list)
    mask: Annotated[Path | None, Parameter(help="For a model that repaints: white is painted anew.")] = None
    prompts: Annotated[Path | None, Parameter(help="Text file of further prompts, one a line.")] = None
    library: Annotated[
        Path | None,
        Parameter(help="JSON or TOML file of further prompts with nicknames; what one says of its picture goes before these options."),
    ] = None
    attention: Annotated[
        Literal["same", "flash", "flash3", "cudnn", "efficient", "sage"] | None,
        Parameter(help="What computes attention, as `sampling.attention`; same: as `memory.attention`."),
    ] = None


@dataclass(frozen=True)
class Asked(Look):
    """The same for `weber sample`."""

    strength: Annotated[float, Parameter(help="1 is as trained, 0 is the base model; any number is allowed.")] = 1.0
    seed: Annotated[int | None, Parameter(help="Seed of the first picture; each further one adds 1.")] = None
    num: Annotated[int, Parameter(help="Pictures per prompt; each has the next seed.")] = 1
    blocks: Annotated[
        str | None, Parameter(help="Strengths of single blocks on top: single:0.5, double.3:0 (names of the library or the makers).")
    ] = None


@dataclass(frozen=True)
class Compared(Look):
    """The same for `weber grid`."""

    checkpoints: Annotated[str | None, Parameter(help="Steps of checkpoints of the run, such as 250,500, or all.")] = None
    strengths: Annotated[str | None, Parameter(help="Strengths of the adapter, such as 0,0.5,1; 1 if left out.")] = None
    seeds: Annotated[str | None, Parameter(help="Seeds, such as 1,2,3; that of the run if left out.")] = None


def sample(
    place: str,
    /,
    *overrides: str,
    prompt: Texts | None = None,
    base: str | None = None,
    asked: Annotated[Asked | None, Parameter(name="*")] = None,
    out: Path | None = None,
) -> None:
    """Paint pictures with what a run has trained, with an adapter file on a model, or with a model as it is.

    Parameters
    ----------
    place
        A run folder, one of its checkpoints, or an adapter file or a model in either; with --base an adapter file from anywhere; or a
        model: a variant, a folder, a hub id or a file.
    overrides
        Settings of [memory], such as `memory.quantize=nf4`.
    prompt
        What to paint; may be given several times.
    base
        The model that an adapter file from anywhere is put on: a variant, a folder, a hub id or a file.
    out
        Folder for the PNG files; `samples` beside what is painted with if left out.
    """
    memory = read_memory(overrides)
    from weber.sampling.validate import find_free, save_picture
    from weber.training.paint import Sampler, build_file_names, check_prompts, check_wish
    from weber.training.subject import find_subject

    wish = _build_wish(prompt, asdict(asked or Asked()))
    check_prompts(wish)
    watcher = build_watcher()
    subject = find_subject(place, base=base, memory=memory)
    folder = out or (subject.home or Path()) / "samples"
    if folder.is_file():
        raise ConfigError("Pictures go into a folder.", got=f"--out {folder}, which is a file", fix="name a folder")
    check_wish(wish, subject)
    folder.mkdir(parents=True, exist_ok=True)  # before anything is painted that could not be kept
    try:
        with watcher.shown(), closing(Sampler(subject, watcher=watcher)) as sampler:
            pictures = sampler.paint(wish)
    except KeyboardInterrupt:
        watcher.write("Stopped: no picture is saved, because they are written when all are painted.")
        raise
    if out is None:
        _mark(folder)
    for name, picture in zip(build_file_names(wish, ending=subject.ending), pictures, strict=True):
        file = find_free(folder / name)
        save_picture(picture, file)
        say(str(file))


def grid(
    place: str,
    /,
    *overrides: str,
    prompt: Texts | None = None,
    base: str | None = None,
    asked: Annotated[Compared | None, Parameter(name="*")] = None,
    out: Path | None = None,
) -> None:
    """Paint the same prompts at several strengths, with several seeds and with several checkpoints of a run, on one sheet.

    Columns are the strengths; where there is one, the seeds; where there is one of these too, the checkpoints. Rows say the rest. Pictures
    on the sheet are at most 512 pixels.

    Parameters
    ----------
    place
        A run folder, one of its checkpoints, an adapter file or a model, as for `weber sample`; with --checkpoints a run folder.
    overrides
        Settings of [memory], such as `memory.quantize=nf4`.
    prompt
        What to paint; may be given several times.
    base
        The model that an adapter file from anywhere is put on: a variant, a folder, a hub id or a file.
    out
        The PNG file; `samples/grid.png` beside what is painted with if left out.
    """
    memory = read_memory(overrides)
    from weber.sampling.validate import find_free, save_picture
    from weber.training.grids import Axes, find_subjects, paint_grid
    from weber.training.paint import check_prompts

    given = asdict(asked or Compared())
    checkpoints, strengths, seeds = (given.pop(name) for name in ("checkpoints", "strengths", "seeds"))
    axes = Axes(
        [] if checkpoints is None else [one.strip() for one in checkpoints.split(",")],
        [] if strengths is None else _read_numbers(strengths, float, flag="--strengths", example="0,0.5,1"),
        [] if seeds is None else _read_numbers(seeds, int, flag="--seeds", example="1,2,3"),
    )
    wish = _build_wish(prompt, given)
    check_prompts(wish)
    if out is not None and (out.is_dir() or out.suffix.lower() != ".png"):
        raise ConfigError("A grid is one PNG file.", got=f"--out {out}", fix="name a file that ends in .png")
    watcher = build_watcher()
    subjects = find_subjects(place, axes, base=base, memory=memory)
    sheet = paint_grid(subjects, wish, axes=axes, watcher=watcher)
    file = out or find_free((subjects[0].home or Path()) / "samples" / "grid.png")
    save_picture(sheet, file)
    if out is None:
        _mark(file.parent)
    say(str(file))


def _read_numbers(text: str, kind: type[float], *, flag: str, example: str) -> list[Any]:
    try:
        return [kind(one) for one in text.split(",")]
    except ValueError as error:
        raise ConfigError("These are no numbers.", got=f"{flag} {text}", expected=f"such as {example}", fix="correct them") from error


def _build_wish(prompt: list[str] | None, given: dict[str, Any]) -> Wish:
    from weber.config.library import read_lines
    from weber.training.paint import Wish, read_size

    width, height = read_size(given.pop("size"))
    file = given.pop("prompts")
    prompts = [*(prompt or []), *([] if file is None else read_lines(file, key="--prompts"))]
    return Wish(prompts, width=width, height=height, **given)


def _mark(folder: Path) -> None:
    """Let sets of pictures leave out a folder that nobody has named, where no run is above it that says so."""
    from weber.data.left_out import SAMPLES_FILE
    from weber.results.runs import find_home

    if find_home(folder.absolute()) is None:
        text = "Painted by weber. A set of pictures leaves this folder out, unless it names the folder itself or this file is deleted.\n"
        (folder / SAMPLES_FILE).write_text(text, encoding="utf-8")
