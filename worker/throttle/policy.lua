-- policy: when may the fleet send? A pure function of (state, event, now): no Redis, no clock. `admit` and `report`
-- are composed with it when they are loaded; the simulation runs this very file under a clock of its own.
--
-- The state is a table for the key (its hash; numbers are numbers). In it are two more: `model`, what is known of this
-- model under this key, and `endpoint`, what is known of the server under all keys. Times are ms, rates requests/s. What
-- else the key knows is told in limit.lua (the rate that the API allows), and the model in batch.lua (how many texts it
-- answers in time).
--
-- Of the key and of the model, each for itself:
--
--   halted           why no request is sent until somebody resumes
--   begun            1 once a request passed; before that, and after a halt or resume, one text goes alone
--   paused_until     no request is sent before; paused_at: when that was told; reason
--   canary           1: one request goes first; probe: its permit
--   hint             the last place that somebody waits for
--
-- Of the model: what is told in outage.lua, and
--
--   stale_at         when the first failure came for which a reused connection may be to blame
--
-- Of the endpoint:
--
--   ceiling          most requests in flight after timeouts of single texts; cut_at: when it was lowered
--   calm             passes since the ceiling was changed
--
-- Of the key:
--
--   held             why no request is sent until somebody resumes; resumed_at: when that was last done
--   clock            when somebody asked or reported last
--   disbelieved      times in a row that the API asked for more than a day
--   most             most requests in flight, as configured
--   latency          of a pass, on average
--   size             most texts in a request while the rest of a quota is searched for; certain: it is a quota
--   trying           whether it is one: 1 while a full request is tried, 2 while one as small as that which passed
--   refused_size     texts of the last request that did not fit; passed_size: of the last one that did
--   parked           times in a row that not even one text fitted
--   quota_limit      texts a day, as the API says; quota_resets_at: when it is expected back
--   charged          texts answered as new on day `day` (since 1970, UTC)
--   set_next         the next place in the schedule of the configured rate
--   set_requests     the configured rate, for people; set_texts: where it counts texts
local limit = require 'limit'
local outage = require 'outage'
local batch = require 'batch'
local policy = {}

local HINT = 4000 -- nobody waits longer with work in hand
local FULL = 100 -- texts in a request
local DAY = 86400000
local LONGEST = 900000
local PROBING = 15000 -- ms until the first probe where the API does not say, or says too much
local PERSISTENT = 8000 -- ms of refusals that may mean a quota
local LATENCY = 50

local function clamp(value, low, high) return math.max(low, math.min(value, high)) end

-- Wait until `place` or later: not all at the same moment.
local function queue(s, now, place, gap)
  s.hint = math.max(place, (s.hint or 0) + clamp(gap, 5, 1000))
  if s.hint > place + HINT then s.hint = place end
  return s.hint - now
end

-- Redis may be another now, whose clock is behind.
local TIMES = {'paused_until', 'paused_at', 'hint', 'since', 'from', 'faster', 'closed', 'next', 'last', 'episode', 'lo',
  'told', 'failing', 'cut_at', 'set_next', 'resumed_at'}
local function keep_time(s, now)
  local back = (s.clock or now) - now
  if back > 1000 then
    for _, name in ipairs(TIMES) do s[name] = s[name] and s[name] - back end
  end
  s.clock = math.floor(now)
  -- Of model and endpoint nothing is later than now, but the end of a pause.
  local m, ahead = s.model, (s.model.paused_at or 0) - now
  if ahead > 0 then m.paused_at, m.paused_until = math.floor(now), m.paused_until and m.paused_until - ahead end
  for _, name in ipairs({'failing', 'stale_at', 'lowered_at'}) do m[name] = m[name] and math.min(m[name], now) end
  m.trial_at = m.trial_at and math.min(m.trial_at, now + m.trial_wait)
  s.endpoint.cut_at = s.endpoint.cut_at and math.min(s.endpoint.cut_at, now)
end

-- ms until one text is tried, the n-th time.
local function probing(n) return math.min(PROBING * 2 ^ math.min(n - 1, 10), LONGEST) end

-- May one request be sent?
-- {now, permit, in_flight, probe_alive, model_probe_alive, most, per_second, in_texts}: in_flight is of the endpoint, the
-- last two are the configured rate
-- -> 'go', most texts, 1 where nothing has passed yet | 'wait', ms, reason | 'full', ms, '' | 'halt', 0, reason
function policy.ask(s, e)
  local now, m = e.now, s.model
  keep_time(s, now)
  local halted = s.halted or m.halted
  if halted then return 'halt', 0, halted end
  if s.held then return 'wait', 60000, s.held end
  if not s.begun then s.canary = 1 end
  if not m.begun then m.canary = 1 end
  local gap = limit.gap(s, now) or 20
  if (s.paused_until or 0) > now then
    return 'wait', queue(s, now, s.paused_until, gap), s.reason or ''
  end
  if (m.paused_until or 0) > now then
    return 'wait', queue(m, now, m.paused_until, gap), m.reason or ''
  end
  if (s.canary or s.size) and e.probe_alive or m.canary and e.model_probe_alive then
    return 'wait', clamp((s.latency or LATENCY) / 2, 10, 100), s.reason or m.reason or ''
  end
  if e.in_flight >= math.min(e.most, s.endpoint.ceiling or e.most) then
    return 'full', clamp((s.latency or LATENCY) / 8, 5, 100), ''
  end
  local texts = outage.most(m, e.in_flight)
  if not texts then return 'full', clamp((s.latency or LATENCY) / 8, 5, 100), '' end
  local one = not (s.begun and m.begun) or s.disbelieved
  texts = one and 1 or math.min(texts, batch.most(m, now, s.size or FULL))
  local cost = e.per_second and (e.in_texts and texts or 1) * 1000 / e.per_second or 0
  -- What was scheduled at a slower rate, before somebody raised it, is no reason to wait longer.
  if e.per_second then s.set_next = math.min(s.set_next or now, now + (e.in_texts and FULL or 1) * 1000 / e.per_second) end
  if e.per_second and s.set_next > now then
    return 'wait', queue(s, now, s.set_next, 1000 / e.per_second), ''
  end
  local place = limit.place(s, now, cost)
  if place then return 'wait', queue(s, now, place, gap), '' end
  if e.per_second then s.set_next = math.max(s.set_next, now - math.max(1000, cost)) + cost end
  batch.sent(m, now, texts)
  s.most = e.most
  s.set_requests, s.set_texts = not e.in_texts and e.per_second or nil, e.in_texts and e.per_second or nil
  if s.canary or s.size then s.probe = e.permit end
  if m.canary then m.probe = e.permit end
  return 'go', texts, s.begun and m.begun and 0 or 1
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
    pause(s, now, 50, e.reason)
  else
    s.size, s.parked = 1, (s.parked or 0) + 1
    pause(s, now, clamp(s.quota_resets_at - now, 1000, probing(s.parked)), e.reason)
  end
end

local failed

-- Nobody waits for more than a day because a stranger says so: one text is tried, at growing intervals.
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

local function passed(s, e)
  local day = math.floor(e.now / DAY)
  if s.day ~= day then s.day, s.charged = day, 0 end
  s.charged = s.charged + (e.uncached or 0)
  local m, endpoint = s.model, s.endpoint
  if endpoint.ceiling then
    endpoint.calm = (endpoint.calm or 0) + 1
    if endpoint.calm >= 5 * endpoint.ceiling then endpoint.ceiling, endpoint.calm = endpoint.ceiling + 1, 0 end
    if endpoint.ceiling >= e.most then endpoint.ceiling, endpoint.calm = nil, nil end
  end
  local took = e.now - e.admitted
  s.latency = s.latency and 0.9 * s.latency + 0.1 * took or took
  -- The texts are refused before the account is looked at, or because of it: that is no sign of health.
  if e.refused then return end
  if e.admitted > math.max(m.paused_at or 0, s.resumed_at or 0) then
    batch.passed(m, e)
    outage.passed(m, e)
    m.begun, m.stale_at = 1, nil
    m.canary, m.probe, m.paused_until, m.reason, m.hint = nil, nil, nil, nil, nil
  end
  if e.admitted <= math.max(s.paused_at or 0, s.resumed_at or 0) then return end
  s.begun, s.disbelieved = 1, nil
  s.canary, s.probe, s.paused_until, s.reason = nil, nil, nil, nil
  if s.certain then
    if s.parked or s.size == s.passed_size then
      s.size = s.parked and FULL or math.min(FULL, 2 * s.size)
      s.parked, s.passed_size = nil, nil
    elseif s.size >= FULL then
      s.certain, s.size, s.passed_size, s.quota_resets_at = nil, nil, nil, nil
    else
      s.passed_size = s.size
    end
  elseif s.size and (e.texts or FULL) < s.refused_size then
    -- So few texts fit. Because time has passed, or does a quota end here? A full request tells, and then one as small.
    if s.trying == 2 then
      s.certain, s.passed_size, s.episode, s.trying = 1, s.size, nil, nil
    else
      s.trying, s.passed_size, s.size, s.canary = 1, s.size, FULL, 1
      return
    end
  end
  if s.episode and e.now - s.episode > LONGEST then limit.begin(s, e.admitted) end -- a quota: it says nothing of a rate
  if not s.certain then s.size, s.refused_size, s.trying = nil, nil, nil end
  if s.episode then
    limit.learn(s, e.now, e.admitted)
    s.hint = nil -- who waits comes for another reason now
    s.episode = nil
  end
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
    local least = math.min(500 * 2 ^ math.min(m.failures - 1, 10), 15000)
    wait = math.max(wait or 0, clamp((e.now - m.failing) / 10, least, LONGEST))
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
