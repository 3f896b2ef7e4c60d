"""Make the pocket model from nothing: artwork, autoencoder, painter, folder, judge.

    python -m recipes.pocket --work work/pocket

Every part goes on from its last checkpoint in the work folder. `--stop` ends after a part. Under `torchrun --nproc-per-node 2` two
processes share the painter's training; all else is done by the first.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed

from recipes.pocket.artwork import Artwork, build_colors, load_artwork, load_fluent
from recipes.pocket.assemble import encode_artwork, write_model
from recipes.pocket.captions import list_words
from recipes.pocket.judge import JUDGE, train_judge
from recipes.pocket.painter import PainterRecipe, train_painter
from recipes.pocket.progress import load_numbers, report
from recipes.pocket.sheet import paint_sheet
from recipes.pocket.vae import VaeRecipe, build_pixels, train_vae, write_scale
from weber.families.flux1.variants import POCKET
from weber.training.demo import SUBJECTS, find_examples

ROOT = Path(__file__).parents[2]
PARTS = ("artwork", "vae", "painter", "folder", "judge")


def main() -> None:
    """Run the parts in order."""
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket", description="Make the pocket model.")
    parser.add_argument("--work", type=Path, default=Path("work/pocket"), help="packages and checkpoints")
    parser.add_argument("--out", type=Path, default=POCKET, help="folder of the finished model")
    parser.add_argument("--sheet", type=Path, default=ROOT / "docs" / "pocket.png", help="where the 64 prompts are painted")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="file of the judge that tests ask")
    parser.add_argument("--stop", choices=PARTS, default="judge", help="the last part to run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    is_first = True
    if distributed.is_torchelastic_launched():
        distributed.init_process_group("gloo", timeout=timedelta(days=1))
        is_first = distributed.get_rank() == 0
    last = PARTS.index(arguments.stop)

    if is_first:
        artwork = load_artwork(arguments.work / "packages")
        if last > 0:
            train_vae(artwork.build_colors(), folder=arguments.work, recipe=VaeRecipe())
    if distributed.is_initialized():
        distributed.barrier()
    if not is_first:
        artwork = load_artwork(arguments.work / "packages")
    words = list_words(artwork.concepts)
    num_concepts = len({one.emoji for one in artwork.concepts})
    report("artwork", len(artwork.styles), steps=len(artwork.styles), concepts=num_concepts, words=len(words))
    if last == 0:
        return
    white = artwork.build_colors()
    vae = train_vae(white, folder=arguments.work, recipe=VaeRecipe()).bfloat16().float()  # finished; rounded as it will be shipped
    write_scale(vae, build_pixels(white))
    if last == 1:
        return
    painter = train_painter(encode_artwork(vae, artwork), words, folder=arguments.work, recipe=PainterRecipe())
    if last == 2 or not is_first:
        return
    write_model(arguments.out, vae=vae, painter=painter)
    facts = {
        "vae": asdict(VaeRecipe()) | load_numbers(arguments.work / "vae.pt"),
        "painter": asdict(PainterRecipe()) | load_numbers(arguments.work / "painter.pt"),
    }
    (arguments.out / "recipe.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8", newline="\n")
    paint_sheet(arguments.out, arguments.sheet)
    if last == 3:
        return
    train_judge(_list_judged(artwork, arguments.work / "packages"), vae.float(), path=arguments.judge)


def _list_judged(artwork: Artwork, packages: Path) -> list[dict[str, Tensor]]:
    """Concepts in all styles that have them, but those that the demo trains on or paints."""
    captions = [file.read_text(encoding="utf-8") for file in find_examples().glob("*.txt")]
    shown = {caption.partition(",")[0] for caption in captions} | set(SUBJECTS)
    fluent = load_fluent(packages, artwork.concepts)
    judged: dict[str, dict[str, Tensor]] = {}
    for concept, style, pixels in zip(artwork.concepts, artwork.styles, artwork.pixels, strict=True):
        if concept.name not in shown:
            styles = judged.setdefault(concept.emoji, {"fluent": fluent[concept.emoji]} if concept.emoji in fluent else {})
            styles[style] = pixels
    return [
        {style: build_pixels(build_colors(pixels[None]))[0] for style, pixels in styles.items()}
        for styles in judged.values()
        if len(styles) > 1
    ]


if __name__ == "__main__":
    main()
