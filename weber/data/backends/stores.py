"""Storage that fsspec knows: S3, Google's and Microsoft's, the hub, SFTP and others. Endpoints and keys are those of its own settings."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from weber.config.elsewhere import find_scheme, write_address
from weber.data.backends.backend import FileStat, Listing
from weber.errors import DataError, MissingExtraError


class Store(NamedTuple):
    """What a scheme needs: the packages, how they are installed, and classes of what goes wrong that are no OSError."""

    package: str
    command: str
    errors: tuple[str, ...] = ()


_GOOGLE = Store("gcsfs", "pip install gcsfs", ("google.auth.exceptions.GoogleAuthError",))
_MICROSOFT = Store("adlfs", "pip install adlfs", ("azure.core.exceptions.AzureError",))
STORES: Mapping[str, Store] = {
    "s3": Store("s3fs", "pip install 'weber[s3]'", ("botocore.exceptions.BotoCoreError", "aiohttp.ClientError")),
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _MICROSOFT,
    "abfs": _MICROSOFT,
    "hf": Store("huggingface_hub", "pip install huggingface_hub", ("huggingface_hub.errors.HfHubHTTPError",)),
    "sftp": Store("paramiko", "pip install paramiko", ("paramiko.ssh_exception.SSHException",)),
    "memory": Store("fsspec", "pip install fsspec"),
}
"""By scheme. Another storage of fsspec is a row more."""

_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created", "last_commit")
_MARKS = ("ETag", "etag", "md5Hash", "generation", "blob_id", "content_md5", "VersionId")
_GONE = FileNotFoundError
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "PermissionError", "DefaultCredentialsError")


class StoreBackend:
    """Files in a storage of fsspec. Each is asked for when it is needed, and none is kept."""

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """See `Backend`."""
        address = write_address(folder)
        try:
            system, place = open_store(address)
            system.invalidate_cache()
            found = system.find(place, maxdepth=None if recursive else 1, detail=True)
        except list_errors(find_scheme(folder)) as error:
            raise _explain_list(address, error) from error
        start = place.rstrip("/") + "/"
        below = {name[len(start) :]: info for name, info in found.items() if name.startswith(start) and not name.endswith("/")}
        if not below:
            raise _explain_nothing(address)
        names = sorted(name for name in below if not any(part.startswith(".") and part != ".." for part in name.split("/") if part != "."))
        lost = dict.fromkeys((name for name in names if {"", ".", ".."} & {*name.split("/")}), "name that no path can have: rename it")
        return Listing(folder, names, [_build_stat(below[name]) for name in names], lost)

    def read(self, path: Path) -> bytes:
        """See `Backend`."""
        return bytes(self._ask(path, "cat_file"))

    def read_part(self, path: Path, start: int, *, num_bytes: int) -> bytes:
        """See `Backend`."""
        return bytes(self._ask(path, "cat_file", start=start, end=start + num_bytes))

    def stat(self, path: Path) -> FileStat:
        """See `Backend`."""
        info = self._ask(path, "info")
        if info["type"] != "file":
            raise DataError("unreadable file: a folder")
        return _build_stat(info)

    def _ask(self, path: Path, what: str, **details: int) -> Any:
        address = write_address(path)
        try:
            system, place = open_store(address)
            return getattr(system, what)(place, **details)
        except list_errors(find_scheme(path)) as error:
            raise DataError(f"unreadable file: {'it is not there' if isinstance(error, _GONE) else _describe(error)}") from error


def open_store(address: str) -> tuple[Any, str]:
    """The storage, which fsspec keeps open, and the name of something in it."""
    scheme = address.partition("://")[0].lower()
    store = STORES[scheme]
    try:
        importlib.import_module(store.package)
        system, place = importlib.import_module("fsspec.core").url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(
            f"{scheme}:// cannot be read, because {store.package} is not installed.", got=address, fix=store.command
        ) from error
    return system, place


@cache
def list_errors(scheme: str) -> tuple[type[Exception], ...]:
    """What a storage raises where a file cannot be had."""
    errors: list[type[Exception]] = [OSError, ValueError]
    for name in STORES[scheme].errors:
        module, _, kind = name.rpartition(".")
        try:
            errors.append(getattr(importlib.import_module(module), kind))
        except ImportError:  # without it nothing of the kind is raised
            continue
    return tuple(errors)


def _build_stat(info: Mapping[str, Any]) -> FileStat:
    time = next((info[key] for key in _TIMES if info.get(key) is not None), 0)
    time = getattr(time, "date", time) if not isinstance(time, datetime) else time
    seconds = time.timestamp() if isinstance(time, datetime) else float(time) if isinstance(time, (int, float)) else 0.0
    mark = next((str(info[key]) for key in _MARKS if info.get(key) is not None), "")
    return FileStat(int(info["size"] or 0), int(seconds * 1e9), mark)


def _describe(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _explain_list(address: str, error: Exception) -> DataError:
    if isinstance(error, _GONE):
        return _explain_nothing(address)
    fix = "check the connection, and the endpoint (for S3: the variable AWS_ENDPOINT_URL)"
    if type(error).__name__ in _CREDENTIALS:
        fix = "set the keys where the storage looks for them (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`)"
    return DataError(f'"{address}" cannot be listed', got=_describe(error), fix=fix)


def _explain_nothing(address: str) -> DataError:
    return DataError(f'there is nothing at "{address}"', expected="a bucket and a folder in it", fix="correct the address")
