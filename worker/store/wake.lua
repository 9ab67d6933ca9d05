-- wake: how many wake-ups are worth sending now. A wake-up is a hint: one that no worker
-- acknowledged within `expiry` ms counts as lost, and is sent again.
--
-- KEYS  1 jobs  2 wakeups (zset: token -> ms sent)  3 info
-- ARGV  1 threads worth having  2 batch size  3 expiry in ms  4 alive-key prefix  5 ms that a heartbeat lasts
-- ->    tokens to send
local jobs, wakeups, info = unpack(KEYS)
local threads, batch, expiry, alive_prefix = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local alive, lasts = require 'alive', tonumber(ARGV[5])
if redis.call('EXISTS', jobs) == 0 then return {} end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', wakeups, '-inf', string.format('%.0f', now - expiry))
-- Sent by a clock that has been set back since.
redis.call('ZREMRANGEBYSCORE', wakeups, string.format('(%.0f', now + expiry), '+inf')

-- The work of live slices is in hands; all else waits, also what dead consumers hold.
local waiting, slices = redis.call('XLEN', jobs), 0
local summary = redis.call('XPENDING', jobs, 'workers')
for _, owner in ipairs(summary[4] or {}) do
  if owner[1] ~= 'released' and alive(alive_prefix .. owner[1], lasts) then
    waiting = waiting - tonumber(owner[2])
    slices = slices + 1
  end
end
local worth = math.min(math.ceil(waiting / batch), threads - slices) - redis.call('ZCARD', wakeups)
local tokens = {}
for i = 1, worth do
  local token = redis.call('HINCRBY', info, 'wakeups', 1)
  tokens[i] = tostring(token)
  redis.call('ZADD', wakeups, string.format('%.0f', now), token)
end
return tokens
