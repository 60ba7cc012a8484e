-- What `tox -e lua` takes for right in the scripts of the Redis backend.
std = "lua51" -- what Redis runs

-- Redis gives these to each script.
read_globals = { "redis", "KEYS", "ARGV", "cmsgpack", "struct" }

max_line_length = 128 -- as in Python
