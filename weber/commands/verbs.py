"""Which verbs there are. What a verb needs is imported when it is called."""

from __future__ import annotations

from cyclopts import App

from weber.commands import (
    bench,
    cache,
    captions,
    cloud,
    data,
    files,
    imports,
    launch,
    lists,
    metadata,
    new,
    plan,
    publish,
    remote,
    sample,
    serve,
    tags,
    texts,
    train,
)
from weber.version import VERSION

app = App(name="weber", help="Fine-tune image models: a LoRA from a folder of pictures.", version=VERSION, result_action="return_value")
app.command(train.train, help_format="plaintext")
app.command(imports.import_settings, name="import")
app.command(new.new)
for _verb in (
    launch.launch,
    plan.plan,
    cache.app,
    captions.caption,
    captions.tag,
    data.app,
    tags.app,
    metadata.app,
    sample.sample,
    sample.grid,
    files.inspect,
    files.check,
    files.diff,
    files.export,
    files.merge,
    files.extract,
    files.report,
    files.resize,
    files.scale,
    publish.publish,
    serve.serve,
    bench.app,
    texts.serve_text,
    remote.app,
    cloud.app,
    train.demo,
    lists.schema,
    lists.variants,
):
    app.command(_verb)


def call(arguments: list[str]) -> None:
    """Do what the words of a command line say. Raises what the verbs raise, and CycloptsError for words that mean nothing."""
    if arguments[:1] == ["train"]:
        arguments = train.place_resume(arguments)
    _write_settings_help(arguments)
    app(arguments, exit_on_error=False, print_error=False)


def _write_settings_help(arguments: list[str]) -> None:
    """`weber train --help` ends with all settings. Only then are they read."""
    if arguments[:1] == ["train"] and {"-h", "--help"} & set(arguments):
        from weber.config.surface import build_help

        app["train"].help_epilogue = build_help()
