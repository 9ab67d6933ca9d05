-- urgent: the collections in which interactive texts were enqueued just now.
--
-- KEYS  1 urgent  zset  collection -> us when it was announced
-- ARGV  1 seconds after which an announcement is over  2 a collection to announce, or ''
--       then per collection that has nothing urgent: its name, when it was announced as far as the caller knows
-- ->    {collection, when it was announced} for the latest hundred, flat
local urgent, lasts, name = KEYS[1], ARGV[1], ARGV[2]
local MOST = 100
if name == '' and redis.call('EXISTS', urgent) == 0 then return {} end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', urgent, '-inf', string.format('%.0f', now - lasts * 1000000))
redis.call('ZREMRANGEBYSCORE', urgent, string.format('(%.0f', now), '+inf') -- by a clock that was set back since
for n = 3, #ARGV, 2 do
  if redis.call('ZSCORE', urgent, ARGV[n]) == ARGV[n + 1] then redis.call('ZREM', urgent, ARGV[n]) end
end
if name ~= '' then redis.call('ZADD', urgent, string.format('%.0f', now), name) end
return redis.call('ZREVRANGE', urgent, 0, MOST - 1, 'WITHSCORES')
