-- announce: a worker process is alive.
--
-- KEYS  1 workers  zset  <worker>/<slots> -> seconds when it was last seen
-- ARGV  1 <worker>/<slots>  2 seconds now  3 seconds before which nobody is remembered
--       4 the same worker with other slots: it is that no more
-- ->    1; 0 if it arrives so late that it says nothing of now
--
-- Where Redis is full, a step is refused its first write if that needs room. This one needs none, and lets
-- the other pass: a full Redis must not look as if all workers had died.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
local LATE = 4
local now = tonumber(redis.call('TIME')[1])
-- Seen by a clock that has been set back since.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + LATE), '+inf')
if now - ARGV[2] > LATE then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if ARGV[4] ~= ARGV[1] then redis.call('ZREM', KEYS[1], ARGV[4]) end
return 1
