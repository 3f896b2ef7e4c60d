"""Make `weber/sampling/glyphs/glyphs.npz`: the shapes of letters for contact sheets, from GNU Unifont. Needs apt-get and dpkg.

    python -m recipes.glyphs

The basic plane is read from the font's own source (`unifont.hex`), emoji and mathematical letters from its font of further planes. A
glyph is 16 rows of 16 bits, the leftmost pixel in the highest; of narrow ones the right half is empty.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TARGET = Path(__file__).parents[2] / "weber" / "sampling" / "glyphs" / "glyphs.npz"
PACKAGES = ("unifont", "fonts-unifont")
HEX, FONT = "usr/share/unifont/unifont.hex", "usr/share/fonts/opentype/unifont/unifont_upper.otf"
EDGE, BASELINE = 16, 14
UPPER = (range(0x1D400, 0x1D800), range(0x1F000, 0x1FB00))

Glyph = tuple[bool, np.ndarray]
"""Whether it is as wide as it is high, and its rows (16,) uint16."""


def main() -> None:
    """Fetch the font, read it and write the file."""
    with TemporaryDirectory() as folder:
        for package in PACKAGES:
            subprocess.run(["apt-get", "download", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for file in Path(folder).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(file), folder], check=True)
        glyphs = read_hex(Path(folder) / HEX) | draw_upper(Path(folder) / FONT)
    codes = sorted(glyphs)
    wide = np.packbits([glyphs[code][0] for code in codes])
    rows = np.stack([glyphs[code][1] for code in codes])
    np.savez_compressed(TARGET, codes=np.asarray(codes, np.uint32), wide=wide, rows=rows)
    sys.stdout.write(f"{len(codes)} glyphs, {TARGET.stat().st_size:,} bytes\n")


def read_hex(path: Path) -> dict[int, Glyph]:
    """Lines of a code point and 16 rows of 8 or 16 bits, in hexadecimal."""
    glyphs = {}
    for line in path.read_text(encoding="ascii").split():
        code, rows = line.split(":")
        is_wide = len(rows) > 2 * EDGE
        values = np.frombuffer(bytes.fromhex(rows), ">u2" if is_wide else "u1").astype(np.uint16)
        glyphs[int(code, 16)] = is_wide, values if is_wide else values << 8
    return glyphs


def draw_upper(path: Path) -> dict[int, Glyph]:
    """What the font of further planes has of `UPPER`."""
    font = ImageFont.truetype(path, EDGE)
    missing = _draw(font, 0x10FFFF)
    drawn = {code: _draw(font, code) for codes in UPPER for code in codes}
    return {code: (font.getlength(chr(code)) > EDGE // 2, rows) for code, rows in drawn.items() if not np.array_equal(rows, missing)}


def _draw(font: ImageFont.FreeTypeFont, code: int) -> np.ndarray:
    picture = Image.new("1", (EDGE, EDGE))
    pen = ImageDraw.Draw(picture)
    pen.fontmode = "1"
    pen.text((0, BASELINE), chr(code), 1, font=font, anchor="ls")
    return np.frombuffer(picture.tobytes(), ">u2").astype(np.uint16)


if __name__ == "__main__":
    main()
