"""The peers, each in its own best idiom; their libraries are imported only when they take part."""
