"""Text in, text out: tokenizer and streams. Knows no model and no HTTP."""
