"""A folder in a storage that fsspec knows."""

from __future__ import annotations

from weber.config.elsewhere import build_path, find_scheme
from weber.config.publish import PublishConfig
from weber.data.backends.stores import STORES, list_errors, open_store
from weber.errors import PublishError
from weber.sharing.folder import Folder

_WITH_FOLDERS = ("sftp://", "memory://")
_KEYS = "check the address, and the keys where the storage looks for them (for S3: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL)"


def check_store(address: str) -> None:
    """Refuse a storage that is not known, or whose package is not installed; nothing is asked of it."""
    scheme = address.partition("://")[0].lower()
    if scheme not in STORES:
        raise PublishError(
            "weber knows no such storage.",
            got=f"publish.to = {address!r}",
            expected=", ".join(f"{name}://" for name in STORES if name != "hf"),
            fix="correct publish.to",
        )
    open_store(address)


def send_to_store(folder: Folder, config: PublishConfig) -> str:
    """Write the files, the page last; returns the address. Raises PublishError."""
    assert config.to is not None
    check_store(config.to)
    try:
        system, place = open_store(config.to)
        for file in folder.files:
            target = f"{place}/{file.relative_to(folder.path).as_posix()}"
            if config.to.startswith(_WITH_FOLDERS):  # in others a bucket would be made of it
                system.makedirs(target.rpartition("/")[0], exist_ok=True)
            system.put_file(str(file), target)
            system.invalidate_cache()
            if system.info(target)["size"] != file.stat().st_size:
                raise OSError("a file arrived with another size")
    except list_errors(find_scheme(build_path(config.to))) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        told = PublishError(f"Not all was sent to {config.to}.", got=first_line, fix=_KEYS)
        told.is_passing = not isinstance(error, FileNotFoundError | PermissionError | ValueError)
        raise told from error
    return config.to
