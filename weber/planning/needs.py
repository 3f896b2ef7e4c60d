"""What a run reads from the cache, counted as it is when the cache is filled: by keys, so that what is equal is there once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weber.cache.encode import Encoders
from weber.cache.key import KEY_BYTES, Keys, build_key, build_latent_key, build_mask_key, build_text_key, pack_keys
from weber.cache.masks import find_shape
from weber.cache.store import Store
from weber.data.distinct import DistinctTexts
from weber.data.loss_masks import LossWindow
from weber.data.pictures import Pictures
from weber.data.views import View
from weber.data.walk import list_captions, walk_prepared
from weber.families.family import Family

_NUM_AT_ONCE = 65536


@dataclass(frozen=True)
class Missing:
    """How many of each the cache does not have yet, texts once for each part; and how many numbers the latents have."""

    latents: int
    texts: int
    masks: int
    numbers: int


class Needs:
    """Of the run in its own precision. Of a model that is not on this machine the keys are not those of its files.

    `views` and `texts` are those of the run's prompts. Without `keeps_texts` no text is in the cache.
    """

    def __init__(
        self, pictures: Pictures, encoders: Encoders, *, views: Sequence[View], texts: Sequence[str], keeps_texts: bool = True
    ) -> None:
        self._pictures, self._encoders, self._views, self._prompts = pictures, encoders, views, texts
        self._text_parts = encoders.family.text_parts if keeps_texts else ()
        self._identities: dict[str, str] = {}

    @cached_property
    def texts(self) -> DistinctTexts:
        """Every distinct text: captions, then those of prompts."""
        captions = [texts for part in self._pictures.parts for texts in list_captions(part)]
        return DistinctTexts([*captions, self._prompts])

    @cached_property
    def windows(self) -> dict[str, LossWindow]:
        """Every distinct mask for the loss that a step will read, by its key."""
        parts = [part for part in self._pictures.parts if "loss_mask" in part.columns]
        examples = (part.build(place) for part in parts for place in range(len(part)))
        windows = (example.learned(crop) for example in examples for crop in range(len(example.crops)))
        family, distinct = self._encoders.family, [one for one in dict.fromkeys(windows) if one is not None]
        return {build_mask_key(one, shape=find_shape(one, family)): one for one in distinct}

    @property
    def num_kept(self) -> int:
        """Texts that are kept in the cache, once for each part."""
        return len(self.texts) if self._text_parts else 0

    @property
    def num_latents(self) -> int:
        """Distinct pictures as the encoder will see them."""
        return len(self._latents.keys)

    @property
    def num_numbers(self) -> int:
        """Numbers of all latents."""
        return int(self._latents.numbers.sum())

    def count_missing(self, store: Store) -> Missing:
        """What will be encoded when the run starts."""
        lacking = store.find_lacking(self._latents.keys)
        texts = sum(self.count_missing_texts(store).values())
        masks = sum(key not in store for key in self.windows)
        return Missing(len(lacking), texts, masks, int(self._latents.numbers[lacking].sum()))

    def count_missing_texts(self, store: Store) -> dict[str, int]:
        """Of each part."""
        parts = dict.fromkeys(self._encoders.family.text_parts, 0)
        return parts | {part: sum(len(store.find_lacking(keys)) for keys in self._walk_text_keys(part)) for part in self._text_parts}

    def list_missing_views(self, store: Store) -> list[View]:
        """The pictures that the cache lacks, as the encoder will see them."""
        lacking = store.find_lacking(self._latents.keys)
        places = sorted(self._latents.places[lacking].tolist(), key=lambda place: (place < 0, abs(place)))
        views = [view for place in dict.fromkeys(places) for view in self._list_views(place)]
        return [view for view in dict.fromkeys(views) if self._build_latent_key(view) not in store]

    def find_cached(self, store: Store) -> frozenset[str]:
        """The parts of the model that have nothing to encode."""
        texts = [part for part, number in self.count_missing_texts(store).items() if not number]
        return frozenset(texts if len(store.find_lacking(self._latents.keys)) else [*texts, self._encoders.family.image_part])

    def _list_views(self, place: int) -> Iterator[View]:
        """Those of a picture of the sets, or with a number below 0 of a prompt."""
        return iter([self._views[-place - 1]]) if place < 0 else self._pictures[place].list_views()

    @cached_property
    def _latents(self) -> _Latents:
        encoder, name = self._identify(self._encoders.family.image_part), str(self._encoders.dtype).removeprefix("torch.")
        keys, numbers, places, start = bytearray(), array("q"), array("q"), 0
        count = cache(partial(count_numbers, family=self._encoders.family))
        for part in self._pictures.parts:
            for place, content, preparation, width, height, is_masked in walk_prepared(part):
                keys += bytes.fromhex(build_key(content=content, preparation=preparation, encoder=encoder, dtype=name))
                numbers.append(count(width, height, is_masked=is_masked))
                places.append(start + place)
            start += len(part)
        for number, view in enumerate(self._views):
            keys += bytes.fromhex(self._build_latent_key(view))
            numbers.append(count(view.crop.width, view.crop.height, is_masked=view.mask is not None))
            places.append(-number - 1)
        packed = np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES)
        _, firsts = np.unique(packed.reshape(-1).view(f"S{KEY_BYTES}"), return_index=True)
        return _Latents(packed[firsts], np.array(numbers)[firsts], np.array(places)[firsts])

    def _walk_text_keys(self, part: str) -> Iterator[Keys]:
        encoder, dtype = self._identify(part), self._encoders.dtype
        texts = iter(self.texts)
        while portion := list(islice(texts, _NUM_AT_ONCE)):
            yield pack_keys([build_text_key(text, encoder=encoder, dtype=dtype) for text in portion])

    def _build_latent_key(self, view: View) -> str:
        return build_latent_key(view, encoder=self._identify(self._encoders.family.image_part), dtype=self._encoders.dtype)

    def _identify(self, part: str) -> str:
        if part not in self._identities:
            self._identities[part] = self._encoders.identify(part) if self._encoders.family.is_local else part
        return self._identities[part]


def count_numbers(width: int, height: int, *, is_masked: bool, family: Family) -> int:
    """Numbers that the encoder makes of a picture of that many pixels, and of its mask."""
    channels, rows, columns = family.latent_shape(height, width)
    return (channels + (family.picture_inputs.mask_channels if is_masked else 0)) * rows * columns


class _Latents(NamedTuple):
    """Keys in order, and of each the numbers of its latents and a picture that has it."""

    keys: Keys
    numbers: NDArray[np.int64]
    places: NDArray[np.int64]
