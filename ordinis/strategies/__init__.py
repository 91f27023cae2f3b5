"""Reference strategies: clients of the HTTP API, nothing more. They import nothing of Ordinis."""
