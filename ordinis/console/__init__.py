"""The console: the Django admin site in Ordinis' own templates and style."""
