-- drop: remove a collection, one bounded piece at each call, until nothing is left.
--
-- What is queued goes first: a worker that holds leases of it finds nothing to commit. The vectors follow
-- in the order of `done`, and each piece leaves a balanced ledger. UNLINK frees in the background.
--
-- Each piece gives the collection another life (`born` in info, see add.lua), so that its readers know. A call
-- that arrives late finds a life that it was not sent for, and removes nothing.
--
-- KEYS  1 jobs  2 queued  3 info  4 done  5 dead  6 attempts  7 wakeups  8 tombstones  9 bookmark
--       10 index  11 ahead
-- ARGV  1 doc-key prefix  2 evicted-key prefix  3 keys to remove at most  4 its life  5 its next life
-- ->    {vectors, queued and dead removed by this call, 1 if something is left}
local jobs, queued, info, done, dead, attempts, wakeups, tombstones, bookmark, index, ahead = unpack(KEYS)
local doc_prefix, evicted_prefix, count = ARGV[1], ARGV[2], tonumber(ARGV[3])

local born = redis.call('HGET', info, 'born') or ''
if born ~= ARGV[4] and born ~= ARGV[5] then return {0, 0, 0, 0} end

local backlog, letters = redis.call('XLEN', jobs), redis.call('HLEN', dead)
-- Before anything that needs memory: a script that has begun to write may go on in a full Redis.
redis.call('UNLINK', jobs, queued, dead, attempts, wakeups, tombstones, bookmark, index, ahead)
if redis.call('HDEL', info, 'index') == 1 then redis.pcall('FT.DROPINDEX', index) end

local entries = {}
for i, entry in ipairs(redis.call('XRANGE', done, '-', '+', 'COUNT', count)) do
  redis.call('UNLINK', doc_prefix .. entry[2][2])
  entries[i] = entry[1]
end
if #entries > 0 then
  local last = string.match(entries[#entries], '^%d+')
  redis.call('XTRIM', done, 'MINID', string.format('%.0f-0', last + 1))
end

local buckets = tonumber(redis.call('HGET', info, 'buckets') or '0')
local removed = #entries
while removed < count and buckets > 0 do
  buckets = buckets - 1
  removed = removed + 1
  redis.call('UNLINK', evicted_prefix .. buckets)
end
if removed < count then
  redis.call('UNLINK', done, info)
  return {#entries, backlog, letters, 0}
end
redis.call('HSET', info, 'buckets', buckets, 'born', ARGV[5])
redis.call('HINCRBY', info, 'enqueued', 0 - backlog - letters - #entries) -- and not -0
return {#entries, backlog, letters, 1}
