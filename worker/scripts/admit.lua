-- admit: may one request be sent now? The one answer for the whole fleet, on Redis' clock.
--
-- KEYS  1 state    hash  halted, resumed_at, paused_until, paused_at, reason, strikes, failures, canary
--       2 flights  zset  permit -> ms at which its sender counts as dead
-- ARGV  1 permit  2 most requests in flight  3 ms until it must be renewed
-- ->    {'go', ms now, failures}  |  {'wait', ms to wait, reason}  |  {'halt', 0, reason}
local state, flights = unpack(KEYS)
local permit, most, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local halted, paused_until, reason, failures, canary =
  unpack(redis.call('HMGET', state, 'halted', 'paused_until', 'reason', 'failures', 'canary'))
if halted then return {'halt', 0, halted} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if paused_until and tonumber(paused_until) > now then
  return {'wait', tonumber(paused_until) - now, reason or ''}
end
redis.call('ZREMRANGEBYSCORE', flights, '-inf', string.format('%.0f', now))
local in_flight = redis.call('ZCARD', flights)
-- After a pause one request goes first; the others follow when it has passed.
if canary and in_flight > 0 then return {'wait', 100, reason or ''} end
if in_flight >= most then return {'wait', 20, ''} end
redis.call('ZADD', flights, string.format('%.0f', now + longest), permit)
return {'go', now, tonumber(failures or '0')}
