"""What makes files of the repository out of others, and checks them: run by name, shipped to nobody."""
