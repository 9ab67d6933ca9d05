-- wakeups: the tokens of the wake-ups that are worth sending now, see wake.lua. To be required.
return function(jobs, wakeups, info)
  local alive = require 'alive'
  return function(threads, batch, expiry, alive_prefix, lasts)
    threads, batch, expiry, lasts = tonumber(threads), tonumber(batch), tonumber(expiry), tonumber(lasts)
    local waiting, slices = redis.call('XLEN', jobs), 0
    if waiting == 0 then return {} end

    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZREMRANGEBYSCORE', wakeups, '-inf', string.format('%.0f', now - expiry))
    -- Sent by a clock that has been set back since.
    redis.call('ZREMRANGEBYSCORE', wakeups, string.format('(%.0f', now + expiry), '+inf')

    -- The work of live slices is in hands; all else waits, also what dead consumers hold.
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
  end
end
