"""Analysis: what a network does, read from its loss."""
