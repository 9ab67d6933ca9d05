-- report: what became of an admitted request. Sent again it changes nothing.
--
-- KEYS  1 key  2 model  3 endpoint  4 flights  (see admit.lua)
-- ARGV  1 permit  2 ms at which it was admitted  3 outcome: passed, deferred, failed, halted or unused
--       4 ms the server asked to wait, or ''  5 reason  6 most requests in flight
--       then pairs: texts, uncached, refused, charged, timeout, quota, quota_limit, resets_at, of_key, each with its number
local policy = require 'policy'
local state = require 'state'
local key, model, endpoint, flights = unpack(KEYS)
local outcome = ARGV[3]
if redis.call('ZREM', flights, ARGV[1]) == 0 and outcome ~= 'halted' then return 0 end

local time = redis.call('TIME')
local event = {
  now = time[1] * 1000 + time[2] / 1000,
  admitted = tonumber(ARGV[2]),
  outcome = outcome,
  asked = tonumber(ARGV[4]),
  reason = ARGV[5],
  most = tonumber(ARGV[6] or '8'),
}
for i = 7, #ARGV, 2 do event[ARGV[i]] = tonumber(ARGV[i + 1]) end
local s, save = state.open(key, model, endpoint)
policy.report(s, event)
save()
return 1
