-- pieces: which of some ids are there, and whether each is a piece of its document.
--
-- Of an id that is queued, the latest job tells. Of an evicted one, what evict.lua noted.
--
-- KEYS  1 jobs  2 queued  3 info  4 dead
-- ARGV  1 doc-key prefix  2 evicted-key prefix  then per id: id, digest of the id
-- ->    per id: 0 if it is not there, 1 if it is no piece, or 2; and the digest of its text if that is dead or was
--       evicted, or ''
local jobs, queued, info, dead = unpack(KEYS)
local doc_prefix, evicted_prefix = ARGV[1], ARGV[2]
local field, is_piece = require 'field', require 'piece'
local buckets = tonumber(redis.call('HGET', info, 'buckets') or '0')
local bucket_of = require 'bucket'(buckets)
local ABSENT, OTHER, PIECE = 0, 1, 2

local reply, waiting = {}, {}
for i = 3, #ARGV, 2 do
  local id, key = ARGV[i], ARGV[i + 1]
  local latest, letter = redis.call('HGET', queued, id), redis.call('HGET', dead, id)
  local hash, meta = unpack(redis.call('HMGET', doc_prefix .. id, 'hash', 'meta'))
  local remembered = buckets > 0 and redis.call('HGET', evicted_prefix .. bucket_of(key), key)
  local proof, of_piece = letter and string.sub(letter, 1, 16) or remembered and string.sub(remembered, 1, 5) or '', nil
  if latest then
    waiting[#waiting + 1] = {tonumber(string.sub(latest, 9)), #reply + 1, id}
  elseif hash then
    of_piece = is_piece(id, meta)
  elseif letter then
    of_piece = is_piece(id, string.sub(letter, 17), 'meta')
  elseif remembered then
    of_piece = #remembered > 5
  end
  reply[#reply + 1] = (latest or hash or letter or remembered) and (of_piece and PIECE or OTHER) or ABSENT
  reply[#reply + 1] = proof
end

if #waiting > 0 then
  local entry_of = require 'entry'(jobs)
  table.sort(waiting, function(one, other) return one[1] < other[1] end)
  for _, one in ipairs(waiting) do
    local number, at, id = unpack(one)
    local entry = entry_of(number)
    if entry and is_piece(id, field(entry[2], 'meta')) then reply[at] = PIECE end
  end
end
return reply
