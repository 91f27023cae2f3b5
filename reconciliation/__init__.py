"""Book against broker: differences become breaks, and breaks are put right by a person."""
