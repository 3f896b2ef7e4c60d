"""Pictures of the web are fetched before they are looked at, many at a time; rows whose pictures will never come are set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from weber.data.backends.sources import Sources
from weber.data.rows import Row


def fetch_rows(rows: Sequence[Row], files: Sources, *, report: Callable[[int, int], None]) -> list[Row]:
    """The rows, those with a reason whose picture or reference cannot be had."""
    wanted = [path for row in rows if not row.reason for path in (row.path, *row.references) if files.is_of_web(path)]
    lost = files.web.fetch(wanted, report=report) if wanted else {}
    return [_refuse(row, [lost[path] for path in (row.path, *row.references) if path in lost]) for row in rows] if lost else list(rows)


def _refuse(row: Row, reasons: Sequence[str]) -> Row:
    return row._replace(reason=reasons[0]) if reasons and not row.reason else row
