-- pieces: which of some ids are there, and whether each is a piece of its document.
--
-- Of an id that is queued, the latest job tells. Of an evicted one, what evict.lua noted. Most ids are not there, so
-- there is one call for all of them where it will do.
--
-- KEYS  1 jobs  2 queued  3 info  4 dead
-- ARGV  1 doc-key prefix  2 evicted-key prefix  3 the digests of the ids, 6 bytes each, in one string  4.. the ids
-- ->    per id that is there: its number among them, from 0; 1 if it is a piece, or 0; and the digest of its text if
--       that is dead or was evicted, or ''
local jobs, queued, info, dead = unpack(KEYS)
local doc_prefix, evicted_prefix, digests = unpack(ARGV, 1, 3)
local field, is_piece = require 'field', require 'piece'
local buckets = tonumber(redis.call('HGET', info, 'buckets') or '0')
local bucket_of = require 'bucket'(buckets)

local count, docs = #ARGV - 3, {}
for n = 1, count do docs[n] = doc_prefix .. ARGV[3 + n] end
local latest = redis.call('HMGET', queued, unpack(ARGV, 4))
local letters = redis.call('HLEN', dead) > 0 and redis.call('HMGET', dead, unpack(ARGV, 4)) or {}
local any_stored = redis.call('EXISTS', unpack(docs)) > 0

local reply, waiting = {}, {}
for n = 1, count do
  local id, job, letter = ARGV[3 + n], latest[n], letters[n]
  local hash, meta
  if any_stored then hash, meta = unpack(redis.call('HMGET', docs[n], 'hash', 'meta')) end
  local key = buckets > 0 and string.sub(digests, 6 * n - 5, 6 * n)
  local remembered = key and redis.call('HGET', evicted_prefix .. bucket_of(key), key)
  if job or hash or letter or remembered then
    local of_piece
    if job then
      waiting[#waiting + 1] = {tonumber(string.sub(job, 9)), #reply + 2, id}
    elseif hash then
      of_piece = is_piece(id, meta)
    elseif letter then
      of_piece = is_piece(id, string.sub(letter, 17), 'meta')
    else
      of_piece = #remembered > 5
    end
    reply[#reply + 1] = n - 1
    reply[#reply + 1] = of_piece and 1 or 0
    reply[#reply + 1] = letter and string.sub(letter, 1, 16) or remembered and string.sub(remembered, 1, 5) or ''
  end
end

if #waiting > 0 then
  local entry_of = require 'entry'(jobs)
  table.sort(waiting, function(one, other) return one[1] < other[1] end)
  for _, one in ipairs(waiting) do
    local number, at, id = unpack(one)
    local entry = entry_of(number)
    if entry and is_piece(id, field(entry[2], 'meta')) then reply[at] = 1 end
  end
end
return reply
