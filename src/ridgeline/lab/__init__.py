"""The laboratory: what a choice costs and brings, measured on servers that it starts itself. Loads no torch."""
