"""What a run reads from the cache, counted as it is when the cache is filled: by keys, so that what is equal is there once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from weber.cache.key import build_latent_key, build_mask_key, build_text_key
from weber.cache.masks import find_shape
from weber.cache.store import Store
from weber.data.loss_masks import LossWindow
from weber.data.views import View
from weber.planning.plan import Plan, list_captions, list_views, list_windows


@dataclass(frozen=True)
class Needs:
    """What the keys stand for: pictures as an encoder sees them, text parts (a caption has a key for each), masks for the loss."""

    latents: Mapping[str, View]
    texts: Mapping[str, str]
    masks: Mapping[str, LossWindow]


@dataclass(frozen=True)
class Missing:
    """How many of each the cache does not have yet."""

    latents: int
    texts: int
    masks: int


def build_needs(plan: Plan) -> Needs:
    """Of the run in its own precision. Of a model that is not on this machine the keys are not those of its files."""
    family, dtype = plan.family, plan.dtype
    parts = (family.image_part, *family.text_parts)
    encoders = {part: plan.encoders.identify(part) if family.is_local else part for part in parts}
    image_encoder = encoders[family.image_part]
    return Needs(
        {build_latent_key(view, encoder=image_encoder, dtype=dtype): view for view in list_views(plan)},
        {
            build_text_key(caption, encoder=encoders[part], dtype=dtype): part
            for part in family.text_parts
            for caption in list_captions(plan)
        },
        {build_mask_key(window, shape=find_shape(window, family)): window for window in list_windows(plan)},
    )


def count_missing(needs: Needs, store: Store) -> Missing:
    """What will be encoded when the run starts."""
    latents, texts, masks = (sum(key not in store for key in keys) for keys in (needs.latents, needs.texts, needs.masks))
    return Missing(latents, texts, masks)
