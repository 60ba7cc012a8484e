-- Make sure that an owner neither holds nor waits, and that a late attempt of it does nothing.
-- KEYS held, queue, told, alive, gone (of the owner)
-- ARGV owner, its member of the queue, channel

local WITHDRAWN = 30000 -- ms for which a withdrawn owner is remembered

local _, now = clock()
redis.pcall('HDEL', KEYS[1], ARGV[1]) -- an owner is not in a key of another type
redis.pcall('ZREM', KEYS[2], ARGV[2])
redis.pcall('HDEL', KEYS[3], ARGV[2])
redis.call('SET', KEYS[5], 'w', 'PX', WITHDRAWN)
advance({ held = KEYS[1], queue = KEYS[2], told = KEYS[3], alive = KEYS[4] }, ARGV[3], now)
return 1
