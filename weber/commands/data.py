"""`weber data`: what is done to pictures before a run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from weber.commands.terminal import build_watcher, end, read_memory, say

if TYPE_CHECKING:
    from weber.tending.convert import Wish

app = App(name="data", help="Check, convert and complete pictures before a run.")


@dataclass(frozen=True)
class Asked:
    """What is looked for, and who is told."""

    trigger: Annotated[str | None, Parameter(help="A word that captions should have; that of the run's caption steps if left out.")] = None
    skip: Annotated[
        list[str], Parameter(help="A kind of finding that is not looked for, such as blurred; may be given several times.", negative="")
    ] = field(default_factory=list)
    json: Annotated[Path | None, Parameter(help="Write all that was found as JSON.")] = None
    html: Annotated[Path | None, Parameter(help="Write one HTML page with thumbnails.")] = None


@dataclass(frozen=True)
class Painted:
    """How class images are painted; what is left out comes from the model."""

    steps: Annotated[int | None, Parameter(help="Sampling steps.")] = None
    guidance: Annotated[float | None, Parameter(help="Guidance, for models that have that input.")] = None
    cfg: Annotated[float | None, Parameter(help="Scale of classifier-free guidance; 1 is off.")] = None
    size: Annotated[str | None, Parameter(help="WIDTHxHEIGHT in pixels; what the model was made for if left out.")] = None


@app.command
def check(
    place: Path,
    /,
    *overrides: str,
    asked: Annotated[Asked | None, Parameter(name="*")] = None,
    fix: bool = False,
    apply: bool = False,
    set_aside: Path | None = None,
) -> None:
    """Look for what spoils a run: broken files, near-duplicates, missing captions, blur, compression, borders, marks. Exit code 1 if any.

    Parameters
    ----------
    place
        A folder of pictures, or the settings of a run, whose sets are then compared with each other and with what is held out.
    overrides
        Settings, such as `data.0.resolution=768`; of a folder its set is `data.0`.
    fix
        Propose moves of pictures with problems, and of what belongs to them, into a folder; nothing is moved.
    apply
        Do what `--fix` proposes. An undo file is written first; nothing is deleted or written over.
    set_aside
        The folder that pictures are moved to; `set-aside` in the folder of their set, which no set has in it, if left out.
    """
    from weber.commands.looking import look_at_place
    from weber.tending.check import check_pictures, check_wish, describe_check, write_json
    from weber.tending.check_page import write_page

    given, watcher = asked or Asked(), build_watcher()
    check_wish(given.skip, report=given.json, page=given.html)
    with watcher.shown():
        seen, limits, triggers = look_at_place(place, overrides, has_thumbs=given.html is not None, progress=watcher.report)
        if given.trigger is not None:
            triggers = {one.set_name: given.trigger for one in seen}
        watcher.report("comparing the pictures", 0, 1)
        checked = check_pictures(seen, limits, triggers=triggers, skip=given.skip)
        watcher.report("comparing the pictures", 1, 1)
    say(describe_check(checked))
    if given.json is not None:
        write_json(checked, given.json)
    if given.html is not None:
        write_page(checked, given.html, title=f"Check of {place}")
        say(f"\nOpen {given.html} in a browser.")
    if fix or apply:
        from weber.tending.aside import move_all, propose_moves

        proposal = propose_moves(checked, set_aside)
        say("\n" + ("Moved:" if apply else "Would move (--apply does it):"))
        records = move_all(proposal.moves) if apply else []
        for line in [*(f"{move.source} -> {move.target}" for move in proposal.moves), *(f"left: {one}" for one in proposal.left)]:
            say(f"  {line}")
        for record in records:
            say(f"`weber data undo {record}` puts them back.")
    if checked.found.num_problems:
        end(1)


@app.command
def undo(record: Path, /) -> None:
    """Put files back as they were before a change of weber's: pictures that were set aside, captions that were rewritten.

    Parameters
    ----------
    record
        The undo file that the command has named.
    """
    from weber.tending.undo import undo as put_back

    undone = put_back(record)
    say(f"{undone.num_files} files are as they were.")
    for line in undone.left:
        say(f"left as it is: {line}")
    if undone.left:
        end(1)


@dataclass(frozen=True)
class Written:
    """How converted pictures are written."""

    quality: Annotated[int | None, Parameter(help="Of jpg and webp, 1 to 100; 95 if left out.")] = None
    recursive: Annotated[bool, Parameter(help="Look into subfolders too.")] = True


@app.command
def resize(
    folder: Path,
    /,
    *,
    out: Path,
    edge: int | None = None,
    shorter_edge: int | None = None,
    format: str | None = None,
    written: Annotated[Written | None, Parameter(name="*")] = None,
) -> None:
    """Write the pictures of a folder into another one, larger ones scaled down, upright and in sRGB; captions go with them.

    What is there already and made of the same file is not made again. Nothing is enlarged, and the folder itself stays as it is.

    Parameters
    ----------
    folder
        The folder of pictures.
    out
        The folder that they are written into.
    edge
        Pixels that the longer edge has at most.
    shorter_edge
        Pixels that the shorter edge has at most.
    format
        png, jpg, webp or webp-lossless; as each picture is if left out, or png for other formats.
    """
    from weber.errors import ConfigError
    from weber.tending.convert import Wish

    if edge is None and shorter_edge is None:
        raise ConfigError("It is not said how large pictures may be.", got="neither --edge nor --shorter-edge", fix="write --edge 2048")
    given = written or Written()
    _convert(folder, out, Wish(edge, shorter_edge, format, given.quality, given.recursive))


@app.command
def convert(folder: Path, /, *, out: Path, format: str = "png", written: Annotated[Written | None, Parameter(name="*")] = None) -> None:
    """Write the pictures of a folder into another one in one format, upright and in sRGB; captions go with them.

    Parameters
    ----------
    folder
        The folder of pictures.
    out
        The folder that they are written into.
    format
        png, jpg, webp or webp-lossless.
    """
    from weber.tending.convert import Wish

    given = written or Written()
    _convert(folder, out, Wish(None, None, format, given.quality, given.recursive))


def _convert(folder: Path, out: Path, wish: Wish) -> None:
    from weber.tending.convert import check_wish, convert_pictures

    check_wish(wish)
    watcher = build_watcher()
    with watcher.shown():
        done = convert_pictures(folder, out, wish=wish, progress=watcher.report)
    for line in done.left:
        say(f"left out: {line}")
    there = f", {done.num_there} were there" if done.num_there else ""
    say(f"{out}: {done.num_written} pictures written{there}; {done.num_beside} files beside them copied")


@app.command
def download(
    hub: str,
    out: Path,
    /,
    *,
    split: str = "train",
    revision: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
) -> None:
    """Fetch a dataset of the hub into a new folder, as pictures with captions beside them.

    Parameters
    ----------
    hub
        The dataset, such as owner/name.
    out
        The folder, new or empty.
    split
        Its split; of a dataset with several configurations configuration/split.
    revision
        Branch, tag or commit.
    image_column
        The column with the picture; image, file_name or url if left out.
    caption_column
        The column with the caption; caption, text, prompt or instruction if left out.
    """
    from weber.config.load import build_config
    from weber.tending.download import download_dataset

    given = {"hub": hub, "hub_split": split, "hub_revision": revision, "image_column": image_column, "caption_column": caption_column}
    [config] = build_config({"data": [{key: value for key, value in given.items() if value is not None}]}).data
    watcher = build_watcher()
    with watcher.shown():
        num_pictures, num_captions = download_dataset(config, out, progress=watcher.report)
    say(f"{out}: {num_pictures} pictures, {num_captions} with a caption")


@app.command(name="class-images")
def class_images(
    place: str,
    folder: Path,
    /,
    *overrides: str,
    prompt: str,
    num: int = 100,
    seed: int = 0,
    look: Annotated[Painted | None, Parameter(name="*")] = None,
) -> None:
    """Paint pictures of a class with a model as it is, for a set that keeps it so: those that the folder lacks, with captions beside them.

    Parameters
    ----------
    place
        The model: a variant, a folder, a hub id or a file.
    folder
        The folder of the pictures; those that lie in it count.
    overrides
        Settings of [memory], such as `memory.quantize=nf4`.
    prompt
        What the class is called, such as "a dog".
    num
        How many pictures the folder is to have.
    seed
        Seed of the first; each further one adds 1.
    """
    memory = read_memory(overrides)
    from weber.training.class_images import ClassImages, paint_class_images
    from weber.training.paint import Wish, read_size
    from weber.training.subject import find_subject

    given = look or Painted()
    width, height = read_size(given.size)
    wish = Wish([prompt], steps=given.steps, guidance=given.guidance, cfg=given.cfg, width=width, height=height)
    watcher, subject = build_watcher(), find_subject(place, memory=memory)
    with watcher.shown():
        number = paint_class_images(subject, wish, images=ClassImages(folder, num, seed), watcher=watcher)
    say(f"{folder}: {number} pictures painted" if number else f"{folder} has {num} pictures or more; none is painted.")


@dataclass(frozen=True)
class Shape:
    """What becomes of a mask before it is written."""

    threshold: Annotated[float | None, Parameter(help="All above is white, all else black, 0 to 1; as it is seen if left out.")] = None
    grow: Annotated[int, Parameter(help="Pixels by which white grows at its edges.")] = 0
    background: Annotated[float, Parameter(help="How much of all else is learned, 0 to 1, such as 0.1.")] = 0.0
    recursive: Annotated[bool, Parameter(help="Look into subfolders too.")] = True


@app.command
def masks(
    folder: Path,
    /,
    *overrides: str,
    out: Path,
    with_: Annotated[str, Parameter(name="--with")] = "alpha",
    model: str | None = None,
    prompt: str | None = None,
    shape: Annotated[Shape | None, Parameter(name="*")] = None,
) -> None:
    """Draw masks of what pictures are about, for `data.loss_masks`: white is learned. Masks that are there stay as they are.

    Parameters
    ----------
    folder
        The folder of pictures.
    overrides
        `memory.device`, `memory.dtype` or `memory.quantize`.
    out
        The folder of the masks.
    with_
        alpha, the alpha channel of the pictures; clipseg, which is told by --prompt what to find; or u2net, isnet or birefnet, which find
        what stands out.
    model
        The model: an ONNX file, or for clipseg a folder or hub id.
    prompt
        What clipseg is to find, such as "a dog".
    """
    memory = read_memory(overrides)
    from weber.errors import ConfigError
    from weber.tending.masks import Drawing, check_drawing, draw_masks

    given, see = shape or Shape(), None
    least = None if given.threshold is None else round(255 * given.threshold)
    drawing = Drawing(None, least, given.grow, round(255 * given.background), given.recursive)
    check_drawing(drawing)
    if with_ != "alpha":
        from weber.captioners.loaded import read_memory_config
        from weber.captioners.subjects import build_see

        see = build_see(with_, model=model, prompt=prompt, memory=read_memory_config(memory))
    elif memory or model is not None or prompt is not None:
        raise ConfigError(
            "The alpha channel needs no model.",
            got=f"--with alpha beside {'--model' if model else '--prompt' if prompt else 'settings of [memory]'}",
            expected="--with clipseg, u2net, isnet or birefnet",
            fix="name a model with --with, or remove the rest",
        )
    watcher = build_watcher()
    with watcher.shown():
        drawn = draw_masks(folder, out, drawing=replace(drawing, see=see), progress=watcher.report)
    for line in drawn.left:
        say(f"left out: {line}")
    there = f"; {drawn.num_there} were there" if drawn.num_there else ""
    say(f"{out}: {drawn.num_written} masks written{there}")
