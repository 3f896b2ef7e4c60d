"""An adapter file whose change is stronger or weaker, in its layout and with what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

from weber.adapters.files import build_hash
from weber.adapters.metadata import FACTS_KEY, HASH_KEY, read_facts
from weber.adapters.scale import build_scaled_tensors
from weber.errors import ConfigError
from weber.families.tensors import build_entry, open_weights, read_metadata, save_weights
from weber.progress import Progress
from weber.results.bases import find_pairings
from weber.results.diff import find_file, load_any
from weber.results.resize import HASHES
from weber.results.targets import SCALED, check_file


def scale(source: Path, factor: float, *, out: Path, progress: Progress) -> str:
    """Write an adapter file, or that of a run, whose change is `factor` times as large; returns what became of it, in words.

    Raises ConfigError for a factor that changes nothing or leaves nothing, AdapterError for what cannot be scaled.
    """
    if not math.isfinite(factor) or factor in (0, 1):
        raise ConfigError(
            "The factor leaves everything or nothing.",
            got=f"{factor:g}",
            expected="a number that is neither 0 nor 1; 0.5 is half as strong, -1 the opposite",
            fix="choose another",
        )
    path = find_file(source)
    check_file(out, [path])
    find_pairings(load_any(path))
    weights = open_weights([path])
    progress("scaling the layers", 0, 1)
    scaled = build_scaled_tensors(weights, factor)
    entries = {name: build_entry(scaled[name]) if name in scaled else entry for name, entry in weights.items()}
    header = {key: text for key, text in read_metadata(path).items() if key not in HASHES and key != "format"}
    facts = read_facts(header) | {SCALED: f"{path.absolute().parent.name}/{path.name}:{factor:g}"}
    header |= {FACTS_KEY: json.dumps(facts, sort_keys=True)}
    if HASH_KEY in header:
        header |= {HASH_KEY: "0x" + build_hash({name: entry.read().contiguous() for name, entry in entries.items()})}
    save_weights(out, entries, metadata=header)
    progress("scaling the layers", 1, 1)
    wider = sum(scaled[name].dtype != weights[name].dtype for name in scaled)
    told = f"{len(scaled)} tensors times {factor:g}"
    return told + (f", of which {wider} are in fp32 now, so that nothing is rounded away" if wider else "")
