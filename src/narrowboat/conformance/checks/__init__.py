"""What judges a scenario: histories of locks and of queues, leaks of secrets and resources, errors that are owed."""
