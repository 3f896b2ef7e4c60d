"""Which models are known by name: asked of `weber` once, because the server itself knows none.

What it says is kept in the site's own folder; until it has answered, a field that takes any name lists none.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from weber.serve.site import Site
from weber.version import VERSION

_CALL = (sys.executable, "-P", "-c", "from weber.cli import main; main()", "variants")
_SECONDS = 120


def list_models(site: Site) -> list[str]:
    """Their names, as far as they are known."""
    file = site.home / f"models-{VERSION}.txt"
    if file.is_file():
        return file.read_text(encoding="utf-8").split()
    mark = file.with_suffix(".asked")
    if not mark.exists() or time.time() - mark.stat().st_mtime > _SECONDS:
        mark.touch()
        threading.Thread(target=_write, args=(site, file), daemon=True).start()
    return []


def _write(site: Site, file: Path) -> None:
    environment = dict(site.environment) or None
    try:
        done = subprocess.run(_CALL, capture_output=True, text=True, check=True, timeout=_SECONDS, env=environment, cwd=site.home)
    except (OSError, subprocess.SubprocessError):
        return
    names = [line.split()[0] for line in done.stdout.splitlines() if line.strip() and not line.startswith("target sets")]
    unfinished = file.with_name(f".{file.name}.tmp")
    unfinished.write_text("\n".join(names) + "\n", encoding="utf-8")
    unfinished.replace(file)
