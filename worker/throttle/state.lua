-- state: reads what is known of a throttle from its three hashes, and writes back what was changed.
--
-- Times are ms on Redis' clock, rates requests/s. A field is absent where its value is nil. Workers of an earlier version
-- use the same hashes. They also write `holds`, `made_up`, `behind`, `faster`, `sent_before`, `silence`, `per_episode`: these are
-- read by them alone.
--
-- Of the key and of the model, each for itself (policy.lua):
--
--   halted           why no request is sent until a person resumes
--   begun            1 once a request passed; before that, and after a halt or resume, one text goes alone
--   paused_until     no request is sent before
--   paused_at        when that was decided: requests admitted before it tell nothing new
--   reason           of the pause
--   canary           1: one request goes first
--   probe            the permit of that request
--   hint             when the last waiting worker asks again
--
-- Of the model: whether the API fails (outage.lua)
--
--   failures         failures in a row
--   failing          since when
--   between          failures between two passes, on average
--   credit           texts that failures may charge: a part of what passed, minus what was charged for nothing
--   losing           1 from a charged failure until there is much credit again
--   stale_at         when the first failure came for which a reused connection may be to blame (policy.lua)
--
-- Of the model: how many texts are answered in time (batch.lua)
--
--   timely           most texts in a request, after a timeout or a slow first answer; nil: no limit
--   lowered_at       when a timeout last lowered it
--   one_ms           how long a request with one new text took
--   trial_at         when one request with twice as many texts is tried
--   trial_wait       ms from one such trial to the next
--
-- Of the endpoint (policy.lua):
--
--   ceiling          most requests in flight, after timeouts of single texts
--   cut_at           when it was lowered
--   calm             passes since it was changed
--
-- Of the key (policy.lua):
--
--   held             why a person paused it, in an earlier version
--   resumed_at       when a person last resumed
--   clock            when a worker asked or reported last
--   disbelieved      times in a row that the API asked for more than a day
--   most             most requests in flight, as configured
--   latency          of a pass, on average
--   size             most texts in a request while the rest of a quota is searched for
--   certain          1: it is a quota
--   trying           whether it is one: 1 while a full request is tried, 2 while one as small as that which passed
--   refused_size     texts of the last request that did not fit
--   passed_size      texts of the last one that did
--   parked           times in a row that not even one text fitted
--   quota_limit      texts a day, as the API says
--   quota_resets_at  when the quota is expected back
--   day, charged     the day (since 1970, UTC), and the texts answered as new on it
--   urgent_from      from when a place is kept for an urgent request that waits
--   urgent_until     and until when, if it does not ask again
--   yielding         since when others let urgent ones go first, and none of them has gone
--   turn_until       until when, the roles turned, urgent ones let one of the others go first
--   set_next         the next time in the schedule of the configured rate
--   set_requests     the configured rate, for people
--   set_texts        the same, where it counts texts
--
-- Of the key: what it allows (limit.lua)
--
--   period, count    the window
--   proven           1: the window was seen twice
--   rolled           1: its present period began without a refusal
--   rising           how many times `count` is tried in this period, as it took more
--   holes            refusals in the middle of this period: a sliding window has them where little was sent a period ago
--   slack            ms that all periods begin later for it
--   shift            ms that the next period alone begins later for it
--   whole            1: the API names its waits in whole seconds
--   guard            ms that the last request of a period is sent after the second that it is meant for
--   early            1: it came before that second all the same
--   base             the rate of the bucket
--   passes           requests that it was measured by
--   passes_ms        the time that these took
--   n                requests between two refusals
--   from             when `base` was last measured
--   closed           when it refused before
--   since            when the API opened, in this cycle
--   sent             requests that it let through since
--   idle             ms of the cycle without demand
--   next             the next free time in the schedule
--   last             when a request was sent while nothing was known
--   episode          when the API closed; nil: it is open
--   refused          requests refused since
--   probes           how often we looked whether it is open
--   lo               when it was last seen closed
--   told             until when it said to wait
--   rate, limit      for people: the rate in force, and the one learned
local state = {}

local TEXTS = {halted = true, held = true, reason = true, probe = true}

local function read(hash)
  local fields, flat = {}, redis.call('HGETALL', hash)
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    fields[name] = TEXTS[name] and value or tonumber(value)
  end
  return fields
end

local function write(hash, fields, before)
  local set, gone = {}, {}
  for name, value in pairs(fields) do
    if before[name] ~= value and type(value) ~= 'table' then
      set[#set + 1] = name
      set[#set + 1] = TEXTS[name] and value or string.format(value % 1 == 0 and '%.0f' or '%.6f', value)
    end
  end
  for name in pairs(before) do
    if fields[name] == nil then gone[#gone + 1] = name end
  end
  if #set > 0 then redis.call('HSET', hash, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', hash, unpack(gone)) end
end

-- What the hashes hold, and how to write what was changed in it since.
function state.open(key, model, endpoint)
  local hashes = {key, model, endpoint}
  local tables, before = {}, {}
  for n, hash in ipairs(hashes) do
    tables[n], before[n] = read(hash), {}
    for name, value in pairs(tables[n]) do before[n][name] = value end
  end
  local s = tables[1]
  s.model, s.endpoint = tables[2], tables[3]
  return s, function()
    write(key, s, before[1])
    write(model, s.model, before[2])
    write(endpoint, s.endpoint, before[3])
  end
end

return state
