"""The command line: verbs only. Everything heavy is imported when a verb needs it, so that `weber --help` is quick."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from weber.config.load import load_config
from weber.config.surface import build_help, build_schema
from weber.errors import CacheError, ConfigError, WeberError
from weber.version import VERSION

if TYPE_CHECKING:
    from weber.cache.store import Store

USER_ERROR = 2
INTERRUPTED = 130

app = App(
    name="weber", help="Fine-tune image models: a LoRA from a folder of pictures.", version=VERSION, result_action="return_value"
)
cache_app = App(name="cache", help="Fill, check or clean the cache of encoded tensors.")
app.command(cache_app)
bench_app = App(name="bench", help="Measure this machine.")
app.command(bench_app)


def train(config: Path, /, *overrides: str, resume: bool = False) -> None:
    """Train an adapter, or the model itself.

    Parameters
    ----------
    config
        A TOML file of settings.
    overrides
        `section.key=value`, for example `optim.lr=2e-4` or `data.0.repeats=10`.
    resume
        Go on from the latest checkpoint in output.folder.
    """
    from weber.track.progress import Watcher
    from weber.training import assemble

    settings = load_config(config, overrides)
    if resume and (config.parent / "metrics.jsonl").is_file() and not settings.output.folder.exists():
        raise ConfigError(
            "The run folder was moved: its settings name another place.",
            got=f"output.folder = {settings.output.folder}, which does not exist",
            fix=f"add output.folder={shlex.quote(str(config.parent))}",
        )
    finished = assemble.train(settings, resume=resume, watcher=Watcher(Console(stderr=True)))
    _say(f"The result is {finished}")


app.command(train, help_format="plaintext", help_epilogue=build_help())


@app.command
def plan(config: Path, /, *overrides: str, plot: Path | None = None) -> None:
    """Say what a run will do, without reading weights: pictures, buckets, steps, cache, files, settings.

    Parameters
    ----------
    config
        A TOML file of settings.
    overrides
        `section.key=value`, for example `optim.lr=2e-4`.
    plot
        Write a picture of the noise levels that are trained: a PNG file.
    """
    from weber.planning.data_report import save_list
    from weber.planning.plan import build_plan
    from weber.planning.plot import build_plot
    from weber.planning.report import build_report
    from weber.sampling.validate import save_picture
    from weber.track.progress import Watcher

    if plot is not None and (plot.is_dir() or plot.suffix.lower() != ".png"):
        raise ConfigError("The picture is a PNG file.", got=f"--plot {plot}", expected="a file name", fix="write --plot levels.png")
    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        built = build_plan(load_config(config, overrides), watcher.report)
        save_list(built)
        report = build_report(built, watcher.report)
    _say(report)
    if plot is not None:
        save_picture(build_plot(built), plot)
        _say(f"\nThe noise levels that are trained are in {plot}.")


@cache_app.default
def fill(config: Path, /, *overrides: str) -> None:
    """Encode what a run needs into the cache, and stop there.

    Parameters
    ----------
    config
        A TOML file of settings.
    overrides
        `section.key=value`, for example `memory.device=cpu`.
    """
    from weber.cache.store import Store
    from weber.planning.plan import build_plan
    from weber.track.progress import Watcher
    from weber.training.assemble import encode_cache

    settings = load_config(config, overrides)
    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        built = build_plan(settings, watcher.report)
        encoded = encode_cache(built, Store(settings.output.cache), watcher=watcher)
    _say(f"Encoded {encoded.latents} latents and {encoded.texts} texts; {settings.output.cache} is complete for this run.")


@cache_app.command
def verify(place: Path = Path("cache"), /) -> None:
    """Read every tensor of a cache and check it; damaged ones are set aside and encoded again by the next run.

    Parameters
    ----------
    place
        The cache folder, or the TOML file of a run.
    """
    from weber.track.progress import Watcher

    store = _open_cache(place)
    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        report = store.verify(progress=watcher.report)
    _say(f"{report.num_samples} samples, {report.num_bytes:,} bytes in {store.folder}")
    for damage in report.set_aside:
        _say(f"damaged: {damage.shard}: {damage.reason}")
    leftover = len(report.damaged_files) + len(report.temporary_files)
    _say(f"{len(report.set_aside)} damaged now, {leftover} leftover files of earlier damage or kills (`weber cache gc` deletes them)")


@cache_app.command
def gc(*configs: Path) -> None:
    """Delete every tensor and every quantized model that none of these runs needs.

    Parameters
    ----------
    configs
        The TOML files of all runs whose tensors are kept; they must share one cache folder.
    """
    from weber.memory.kept import collect_kept
    from weber.planning.plan import build_plan, list_keys, list_models
    from weber.planning.resolve import build_absolute
    from weber.track.progress import Watcher

    if not configs:
        raise ConfigError("`weber cache gc` needs to know what to keep.", got="no config", fix="weber cache gc run.toml [other.toml ...]")
    settings = [load_config(config) for config in configs]
    folders = {build_absolute(one.output.cache) for one in settings}
    if len(folders) > 1:
        raise ConfigError(
            "These runs do not share one cache.", got=", ".join(map(str, sorted(folders))), fix="clean one cache folder at a time"
        )
    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        plans = [build_plan(one, watcher.report) for one in settings]
        folder = folders.pop()
        report = _open_cache(folder).collect({key for one in plans for key in list_keys(one)}, progress=watcher.report)
        num_models, model_bytes = collect_kept(folder, {key for one in plans for key in list_models(one)})
    _say(f"Kept {report.num_kept} samples, removed {report.num_removed}, freed {report.freed_bytes:,} bytes.")
    if num_models:
        _say(f"Removed {num_models} quantized models, freed {model_bytes:,} bytes.")


Texts = Annotated[list[str], Parameter(negative="")]
"""A flag that may be given several times."""


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


@app.command
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
    from weber.sampling.validate import save_picture
    from weber.track.progress import Watcher
    from weber.training.paint import Wish, build_file_name, find_free, read_size
    from weber.training.paint import sample as paint

    given = asdict(asked or Asked())
    width, height = read_size(given.pop("size"))
    wish = Wish(prompt, width=width, height=height, **given)
    pictures = paint(run, wish, watcher=Watcher(Console(stderr=True)))
    folder = out or (run.parent if run.is_file() else run) / "samples"
    for number, picture in enumerate(pictures):
        file = find_free(folder / build_file_name(wish, number))
        save_picture(picture, file)
        _say(str(file))


@app.command
def inspect(file: Path, /) -> None:
    """Say what a file is: family, layout, rank, alpha, targets, facts of its training, and what can be done with it.

    Parameters
    ----------
    file
        An adapter, a checkpoint, a text encoder or an autoencoder, as a *.safetensors file or a folder.
    """
    from weber.adapters.inspect import build_text, inspect_file

    _say(build_text(inspect_file(file)))


@app.command
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
    from weber.track.progress import Watcher

    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        written = write(source, format, base=base, out=out, progress=watcher.report)
    for path in written:
        _say(str(path))


@app.command
def merge(*adapters: str, out: Path, base: str | None = None, layout: str | None = None, rank: int | None = None) -> None:
    """Add adapters up, into one adapter or into a whole model.

    Parameters
    ----------
    adapters
        Adapter files of any layout, each as FILE or FILE:WEIGHT.
    out
        The adapter file. With a base: a *.safetensors file with the makers' names, or a folder in the library's layout.
    base
        The model to merge into: a variant, a folder, a hub id or a file.
    layout
        diffusers, kohya or comfyui; diffusers if left out.
    rank
        Cut the sum to this rank; exact if left out, with the ranks added up.
    """
    from weber.results.merge import merge as add_up
    from weber.results.merge import read_weighted
    from weber.track.progress import Watcher

    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        add_up([read_weighted(one) for one in adapters], base=base, out=out, layout=layout, rank=rank, progress=watcher.report)
    _say(str(out))


@app.command
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
    from weber.track.progress import Watcher

    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        found = take_out(
            tuned, base=base, targets=targets, rank=rank, energy=energy, out=out, layout=layout, progress=watcher.report
        )
    kept = sorted(found.kept.values())
    _say(f"{out}: {len(kept)} layers; of their change {kept[0]:.1%} (least) to {kept[-1]:.1%} is kept")
    if found.left_out:
        _say(f"{len(found.left_out)} changed tensors are outside of the targets and were left out, such as {found.left_out[0]}")


@bench_app.command
def memory(
    *models: str,
    precision: Texts | None = None,
    pixels: Annotated[list[int] | None, Parameter(negative="")] = None,
    device: str = "auto",
    steps: int = 5,
    blocks: int | None = None,
    out: Path | None = None,
) -> None:
    """Measure peak memory and step time with random weights of full size, next to the estimate.

    Parameters
    ----------
    models
        Variants (`weber variants`); a large and a small one if left out.
    precision
        Precision of the frozen weights, as `memory.quantize`; none, int8 and nf4 if left out.
    pixels
        Edge of the pictures; 512 and 1024 if left out.
    device
        As `memory.device`.
    steps
        Steps whose median time is given.
    blocks
        Blocks of each kind, for machines that are too small for all.
    out
        File for the same as JSON.
    """
    from weber.pocket.full_size import LARGE_AND_SMALL
    from weber.track.progress import Watcher
    from weber.training.bench import PRECISIONS, build_records, build_table, list_cases, measure_cases

    cases = list_cases(models or LARGE_AND_SMALL, precisions=precision or PRECISIONS, edges=pixels or [512, 1024], num_blocks=blocks)
    watcher = Watcher(Console(stderr=True))
    with watcher.shown():
        found = list(measure_cases(cases, device=device, num_steps=steps, progress=watcher.report))
    measured = [one for one in found if not isinstance(one, str)]
    for text in (one for one in found if isinstance(one, str)):
        _say(text)
    if measured:
        _say(f"On {measured[0].device}:\n\n{build_table(measured)}")
    if out is not None:
        out.write_text(json.dumps(build_records(measured), indent=1) + "\n", encoding="utf-8")


@app.command
def demo(out: Path = Path("runs")) -> None:
    """Teach the small model that comes with weber a style, on the CPU: the same prompts before, during and after.

    Parameters
    ----------
    out
        Folder under which the run folder is made.
    """
    from weber.track.progress import Watcher
    from weber.training.demo import run_demo

    sheet = run_demo(out, Watcher(Console(stderr=True)))
    _say(f"Before, during and after: {sheet}")


@app.command
def schema() -> None:
    """Print the JSON Schema of the settings, for editors and forms."""
    _say(json.dumps(build_schema(), indent=1))


@app.command
def variants() -> None:
    """List the models and the target sets that are known by name."""
    from weber.families.table import FAMILIES

    for family in FAMILIES:
        for name, (home, summary) in family.variants.items():
            _say(f"{name:20} {summary} ({home})")
        _say("target sets: " + ", ".join(family.targets))


def main() -> None:
    """Entry point of the `weber` command: problems that a person can fix are one message and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except (WeberError, CycloptsError) as error:
        _fail(str(error))
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        fix = "check the path, the disk's space and permissions (a run goes on with --resume)"
        _fail(f"The disk refused.\n  got: {error.strerror or error}{where}\n  fix: {fix}")
    except KeyboardInterrupt:
        Console(stderr=True).print("Interrupted.")
        sys.exit(INTERRUPTED)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(USER_ERROR)


def _open_cache(place: Path) -> Store:
    from weber.cache.store import Store

    folder = load_config(place).output.cache if place.is_file() else place
    if not folder.is_dir():
        raise CacheError("There is no such cache folder.", got=str(folder), fix="give the cache folder or the TOML file of a run")
    return Store(folder)


def _say(text: str) -> None:
    print(text)
