"""A desk that is killed at every named point, and what is left of it."""
