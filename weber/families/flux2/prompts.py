"""What FLUX.2 reads of a prompt: three inner states of a language model, side by side.

Legend: B prompts, T text tokens (512), D width of one state. The encoder is told which tokens are padding, but the transformer attends
to all of them, so the padded length is part of the recipe (ecosystem.md 1.5), unless it is told which to hide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weber.errors import ModelError
from weber.families.counts import build_count
from weber.families.family import TextLimit
from weber.families.flux2.original import MISTRAL, QWEN
from weber.families.source import Source
from weber.families.weights import Fill, Original, load_chat_tokenizer, load_part, read_part_config

TEXT_TOKENS = 512
NUM_STATES = 3
_CUT: Mapping[str, Any] = {"return_tensors": "pt", "padding": "max_length", "truncation": True, "max_length": TEXT_TOKENS}


@dataclass(frozen=True)
class Recipe:
    """How a text part reads: its language model, the states that are read of it, and how prompts become tokens.

    `kind` and `config` are names of the library's classes. `list_facts`: what else the states depend on, for identities.
    """

    kind: str
    config: str
    states: tuple[int, int, int]
    original: Original
    tokenize: Callable[..., Any]
    list_facts: Callable[[], tuple[str, ...]] = tuple


class PromptEncoder(nn.Module):
    """A tokenizer and its language model, which belong together."""

    def __init__(self, tokenizer: Any, encoder: nn.Module, *, recipe: Recipe) -> None:
        super().__init__()
        self.tokenizer, self.encoder, self.recipe = tokenizer, encoder, recipe

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """(B, T, 3 D)."""
        device = next(self.encoder.parameters()).device
        tokens = self.recipe.tokenize(self.tokenizer, prompts).to(device)
        output = self.encoder(tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True, use_cache=False)
        return torch.stack([output.hidden_states[number] for number in self.recipe.states], dim=2).flatten(2)

    def read_mask(self, prompts: Sequence[str]) -> Tensor:
        """(B, T) bool: true for what is no padding."""
        mask: Tensor = self.recipe.tokenize(self.tokenizer, prompts).attention_mask
        return mask.bool()


def load_prompt_encoder(part: str, source: Source, *, dtype: torch.dtype, fill: Fill | None = None) -> PromptEncoder:
    """The language model of a text part with its tokenizer.

    Of the language model only what is needed is read from the disk and held in memory: one layer more than the last state that is read,
    because the library normalizes the state after the last layer (of 40 layers of Mistral 31, of 36 of Qwen 28), and neither the head
    nor the vision tower.
    """
    recipe = RECIPES[part]
    config = _cut_config(read_text_config(part, source), recipe)
    tokenizer = load_chat_tokenizer(str(source.load_folder("tokenizer")))
    # A folder is read as a single file is, by names, so that no class of the library asks for the tensors that are left out.
    place = replace(source.find("text_encoder"), is_single=True)
    encoder = load_part(_find_class(recipe.kind), place, original=recipe.original, dtype=dtype, changes=config, fill=fill)
    return PromptEncoder(tokenizer, encoder, recipe=recipe)


def load_limit(part: str, source: Source) -> TextLimit:
    """How much a text part reads of a prompt; what its template adds counts too."""
    folder, recipe = source.load_folder("tokenizer"), RECIPES[part]

    def count(tokenizer: Any, prompts: Sequence[str]) -> list[int]:
        return [len(tokens) for tokens in recipe.tokenize(tokenizer, prompts, cut={}).input_ids]

    return TextLimit(TEXT_TOKENS, build_count(f"flux2 {part}", folder, load=partial(load_chat_tokenizer, str(folder)), count=count))


def read_text_config(part: str, source: Source) -> dict[str, object]:
    """Configuration of the language model alone. Raises ModelError where it is not one that the part can read."""
    recipe = RECIPES[part]
    whole = read_part_config(source, "text_encoder", original=recipe.original)
    inner = whole.get("text_config", whole)
    config = dict(inner) if isinstance(inner, dict) else {}
    num_layers = config.get("num_hidden_layers")
    if not isinstance(num_layers, int) or num_layers < recipe.states[-1]:
        raise ModelError(
            "The text encoder has fewer layers than the model reads.",
            got=f"num_hidden_layers = {num_layers} in {source.name_part('text_encoder')}",
            expected=f"at least {recipe.states[-1]} layers",
            fix="use the text encoder that was published with the model",
        )
    return config


def _find_class(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def _cut_config(config: Mapping[str, object], recipe: Recipe) -> dict[str, object]:
    """The configuration of fewer layers, every setting of it: what a file leaves out is as in the library, not as shapes say."""
    from huggingface_hub.errors import StrictDataclassError

    num_layers = min(int(str(config["num_hidden_layers"])), recipe.states[-1] + 1)
    cut = {**config, "num_hidden_layers": num_layers}
    if isinstance(layer_types := config.get("layer_types"), list):
        cut["layer_types"] = layer_types[:num_layers]
    try:
        settings: dict[str, object] = _find_class(recipe.config).from_dict(cut).to_dict()
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ModelError(
            "The configuration of the text encoder cannot be used.",
            got=" ".join(str(error).split()),
            expected=f"text_encoder/config.json of a {recipe.kind}",
            fix="download the text encoder again",
        ) from error
    return settings


def _tokenize_mistral(tokenizer: Any, prompts: Sequence[str], *, cut: Mapping[str, Any] = _CUT) -> Any:
    """As `Flux2Pipeline._get_mistral_3_small_prompt_embeds`: the system message of the makers, no `[IMG]`."""
    from diffusers.pipelines.flux2.pipeline_flux2 import format_input

    return tokenizer.apply_chat_template(
        format_input(list(prompts)),
        add_generation_prompt=False,
        tokenize=True,
        return_dict=True,
        **cut,
    )


def _tokenize_qwen(tokenizer: Any, prompts: Sequence[str], *, cut: Mapping[str, Any] = _CUT) -> Any:
    """As `Flux2KleinPipeline._get_qwen3_prompt_embeds`: an answer is begun, without thinking."""
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return tokenizer(texts, **cut)


def _list_facts_of_mistral() -> tuple[str, ...]:
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    return (SYSTEM_MESSAGE,)


RECIPES = {
    "mistral": Recipe("MistralModel", "MistralConfig", (10, 20, 30), MISTRAL, _tokenize_mistral, _list_facts_of_mistral),
    "qwen": Recipe("Qwen3Model", "Qwen3Config", (9, 18, 27), QWEN, _tokenize_qwen),
}
