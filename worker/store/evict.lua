-- evict: delete vectors that are safe in a file, if they are still those that were written there.
--
-- One evicting export at a time: each call renews its lock, and one that lost it to another changes nothing.
--
-- What text an id had is remembered, so that enqueuing it again costs nothing: in hashes small enough for
-- Redis to pack, <evicted prefix><bucket>: 6 bytes of the id's digest -> 5 bytes of its text's, and `p` if it
-- was a piece of its document: a tail is deleted only of these. There are
-- `buckets` of them, and one is split whenever they are FULL on average (linear hashing): a look-up is
-- always one HGET.
--
-- KEYS  1 info  2 done  3 evicting (string: the token of who exports, expires)
-- ARGV  1 doc-key prefix  2 evicted-key prefix  3 token  4 ms of the lock, 0 to end it
--       5 the collection's life that the vectors are of (`born`, see add.lua), or '' for any
--       then per vector: number, id, digest of the text, digest of the id
-- ->    number evicted, or -1 when another exports
local info, done, evicting = unpack(KEYS)
local doc_prefix, evicted_prefix, token, lasts = unpack(ARGV, 1, 4)
local FULL = 44 -- a bucket not yet split has twice as many; Redis 7 packs up to 128

local holder = redis.call('GET', evicting)
if holder and holder ~= token then
  local alive, LONGEST = require 'alive', 15000
  alive(evicting, LONGEST)
  return -1
end
-- First a command that takes no memory: a script that has begun to write may go on in a full Redis.
redis.call('XDEL', done, '0-1')
if lasts == '0' then
  redis.call('DEL', evicting)
else
  redis.call('SET', evicting, token, 'PX', lasts)
end

local memory = redis.call('HMGET', info, 'buckets', 'remembered')
local buckets, remembered = tonumber(memory[1] or '1'), tonumber(memory[2] or '0')
local locate = require 'bucket'
local bucket_of, whole = locate(buckets)

local is_piece = require 'piece'
local function remember(key, digest, piece)
  local value = string.sub(digest, 1, 5) .. (piece and 'p' or '')
  remembered = remembered + redis.call('HSET', evicted_prefix .. bucket_of(key), key, value)
end

local function split()
  local old, moved, left = buckets - whole, {}, {}
  bucket_of, whole = locate(buckets + 1)
  local all = redis.call('HGETALL', evicted_prefix .. old)
  for i = 1, #all, 2 do
    if bucket_of(all[i]) == buckets then
      moved[#moved + 1] = all[i]
      moved[#moved + 1] = all[i + 1]
      left[#left + 1] = all[i]
    end
  end
  if #moved > 0 then
    redis.call('HSET', evicted_prefix .. buckets, unpack(moved))
    redis.call('HDEL', evicted_prefix .. old, unpack(left))
  end
  buckets = buckets + 1
end

if ARGV[5] ~= '' and ARGV[5] ~= redis.call('HGET', info, 'born') then return 0 end
local evicted, last = {}, 0
for i = 6, #ARGV, 4 do
  local at, id, digest, key = unpack(ARGV, i, i + 3)
  local hash = redis.call('HGET', doc_prefix .. id, 'hash')
  if hash and string.sub(hash, 1, 16) == digest and string.match(hash, ' (%d+)c?$', 17) == at then
    remember(key, digest, string.find(id, '#%d%d%d%d+$') and is_piece(id, redis.call('HGET', doc_prefix .. id, 'meta')))
    redis.call('UNLINK', doc_prefix .. id)
    if remembered > FULL * buckets then split() end
    evicted[#evicted + 1] = at .. '-0'
    evicted[at .. '-0'] = true
    last = math.max(last, tonumber(at))
  end
end
if #evicted == 0 then return 0 end

-- XDEL looks for each entry from the beginning of its node: three quarters of the time of this step, were
-- it not that as a rule these are the first of all, and can be cut off.
local first = true
for _, entry in ipairs(redis.call('XRANGE', done, '-', string.format('%.0f-0', last), 'COUNT', #evicted + 1)) do
  first = first and evicted[entry[1]]
end
if first then
  redis.call('XTRIM', done, 'MINID', string.format('%.0f-0', last + 1))
else
  redis.call('XDEL', done, unpack(evicted))
end
redis.call('HINCRBY', info, 'evicted', #evicted)
redis.call('HSET', info, 'buckets', buckets, 'remembered', remembered)
return #evicted
