-- add: one chunk of jobs into the backlog. Idempotent: a chunk sent again gets its first reply.
--
-- A run's receipt is there before its first chunk, and chunks are added in the order of their numbers. So a
-- copy that arrives late, after the next chunk, after the run or after its receipt expired, adds nothing; and
-- a run learns that Redis has lost what it added.
--
-- KEYS  1 jobs     stream  id, text, [meta]; the entry's id is <ms>-<seq>
--       2 queued   hash    id -> 8 bytes of the text's digest .. seq of its latest job
--       3 info     hash    model, born, counters
--       4 dead     hash    id -> 16 bytes of digest .. the dead letter
--       5 done     stream  ids in commit order
--       6 receipt  string  the producer's last chunk number and its reply
--       7 epoch    string  (see idle.lua)
--       8 bookmark hash    (see resume.lua)
--       9 ahead    zset    (see keys.py)
--       10 wakeups zset    (see wake.lua); here and below: not for a chunk of a run
--       11 workers, 12 urgent  zsets (see keys.py); not on a cluster, where they are on another node
-- ARGV  1 epoch announced  2 doc-key prefix  3 chunk number  4 seq when the run began  5 model
--       6 evicted-key prefix  7 how many jobs  8 the digests in one string: per job 16 bytes of its text's,
--       and 6 of its id's where vectors were evicted (an argument each would cost more than the work)
--       9 '' for a run without a bookmark, or JSON: its token, whether an id came twice in this chunk, and what to
--       write into the bookmark: fields and values
--       10 the layout that a new collection gets, and another one must have: float32 for none, '' for any
--       11 '' for a chunk of a run. For one of calls (see worker/store/calls.py), the backlog from which nothing is
--       added (see high_water.py); then of calls: 12 the shares of memory from which nothing is added, of what overtakes nothing
--       and of what does; '' for no look at it
--       13 '', or to get wake-ups: seconds after which a worker is lost, and ARGV of wake.lua (most threads worth having,
--       batch size, expiry, ms that a heartbeat lasts)  14 alive-key prefix
--       15 '1' or '0' sets whether texts are kept, '' does not
--       16 priority: 'interactive', 'bulk', or '' for normal
--       17.. all ids, then all texts, then, if any job has one, all metas as JSON or ''
-- ->    of a run: {new, unchanged, duplicates, dead,
--       evicted: of the unchanged, those whose vectors are in files alone,
--       buckets: how many remember evicted vectors (see evict.lua),
--       replacing: of the new, those whose id had another text before the run,
--       seq now, born: the life of the collection}
--       of calls: {a letter for each job: New, Unchanged, Evicted (unchanged too) or the text is a Dead letter,
--       1 if the collection began with it, tokens of wake-ups to send, if they were asked for}
--       {'receipt'}  when the chunk before is not here: nothing was added
--       {'epoch', the epoch}  when it was announced under another: nothing was added
--       {'model', its model}  when the collection's vectors are of another model: nothing was added
--       {'layout', its layout}  when it has another layout than the one asked for: nothing was added
--       of calls: {'full', backlog, bytes used, limit} and {'unfit', maxmemory-policy}: nothing was added
local jobs, queued, info, dead, done, receipt, epoch, bookmark, ahead, wakeups, workers, urgent = unpack(KEYS)
local announced, doc_prefix, chunk, since, model, evicted_prefix, count, digests, mark, layout = unpack(ARGV, 1, 10)
local of_calls, share, wakes, alive_prefix, keep_text, priority = unpack(ARGV, 11, 16)
local HEAD = 16 -- arguments before the ids

if of_calls == '' then of_calls = nil end

local function reply_to_calls(letters, begun)
  local reply = {letters, begun}
  if wakes == '' or not (workers and string.find(letters, 'N')) then return reply end
  local lost, most_threads, batch, expiry, lasts = string.match(wakes, '(%S+) (%S+) (%S+) (%S+) (%S+)')
  most_threads = tonumber(most_threads)
  local backlog = redis.call('XLEN', jobs)
  local time = redis.call('TIME')
  local now = time[1] + time[2] / 1000000
  local from, to = string.format('%.0f', now * 1000 - expiry), string.format('%.0f', now * 1000 + expiry)
  local enough = math.min(math.ceil(backlog / batch), most_threads)
  if redis.call('ZCOUNT', wakeups, from, to) >= enough then return reply end
  local threads = 0
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', workers, now - lost, now + lost)) do
    threads = threads + (tonumber(string.match(member, '^.+/(%d+)$')) or 0)
  end
  threads = math.max(1, math.min(threads, most_threads))
  local tokens = require 'wakeups'(jobs, wakeups, info)(threads, batch, expiry, alive_prefix, lasts)
  for n, token in ipairs(tokens) do reply[2 + n] = token end
  return reply
end

local receipt_says, now = unpack(redis.call('MGET', receipt, epoch))
receipt_says, now = receipt_says or '', now or ''
local last = tonumber(string.match(receipt_says, '^%d+'))
if last == tonumber(chunk) then
  if of_calls then return reply_to_calls(string.match(receipt_says, '%a+$'), 0) end
  local numbers = {}
  for number in string.gmatch(receipt_says, ' (%d+)') do numbers[#numbers + 1] = tonumber(number) end
  numbers[#numbers + 1] = redis.call('HGET', info, 'born') or ''
  return numbers
end
if last ~= chunk - 1 then return {'receipt'} end

if now ~= announced then return {'epoch', now} end

local is_ours, holds, token, mixed, fields = false
if mark ~= '' then
  token, mixed, fields = unpack(cjson.decode(mark))
  is_ours = redis.call('HGET', bookmark, 'token') == token
  holds = is_ours and tonumber(redis.call('HGET', bookmark, 'chunk')) == chunk - 1
  holds = holds and require 'bookmark'(info, bookmark)
end

local known, its, seq, ms, buckets, born, enqueued, unchanged_ever, bulk = unpack(
  redis.call('HMGET', info, 'model', 'layout', 'seq', 'ms', 'buckets', 'born', 'enqueued', 'unchanged', 'bulk'))
if known and known ~= model then return {'model', known} end
if known and layout ~= '' and layout ~= (its or 'float32') then return {'layout', its or 'float32'} end
local backlog = redis.call('XLEN', jobs)
local overtaking = require 'overtake'(jobs, ahead)(priority, backlog, bulk)
if of_calls then
  -- It was dropped or lost since its announcement, which may have gone with it.
  if not known and chunk ~= '1' then return {'epoch', now} end
  local memory = share ~= '' and redis.call('INFO', 'memory') or ''
  local policy = string.match(memory, 'maxmemory_policy:(%S+)')
  if policy and string.sub(policy, 1, 7) == 'allkeys' then return {'unfit', policy} end
  local used, limit = string.match(memory, 'used_memory:(%d+)'), string.match(memory, 'maxmemory:(%d+)') or '0'
  share = string.match(share, overtaking and '%S+$' or '^%S+')
  local is_full = tonumber(limit) > 0 and tonumber(used) >= share * limit
  local most, waiting = tonumber(of_calls), backlog
  if overtaking and backlog >= most then waiting = overtaking.waiting() end
  if is_full or waiting >= most then return {'full', waiting, is_full and used or '0', limit} end
end

-- Stream ids must grow, and Redis' clock may step back.
local time = redis.call('TIME')
ms = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ms or '0'))
local ms_text = string.format('%.0f', ms)
if not known then
  -- Which collection of this name it is, for those who read it for a while.
  born = table.concat(time, '.')
  redis.call('HSET', info, 'model', model, 'born', born)
  if layout ~= '' and layout ~= 'float32' then redis.call('HSET', info, 'layout', layout) end
end
if of_calls and keep_text ~= '' then redis.call('HSET', info, 'keep_text', keep_text == '1' and '1' or '') end
if backlog == 0 and redis.call('EXISTS', jobs) == 0 then
  redis.call('XGROUP', 'CREATE', jobs, 'workers', '0', 'MKSTREAM')
end

seq = tonumber(seq or '0')
since = tonumber(since)

-- A first run over a fresh collection has neither, and need not look for each text.
local any_dead = redis.call('HLEN', dead) > 0
local any_done = redis.call('XLEN', done) > 0

buckets = tonumber(buckets or '0')
local bucket_of = buckets > 0 and require 'bucket'(buckets)
local any_known = any_dead or any_done or buckets > 0
local call, sub, format = redis.call, string.sub, string.format
count = tonumber(count)
local width, texts, metas = #digests / count, HEAD + count, HEAD + 2 * count

-- One call for all of them where it will do: each call from a script costs as much as the work it does.
local docs = {}
local latest_jobs = count > 0 and redis.call('HMGET', queued, unpack(ARGV, HEAD + 1, HEAD + count)) or {}
if any_done then
  for n = 1, count do docs[n] = doc_prefix .. ARGV[HEAD + n] end
  any_done = count > 0 and redis.call('EXISTS', unpack(docs)) > 0
end

-- What is known of the id of a job: 'queued', 'dead', 'stored', 'evicted' or nil; whether its text is the same, and
-- whether that one came during this run.
local function look(n)
  local latest, at = latest_jobs[n], (n - 1) * width
  local digest = sub(digests, at + 1, at + 16)
  if latest then return 'queued', sub(latest, 1, 8) == sub(digest, 1, 8), tonumber(sub(latest, 9)) > since end
  local letter = any_dead and call('HGET', dead, ARGV[HEAD + n])
  if letter then return 'dead', sub(letter, 1, 16) == digest, false end
  local hash = any_done and call('HGET', docs[n], 'hash')
  if hash then return 'stored', sub(hash, 1, 16) == digest, tonumber(string.match(hash, '^%d+', 17)) > since end
  if buckets > 0 and width > 16 then
    local key = sub(digests, at + 17, at + width)
    local remembered = call('HGET', evicted_prefix .. bucket_of(key), key)
    if remembered and sub(remembered, 1, 5) == sub(digest, 1, 5) then return 'evicted', true, false end
  end
end

-- The jobs that are queued and have the same text and another meta: they are queued anew. Those with the same meta
-- overtake others, if that is asked for now.
local function find_outdated()
  local waiting, found, has_metas = {}, {}, #ARGV > metas
  for n, latest in ipairs(latest_jobs) do
    local at = (n - 1) * width
    local same = latest and sub(latest, 1, 8) == sub(digests, at + 1, at + 8)
    local may_differ = has_metas and ARGV[metas + n] ~= ''
    if same and (overtaking or may_differ) then waiting[#waiting + 1] = {tonumber(sub(latest, 9)), n, may_differ} end
  end
  if #waiting == 0 then return found end
  table.sort(waiting, function(one, other) return one[1] < other[1] end)
  local field, entry_of = require 'field', require 'entry'(jobs)
  for _, one in ipairs(waiting) do
    local number, n, may_differ = unpack(one)
    local entry = entry_of(number)
    found[n] = entry and may_differ and field(entry[2], 'meta') ~= ARGV[metas + n]
    if entry and overtaking and not found[n] then overtaking.add(entry[1], number) end
  end
  return found
end

local queued_now = {}
local before_seq = ms_text .. '-'
local tens -- of seq; formatting a number for each text would cost as much as looking it up
local DIGITS = {[0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'}

local is_outdated = (overtaking or #ARGV > metas) and find_outdated() or {}
local renew = require 'renew'(info, done)
local added, new, unchanged, duplicates, still_dead, evicted, replacing = 0, 0, 0, 0, 0, 0, 0
local letters = of_calls and {}
local renewed = false -- whether a text got another meta
for n = 1, count do
  local id, meta = ARGV[HEAD + n], ARGV[metas + n]
  local state, same, same_run
  if any_known or latest_jobs[n] then state, same, same_run = look(n) end
  local letter = 'U'
  if same_run then
    duplicates = duplicates + 1
  elseif not same then
    new = new + 1
    letter = 'N'
    if state then replacing = replacing + 1 end
  elseif state == 'dead' then
    still_dead = still_dead + 1
    letter = 'D'
  else
    unchanged = unchanged + 1
    if state == 'evicted' then
      evicted = evicted + 1
      letter = 'E'
    end
  end
  if letters then letters[n] = letter end
  if state == 'dead' and not same then
    call('HDEL', dead, id)
    added = added - 1 -- the dead letter leaves the ledger, the new job enters it
  end
  local is_renewed = same and state == 'stored' and renew(docs[n], id, meta)
  renewed = renewed or is_renewed or is_outdated[n]
  if not same or is_outdated[n] then
    seq = seq + 1
    added = added + 1
    local digit = seq % 10
    if digit == 0 or not tens then tens = seq < 10 and '' or format('%d', (seq - digit) / 10) end
    local seq_text = tens .. DIGITS[digit]
    if meta and meta ~= '' then
      call('XADD', jobs, before_seq .. seq_text, 'id', id, 'text', ARGV[texts + n], 'meta', meta)
    else
      call('XADD', jobs, before_seq .. seq_text, 'id', id, 'text', ARGV[texts + n])
    end
    if overtaking then overtaking.add(before_seq .. seq_text, seq) end
    local at = (n - 1) * width
    queued_now[#queued_now + 1] = id
    queued_now[#queued_now + 1] = sub(digests, at + 1, at + 8) .. seq_text
  end
end
if #queued_now > 0 then redis.call('HSET', queued, unpack(queued_now)) end
if overtaking then overtaking.save(urgent) end
if priority == '' and bulk and not overtaking then redis.call('HDEL', info, 'bulk') end -- none waits any more
if priority == 'bulk' and #queued_now > 0 then redis.call('HSET', info, 'bulk', format('%.0f', seq)) end
if renewed then seq = seq + 1 end -- so that it can be seen that something has changed: see bookmark.lua

redis.call('HSET', info, 'seq', string.format('%.0f', seq), 'ms', ms_text,
  'enqueued', string.format('%.0f', (enqueued or 0) + added),
  'unchanged', string.format('%.0f', (unchanged_ever or 0) + unchanged))
if letters then
  letters = table.concat(letters)
  redis.call('SET', receipt, chunk .. ' ' .. letters, 'EX', 3600)
  return reply_to_calls(letters, known and 0 or 1)
end
local reply = {new, unchanged, duplicates, still_dead, evicted, buckets, replacing, seq}
redis.call('SET', receipt, chunk .. ' ' .. table.concat(reply, ' '), 'EX', 3600)
born = born or ''
reply[#reply + 1] = born
if holds then
  local removed = redis.call('HGET', info, 'removed') or '0'
  redis.call('HSET', bookmark, 'chunk', chunk, 'born', born, 'seq', format('%.0f', seq), 'removed', removed, unpack(fields))
  -- Of an evicted id we do not know whether another text takes its place.
  mixed = mixed or renewed or duplicates + replacing > 0 or buckets > 0 and new > 0
  if mixed then redis.call('HSET', bookmark, 'mixed', '1') end
elseif is_ours then
  redis.call('DEL', bookmark)
end
return reply
