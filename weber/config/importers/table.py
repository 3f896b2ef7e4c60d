"""The other trainers whose files weber reads: a row each."""

from __future__ import annotations

from weber.config.importers.ai_toolkit import AI_TOOLKIT
from weber.config.importers.diffusers import DIFFUSERS
from weber.config.importers.tool import Tool

TOOLS: tuple[Tool, ...] = (AI_TOOLKIT, DIFFUSERS)
