-- retry: dead letters back into the backlog, as the latest enqueue of their ids. `enqueued` stays.
--
-- KEYS  1 jobs  2 queued  3 info  4 dead  5 epoch (see idle.lua)
-- ARGV  1 epoch announced  then per letter: id, digest .. letter as read, meta or '', text
-- ->    number put back; a letter that changed since it was read stays
--       {'epoch', the epoch}  when it was announced under another: nothing was put back
local jobs, queued, info, dead, epoch = unpack(KEYS)
local now = redis.call('GET', epoch) or ''
if now ~= ARGV[1] then return {'epoch', now} end

local seq = tonumber(redis.call('HGET', info, 'seq') or '0')
local time = redis.call('TIME')
local ms = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(redis.call('HGET', info, 'ms') or '0'))
local ms_text = string.format('%.0f', ms)
local count = 0
for i = 2, #ARGV, 4 do
  local id, letter, meta, text = unpack(ARGV, i, i + 3)
  if redis.call('HGET', dead, id) == letter then
    seq = seq + 1
    count = count + 1
    local entry = ms_text .. '-' .. string.format('%.0f', seq)
    if meta == '' then
      redis.call('XADD', jobs, entry, 'id', id, 'text', text)
    else
      redis.call('XADD', jobs, entry, 'id', id, 'text', text, 'meta', meta)
    end
    redis.call('HSET', queued, id, string.sub(letter, 1, 8) .. string.format('%.0f', seq))
    redis.call('HDEL', dead, id)
  end
end
if count == 0 then return 0 end -- of a collection that was dropped nothing comes back
redis.call('HSET', info, 'seq', string.format('%.0f', seq), 'ms', ms_text)
return count
