-- claim: lease up to `count` jobs to a consumer.
--
-- In this order: what the consumer already holds (the reply to an earlier claim was lost), those of `ahead`, as many as
-- priorities.lua says, released entries, entries of dead consumers, new ones. A job that a later one has superseded, or whose
-- very text is stored already, leaves here unpaid, and the batch is topped up; the stored one gets its meta.
--
-- `ahead` is only an index over the stream, and may name what has left it, or what somebody has in hand: that is
-- dropped. An entry that was leased early is still to come for those who read the stream in its order. Redis would make
-- it theirs, and its text be paid for twice: so it is given back to its owner. (Workers of an earlier version do not.)
--
-- An entry whose owners died DEADLY times may be what killed them. It is quarantined: set aside among the
-- released ones. Only a claim of what is quarantined (ARGV 5) leases it, with at most nine others like it; after
-- one more death, alone.
--
-- A process knows its living slices. Another consumer with its name and without a heartbeat is an orphan. The
-- texts of an orphan did not kill the process, so no death is counted. A consumer without a heartbeat gets no
-- lease: its claim arrived after its slice had ended, and no one would work on the leases.
--
-- KEYS  1 jobs  2 queued  3 info  4 attempts (hash: <entry> -> failures alone, lost:<entry> -> deaths)  5 done
--       6 ahead (zset, see keys.py)
-- ARGV  1 consumer, <process>:<number>  2 count  3 doc-key prefix  4 alive-key prefix
--       5 '1': what is quarantined, and nothing else; 'guest': for a request of another collection, so nothing that has
--       failed alone or whose owner died, nor what orphans hold; 'urgent': the same, and interactive ones alone, beside
--       what the consumer already holds  6 '1': take over from consumers of other processes that are dead
--       7 ms that a heartbeat lasts  8.. the living consumers of its process
-- ->    {entry, id, text, meta or '', attempts, lost, score in `ahead` or ''} per job, flat
local jobs, queued, info, attempts, done, ahead = unpack(KEYS)
local consumer, count, doc_prefix, alive_prefix = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local quarantined, urgent, take_over, lasts = ARGV[5] == '1', ARGV[5] == 'urgent', ARGV[6] == '1', tonumber(ARGV[7])
local guest = urgent or ARGV[5] == 'guest'
local alive = require 'alive'
if redis.call('EXISTS', jobs) == 0 or not alive(alive_prefix .. consumer, lasts) then return {} end

local DEADLY, TOGETHER = 2, 10
local any_failed, any_ahead = false, false
if redis.call('EXISTS', attempts, ahead) > 0 then -- one call will do in most batches
  any_failed, any_ahead = redis.call('EXISTS', attempts) == 1, redis.call('EXISTS', ahead) == 1
end
local leases, leased = {}, 0
local left = 0 -- the jobs that leave here

local field = require 'field'
local renew = require 'renew'(info, done)

-- `scores`: of those that come from `ahead`.
local function take(entries, scores)
  if #entries == 0 then return end
  -- One call for all of them where it will do: in most batches nothing is stored and nothing has failed.
  local ids, docs = {}, {}
  for n, entry in ipairs(entries) do
    ids[n] = field(entry[2], 'id')
    docs[n] = doc_prefix .. ids[n]
  end
  local latest_jobs = redis.call('HMGET', queued, unpack(ids))
  local any_stored = redis.call('EXISTS', unpack(docs)) > 0
  for n, entry in ipairs(entries) do
    local entry_id, fields, id, latest = entry[1], entry[2], ids[n], latest_jobs[n]
    local live = latest and string.sub(latest, 9) == string.match(entry_id, '-(%d+)$')
    local stored = false
    if live and any_stored then
      local hash = redis.call('HGET', doc_prefix .. id, 'hash')
      stored = hash and string.sub(hash, 1, 8) == string.sub(latest, 1, 8)
    end
    if live and not stored then
      local failures = any_failed and redis.call('HMGET', attempts, entry_id, 'lost:' .. entry_id) or {}
      leases[#leases + 1] = entry_id
      leases[#leases + 1] = id
      leases[#leases + 1] = field(fields, 'text')
      leases[#leases + 1] = field(fields, 'meta') or ''
      leases[#leases + 1] = tonumber(failures[1] or '0')
      leases[#leases + 1] = tonumber(failures[2] or '0')
      leases[#leases + 1] = scores and scores[entry_id] or ''
      leased = leased + 1
    else
      if stored then
        redis.call('HDEL', queued, id)
        renew(docs[n], id, field(fields, 'meta'), string.sub(latest, 9))
      end
      redis.call('XACK', jobs, 'workers', entry_id)
      redis.call('XDEL', jobs, entry_id)
      redis.call('HDEL', attempts, entry_id, 'lost:' .. entry_id)
      left = left + 1
    end
  end
end

local function lost(id)
  return any_failed and tonumber(redis.call('HGET', attempts, 'lost:' .. id) or '0') or 0
end

local function lease(ids)
  if #ids == 0 then return end
  local claimed, present = {}, {}
  for _, entry in ipairs(redis.call('XCLAIM', jobs, 'workers', consumer, 0, unpack(ids))) do
    if entry then
      claimed[#claimed + 1] = entry
      present[entry[1]] = true
    end
  end
  for _, id in ipairs(ids) do
    -- An entry that was deleted by hand would be offered for ever.
    if not present[id] then redis.call('XACK', jobs, 'workers', id) end
  end
  take(claimed)
end

local function take_from(owner, died)
  local start = '-'
  any_failed = any_failed or died
  while leased < count do
    local held = redis.call('XPENDING', jobs, 'workers', start, '+', count - leased, owner)
    if #held == 0 then return end
    start = '(' .. held[#held][1]
    local ids, aside = {}, {}
    for _, entry in ipairs(held) do
      local id = entry[1]
      local deaths = died and redis.call('HINCRBY', attempts, 'lost:' .. id, 1) or lost(id)
      local avoided = guest and any_failed and (deaths > 0 or redis.call('HEXISTS', attempts, id) == 1)
      if avoided then
        -- It stays where it is.
      elseif deaths < DEADLY then
        ids[#ids + 1] = id
      elseif owner ~= 'released' then
        aside[#aside + 1] = id
      end
    end
    if #aside > 0 then
      aside[#aside + 1] = 'JUSTID'
      redis.call('XCLAIM', jobs, 'workers', 'released', 0, unpack(aside))
    end
    lease(ids)
    if owner == consumer then return end -- what it held stays its own: one look is all of it
  end
end

-- Lease up to `most` that may overtake others, with scores from `low` to `high`.
local function take_ahead(low, high, most)
  local upto, passed_over = math.min(count, leased + most), 0
  while leased < upto do
    local found = redis.call('ZRANGEBYSCORE', ahead, low, high, 'WITHSCORES', 'LIMIT', passed_over, upto - leased)
    if #found == 0 then return end
    local entries, scores, ids, seen = {}, {}, {}, {}
    for n = 1, #found, 2 do
      local id = found[n]
      local entry = redis.call('XRANGE', jobs, id, id)[1]
      local held = entry and redis.call('XPENDING', jobs, 'workers', id, id, 1)[1]
      local deaths = held and lost(id) or 0
      if guest and held and any_failed and (deaths > 0 or redis.call('HEXISTS', attempts, id) == 1) then
        passed_over = passed_over + 1 -- its own workers take it
      else
        seen[#seen + 1] = id
        if entry and (not held or held[2] == 'released' and deaths < DEADLY) then
          entries[#entries + 1], ids[#ids + 1], scores[id] = entry, id, found[n + 1]
        end
      end
    end
    if #seen > 0 then redis.call('ZREM', ahead, unpack(seen)) end
    if #ids > 0 then
      ids[#ids + 1], ids[#ids + 2] = 'FORCE', 'JUSTID'
      redis.call('XCLAIM', jobs, 'workers', consumer, 0, unpack(ids))
      take(entries, scores)
    end
  end
end

-- Lease those of the two priorities of `ahead` that go before all others. What is required here and in take_fresh is
-- made by each run that comes here, and costs the others nothing.
local function take_parts(pending)
  local priorities, last = require 'priorities', require 'last'
  local NORMAL = string.format('%.0f', priorities.NORMAL)
  local all = redis.call('ZCARD', ahead)
  local first = redis.call('ZCOUNT', ahead, '-inf', '(' .. NORMAL)
  local rest = redis.call('XLEN', jobs) - all
  for name, held in pairs(pending) do
    if name ~= 'released' then rest = rest - held end
  end
  local time = redis.call('TIME')
  local function age(entry)
    return entry and time[1] * 1000 + time[2] / 1000 - tonumber(string.match(entry, '^%d+')) or 0
  end
  local normal = redis.call('ZRANGEBYSCORE', ahead, NORMAL, '+inf', 'LIMIT', 0, 1)[1]
  local fresh = rest > 0 and redis.call('XRANGE', jobs, '(' .. last(jobs), '+', 'COUNT', 1)[1]
  local waiting, ages = {first, all - first, math.max(0, rest)}, {0, age(normal), age(fresh and fresh[1])}
  redis.call('HDEL', attempts, '') -- it needs no memory: in a full Redis it lets the next one pass
  local parts = priorities.parts(count - leased, waiting, ages, redis.call('HINCRBY', info, 'turns', 1))
  take_ahead('-inf', '(' .. NORMAL, parts[1])
  take_ahead(NORMAL, '+inf', parts[2])
end

-- Lease what comes next in the stream. `any_held`: somebody has entries in hand, perhaps some that were leased early.
local function take_fresh(any_held)
  local rounds = 0
  while leased < count and rounds < 10 do
    local asked, owners = count - leased, {}
    if any_held then
      local start = '(' .. require 'last'(jobs)
      for _, held in ipairs(redis.call('XPENDING', jobs, 'workers', start, '+', asked)) do
        owners[held[1]] = held[2]
      end
    end
    local fresh = redis.call('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', asked, 'STREAMS', jobs, '>')
    if not fresh or #fresh == 0 then return end
    local entries, read = {}, fresh[2] or fresh[1][2] -- flat in fakeredis
    for _, entry in ipairs(read) do
      local owner = owners[entry[1]]
      if owner then
        redis.call('XCLAIM', jobs, 'workers', owner, 0, entry[1], 'JUSTID')
      else
        entries[#entries + 1] = entry
      end
    end
    take(entries)
    if #read < asked then return end
    if #entries > 0 then rounds = rounds + 1 end
  end
end

-- Those that died least first: an innocent one is done with before the deadly one kills again.
local function take_quarantined(owner)
  local few, alone, least = {}, nil, math.huge
  for _, entry in ipairs(redis.call('XPENDING', jobs, 'workers', '-', '+', 1000, owner)) do
    local id = entry[1]
    local deaths = lost(id)
    if deaths == DEADLY and #few < math.min(TOGETHER, count) then
      few[#few + 1] = id
    elseif deaths > DEADLY and deaths < least then
      alone, least = id, deaths
    end
  end
  if #few == 0 and alone then few = {alone} end
  lease(few)
  return #few > 0
end

if quarantined then
  -- What leaves unpaid makes room for the next.
  while leased == 0 and (take_quarantined(consumer) or take_quarantined('released')) do end
elseif urgent then
  take_ahead('-inf', string.format('(%.0f', require 'priorities'.NORMAL), count)
else
  local pending, others, held = {}, redis.call('XINFO', 'CONSUMERS', jobs, 'workers'), 0
  for _, other in ipairs(others) do
    local has = field(other, 'pending')
    pending[field(other, 'name')] = has
    held = held + has
  end
  local its, released = pending[consumer] or 0, pending['released'] or 0
  -- Many slices look for guests in the same collections. Where others have all in hand, that is all that a guest asks.
  -- (An entry that was deleted by hand counts as held: only the collection's own workers see what is behind it.)
  if guest and held > 0 and its + released == 0 and redis.call('XLEN', jobs) <= held then return {} end
  if its > 0 then take_from(consumer, false) end
  if any_ahead then take_parts(pending) end
  if released > 0 then take_from('released', false) end
  local process = string.match(consumer, '^(.*):%d+$')
  local living = {[consumer] = true, released = true}
  for n = 8, #ARGV do living[ARGV[n]] = true end
  for _, other in ipairs(others) do
    if guest or leased >= count then break end
    local name = field(other, 'name')
    local ours = process and string.match(name, '^(.*):%d+$') == process
    if not living[name] and (ours or take_over) and not alive(alive_prefix .. name, lasts) then
      if pending[name] > 0 then take_from(name, not ours) end
      local left = redis.call('XPENDING', jobs, 'workers', '-', '+', 1, name)
      -- DELCONSUMER drops what the consumer holds: only an empty one may go.
      if #left == 0 then redis.call('XGROUP', 'DELCONSUMER', jobs, 'workers', name) end
    end
  end
  take_fresh(held > 0 or leased > 0)
  if any_ahead then take_ahead('-inf', '+inf', count) end
end
if left > 0 then redis.call('HINCRBY', info, 'enqueued', -left) end
return leases
