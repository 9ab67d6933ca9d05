-- commit: vectors and dead letters of leased jobs, each at most once. The only step that stores new vectors.
--
-- The fence is XACK: it is 1 for the first finisher of an entry alone. A second one, or a second copy of
-- the same call, changes nothing, not even a counter.
--
-- KEYS  1 jobs  2 queued  3 info  4 done  5 dead  6 attempts
-- ARGV  1 doc-key prefix  2 dimensions that the API answered with ('' when no vector comes)  3 number of vectors
--       4 layout of the vectors ('' for none)
--       then per vector: entry, id, digest, cached ('1' or ''), vector, text or '', meta or ''
--       then per dead letter: entry, id, digest .. letter
-- ->    {stored, dead, superseded, fenced}
--       {'dimensions', its dimensions}  when the collection's vectors are of another length: nothing was stored
--       {'layout', its layout, its model}  when the collection has another layout: nothing was stored. Both are '' of one
--       that was dropped
--
-- A vector is a hash: `vector`, float32 as the API answered; of a collection with a layout instead a field that is
-- named after its dtype: `float32`, `float16` or `int8`. Workers of an earlier version store `vector` there too, and
-- readers bring it into the layout. Beside this one field, `hash`: 16 bytes of its text's digest .. seq of the latest
-- job with this text .. ' ' .. its number among the commits .. 'c' if the API had it in its cache; `text` and `meta`
-- where they are kept.
-- `hash` is one field because each field costs some 50 bytes beside its value, and a fifth one 110.
local jobs, queued, info, done, dead, attempts = unpack(KEYS)
local doc_prefix, dimensions, vectors, layout = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local FIRST, SIZES = 5, {float32 = 4, float16 = 2, int8 = 1}

local known, its, model
local field = 'vector'
if vectors > 0 then
  known, its, model = unpack(redis.call('HMGET', info, 'dimensions', 'layout', 'model'))
  if known and known ~= dimensions then return {'dimensions', known} end
  if (its or '') ~= layout then return {'layout', its or '', model or ''} end
  local size = 4 * tonumber(dimensions)
  if its then
    local length
    field, length = string.match(layout, '^(%w+) ?(%d*)$')
    size = SIZES[field] * math.min(tonumber(length) or math.huge, tonumber(dimensions))
  end
  for i = 0, vectors - 1 do
    if #ARGV[FIRST + i * 7 + 4] ~= size then
      return redis.error_reply('VECTOR of another length than ' .. dimensions .. ' ' .. (its or 'float32'))
    end
  end
end

local died, fenced, cached_count, replaced = 0, 0, 0, 0

-- What this finisher is the first with: where it begins in ARGV, its entry, its id.
local firsts, entries, ids = {}, {}, {}
local function finish(from, to, step)
  for i = from, to, step do
    if redis.call('XACK', jobs, 'workers', ARGV[i]) == 1 then
      firsts[#firsts + 1], entries[#entries + 1], ids[#ids + 1] = i, ARGV[i], ARGV[i + 1]
    else
      fenced = fenced + 1
    end
  end
end
local letters = FIRST + vectors * 7
finish(FIRST, letters - 1, 7)
finish(letters, #ARGV, 3)
if #firsts == 0 then return {0, 0, 0, fenced} end

-- One call for all of a kind: each call from a script costs as much as the work it does.
redis.call('XDEL', jobs, unpack(entries))
if redis.call('EXISTS', attempts) == 1 then
  redis.call('HDEL', attempts, unpack(entries))
  for n, entry in ipairs(entries) do entries[n] = 'lost:' .. entry end
  redis.call('HDEL', attempts, unpack(entries))
end

-- Of these the ones that are still the latest of their id.
local live, early = {}, {}
local latest_jobs = redis.call('HMGET', queued, unpack(ids))
for n, latest in ipairs(latest_jobs) do
  local i = firsts[n]
  if latest and string.sub(latest, 9) == string.match(ARGV[i], '-(%d+)$') then
    live[#live + 1] = n
  elseif latest and i < letters and string.sub(latest, 1, 8) == string.sub(ARGV[i + 2], 1, 8) then
    early[#early + 1] = {tonumber(string.sub(latest, 9)), n}
  end
end

-- And those with the text of the latest, which differs in its kept fields alone: it leaves unpaid.
local latest_meta, spared = {}, 0
if #early > 0 then
  table.sort(early, function(one, other) return one[1] < other[1] end)
  local field, entry_of = require 'field', require 'entry'(jobs)
  for _, one in ipairs(early) do
    local number, n = unpack(one)
    local entry = entry_of(number) -- of several, the first finds it
    if entry then
      live[#live + 1] = n
      latest_meta[n] = field(entry[2], 'meta')
      redis.call('XACK', jobs, 'workers', entry[1])
      redis.call('XDEL', jobs, entry[1])
      redis.call('HDEL', attempts, entry[1], 'lost:' .. entry[1])
      spared = spared + 1
    end
  end
end
local superseded = #firsts - #live

local live_ids, docs, stored = {}, {}, 0
for at, n in ipairs(live) do
  live_ids[at], docs[at] = ids[n], doc_prefix .. ids[n]
  if firsts[n] < letters then stored = stored + 1 end
end
if #live > 0 then
  redis.call('HDEL', queued, unpack(live_ids))
  -- An id whose latest text is dead keeps no old vector either.
  if redis.call('EXISTS', unpack(docs)) > 0 then
    for _, doc in ipairs(docs) do
      local old = redis.call('HGET', doc, 'hash')
      if old then
        redis.call('XDEL', done, string.match(old, ' (%d+)c?$', 17) .. '-0')
        redis.call('DEL', doc)
        replaced = replaced + 1
      end
    end
  end
end
local at = stored > 0 and redis.call('HINCRBY', info, 'commits', stored) - stored
for place, n in ipairs(live) do
  local i, id = firsts[n], ids[n]
  if i < letters then
    local _, _, digest, cached, vector, text, meta = unpack(ARGV, i, i + 6)
    meta = latest_meta[n] or meta
    at = at + 1
    local number = string.format('%.0f', at)
    local hash = digest .. string.sub(latest_jobs[n], 9) .. ' ' .. number
    if cached == '1' then
      hash = hash .. 'c'
      cached_count = cached_count + 1
    end
    local doc = {field, vector, 'hash', hash}
    if text ~= '' then
      doc[#doc + 1] = 'text'
      doc[#doc + 1] = text
    end
    if meta ~= '' then
      doc[#doc + 1] = 'meta'
      doc[#doc + 1] = meta
    end
    redis.call('HSET', docs[place], unpack(doc))
    redis.call('XADD', done, number .. '-0', 'id', id)
  else
    local letter = ARGV[i + 2]
    redis.call('HSET', dead, id, letter)
    -- How often each code came, ever. Matched, not decoded: a step must not fail half-way, and in a JSON
    -- string these quotes would be escaped; the last match is the letter's own, after what meta may hold.
    local code = string.match(letter, '.*"code": "([%w_]+)"') or 'unknown'
    redis.call('HINCRBY', info, 'dead:' .. code, 1)
    died = died + 1
  end
end

if stored > 0 and not known then redis.call('HSET', info, 'dimensions', dimensions) end
if cached_count > 0 then redis.call('HINCRBY', info, 'cached', cached_count) end
local left = replaced + superseded + spared
if left > 0 then redis.call('HINCRBY', info, 'enqueued', -left) end
return {stored, died, superseded, fenced}
