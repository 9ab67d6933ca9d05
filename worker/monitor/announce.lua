-- announce: a worker process is alive.
--
-- KEYS  1 workers  zset  <worker>/<slots> -> seconds when it was last seen
-- ARGV  1 <worker>/<slots>  2 seconds now  3 seconds: workers that were last seen before this are removed
--       4 the same worker with its other number of slots, which is removed
-- ->    1; 0 if it arrives too late to say anything about now
--
-- A full Redis refuses a step if its first write needs memory. The first write here frees some, and the
-- later one passes: otherwise, with a full Redis, all workers would look dead.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
local LATE = 4
local now = tonumber(redis.call('TIME')[1])
-- Seen by a clock that has been set back since.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + LATE), '+inf')
if now - ARGV[2] > LATE then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if ARGV[4] ~= ARGV[1] then redis.call('ZREM', KEYS[1], ARGV[4]) end
return 1
