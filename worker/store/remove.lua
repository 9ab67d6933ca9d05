-- remove: delete ids: their vectors, queued jobs and dead letters, and what is remembered of evicted ones.
--
-- An id goes only as it was when the caller looked: one that was enqueued since stays. So a copy of the call
-- that arrives late does no harm. A queued job leaves the stream, so that whoever has leased it is fenced.
--
-- While folders follow the collection, each id gets a tombstone, also one that only a folder has. Its number is
-- the next among the commits: what a folder has of the id under a lower number is deleted. At most so many are kept.
--
-- KEYS  1 jobs  2 queued  3 info  4 done  5 dead  6 attempts  7 tombstones  8 bookmark (see resume.lua)
-- ARGV  1 doc-key prefix  2 evicted-key prefix  3 the collection's life (`born`, see add.lua)  4 seq when the
--       caller looked  5 tombstones to keep at most  6 the token of the run that deletes, or '' (see resume.lua)
--       then per id: id, digest of the id, digest of its text that is dead or was evicted, or ''
-- ->    how many ids were here; none in another life
local jobs, queued, info, done, dead, attempts, tombstones, bookmark = unpack(KEYS)
local doc_prefix, evicted_prefix, born, since, most, run = unpack(ARGV, 1, 6)
if (redis.call('HGET', info, 'born') or '') ~= born then return 0 end
-- First a command that takes no memory: a script that has begun to write may go on in a full Redis.
redis.call('XDEL', done, '0-1')
since = tonumber(since)
local buckets = tonumber(redis.call('HGET', info, 'buckets') or '0')
local bucket_of = require 'bucket'(buckets)

local entry_of = require 'entry'(jobs)

local asked = {}
for i = 7, #ARGV, 3 do
  local latest = redis.call('HGET', queued, ARGV[i])
  asked[#asked + 1] = {i, latest and tonumber(string.sub(latest, 9))}
end
table.sort(asked, function(one, other) return (one[2] or 0) < (other[2] or 0) end)

local removed, texts, evicted, gone = 0, 0, 0, {}
for _, one in ipairs(asked) do
  local i, latest = unpack(one)
  local id, key, digest = unpack(ARGV, i, i + 2)
  local letter = redis.call('HGET', dead, id)
  local hash = redis.call('HGET', doc_prefix .. id, 'hash')
  local bucket = buckets > 0 and evicted_prefix .. bucket_of(key)
  local remembered = bucket and redis.call('HGET', bucket, key)
  local is_later
  if latest then
    is_later = latest > since
  elseif hash then
    is_later = tonumber(string.match(hash, '^%d+', 17)) > since
  elseif letter then
    is_later = string.sub(letter, 1, 16) ~= digest
  else
    is_later = remembered and string.sub(remembered, 1, 5) ~= string.sub(digest, 1, 5)
  end
  if not is_later then
    gone[#gone + 1] = id
    if latest or hash or letter or remembered then removed = removed + 1 end
    local found = latest and entry_of(latest)
    local entry = found and found[1]
    redis.call('HDEL', queued, id)
    if entry then
      redis.call('XACK', jobs, 'workers', entry)
      redis.call('XDEL', jobs, entry)
      redis.call('HDEL', attempts, entry, 'lost:' .. entry)
      texts = texts + 1
    end
    if hash then
      redis.call('XDEL', done, string.match(hash, ' (%d+)c?$', 17) .. '-0')
      redis.call('UNLINK', doc_prefix .. id)
      texts = texts + 1
    end
    texts = texts + redis.call('HDEL', dead, id)
    if remembered then evicted = evicted + redis.call('HDEL', bucket, key) end
  end
end

local is_followed = false
for _, field in ipairs(redis.call('HKEYS', info)) do
  is_followed = is_followed or string.match(field, '^tombstones:')
end
if is_followed and #gone > 0 then
  local at = redis.call('HINCRBY', info, 'commits', #gone) - #gone
  redis.call('HINCRBY', info, 'tombstones', #gone)
  for n, id in ipairs(gone) do
    local entry = string.format('%.0f-0', at + n)
    if redis.pcall('XADD', tombstones, entry, 'id', id).err then -- an older vec drop left those of another life
      redis.call('DEL', tombstones)
      redis.call('XADD', tombstones, entry, 'id', id)
    end
  end
  local over = redis.call('XLEN', tombstones) - most
  if over > 0 then
    local trimmed = redis.call('XRANGE', tombstones, '-', '+', 'COUNT', over)
    redis.call('HSET', info, 'trimmed', string.match(trimmed[over][1], '^%d+'))
    redis.call('XTRIM', tombstones, 'MAXLEN', most)
  end
end
if removed == 0 then return 0 end
redis.call('HINCRBY', info, 'enqueued', 0 - texts - evicted) -- and not -0
redis.call('HINCRBY', info, 'evicted', 0 - evicted)
redis.call('HINCRBY', info, 'remembered', 0 - evicted)
redis.call('HINCRBY', info, 'removed', removed)
if run ~= '' and redis.call('HGET', bookmark, 'token') == run then
  redis.call('HINCRBY', bookmark, 'removed', removed)
  redis.call('HSET', bookmark, 'mixed', '1')
end
return removed
