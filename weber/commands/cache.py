"""`weber cache`: encoded tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from weber.commands.terminal import build_watcher, read_settings, say
from weber.data.words import describe_count
from weber.errors import CacheError, ConfigError

if TYPE_CHECKING:
    from weber.cache.store import Store

app = App(name="cache", help="Fill, check or clean the cache of encoded tensors.")


@app.default
def fill(config: Path, /, *overrides: str, part: str = "1/1") -> None:
    """Encode what a run needs into the cache, and stop there.

    Several processes or machines may fill one cache at once, each with a part of its own.

    Parameters
    ----------
    config
        A TOML file of settings.
    overrides
        `section.key=value`, for example `memory.device=cpu`.
    part
        Which part of how many is to be encoded here: `2/4` is the second of four.
    """
    settings = read_settings(config, overrides)
    from weber.cache.share import read_share
    from weber.cache.store import Store
    from weber.planning.plan import build_plan
    from weber.training.assemble import encode_cache
    from weber.training.stop import Stop, Stopped, stop_signals

    share, watcher, stop = read_share(part), build_watcher(), Stop()
    try:
        with watcher.shown(), stop_signals(stop, write=watcher.write):
            built = build_plan(settings, stop.guard(watcher.report), is_run=True)
            encoded = encode_cache(built, Store(settings.output.cache), watcher=watcher, stop=stop, share=share)
    except Stopped:
        watcher.write(f"What was encoded is in {settings.output.cache}; the same command goes on with it.")
        raise
    latents, texts = describe_count(encoded.latents, "latent"), describe_count(encoded.texts, "text")
    what = "is complete for this run" if share.num_parts == 1 else f"has part {part} of what this run needs"
    say(f"Encoded {latents} and {texts}; {settings.output.cache} {what}.")


@app.command
def verify(place: Path = Path("cache"), /) -> None:
    """Read every tensor of a cache and check it; damaged ones are set aside and encoded again by the next run.

    Parameters
    ----------
    place
        The cache folder, or the TOML file of a run.
    """

    store = _open_cache(place)
    watcher = build_watcher()
    with watcher.shown():
        report = store.verify(progress=watcher.report)
    say(f"{report.num_samples} samples, {report.num_bytes:,} bytes in {store.folder}")
    for damage in report.set_aside:
        say(f"damaged: {damage.shard}: {damage.reason}")
    leftover = len(report.damaged_files) + len(report.temporary_files)
    say(f"{len(report.set_aside)} damaged now, {leftover} leftover files of earlier damage or kills (`weber cache gc` deletes them)")


@app.command
def gc(*configs: Path, dry_run: bool = False) -> None:
    """Delete every tensor and every quantized model that none of these runs needs.

    Parameters
    ----------
    configs
        The TOML files of all runs whose tensors are kept; they must share one cache folder.
    dry_run
        Say what would be deleted, and delete nothing.
    """
    if not configs:
        raise ConfigError("`weber cache gc` needs to know what to keep.", got="no config", fix="weber cache gc run.toml [other.toml ...]")
    settings = [read_settings(config) for config in configs]
    from weber.data.known import FOLDER_NAME, collect_columns
    from weber.memory.kept import collect_kept
    from weber.planning.plan import build_plan, list_keys, list_models
    from weber.planning.resolve import build_absolute

    folders = {build_absolute(one.output.cache) for one in settings}
    if len(folders) > 1:
        raise ConfigError(
            "These runs do not share one cache.", got=", ".join(map(str, sorted(folders))), fix="clean one cache folder at a time"
        )
    watcher = build_watcher()
    with watcher.shown():
        plans = [build_plan(one, watcher.report) for one in settings]
        folder = folders.pop()
        store, keep = _open_cache(folder), {key for one in plans for key in list_keys(one)}
        report = store.weigh(keep) if dry_run else store.collect(keep, progress=watcher.report)
        num_models, model_bytes = collect_kept(folder, {key for one in plans for key in list_models(one)}, is_dry=dry_run)
        known = {build_absolute(file) for one in plans for file in one.dataset.kept}
        num_sets, set_bytes = collect_columns(folder / FOLDER_NAME, known, is_dry=dry_run)
    if dry_run:
        removed, freed = f"{report.num_removed} samples", report.freed_bytes
        freed += model_bytes + set_bytes
        what = f"{removed}, {num_models} quantized models and what is known of {num_sets} other sets"
        say(f"Would keep {report.num_kept} samples, and remove {what}: {freed:,} bytes.")
        return
    say(f"Kept {report.num_kept} samples, removed {report.num_removed}, freed {report.freed_bytes:,} bytes.")
    if num_models:
        say(f"Removed {num_models} quantized models, freed {model_bytes:,} bytes.")
    if num_sets:
        say(f"Forgot {num_sets} sets that these runs do not have, freed {set_bytes:,} bytes.")


def _open_cache(place: Path) -> Store:
    folder = read_settings(place).output.cache if place.is_file() else place
    if not folder.is_dir():
        raise CacheError("There is no such cache folder.", got=str(folder), fix="give the cache folder or the TOML file of a run")
    from weber.cache.store import Store

    return Store(folder)
