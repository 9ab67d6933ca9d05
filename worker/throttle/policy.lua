-- policy: when may the fleet send? A pure function of (state, event, now): no Redis, no clock. `admit` and `report`
-- are composed with it when they are loaded; the simulation of the tests runs the same file under a clock of its own.
-- docs/throttle.md describes the model. Times are ms, rates requests/s.
--
-- The state is a table for the key (its hash; numbers are numbers). It has two more tables: `model`, what is known of this
-- model under this key, and `endpoint`, what is known of the server under all keys. The fields are listed in state.lua.
local limit = require 'limit'
local outage = require 'outage'
local batch = require 'batch'
local policy = {}

local FULL = 100 -- texts: the API takes no more in a request
local DAY = 86400000
local LONGEST = 900000 -- ms: a return of the API is found within a quarter of an hour
local PROBING = 15000 -- ms until the first probe where the API does not say when, or says too much

-- Waiting.
local HELD = 60000 -- ms until a worker asks again while a person has paused
local HINT = 4000 -- ms: below the 6 seconds that a worker waits with a batch in hand
local CLOSEST, WIDEST = 5, 1000 -- ms from one of those who wait to the next
local PACE = 20 -- ms between them where no pace is known
local LATENCY = 50 -- ms of a request before one has passed
local SOON = 250 -- ms after its turn within which an urgent one asks again, if it lives
local YIELDING = 500 -- ms that the others let urgent ones go first; then one of the others goes first
local TURNED = 1500 -- ms of that: longer, and there are no others
local SOONEST, LATEST = 10, 100 -- ms until someone looks for the canary's answer; for a free request slot from half of it

-- Quotas.
local PERSISTENT = 8000 -- ms of refusals, over the usual silence, that may mean a quota
local AGAIN = 50 -- ms until half as many texts are tried

-- Requests in flight.
local CALM = 5 -- rounds of passes until one request more is in flight

-- Failures that are charged, before anything passed.
local CHARGED, LONGEST_CHARGED = 500, 15000 -- ms of the first wait; they double up to the second
local DOUBLINGS = 10 -- more would be too much for any wait
local AWAY = 0.1 -- the part of the time it was away that its return may be found late

local CLOCK_SET = 1000 -- ms: a clock that is so far behind was set

local function clamp(value, low, high) return math.max(low, math.min(value, high)) end

-- ms to wait until `turn` or later: not all at the same moment. An urgent one waits for no other.
local function queue(s, e, turn, gap)
  local now = e.now
  if e.urgent or e.turned then return math.max(turn - now, CLOSEST) end
  s.hint = math.max(turn, (s.hint or 0) + clamp(gap, CLOSEST, WIDEST))
  if s.hint > turn + HINT then s.hint = turn end
  -- Whoever lets others go first looks often enough for its own turn to come.
  if (s.urgent_until or 0) > now then return clamp(s.hint - now, CLOSEST, SOON) end
  return s.hint - now
end

-- The times of the key.
local TIMES = {'paused_until', 'paused_at', 'hint', 'since', 'from', 'closed', 'next', 'last', 'episode', 'lo', 'told',
  'set_next', 'resumed_at', 'urgent_from', 'urgent_until', 'yielding', 'turn_until'}

-- Redis' clock may have been set back, or another Redis may have taken over.
local function keep_time(s, now)
  local back = (s.clock or now) - now
  if back > CLOCK_SET then
    for _, name in ipairs(TIMES) do s[name] = s[name] and s[name] - back end
  end
  s.clock = math.floor(now)
  -- Model and endpoint know no time after now, but the end of a pause.
  local m, endpoint = s.model, s.endpoint
  local ahead = (m.paused_at or 0) - now
  if ahead > 0 then m.paused_at, m.paused_until = math.floor(now), m.paused_until and m.paused_until - ahead end
  m.failing = m.failing and math.min(m.failing, now)
  m.stale_at = m.stale_at and math.min(m.stale_at, now)
  m.lowered_at = m.lowered_at and math.min(m.lowered_at, now)
  m.trial_at = m.trial_at and math.min(m.trial_at, now + m.trial_wait)
  endpoint.cut_at = endpoint.cut_at and math.min(endpoint.cut_at, now)
end

-- ms until one text is tried for the n-th time.
local function probing(n) return math.min(PROBING * 2 ^ math.min(n - 1, DOUBLINGS), LONGEST) end

-- Why and how long no request is sent, whatever the pace is.
local function obstacle(s, e)
  local now, m = e.now, s.model
  if s.held then return HELD, s.held end
  local gap = limit.gap(s, now) or PACE
  if (s.paused_until or 0) > now then return queue(s, e, s.paused_until, gap), s.reason or '' end
  if (m.paused_until or 0) > now then
    e.of_model = true
    return queue(m, e, m.paused_until, gap), m.reason or ''
  end
  local of_key = (s.canary or s.size) and e.probe_alive
  if of_key or m.canary and e.model_probe_alive then
    e.of_model = not of_key
    return clamp((s.latency or LATENCY) / 2, SOONEST, LATEST), s.reason or m.reason or ''
  end
end

-- Whether the others have let urgent ones go first for long enough, and now the roles are turned.
local function is_turned(s, now)
  local since = s.yielding and now - s.yielding or 0
  if since > YIELDING + TURNED then s.yielding, since = nil, 0 end
  return since > YIELDING
end

-- Whether a request waits that this one lets go first.
local function yields(s, e)
  if e.turned then return not e.urgent and (s.turn_until or 0) > e.now end
  if e.urgent or (s.urgent_until or 0) <= e.now or s.urgent_from > e.now then return false end
  s.yielding = s.yielding or e.now
  return not is_turned(s, e.now)
end

-- The most texts in the next request; nil: all request slots are taken.
local function most_texts(s, e)
  local m = s.model
  local slots = math.min(e.most, s.endpoint.ceiling or e.most)
  if e.in_flight >= slots or e.in_flight == slots - 1 and yields(s, e) then return nil end
  local texts = outage.most(m, e.in_flight)
  if not texts then
    e.of_model = true
    return nil
  end
  if not (s.begun and m.begun) or s.disbelieved then return 1 end
  return math.min(texts, batch.most(m, e.now, s.size or FULL))
end

-- Take the next turn in the schedules of the configured and of the learned rate: nil, or ms to wait for it.
local function wait_for_place(s, e, texts)
  local now = e.now
  local gap = limit.gap(s, now) or PACE
  if yields(s, e) then return PACE end
  if not e.per_second then
    local turn = limit.turn(s, now, 0)
    return turn and queue(s, e, turn, gap)
  end
  local one = 1000 / e.per_second
  local cost = e.in_texts and texts * one or one
  -- A turn that was taken at a slower rate, before a person raised it, is no reason to wait longer.
  s.set_next = math.min(s.set_next or now, now + (e.in_texts and FULL or 1) * one)
  if s.set_next > now then return queue(s, e, s.set_next, one) end
  local turn = limit.turn(s, now, cost)
  if turn then return queue(s, e, turn, gap) end
  s.set_next = math.max(s.set_next, now - math.max(1000, cost)) + cost -- a second's lateness is made up for
end

-- May one request be sent?
-- {now, permit, in_flight, probe_alive, model_probe_alive, most, per_second, in_texts, urgent}: in_flight is of the
-- endpoint, the two before the last are the configured rate; urgent: someone waits for it
-- -> 'go', most texts, 1 where nothing has passed yet | 'wait', ms, reason | 'full', ms, '' | 'halt', 0, reason
local function ask(s, e)
  local m = s.model
  keep_time(s, e.now)
  if is_turned(s, e.now) then e.turned, e.urgent = true, not e.urgent end
  if s.halted or m.halted then return 'halt', 0, s.halted or m.halted end
  if not s.begun then s.canary = 1 end
  if not m.begun then m.canary = 1 end
  local wait, reason = obstacle(s, e)
  if wait then return 'wait', wait, reason end
  local texts = most_texts(s, e)
  if not texts then return 'full', clamp((s.latency or LATENCY) / 8, SOONEST / 2, LATEST), '' end
  wait = wait_for_place(s, e, texts)
  if wait then return 'wait', wait, '' end
  batch.sent(m, e.now, texts)
  s.most = e.most
  s.set_requests, s.set_texts = not e.in_texts and e.per_second or nil, e.in_texts and e.per_second or nil
  if s.canary or s.size then s.probe = e.permit end
  if m.canary then m.probe = e.permit end
  return 'go', texts, s.begun and m.begun and 0 or 1
end

function policy.ask(s, e)
  local urgent = e.urgent
  local verdict, number, reason = ask(s, e)
  if verdict == 'go' then
    if urgent then s.urgent_from, s.urgent_until = nil, nil else s.yielding, s.turn_until = nil, nil end
  elseif verdict == 'halt' or e.of_model then
    return verdict, number, reason -- another model's requests may go meanwhile
  elseif e.turned and not urgent then
    s.turn_until = e.now + number + SOON
  elseif urgent then
    -- A request slot may be free at any time before it asks again; its turn comes then.
    local from = verdict == 'full' and e.now or e.now + number
    if (s.urgent_until or 0) <= e.now or from < s.urgent_from then
      s.urgent_from, s.urgent_until = from, e.now + number + SOON
    end
  end
  return verdict, number, reason
end

local function pause(s, now, ms, reason)
  s.paused_until = math.max(s.paused_until or 0, now + ms) -- never shortened by a later, earlier one
  s.paused_at, s.reason, s.canary, s.probe = math.floor(now), reason, 1, nil
  s.hint = nil -- whoever waits, waits for the end of this
end

-- The quota has no room for so many texts. A refused size costs nothing: half of it next, until not even one fits; then
-- one is tried at growing intervals, and when the quota returns.
local function over_quota(s, e)
  local now = e.now
  s.certain, s.episode, s.refused_size = 1, nil, nil
  s.quota_limit = e.quota_limit or s.quota_limit
  s.quota_resets_at = (e.resets_at or 0) > now and e.resets_at or (math.floor(now / DAY) + 1) * DAY
  local half = math.floor(math.min(e.texts or FULL, s.size or FULL) / 2)
  if half >= 1 then
    s.size = half
    pause(s, now, AGAIN, e.reason)
  else
    s.size, s.parked = 1, (s.parked or 0) + 1
    pause(s, now, clamp(s.quota_resets_at - now, 1000, probing(s.parked)), e.reason)
  end
end

local failed

-- It asks for more than a day: no one waits that long for a stranger's word. One text is tried, at growing intervals.
local function disbelieve(s, e, late)
  if not late then s.disbelieved = (s.disbelieved or 0) + 1 end
  pause(s, e.now, probing(s.disbelieved or 1), e.reason)
end

local function deferred(s, e)
  local now = e.now
  local late = e.admitted <= (s.paused_at or 0) -- of a moment that is known
  limit.give_back(s, now, e.admitted)
  if (e.asked or 0) > DAY then return disbelieve(s, e, late) end
  if not e.asked and (e.quota or s.certain) then
    if not late then over_quota(s, e) end
    return
  end
  if e.unavailable then
    failed(s, e) -- told to come back at once, again and again, it is not believed
    return pause(s, now, e.asked, e.reason)
  end
  local wait = limit.refused(s, e, late)
  if not wait then return end
  if not e.asked then
    -- A long silence, or a quota that does not say so? Fewer texts tell.
    if s.trying == 1 then
      s.trying, s.size, s.passed_size = 2, s.passed_size, nil
    elseif now - s.episode > PERSISTENT + limit.silence(s) then
      s.trying = nil
      s.refused_size = math.min(s.refused_size or FULL, e.texts or FULL)
      s.size = math.max(1, math.floor((s.size or FULL) / 2))
    end
  end
  pause(s, now, math.min(wait, math.max(LONGEST, 1.1 * (e.asked or 0))), e.reason)
end

-- Where there was room for all requests in flight for a while, one more may be.
local function raise_ceiling(endpoint, most)
  if not endpoint.ceiling then return end
  endpoint.calm = (endpoint.calm or 0) + 1
  if endpoint.calm >= CALM * endpoint.ceiling then endpoint.ceiling, endpoint.calm = endpoint.ceiling + 1, 0 end
  if endpoint.ceiling >= most then endpoint.ceiling, endpoint.calm = nil, nil end
end

-- A request passed while the rest of a quota was used up.
local function passed_in_quota(s)
  if s.parked or s.size == s.passed_size then
    s.size = s.parked and FULL or math.min(FULL, 2 * s.size)
    s.parked, s.passed_size = nil, nil
  elseif s.size >= FULL then
    s.certain, s.size, s.passed_size, s.quota_resets_at = nil, nil, nil, nil
  else
    s.passed_size = s.size
  end
end

-- So few texts fit. Because time has passed, or does a quota end here? A full request tells, and then one as small.
-- Returns whether that is still to be tried.
local function try_quota(s)
  if s.trying == 2 then
    s.certain, s.passed_size, s.episode, s.trying = 1, s.size, nil, nil
    return false
  end
  s.trying, s.passed_size, s.size, s.canary = 1, s.size, FULL, 1
  return true
end

local function model_passed(s, e)
  local m = s.model
  if e.admitted <= math.max(m.paused_at or 0, s.resumed_at or 0) then return end
  batch.passed(m, e)
  outage.passed(m, e)
  m.begun, m.stale_at = 1, nil
  m.canary, m.probe, m.paused_until, m.reason, m.hint = nil, nil, nil, nil, nil
end

local function key_passed(s, e)
  if e.admitted <= math.max(s.paused_at or 0, s.resumed_at or 0) then return end
  s.begun, s.disbelieved = 1, nil
  s.canary, s.probe, s.paused_until, s.reason = nil, nil, nil, nil
  if s.certain then
    passed_in_quota(s)
  elseif s.size and (e.texts or FULL) < s.refused_size and try_quota(s) then
    return
  end
  if s.episode and e.now - s.episode > LONGEST then limit.begin(s, e.admitted) end -- a quota: it says nothing of a rate
  if not s.certain then s.size, s.refused_size, s.trying = nil, nil, nil end
  if not s.episode then return end
  limit.learn(s, e.now, e.admitted)
  s.hint, s.episode = nil, nil -- who waits comes for another reason now
end

local function passed(s, e)
  local day = math.floor(e.now / DAY)
  if s.day ~= day then s.day, s.charged = day, 0 end
  s.charged = s.charged + (e.uncached or 0)
  raise_ceiling(s.endpoint, e.most)
  local took = e.now - e.admitted
  s.latency = s.latency and 0.9 * s.latency + 0.1 * took or took
  -- The texts are refused before the account is looked at, or because of it: that is no sign of health.
  if e.refused then return end
  model_passed(s, e)
  key_passed(s, e)
end

function failed(s, e)
  local m, endpoint = s.model, s.endpoint
  if e.reused and e.admitted <= (m.stale_at or e.now) then
    m.stale_at = m.stale_at or e.now -- the connection may be at fault: the next one is a new one
    return
  end
  if e.timeout and (e.texts or 1) > 1 then
    batch.timed_out(m, e)
  elseif e.timeout and e.admitted > (endpoint.cut_at or 0) then
    endpoint.ceiling = math.max(1, math.floor((endpoint.ceiling or e.most) / 2))
    endpoint.cut_at, endpoint.calm = e.now, 0
  end
  if e.admitted <= math.max(s.paused_at or 0, m.paused_at or 0) then return end
  local wait = outage.failed(m, e)
  if e.charged and not m.begun then
    -- Each costs a text, for ever: a model that is not known fails so.
    local least = math.min(CHARGED * 2 ^ math.min(m.failures - 1, DOUBLINGS), LONGEST_CHARGED)
    wait = math.max(wait or 0, clamp(AWAY * (e.now - m.failing), least, LONGEST))
  end
  if wait then pause(m, e.now, wait, e.reason) end
end

-- What became of a request.
-- {now, admitted, outcome, asked, reason, most, texts, uncached, refused, charged, timeout, timeout_ms, reused,
--  unavailable, give_back, quota, quota_limit, resets_at, of_key: that a halt is of the key, with whatever model}
function policy.report(s, e)
  keep_time(s, e.now)
  e.admitted = math.min(e.admitted, math.floor(e.now)) -- by another clock
  if e.give_back and s.set_next then s.set_next = s.set_next - e.give_back end
  if e.outcome == 'unused' then
    limit.give_back(s, e.now, e.admitted)
  elseif e.outcome == 'halted' then
    -- A refusal from before the last resume is of the account as it was.
    local halted = e.of_key and s or s.model
    if e.admitted > (s.resumed_at or 0) then halted.halted, halted.begun = e.reason, nil end
  elseif e.outcome == 'deferred' then
    deferred(s, e)
  elseif e.outcome == 'failed' then
    failed(s, e)
  else
    passed(s, e)
  end
end

return policy
