"""What the hardware is. Knows memory, clocks and number formats; knows no model and no request."""
