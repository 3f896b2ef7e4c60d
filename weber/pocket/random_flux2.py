"""A small FLUX.2 with random weights in diffusers layout: made offline in a second from the library's own classes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from weber.pocket.folder import Part, write_folder
from weber.pocket.words import WORDS

if TYPE_CHECKING:
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Tokenizer, TokenizersBackend

Kind = Literal["dev", "klein", "klein-base"]

_LATENT_CHANNELS = 32
_TEXT_WIDTH = 16
_SPREAD = 0.3  # of the language models' weights; the usual 0.02 would make states that the transformer hardly sees

_QWEN_TEMPLATE = """
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\n\n</think>\n\n' -}}{%- endif -%}
{%- endif -%}
"""
_MISTRAL_TEMPLATE = """
{{- bos_token -}}
{%- for message in messages -%}
{%- set start, end = ('[SYSTEM_PROMPT]', '[/SYSTEM_PROMPT]') if message.role == 'system' else ('[INST]', '[/INST]') -%}
{{- start -}}
{%- for part in message.content -%}{{- part.text if part.type == 'text' else '[IMG]' -}}{%- endfor -%}
{{- end -}}
{%- endfor -%}
"""


def build_random_flux2(folder: Path, kind: Kind, *, num_blocks: tuple[int, int] = (1, 2), seed: int = 0) -> Path:
    """Write a model that `Flux2Pipeline` (`dev`) or `Flux2KleinPipeline` opens with `from_pretrained(folder)`; returns `folder`.

    `dev` has a guidance input and Mistral, the others neither and Qwen; `klein` says that it is distilled; `num_blocks`: of double and of
    single stream. The same arguments give the same bytes; the global random state is left as it was. One difference from the published
    dev: its tokenizer stands alone, because the processor around it needs torchvision.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    tokenizer = build_mistral_tokenizer() if kind == "dev" else build_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        parts: dict[str, Part] = {
            "transformer": _build_transformer(num_blocks, has_guidance=kind == "dev"),
            "vae": _build_vae(),
            "text_encoder": _build_mistral(tokenizer) if kind == "dev" else _build_qwen(tokenizer),
            "tokenizer": tokenizer,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        }
    if kind == "dev":
        return write_folder(folder, parts, pipeline="Flux2Pipeline")
    index = write_folder(folder, parts, pipeline="Flux2KleinPipeline") / "model_index.json"
    settings = json.loads(index.read_text(encoding="utf-8")) | {"is_distilled": kind == "klein"}
    index.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8", newline="\n")
    return folder


def build_qwen_tokenizer(words: Iterable[str] = WORDS) -> Qwen2Tokenizer:
    """Byte-level BPE of the class that Qwen3 uses, with its marks of a chat: a word of the list is one token, others fall into bytes."""
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _build_bytes_and_words(tuple(words))
    tokenizer = Qwen2Tokenizer(vocab=dict(vocabulary), merges=list(merges))  # type: ignore[arg-type]
    tokenizer.add_tokens([AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(mark, special=False) for mark in ("<think>", "</think>")])
    tokenizer.chat_template = _QWEN_TEMPLATE.strip()
    return tokenizer


def build_mistral_tokenizer(words: Iterable[str] = WORDS) -> TokenizersBackend:
    """Byte-level BPE with the marks of Mistral Small 3 and a chat template with a system prompt; pads on the left."""
    from transformers import TokenizersBackend

    vocabulary, merges = _build_bytes_and_words(tuple(words))
    model = Tokenizer(BPE(dict(vocabulary), list(merges)))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    marks = ["[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    return TokenizersBackend(  # type: ignore[no-untyped-call]
        tokenizer_object=model,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        extra_special_tokens=marks,
        chat_template=_MISTRAL_TEMPLATE.strip(),
    )


@lru_cache(maxsize=2)  # half of what a model takes to be made, were it done for each
def _build_bytes_and_words(words: tuple[str, ...]) -> tuple[Mapping[str, int], Sequence[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE that knows each word with and without the space before it."""
    symbols = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for form in (form for word in words for form in (word, f"Ġ{word}")):
        while len(pieces := Tokenizer(BPE(symbols, merges)).encode(form).tokens) > 1:
            merges.append((pieces[0], pieces[1]))
            symbols.setdefault(pieces[0] + pieces[1], len(symbols))
    return symbols, merges


def _build_transformer(num_blocks: tuple[int, int], *, has_guidance: bool) -> Flux2Transformer2DModel:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        in_channels=4 * _LATENT_CHANNELS,
        num_layers=num_blocks[0],
        num_single_layers=num_blocks[1],
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * _TEXT_WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=has_guidance,
    )


def _build_vae() -> AutoencoderKLFlux2:
    """The autoencoder; its running statistics are drawn, so that normalizing acts."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=_LATENT_CHANNELS)
    with torch.no_grad():
        vae.bn.running_mean.normal_(0.0, 0.1)
        vae.bn.running_var.uniform_(0.02, 0.08)
    return vae


def _build_qwen(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """More layers than are read, as the published one has: the last state that is read is the one after 27."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=2 * _TEXT_WIDTH,
        num_hidden_layers=29,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
        initializer_range=_SPREAD,
    )
    return Qwen3ForCausalLM(config)


def _build_mistral(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """With its vision tower and head; the last state that is read is the one after 30 layers."""
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": _TEXT_WIDTH,
        "intermediate_size": 2 * _TEXT_WIDTH,
        "num_hidden_layers": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": None,
        "initializer_range": _SPREAD,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "head_dim": 8,
        "image_size": 28,
        "patch_size": 14,
    }
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False))
