-- finished: stored vectors in the order of their commits, with what is kept beside them.
--
-- KEYS  1 done  2 info
-- ARGV  1 doc-key prefix  2 number after which to begin  3 how many
-- ->    {born (see add.lua), commits ever, model, layout or '',
--       then per vector: id, if there is a layout the field that its numbers are in (see commit.lua), the numbers,
--       hash, text or '', meta or ''}; without vectors at the end
local done, info = KEYS[1], KEYS[2]
local doc_prefix, after, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local born, commits, model, layout = unpack(redis.call('HMGET', info, 'born', 'commits', 'model', 'layout'))
local FORMS = {'float32', 'float16', 'int8'}
local rows = {born or '', commits or '0', model or '', layout or ''}
repeat
  local page = redis.call('XRANGE', done, string.format('(%s-0', after), '+', 'COUNT', count)
  for _, entry in ipairs(page) do
    local id = entry[2][2]
    local doc, field = redis.call('HMGET', doc_prefix .. id, 'vector', 'hash', 'text', 'meta'), 'vector'
    if layout and not doc[1] then
      for n, numbers in ipairs(redis.call('HMGET', doc_prefix .. id, unpack(FORMS))) do
        if numbers then doc[1], field = numbers, FORMS[n] end
      end
    end
    if doc[1] then -- it was not deleted by hand
      local n = #rows
      rows[n + 1] = id
      if layout then
        n = n + 1
        rows[n + 1] = field
      end
      for i = 1, 4 do rows[n + 1 + i] = doc[i] or '' end
    end
    after = string.match(entry[1], '^%d+')
  end
until #rows > 4 or #page == 0
return rows
