"""What a person must hear of."""
