-- resume: begin a run of vec-enqueue with a bookmark: with the one of an earlier run, if that still holds.
--
-- The bookmark is of the run that began last: another one that is still at work writes to it no more.
--
-- KEYS  1 info  2 bookmark  hash  token: of its run    what: how the run reads files
--                                 born, seq, removed: of info, after what the run did last
--                                 chunk: number of its last one
--                                 mixed: 1 if a text of the run took the place of another one, or came twice
--                                 begun: '<files> <digest>', those of which a line was added, and all before them
--                                 <files>: '<digest> <rejected>', as many as were added to their ends
-- ARGV  1 token  2 what  3 '1': begin at the first file, whatever the bookmark says
-- ->    {born, seq, then the fields of the bookmark that holds, each with its value}
local info, bookmark = KEYS[1], KEYS[2]
local token, what, anew = unpack(ARGV)
local born, seq, removed = unpack(redis.call('HMGET', info, 'born', 'seq', 'removed'))
local reply = {born or '', seq or '0'}
if anew == '' and redis.call('HGET', bookmark, 'what') == what and require 'bookmark'(info, bookmark) then
  for _, said in ipairs(redis.call('HGETALL', bookmark)) do reply[#reply + 1] = said end
  redis.call('HSET', bookmark, 'token', token, 'chunk', '0')
else
  redis.call('DEL', bookmark)
  redis.call('HSET', bookmark, 'token', token, 'what', what, 'chunk', '0')
  redis.call('HSET', bookmark, 'born', born or '', 'seq', seq or '0', 'removed', removed or '0')
end
return reply
