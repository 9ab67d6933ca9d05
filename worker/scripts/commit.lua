-- commit: vectors and dead letters of leased jobs, each at most once. The only writer of vectors.
--
-- The fence is XACK: it is 1 for the first finisher of an entry alone. A second one, or a second copy of
-- the same call, changes nothing, not even a counter.
--
-- KEYS  1 jobs  2 queued  3 info  4 done  5 dead  6 attempts
-- ARGV  1 doc-key prefix  2 dimensions ('' when no vector comes)  3 number of vectors
--       then per vector: entry, id, digest, cached ('1' or ''), vector, text or '', meta or ''
--       then per dead letter: entry, id, digest .. letter
-- ->    {stored, dead, superseded, fenced}
--       {'dimensions', its dimensions}  when the collection's vectors are of another length: nothing was stored
local jobs, queued, info, done, dead, attempts = unpack(KEYS)
local doc_prefix, dimensions, vectors = ARGV[1], ARGV[2], tonumber(ARGV[3])

if vectors > 0 then
  local known = redis.call('HGET', info, 'dimensions')
  if known and known ~= dimensions then return {'dimensions', known} end
  for i = 0, vectors - 1 do
    if #ARGV[4 + i * 7 + 4] ~= 4 * tonumber(dimensions) then
      return redis.error_reply('VECTOR of another length than ' .. dimensions .. ' float32')
    end
  end
end

local stored, died, superseded, fenced, cached_count, replaced = 0, 0, 0, 0, 0, 0

-- 'live' when this finisher is the first and the job is still the id's latest.
local function finish(entry, id)
  if redis.call('XACK', jobs, 'workers', entry) == 0 then
    fenced = fenced + 1
    return false
  end
  redis.call('XDEL', jobs, entry)
  redis.call('HDEL', attempts, entry, 'lost:' .. entry)
  local latest = redis.call('HGET', queued, id)
  if not latest or string.sub(latest, 9) ~= string.match(entry, '-(%d+)$') then
    superseded = superseded + 1
    return false
  end
  redis.call('HDEL', queued, id)
  return true
end

local function remove_old(id)
  local old = redis.call('HGET', doc_prefix .. id, 'at')
  if old then
    redis.call('XDEL', done, old .. '-0')
    redis.call('DEL', doc_prefix .. id)
    replaced = replaced + 1
  end
end

for i = 4, 3 + vectors * 7, 7 do
  local entry, id, digest, cached, vector, text, meta = unpack(ARGV, i, i + 6)
  if finish(entry, id) then
    remove_old(id)
    local at = redis.call('HINCRBY', info, 'commits', 1)
    local doc = {'vector', vector, 'hash', digest, 'seq', string.match(entry, '-(%d+)$'), 'at', at}
    if cached == '1' then
      doc[#doc + 1] = 'cached'
      doc[#doc + 1] = '1'
      cached_count = cached_count + 1
    end
    if text ~= '' then
      doc[#doc + 1] = 'text'
      doc[#doc + 1] = text
    end
    if meta ~= '' then
      doc[#doc + 1] = 'meta'
      doc[#doc + 1] = meta
    end
    redis.call('HSET', doc_prefix .. id, unpack(doc))
    redis.call('XADD', done, string.format('%.0f-0', at), 'id', id)
    stored = stored + 1
  end
end
for i = 4 + vectors * 7, #ARGV, 3 do
  local entry, id, letter = unpack(ARGV, i, i + 2)
  if finish(entry, id) then
    remove_old(id) -- an id whose latest text is dead keeps no old vector
    redis.call('HSET', dead, id, letter)
    -- How often each code came, ever. Matched, not decoded: a step must not fail half-way, and in a JSON
    -- string these quotes would be escaped; the last match is the letter's own, after what meta may hold.
    local code = string.match(letter, '.*"code": "([%w_]+)"') or 'unknown'
    redis.call('HINCRBY', info, 'dead:' .. code, 1)
    died = died + 1
  end
end

if stored > 0 then redis.call('HSET', info, 'dimensions', dimensions) end
if cached_count > 0 then redis.call('HINCRBY', info, 'cached', cached_count) end
if replaced + superseded > 0 then redis.call('HINCRBY', info, 'enqueued', -replaced - superseded) end
return {stored, died, superseded, fenced}
