"""The conformance kit on Redis, locks and messages: the whole of it on one server, a part on each of the other set-ups."""

from integration.conformance import TRANSPORT, Scattered, conformance
from integration.redis_harness import RedisHarness
from integration.servers import RedisCluster, RedisSentinel, RedisServer

test_redis = conformance(RedisServer, harness=RedisHarness, query="durability=aof")  # the servers here write before they answer
test_redis_tls = conformance(RedisServer, harness=RedisHarness, tiers="CP", only=TRANSPORT, password='p@ss "word/', tls=True)
test_redis_cluster = conformance(
    RedisServer, RedisCluster, harness=Scattered, tiers="CP", faces=("sync",)
)  # keys meet in slots
test_redis_cluster_asyncio = conformance(
    RedisServer, RedisCluster, harness=Scattered, tiers="CP", faces=("asyncio",), only=TRANSPORT
)
test_redis_sentinel = conformance(RedisServer, RedisSentinel, harness=Scattered, tiers="CP", only=TRANSPORT)
