"""The users of a backend in a scenario: tasks on either face, and processes that can be stopped and killed."""
