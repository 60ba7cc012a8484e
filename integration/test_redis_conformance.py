"""The conformance kit on Redis, locks and messages: the whole of it on one server, a part on each of the other set-ups."""

from integration.conformance import Scattered, conformance
from integration.redis_harness import RedisHarness
from integration.servers import RedisCluster, RedisSentinel, RedisServer

test_redis = conformance(RedisServer, harness=RedisHarness, query="durability=aof")  # the servers here write before they answer
test_redis_tls = conformance(RedisServer, harness=RedisHarness, tiers="C", password='p@ss "word/', tls=True)
test_redis_cluster = conformance(RedisServer, RedisCluster, harness=Scattered, tiers="CP")
test_redis_sentinel = conformance(RedisServer, RedisSentinel, harness=Scattered, tiers="C")
