"""What we hold: instruments and their sectors, the ledger, and positions derived from it."""
