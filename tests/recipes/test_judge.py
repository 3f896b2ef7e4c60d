"""The frozen judge tells the styles apart on pictures that it was not trained on."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from recipes.pocket.judge import JUDGED_STYLES, build_views, load_judge
from recipes.pocket.sheet import SUBJECTS, list_prompts, paint_prompts
from weber.families.flux1.variants import POCKET

EXAMPLES = Path(__file__).parents[2] / "examples" / "fluent"
FLUENT = JUDGED_STYLES.index("fluent")


def test_fluent_pictures_are_called_fluent_and_those_of_the_base_are_not() -> None:
    judge = load_judge()
    fluent = [Image.open(file) for file in sorted(EXAMPLES.glob("*.png"))]
    base = paint_prompts(POCKET, [f"{subject}, noto style" for subject in SUBJECTS[:16]], first_seed=50)
    right, wrong = ((judge(build_views(pictures))[0].argmax(dim=1) == FLUENT).float().mean() for pictures in (fluent, base))
    assert right >= 0.8
    assert wrong <= 0.2


def test_noise_between_the_pictures_is_not_what_it_looks_at() -> None:
    judge, plain = load_judge(), Image.open(EXAMPLES / "fox.png").convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
    shifted = Image.new("RGB", (64, 64), "white")
    shifted.paste(plain, (2, 2))
    one, other = judge(build_views([plain, shifted]))[1]
    assert one @ other > 0.8


def test_the_sheet_has_64_prompts_in_both_styles() -> None:
    prompts = list_prompts()
    assert len(prompts) == len(set(prompts)) == 64
    assert sum("background" in prompt for prompt in prompts) == 12
