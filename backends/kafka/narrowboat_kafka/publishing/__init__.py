"""What is written to topics: by callers, and by the thread that moves waiting messages on."""
