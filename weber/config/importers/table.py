"""The other trainers whose files weber reads: a row each."""

from __future__ import annotations

from weber.config.importers.ai_toolkit.start import AI_TOOLKIT
from weber.config.importers.diffusers.start import DIFFUSERS
from weber.config.importers.kohya.start import KOHYA
from weber.config.importers.onetrainer.start import ONETRAINER
from weber.config.importers.simpletuner.start import SIMPLETUNER
from weber.config.importers.tool import Tool

TOOLS: tuple[Tool, ...] = (SIMPLETUNER, KOHYA, DIFFUSERS, AI_TOOLKIT, ONETRAINER)
