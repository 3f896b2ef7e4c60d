"""A process that calls `weber`, waits for it, and writes down how it ended, so that it is known whoever is there by then.

    python -m weber.serve.child FILE WORD ...
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

_CALL = "from weber.cli import main; main()"


def main() -> None:
    """See above. What asks to stop is sent to both; this one stays until the other has left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)  # and not SIG_IGN, which the other one would have too
    file, words = Path(sys.argv[1]), sys.argv[2:]
    done = subprocess.run([sys.executable, "-P", "-c", _CALL, *words], check=False)
    unfinished = file.with_name(f".{file.name}.tmp")
    unfinished.write_text(json.dumps({"code": done.returncode, "ended": time.time()}) + "\n", encoding="utf-8")
    unfinished.replace(file)


if __name__ == "__main__":
    main()
