"""The other trainers whose files weber reads: a row each."""

from __future__ import annotations

from weber.config.importers.ai_toolkit import AI_TOOLKIT
from weber.config.importers.diffusers import DIFFUSERS
from weber.config.importers.kohya import KOHYA
from weber.config.importers.onetrainer import ONETRAINER
from weber.config.importers.simpletuner import SIMPLETUNER
from weber.config.importers.tool import Tool

TOOLS: tuple[Tool, ...] = (SIMPLETUNER, KOHYA, DIFFUSERS, AI_TOOLKIT, ONETRAINER)
