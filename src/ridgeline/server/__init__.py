"""HTTP: an OpenAI-compatible face for the engine. Imports core, text and engine; no torch, no model, no hub."""
