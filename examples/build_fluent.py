"""Make `examples/fluent/` again from the npm packages that hold the artwork and the names. Needs npm and the network.

    python examples/build_fluent.py

Each picture is the package's own 256 x 256 WebP file, laid on white and written as PNG; each caption is the emoji's Unicode (CLDR)
short name and the style. `README.md` and the license texts in the folder are written by hand and stay as they are.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

ARTWORK = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "emojibase-data@17.0.0"
FOLDER = Path(__file__).parent / "fluent"
STYLE = ", 3d fluent style"

EMOJI = {
    "animals": "🦊 🐸 🐧 🦉 🐢 🐙 🦋 🐘",
    "food": "🍎 🍌 🍓 🥑 🍔 🍩 🧁 🍕",
    "travel": "🚗 🚲 ⛵ 🚂 🚀 🏠",
    "objects": "⏰ 📷 💡 🔑 👑 ☂️",
    "activities": "⚽ 🎈",
    "nature": "🌻 🌲",
}

SECOND_CAPTIONS = {
    "🍎": "a shiny red apple with a green leaf",
    "🦊": "the face of an orange fox with dark ears",
    "🚀": "a red and white rocket, flying",
    "☂️": "an open purple umbrella",
}


def main() -> None:
    """Fetch both packages and write the pictures and captions."""
    with tempfile.TemporaryDirectory() as temporary:
        names = json.loads(read_package(NAMES, "en/data.json", Path(temporary)))
        labels = {entry["hexcode"].removesuffix("-FE0F"): entry["label"].lower() for entry in names}
        for emoji in " ".join(EMOJI.values()).split():
            code = "-".join(f"{ord(character):04x}" for character in emoji)
            label = labels[code.upper().removesuffix("-FE0F")]
            stem = label.replace(" ", "_")
            write_picture(read_package(ARTWORK, f"assets/{code}.webp", Path(temporary)), FOLDER / f"{stem}.png")
            captions = [label, SECOND_CAPTIONS[emoji]] if emoji in SECOND_CAPTIONS else [label]
            text = "".join(f"{caption}{STYLE}\n" for caption in captions)
            (FOLDER / f"{stem}.txt").write_text(text, encoding="utf-8", newline="\n")


def read_package(package: str, name: str, folder: Path) -> bytes:
    """Bytes of one file of an npm package, which is fetched into `folder` once."""
    target = folder / package.replace("/", "_")
    if not target.is_dir():
        target.mkdir()
        npm = shutil.which("npm")
        assert npm is not None, "npm is not installed"
        subprocess.run([npm, "pack", "--silent", package], cwd=target, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(target.glob("*.tgz"))) as archive:
        member = archive.extractfile(f"package/{name}")
        assert member is not None, f"{package} has no file {name}"
        return member.read()


def write_picture(data: bytes, path: Path) -> None:
    """Lay a picture with an alpha channel on white and save it as PNG."""
    picture = Image.open(io.BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    Image.alpha_composite(white, picture).convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    main()
