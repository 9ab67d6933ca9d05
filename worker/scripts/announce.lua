-- announce: a worker process is alive.
--
-- KEYS  1 workers  zset  <worker>/<slots> -> seconds when it was last seen
-- ARGV  1 <worker>/<slots>  2 seconds now  3 seconds before which nobody is remembered
-- ->    1
--
-- Where Redis is full, a step is refused its first write if that needs room. This one needs none, and lets
-- the other pass: a full Redis must not look as if all workers had died.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
return 1
