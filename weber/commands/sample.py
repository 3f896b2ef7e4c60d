"""`weber sample`: pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import Texts, build_watcher, say


@dataclass(frozen=True)
class Asked:
    """How pictures are painted; what is left out comes from the run, else from the model."""

    strength: Annotated[float, Parameter(help="1 is as trained, 0 is the base model; any number is allowed.")] = 1.0
    seed: Annotated[int | None, Parameter(help="Seed of the first picture; each further prompt adds 1.")] = None
    steps: Annotated[int | None, Parameter(help="Sampling steps.")] = None
    guidance: Annotated[float | None, Parameter(help="Guidance, for models that have that input.")] = None
    cfg: Annotated[float | None, Parameter(help="Scale of classifier-free guidance; 1 is off.")] = None
    negative: Annotated[str | None, Parameter(help="What classifier-free guidance leads away from.")] = None
    size: Annotated[str | None, Parameter(help="WIDTHxHEIGHT in pixels, such as 1024x768; the training resolution if left out.")] = None
    conditioning: Annotated[
        list[Path],
        Parameter(help="Reference picture, or the picture to be repainted; all that are given go with every prompt.", negative=""),
    ] = field(default_factory=list)
    mask: Annotated[Path | None, Parameter(help="For a model that repaints: white is painted anew.")] = None


def sample(
    run: Path, /, *, prompt: Texts, asked: Annotated[Asked | None, Parameter(name="*")] = None, out: Path | None = None
) -> None:
    """Paint pictures with what a run has trained.

    Parameters
    ----------
    run
        A run folder, one of its checkpoints, or an adapter file or a model in either.
    prompt
        What to paint; may be given several times.
    out
        Folder for the PNG files; RUN/samples if left out.
    """
    from weber.results.runs import find_run
    from weber.sampling.validate import find_free, save_picture
    from weber.training.paint import Wish, build_file_name, read_size, sample_saved

    given = asdict(asked or Asked())
    width, height = read_size(given.pop("size"))
    wish = Wish(prompt, width=width, height=height, **given)
    saved = find_run(run)
    pictures = sample_saved(saved, wish, watcher=build_watcher())
    folder = out or saved.home.folder / "samples"
    for number, picture in enumerate(pictures):
        file = find_free(folder / build_file_name(wish, number, ending=saved.home.ending))
        save_picture(picture, file)
        say(str(file))
