-- status: the whole ledger at one moment, in O(consumers).
--
-- KEYS  1 jobs  2 info  3 done  4 dead
-- ->    {info as a flat list, backlog, leased, embedded, dead}
local jobs, info, done, dead = unpack(KEYS)
local leased = 0
if redis.call('EXISTS', jobs) == 1 then
  local summary = redis.call('XPENDING', jobs, 'workers')
  for _, owner in ipairs(summary[4] or {}) do
    if owner[1] ~= 'released' then
      leased = leased + tonumber(owner[2])
    end
  end
end
return {
  redis.call('HGETALL', info), redis.call('XLEN', jobs), leased,
  redis.call('XLEN', done), redis.call('HLEN', dead),
}
