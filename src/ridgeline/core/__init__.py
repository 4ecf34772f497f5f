"""The nouns. Imports the standard library and numpy only."""
