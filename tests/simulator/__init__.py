"""The simulator speaks Alpaca's wire: shown through alpaca-py and raw requests."""
