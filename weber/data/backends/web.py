"""Files of the web: fetched once, many at a time, and kept; what is there is not asked for again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from weber.config.elsewhere import write_address
from weber.data.backends.backend import Backend, FileStat, Listing
from weber.data.backends.download import DownloadError, Limits, download
from weber.data.backends.tars import ENDING
from weber.errors import DataError

SCHEMES = ("http", "https")
LIMITS = Limits()
_NUM_AT_ONCE = 16
_FEWEST_FAILURES = 3  # of a host one after the other: then it is left alone until the next start


class WebBackend:
    """Files by their address, kept below `folder` under a hash of it; `local` reads what is kept."""

    def __init__(self, folder: Path, *, local: Backend) -> None:
        self._folder, self._local = folder, local
        self._failed: dict[Path, DownloadError] = {}
        self._failures = Counter[str]()

    def list(self, folder: Path, *, recursive: bool) -> Listing:
        """The web has no lists of files; an archive is none where it could not be fetched."""
        error = self._try(folder) if folder.suffix.lower() == ENDING else None
        if error is not None:
            raise DataError(f'the archive "{write_address(folder)}" cannot be had', got=str(error), fix="correct the address, or try later")
        raise DataError(
            f'"{write_address(folder)}" is an address of the web, where no folder can be listed',
            expected="a folder, an archive (.tar), or a place such as s3://bucket/folder",
            fix="name the pictures in a table, one address a row, and set metadata to it",
        )

    def read(self, path: Path) -> bytes:
        """See `Backend`."""
        return self._local.read(self._need(path))

    def read_part(self, path: Path, start: int, *, num_bytes: int) -> bytes:
        """See `Backend`."""
        return self._local.read_part(self._need(path), start, num_bytes=num_bytes)

    def stat(self, path: Path) -> FileStat:
        """That of the file that was fetched: a change on the web is not asked for."""
        return self._local.stat(self._need(path))

    def fetch(self, paths: Iterable[Path], *, report: Callable[[int, int], None]) -> dict[Path, str]:
        """Fetch what is not there. Why files will not come, however often one asks; other failures are told when a file is read."""
        wanted, lost = list(dict.fromkeys(paths)), dict[Path, str]()
        pool = ThreadPoolExecutor(_NUM_AT_ONCE)
        try:
            for number, (path, error) in enumerate(zip(wanted, pool.map(self._try, wanted), strict=True), 1):
                if error is not None and error.is_lasting:
                    lost[path] = _describe(path, error)
                report(number, len(wanted))
        finally:
            pool.shutdown(cancel_futures=True)
        return lost

    def _need(self, path: Path) -> Path:
        error = self._try(path)
        if error is not None:
            raise DataError(_describe(path, error))
        return self._find(path)

    def _find(self, path: Path) -> Path:
        """Where it is kept."""
        name = blake2b(write_address(path).encode(errors="surrogatepass"), digest_size=16).hexdigest()
        return self._folder / name[:2] / name

    def _try(self, path: Path) -> DownloadError | None:
        """Why a file is not there."""
        file = self._find(path)
        if path in self._failed or file.is_file():
            return self._failed.get(path)
        address = write_address(path)
        host = address.split("/")[2]
        try:
            if self._failures[host] >= _FEWEST_FAILURES:
                raise DownloadError(f"{host} did not answer several times", is_lasting=False)
            download(address, file, limits=LIMITS, is_picture=path.suffix.lower() != ENDING)
            self._failures[host] = 0
        except DownloadError as error:
            self._failures[host] = 0 if error.is_lasting else self._failures[host] + 1
            self._failed[path] = error
        except OSError as error:
            raise DataError(
                f'"{address}" cannot be kept', got=str(error), fix=f"make room in {self._folder}, or set output.cache to another folder"
            ) from error
        return self._failed.get(path)


def _describe(path: Path, error: DownloadError) -> str:
    kind = "cannot be had from the web" if error.is_lasting else "not to be had from the web today"
    return f"{kind}: {error} ({write_address(path).partition('#')[0]})"
