-- report: what became of an admitted request. Sent again it changes nothing.
--
-- KEYS  1 state  2 flights  (see admit.lua)
-- ARGV  1 permit  2 ms at which it was admitted  3 outcome: passed, deferred, failed, halted or unused
--       4 ms the server asked to wait, or ''  5 reason
local state, flights = unpack(KEYS)
local permit, admitted, outcome, asked, reason = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
if redis.call('ZREM', flights, permit) == 0 and outcome ~= 'halted' then return 0 end
if outcome == 'unused' then return 0 end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local paused_at = tonumber(redis.call('HGET', state, 'paused_at') or '0')
-- A request admitted before the pause, or in its very millisecond, tells nothing new about the time after it.
local fresh = admitted > paused_at

local function pause(ms)
  -- Never shortened by a later, earlier one.
  local until_now = tonumber(redis.call('HGET', state, 'paused_until') or '0')
  redis.call('HSET', state, 'paused_until', string.format('%.0f', math.max(until_now, now + ms)),
    'paused_at', string.format('%.0f', now), 'canary', '1', 'reason', reason)
end

if outcome == 'halted' then
  -- A refusal from before the last resume is of the account as it was.
  local resumed_at = tonumber(redis.call('HGET', state, 'resumed_at') or '0')
  if admitted > resumed_at then redis.call('HSET', state, 'halted', reason) end
elseif outcome == 'deferred' then
  if asked then
    pause(asked)
  elseif fresh then
    local strikes = redis.call('HINCRBY', state, 'strikes', 1)
    pause(math.min(1000 * 2 ^ (strikes - 1), 900000))
  end
elseif outcome == 'failed' then
  local failures = redis.call('HINCRBY', state, 'failures', fresh and 1 or 0)
  -- One text that the API chokes on must not slow the fleet: only failures in a row do.
  if fresh and failures >= 3 then pause(math.min(500 * 2 ^ (failures - 3), 15000)) end
elseif fresh then
  redis.call('HDEL', state, 'strikes', 'failures', 'canary', 'paused_until', 'reason')
end
return 1
