"""Ridgeline serves language models and shows, for every millisecond, what the hardware limit was."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "__version__"]

if TYPE_CHECKING:
    from ridgeline.core.params import SamplingParams
    from ridgeline.llm import LLM


def __getattr__(name: str) -> object:
    # Lazy, so that `import ridgeline` and the front process load no torch.
    if name == "LLM":
        from ridgeline.llm import LLM

        return LLM
    if name == "SamplingParams":
        from ridgeline.core.params import SamplingParams

        return SamplingParams
    raise AttributeError(f"module 'ridgeline' has no attribute '{name}'")
