"""Two measurements, with an interval or not at all."""
