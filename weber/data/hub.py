"""Hub datasets: fetched and unpacked once, then sets like any other with a table."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from glob import escape
from os.path import commonprefix
from pathlib import Path

from filelock import FileLock
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.errors import HTTPError as HTTPError  # type: ignore[attr-defined]

from weber.config.data import DataConfig
from weber.data.unpack import TABLE_NAME, Tables, read_imagefolder, read_parquet, write_unpacked
from weber.errors import DataError, MissingExtraError
from weber.progress import Progress

_SPLIT_WORDS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"})
_TABLE_NAMES = ("metadata.jsonl", "metadata.csv")
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})")
_NUM_SHOWN = 8


@dataclass(frozen=True)
class _Files:
    """What has to be fetched: Parquet files, or the folder of a table with all that is in it."""

    parquet: Sequence[str] = ()
    table: str = ""

    @property
    def patterns(self) -> list[str]:
        folder = self.table.rpartition("/")[0]
        return [f"{escape(folder)}/*" if folder else "*"] if self.table else [escape(name) for name in self.parquet]


def load_hub_set(config: DataConfig, hub_folder: Path, *, progress: Progress) -> DataConfig:
    """The set with `path` and `metadata` of the unpacked dataset, which an earlier start may have left below `hub_folder`.

    Raises DataError where it cannot be fetched or has no pictures, MissingExtraError where Parquet files cannot be read.
    """
    names = [str(config.hub), config.hub_revision or "main", config.hub_split]
    folder = hub_folder.absolute().joinpath(*[name.replace("/", "--") for name in names])
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not (folder / TABLE_NAME).is_file():
                write_unpacked(folder, _load_tables(config), name=_name(config), report=partial(progress, f"unpacking {config.hub}"))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{_name(config)} cannot be unpacked", got=str(error), fix=f"make room in {folder.parent}, or download the dataset anew"
        ) from error
    return config.model_copy(update={"path": folder, "metadata": folder / TABLE_NAME})


def list_split(names: Sequence[str], split: str) -> list[str]:
    """Those files of a repository that belong to a split (`configuration/split` where there are several configurations).

    As on the hub: files or folders named like the split; else, for `train`, all of them where none is named like any split.
    """
    configuration, _, split = split.rpartition("/")
    inside = [name for name in names if not configuration or configuration in name.split("/")[:-1]]
    word = re.compile(rf"(^|[/._-]){re.escape(split)}([/._-]|$)")
    exact = [name for name in inside if split in [*name.split("/")[:-1], _strip(name)]]
    found = exact or [name for name in inside if word.search(name)]
    if not found and split == "train" and not any(_SPLIT_WORDS & set(re.split(r"[/._-]", name)) for name in inside):
        found = inside
    return sorted(found)


def _load_tables(config: DataConfig) -> Tables:
    """Fetch the files of the split."""
    try:
        names = _list_names(config)
        files = _choose_files(config, names)
        fetch = partial(snapshot_download, str(config.hub), repo_type="dataset", revision=config.hub_revision)
        root = Path(fetch(allow_patterns=files.patterns))
    except (OSError, HTTPError, HFValidationError, RuntimeError) as error:
        raise _explain(error, config) from error
    return read_imagefolder(root / files.table) if files.table else read_parquet([root / name for name in files.parquet])


def _list_names(config: DataConfig) -> list[str]:
    """Names of the files in the repository; of those on this machine where the hub cannot be asked."""
    hub, revision = str(config.hub), config.hub_revision
    try:
        return [file.rfilename for file in HfApi().dataset_info(hub, revision=revision).siblings or []]
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        raise
    except (OSError, HTTPError):
        root = Path(snapshot_download(hub, repo_type="dataset", revision=revision))  # raises why not, if it is not there
        return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]


def _choose_files(config: DataConfig, names: Sequence[str]) -> _Files:
    parquet = list_split([name for name in names if name.endswith(".parquet")], config.hub_split)
    tables = [name for name in names if name.rpartition("/")[2] in _TABLE_NAMES]
    tables = list_split(tables, config.hub_split) or (tables if len(tables) == 1 and config.hub_split == "train" else [])
    if parquet:
        _check_parquet(config, parquet)
        return _Files(parquet=parquet)
    if len(tables) == 1:
        return _Files(table=tables[0])
    raise DataError(
        f'{_name(config)} has no Parquet files and no table of its pictures for the split "{config.hub_split}"',
        got=f"the files {_show(sorted(tables or names))}",
        expected="*.parquet, or pictures with a metadata.jsonl or metadata.csv",
        fix="set hub_split to one that is there, or download the dataset (`hf download --repo-type dataset`) and set path",
    )


def _check_parquet(config: DataConfig, parquet: Sequence[str]) -> None:
    """Raise where the files belong to several configurations, where one is missing, and where they could not be read."""
    folders = sorted({name.rpartition("/")[0] for name in parquet})
    if len(folders) > 1:
        parts = [folder.split("/") for folder in folders]
        configuration = parts[-1][len(commonprefix(parts))]
        raise DataError(
            f'{_name(config)} has several configurations of the split "{config.hub_split}"',
            got=f"the folders {_show(folders)}",
            fix=f'set hub_split = "{configuration}/{config.hub_split}" or another of them',
        )
    shards = [found for name in parquet if (found := _SHARD.match(name))]
    missing = [found[0] for found in shards if sum(other[1] == found[1] for other in shards) < int(found[3])]
    if missing:
        raise DataError(
            f"files of {_name(config)} are missing",
            got=f"{_show([name.rpartition('/')[2] for name in missing])} without the others",
            fix="download the whole dataset where there is a connection",
        )
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError(
            "Parquet files cannot be read, because pyarrow is not installed.",
            got=f'hub = "{config.hub}"',
            fix="pip install 'weber[hub]'",
        )


def _explain(error: Exception, config: DataConfig) -> DataError:
    name = _name(config)
    page = f"{constants.ENDPOINT}/datasets/{config.hub}"
    if isinstance(error, GatedRepoError):
        return DataError(
            f"{name} asks you to accept its terms first",
            got="no access with the token that is set, or no token",
            fix=f"accept the terms at {page}, then run `hf auth login` with a token of the same account",
        )
    if isinstance(error, RevisionNotFoundError):
        return DataError(f'{name} has no revision "{config.hub_revision}"', fix=f"choose one at {page}/tree/main, or remove hub_revision")
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return DataError(
            f"there is no such dataset on the hub: {config.hub}",
            got=f"nothing at {page} that this account can see",
            fix="correct hub, or run `hf auth login` if the dataset is private; for a folder on this machine set path",
        )
    offline = "unset HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else f"check the connection to {constants.ENDPOINT}"
    return DataError(
        f"{name} is not on this machine and could not be downloaded",
        got=(str(error).strip() or type(error).__name__).splitlines()[0],
        fix=f"{offline}, or run `hf download --repo-type dataset {config.hub}` where there is a connection",
    )


def _name(config: DataConfig) -> str:
    return f'the hub dataset "{config.hub}"'


def _strip(name: str) -> str:
    """The name of a file without its folders, its ending and its number among several."""
    stem = name.rpartition("/")[2].rpartition(".")[0]
    found = _SHARD.match(stem)
    return found[1] if found else stem


def _show(names: Sequence[str]) -> str:
    return (", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")) or "none"
