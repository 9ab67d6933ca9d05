-- known: what there is of some ids, at one moment.
--
-- KEYS  1 queued  2 info  3 dead
-- ARGV  1 doc-key prefix  2 evicted-key prefix  then per id: id, digest of the id
-- ->    {born (see add.lua), seq, commits ever, then per id, each or '': `hash` of its vector (see commit.lua),
--       `queued` of it, digest of its text that is dead, and 5 bytes of that of its text that was evicted}
local queued, info, dead = unpack(KEYS)
local doc_prefix, evicted_prefix = ARGV[1], ARGV[2]
local born, seq, commits, buckets = unpack(redis.call('HMGET', info, 'born', 'seq', 'commits', 'buckets'))
buckets = tonumber(buckets or '0')
local bucket_of = require 'bucket'(buckets)
local known = {born or '', seq or '0', commits or '0'}
for i = 3, #ARGV, 2 do
  local id, key, n = ARGV[i], ARGV[i + 1], #known
  known[n + 1] = redis.call('HGET', doc_prefix .. id, 'hash') or ''
  known[n + 2] = redis.call('HGET', queued, id) or ''
  known[n + 3] = string.sub(redis.call('HGET', dead, id) or '', 1, 16)
  known[n + 4] = string.sub(buckets > 0 and redis.call('HGET', evicted_prefix .. bucket_of(key), key) or '', 1, 5)
end
return known
