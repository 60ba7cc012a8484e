"""Sources as topics and groups of the server, asked about and changed from outside of any group."""
