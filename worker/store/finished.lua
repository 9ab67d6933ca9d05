-- finished: stored vectors in the order of their commits, with what is kept beside them.
--
-- KEYS  1 done  2 info
-- ARGV  1 doc-key prefix  2 number after which to begin  3 how many
-- ->    {born (see add.lua), commits ever, model, then per vector: id, vector, hash (see commit.lua), text or '',
--       meta or ''}; without vectors at the end
local done, info = KEYS[1], KEYS[2]
local doc_prefix, after, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local born, commits, model = unpack(redis.call('HMGET', info, 'born', 'commits', 'model'))
local rows = {born or '', commits or '0', model or ''}
repeat
  local page = redis.call('XRANGE', done, string.format('(%s-0', after), '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    local id = entry[2][2]
    local doc = redis.call('HMGET', doc_prefix .. id, 'vector', 'hash', 'text', 'meta')
    if doc[1] then -- it was not deleted by hand
      local n = #rows
      rows[n + 1] = id
      for i = 1, 4 do rows[n + 1 + i] = doc[i] or '' end
    end
    after = string.match(entry[1], '^%d+')
  end
until #rows > 3 or #page == 0
return rows
