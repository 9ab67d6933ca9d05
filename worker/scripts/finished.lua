-- finished: stored vectors in the order of their commits, with what is kept beside them.
--
-- KEYS  1 done
-- ARGV  1 doc-key prefix  2 number after which to begin  3 how many
-- ->    {number, id, digest of the text, cached ('1' or ''), vector, text or '', meta or ''} per vector, flat
local done = KEYS[1]
local doc_prefix, after, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local rows = {}
for _, entry in ipairs(redis.call('XRANGE', done, string.format('(%s-0', after), '+', 'COUNT', count)) do
  local id = entry[2][2]
  local doc = redis.call('HMGET', doc_prefix .. id, 'hash', 'cached', 'vector', 'text', 'meta')
  local n = #rows
  rows[n + 1] = string.match(entry[1], '^%d+')
  rows[n + 2] = id
  for i = 1, 5 do rows[n + 2 + i] = doc[i] or '' end
end
return rows
