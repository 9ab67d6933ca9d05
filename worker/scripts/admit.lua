-- admit: may one request be sent now? The one answer for the whole fleet, on Redis' clock.
--
-- KEYS  1 state    hash  (see policy.lua)
--       2 flights  zset  permit -> ms at which its sender counts as dead; once the answer is here, that and ANSWERED
-- ARGV  1 permit  2 most requests in flight  3 ms until it must be renewed
--       4 configured rate per second, or ''  5 'texts' where that rate counts texts  6 ANSWERED: above any time in ms
-- ->    {'go', ms now, failures, most texts}  |  {'wait', ms to wait, reason}  |  {'full', ms to wait, ''}  |  {'halt', 0, reason}
local policy = require 'policy'
local state, flights = unpack(KEYS)
local permit, most, longest, answered = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[6]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

redis.call('ZREMRANGEBYSCORE', flights, '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYSCORE', flights, answered, string.format('%.0f', answered + now))
local s, before = policy.read(redis.call('HGETALL', state))
local verdict, number, reason = policy.ask(s, {
  now = now,
  permit = permit,
  in_flight = redis.call('ZCOUNT', flights, '-inf', answered),
  probe_alive = s.probe and redis.call('ZSCORE', flights, s.probe) and true or false,
  most = most,
  per_second = tonumber(ARGV[4] or ''),
  in_texts = ARGV[5] == 'texts',
})
local set, gone = policy.changes(s, before)
if #set > 0 then redis.call('HSET', state, unpack(set)) end
if #gone > 0 then redis.call('HDEL', state, unpack(gone)) end
if verdict ~= 'go' then return {verdict, math.ceil(number), reason} end
redis.call('ZADD', flights, string.format('%.0f', now + longest), permit)
return {'go', math.floor(now), s.failures or 0, number}
