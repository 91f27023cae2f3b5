"""Who trades where: broker accounts, strategies and their API tokens."""
