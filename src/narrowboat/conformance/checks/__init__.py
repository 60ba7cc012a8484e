"""What judges: histories of locks and of queues, secrets and resources that leaked, errors that were expected."""
