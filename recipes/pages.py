"""Pictures of all pages of `weber serve`, at two widths, light and dark: one sheet for each page.

    python -m recipes.pages [--out docs/pages]

Two short runs of the pocket model are trained on the pictures in examples/, one file of another trainer is opened, and a tagging job fails
for want of its model; then Chromium opens every page.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from tests.serve.chromium import Browser, browsing

ROOT = Path(__file__).parents[1]
CALL = "from weber.cli import main; main()"
WIDTHS, HIGHEST, SHRINK, GAP = (1280, 390), 1500, 2, 24
SETTINGS = """[model]
variant = "pocket"

[[data]]
path = "{pictures}"
caption_fallback = "a picture of zorb"

[train]
steps = {steps}

[sampling]
prompts = ["a cat", "a boat on a lake"]
every = {every}

[output]
folder = "runs/{name}"
cache = "cache"
save_every = {every}
"""
FOREIGN = """#!/bin/bash
accelerate launch flux_train_network.py --pretrained_model_name_or_path flux1-dev.safetensors --train_data_dir dogs \\
  --network_module networks.lora_flux --network_dim 16 --network_alpha 8 --max_train_steps 1000 --learning_rate 1e-4 \\
  --timestep_sampling shift --discrete_flow_shift 3.1582 --guidance_scale 1 --cache_latents_to_disk --output_dir out
"""
PAGES = {
    "runs": "/?all=1",
    "start": "/start",
    "look": "/start/look?file=cats.toml",
    "import": "/start/imported?at=old.sh",
    "run": "/run?at=runs/cats",
    "compare": "/compare?a=runs/cats&b=runs/boats",
    "pictures": "/data?file=cats.toml",
    "problems": "/problems?file=cats.toml",
    "settings": "/settings?file=cats.toml",
    "plan": "/plan?file=cats.toml&card=RTX+4090&price=0.4",
    "queue": "/jobs",
    "job": "/job?id=1",
    "delete": "/run/delete?at=runs/boats",
}


def write_folder(root: Path) -> None:
    """What a person has after two runs."""
    shutil.copytree(ROOT / "examples" / "zorb", root / "pictures")
    (root / "old.sh").write_text(FOREIGN, encoding="utf-8")
    for name, steps in (("cats", 40), ("boats", 24)):
        settings = SETTINGS.format(pictures="pictures", name=name, steps=steps, every=steps // 2)
        (root / f"{name}.toml").write_text(settings, encoding="utf-8")
        subprocess.run([sys.executable, "-c", CALL, "train", f"{name}.toml"], cwd=root, check=True)


def begin_jobs(browser: Browser, address: str) -> None:
    """A check of the pictures that is done before its page is opened, and tags that cannot be had."""
    browser.open(f"{address}/data?file=cats.toml")
    for form, values in {"problems": "", "data/describe": "&set=0&with=wd14&prefix="}.items():
        browser.read(f"fetch('/{form}', {{method: 'POST', body: new URLSearchParams('file=cats.toml{values}')}})")
    browser.open(f"{address}/problems?file=cats.toml")
    browser.wait("document.querySelector('#problems .tag, #problems h2')")
    browser.open(f"{address}/job?id=1")
    browser.wait("document.querySelector('.tag.failed, .tag.finished')")


def take_sheet(browser: Browser, address: str, folder: Path) -> Image.Image:
    """A page at both widths, light above dark."""
    rows = []
    for is_dark in (False, True):
        row = []
        for width in WIDTHS:
            browser.show(width, 900, is_dark=is_dark)
            browser.open(address)
            time.sleep(2)  # charts are drawn, and what is asked for beside the page has come
            with Image.open(browser.take(folder / "page.png")) as image:
                shown = image.convert("RGB").crop((0, 0, image.width, min(image.height, HIGHEST)))
            row.append(shown.resize((shown.width // SHRINK, shown.height // SHRINK), Image.Resampling.LANCZOS))
        rows.append(row)
    heights = [max(one.height for one in row) for row in rows]
    sheet = Image.new("RGB", (sum(WIDTHS) // SHRINK + GAP, sum(heights) + GAP), "gray")
    for row, top in zip(rows, (0, heights[0] + GAP), strict=True):
        sheet.paste(row[0], (0, top))
        sheet.paste(row[1], (row[0].width + GAP, top))
    return sheet


def main() -> None:
    """See the docstring of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pages")
    parser.add_argument("--only", nargs="+", choices=list(PAGES), default=list(PAGES))
    options = parser.parse_args()
    options.out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve() / "work"
        root.mkdir()
        write_folder(root)
        command = [sys.executable, "-c", CALL, "serve", str(root), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
            assert server.stdout is not None
            link = server.stdout.readline().split()[-1]
            address = "http://" + urlsplit(link).netloc
            with browsing(Path(name) / "chromium") as browser:
                browser.open(link)
                begin_jobs(browser, address)
                for page in options.only:
                    sheet = take_sheet(browser, address + PAGES[page], Path(name))
                    sheet.save(options.out / f"{page}.webp", quality=70, method=6)
                if browser.errors:
                    print(*browser.errors, sep="\n")
            server.kill()


if __name__ == "__main__":
    main()
