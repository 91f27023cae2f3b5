"""The processes themselves: the real commands, the real queues, real signals."""
