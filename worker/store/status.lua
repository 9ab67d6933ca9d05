-- status: the whole ledger at one moment, in O(consumers).
--
-- KEYS  1 jobs  2 info  3 done  4 dead
-- ->    {info as a flat list, backlog, leased, embedded, dead, ms since its oldest text was enqueued}
local jobs, info, done, dead = unpack(KEYS)
local backlog, leased, age = redis.call('XLEN', jobs), 0, 0
if backlog > 0 then -- an idle collection is spared what follows: there may be thousands
  local summary = redis.call('XPENDING', jobs, 'workers')
  for _, owner in ipairs(summary[4] or {}) do
    if owner[1] ~= 'released' then
      leased = leased + tonumber(owner[2])
    end
  end
  local oldest = redis.call('XRANGE', jobs, '-', '+', 'COUNT', 1)[1]
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  age = math.max(0, now - tonumber(string.match(oldest[1], '^%d+')))
end
return {
  redis.call('HGETALL', info), backlog, leased,
  redis.call('XLEN', done), redis.call('HLEN', dead), age,
}
