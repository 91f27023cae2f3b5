"""Orders: taken in, judged, sent exactly once, and followed to a definite end."""
