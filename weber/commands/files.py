"""`weber inspect`, `check`, `diff`, `export`, `merge`, `extract`, `resize`, `scale`: what files are, and from files to files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weber.commands.terminal import Texts, build_watcher, say


def inspect(file: Path, /) -> None:
    """Say what a file is: family, layout, rank, alpha, targets, facts of its training, and what can be done with it.

    Parameters
    ----------
    file
        An adapter, a checkpoint, a text encoder or an autoencoder, as a *.safetensors file or a folder.
    """
    from weber.adapters.inspect import inspect_file

    say(str(inspect_file(file)))


def check(source: Path, /, *, original: Path | None = None, base: str | None = None, keys: bool = False) -> None:
    """Say what becomes of a file elsewhere: which of its tensors diffusers, ComfyUI, kohya, LyCORIS and BFL load, and why not others;
    whether it holds the change that it was made from; how much of that survives in a model of 8 or 4 bits.

    Parameters
    ----------
    source
        An adapter file of any kind, a run folder, or a whole model: a file or a folder.
    original
        The adapter that the file was made from: a file or a run folder.
    base
        The adapter's model: a variant, a folder, a hub id or a file; that of the run if left out.
    keys
        List every tensor with every program.
    """
    from weber.results.check import check as look

    watcher = build_watcher()
    with watcher.shown():
        found = look(source, original=original, base=base, progress=watcher.report)
    say(f"{found}\n{found.describe_keys()}" if keys else str(found))


def diff(first: Path, second: Path, /, *, base: str | None = None, layers: int = 10) -> None:
    """Say which layers of two adapters differ, and by how much.

    Parameters
    ----------
    first
        An adapter file of any kind, a run folder or one of its checkpoints.
    second
        The other one.
    base
        Their model, for DoRA and for forms of LyCORIS whose change depends on it: a variant, a folder, a hub id or a file.
    layers
        How many layers are listed, those that differ most first.
    """
    from weber.results.diff import diff as compare

    watcher = build_watcher()
    with watcher.shown():
        found = compare(first, second, base=base, progress=watcher.report)
    say(found.describe(layers))


def export(source: Path, /, *, format: Texts, base: str | None = None, out: Path | None = None) -> None:
    """Write an adapter in other formats.

    Parameters
    ----------
    source
        A run folder, one of its checkpoints, or an adapter file of any layout; of a run that trained the model, its folder.
    format
        diffusers, kohya, comfyui, or with the adapter in a whole model: merged-diffusers, merged-bfl. May be given several times.
    base
        The model to merge into: a variant, a folder, a hub id or a file; that of the run if left out.
    out
        Folder for the files; beside the adapter if left out.
    """
    from weber.results.export import export as write

    watcher = build_watcher()
    with watcher.shown():
        notes: list[str] = []
        written = write(source, format, base=base, out=out, progress=watcher.report, note=notes.append)
    say("\n".join([*map(str, written), *(f"note: {note}" for note in notes)]))


def merge(
    *adapters: str, out: Path, base: str | None = None, layout: str | None = None, rank: int | None = None, blocks: str | None = None
) -> None:
    """Add adapters up, into one adapter or into a whole model.

    Parameters
    ----------
    adapters
        Adapter files of any layout, or run folders, each as FILE or FILE:WEIGHT.
    out
        The adapter file. With a base: a *.safetensors file with the makers' names, or a folder in the library's layout.
    base
        The model to merge into: a variant, a folder, a hub id or a file.
    layout
        diffusers, kohya or comfyui; diffusers if left out.
    rank
        Cut the sum to this rank; exact if left out, with the ranks added up.
    blocks
        Strengths of single blocks on top: single:0.5, double.3:0, by the names of the library or the makers.
    """
    from weber.results.merge import merge as add_up
    from weber.results.merge import read_weighted

    watcher = build_watcher()
    with watcher.shown():
        parts = [read_weighted(one) for one in adapters]
        notes = add_up(parts, base=base, out=out, layout=layout, rank=rank, progress=watcher.report, blocks=blocks)
    say("\n".join([str(out), *(f"note: {note}" for note in notes)]))


def extract(
    tuned: str,
    /,
    *,
    base: str,
    out: Path,
    rank: int | None = None,
    energy: float | None = None,
    targets: str = "blocks",
    layout: str = "diffusers",
) -> None:
    """Take a LoRA out of a whole fine-tune: the largest directions of what it changed.

    Parameters
    ----------
    tuned
        The fine-tune: a folder, a hub id or a file.
    base
        The model that it was made from: a variant, a folder, a hub id or a file.
    out
        The adapter file.
    rank
        Rank of each layer; with energy the highest.
    energy
        Share of each layer's change that is kept, such as 0.95.
    targets
        Which layers: a set (`weber variants` lists them) or a pattern.
    layout
        diffusers, kohya or comfyui.
    """
    from weber.results.extract import extract as take_out

    watcher = build_watcher()
    with watcher.shown():
        found = take_out(
            tuned, base=base, targets=targets, rank=rank, energy=energy, out=out, layout=layout, progress=watcher.report
        )
    kept = sorted(found.kept.values())
    say(f"{out}: {len(kept)} layers; of their change {kept[0]:.1%} (least) to {kept[-1]:.1%} is kept")
    if found.left_out:
        say(f"{len(found.left_out)} changed tensors are outside of the targets and were left out, such as {found.left_out[0]}")


def report(run: Path, other: Path | None = None, /, *, out: Path | None = None) -> None:
    """Write a run as one page for a browser: curves, pictures, settings, data, the plan beside what happened. Needs no network.

    Parameters
    ----------
    run
        A run folder, also of a run that is at work.
    other
        Another run to compare it with: settings that differ, curves in one picture, pictures of the same prompts.
    out
        The HTML file; report.html in the run folder if left out.
    """
    from weber.pages.page import write_report

    watcher = build_watcher()
    with watcher.shown():
        page = write_report(run, other, out=out, progress=watcher.report)
    say(f"Open {page} in a browser.")


def resize(source: Path, /, *, out: Path, rank: int | None = None, energy: float | None = None) -> None:
    """Lower the rank of a LoRA: each layer keeps the largest directions of its change, and the file its layout, header and strength.

    Parameters
    ----------
    source
        A LoRA of any layout, or a run folder.
    out
        The new adapter file.
    rank
        Rank of each layer; with energy the highest.
    energy
        Share of each layer's change that is kept, by squares, such as 0.95.
    """
    from weber.results.resize import resize as cut

    watcher = build_watcher()
    with watcher.shown():
        told = cut(source, rank=rank, energy=energy, out=out, progress=watcher.report)
    say(f"{out}: {told}")


def scale(source: Path, factor: float, /, *, out: Annotated[Path, Parameter(name=["--out", "-o"])]) -> None:
    """Make an adapter stronger or weaker in its own file: its change times a number, which every program then has at strength 1.

    Parameters
    ----------
    source
        An adapter file of any layout, LyCORIS too, or a run folder.
    factor
        0.5 is half as strong, 2 twice; -1 is the opposite.
    out
        The new adapter file.
    """
    from weber.results.scale import scale as write

    watcher = build_watcher()
    with watcher.shown():
        told = write(source, factor, out=out, progress=watcher.report)
    say(f"{out}: {told}")
