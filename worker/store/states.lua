-- states: what has become of some texts, at one moment.
--
-- What there is of an id says which text of it is the latest. One call for all ids where it will do: each call from a
-- script costs as much as the work it does.
--
-- KEYS  1 queued  2 info  3 dead
-- ARGV  1 doc-key prefix  2 evicted-key prefix  3 the digests in one string: per text 16 bytes of its own, or none to
--       ask for the latest text of each id; then 6 of its id's  4.. the ids
-- ->    a letter for each: Embedded, eVicted, Dead, Waiting, Superseded, Missing
local queued, info, dead = unpack(KEYS)
local doc_prefix, evicted_prefix, digests = unpack(ARGV, 1, 3)
local call, sub = redis.call, string.sub
local count = #ARGV - 3
local width = #digests / count
local buckets = tonumber(call('HGET', info, 'buckets') or '0')
local bucket_of = require 'bucket'(buckets)

local docs, states = {}, {}
for n = 1, count do docs[n] = doc_prefix .. ARGV[3 + n] end
local jobs = call('HMGET', queued, unpack(ARGV, 4))
local letters = call('HLEN', dead) > 0 and call('HMGET', dead, unpack(ARGV, 4)) or {}
local any_stored = call('EXISTS', unpack(docs)) > 0

for n = 1, count do
  local at, job, letter = (n - 1) * width, jobs[n], letters[n]
  local hash = any_stored and call('HGET', docs[n], 'hash')
  local latest = job and sub(job, 1, 8) or hash and sub(hash, 1, 16) or letter and sub(letter, 1, 16)
  local state = job and 'W' or hash and 'E' or 'D'
  if not latest and buckets > 0 then
    local key = sub(digests, at + width - 5, at + width)
    local remembered = call('HGET', evicted_prefix .. bucket_of(key), key)
    latest, state = remembered and sub(remembered, 1, 5), 'V'
  end
  if not latest then
    state = 'M'
  elseif width > 6 and sub(digests, at + 1, at + #latest) ~= latest then
    state = 'S'
  elseif job and hash and sub(hash, 1, 8) == latest then
    state = 'E' -- another text came between the two, and has left again
  end
  states[n] = state
end
return table.concat(states)
