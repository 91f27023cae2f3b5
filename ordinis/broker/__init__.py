"""The only code that talks to a broker. Knows no Django model and no rule of the desk."""
