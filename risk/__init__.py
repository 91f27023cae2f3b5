"""What an order may do: limits, fresh broker figures, checks, and what orders commit."""
