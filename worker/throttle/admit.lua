-- admit: may one request be sent now? The one answer for the whole fleet, on Redis' clock.
--
-- KEYS  1 key, 2 model, 3 endpoint  hashes  (see state.lua)
--       4 flights  zset  permit -> ms at which its sender counts as dead; once the answer is here, that and ANSWERED
-- ARGV  1 permit  2 most requests in flight  3 ms until it must be renewed
--       4 configured rate per second, or ''  5 'texts' where that rate counts texts  6 ANSWERED: above any time in ms
--       7 '1': it is urgent, and goes before those that are not
-- ->    {'go', ms now, failures, most texts, first}  |  {'wait', ms to wait, reason}  |  {'full', ms to wait, ''}  |  {'halt', 0, reason}
local policy = require 'policy'
local state = require 'state'
local key, model, endpoint, flights = unpack(KEYS)
local permit, most, longest, answered = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[6]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

redis.call('ZREMRANGEBYSCORE', flights, '-inf', string.format('%.0f', now))
redis.call('ZREMRANGEBYSCORE', flights, answered, string.format('%.0f', answered + now))
-- What ends later than can be was set by another clock: Redis' own, before it was set back.
for _, kind in ipairs({{0, answered}, {answered, '+inf'}}) do
  local last = string.format('%.0f', kind[1] + now + longest)
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', flights, '(' .. last, kind[2])) do
    redis.call('ZADD', flights, last, one)
  end
end
local s, save = state.open(key, model, endpoint)
local function is_alive(probe) return probe and redis.call('ZSCORE', flights, probe) and true or false end
local verdict, number, reason = policy.ask(s, {
  now = now,
  permit = permit,
  in_flight = redis.call('ZCOUNT', flights, '-inf', answered),
  probe_alive = is_alive(s.probe),
  model_probe_alive = is_alive(s.model.probe),
  most = most,
  per_second = tonumber(ARGV[4] or ''),
  in_texts = ARGV[5] == 'texts',
  urgent = ARGV[7] == '1',
})
save()
if verdict ~= 'go' then return {verdict, math.ceil(number), reason} end
redis.call('ZADD', flights, string.format('%.0f', now + longest), permit)
return {'go', math.floor(now), s.model.failures or 0, number, reason}
