-- policy: when may the fleet send? A pure function of (state, event, now): no Redis, no clock. `admit` and `report`
-- are composed with it when they are loaded; the simulation runs this very file under a clock of its own.
--
-- The state is a table for the key (its hash; numbers are numbers), of which the rest is told in limit.lua: at which rate
-- the API lets send. In it are two more: `model`, what is known of this model under this key, and `endpoint`, what is
-- known of the server under all keys. Times are ms, rates requests/s.
--
-- Of the key and of the model, each for itself:
--
--   halted             the reason why nobody sends until somebody resumes
--   paused_until       nobody sends before; paused_at: when that was told; reason; canary: then one goes first, and
--   probe              is this permit
--
-- Of the model: what is told in outage.lua.
--
-- Of the endpoint:
--
--   ceiling, calm      most requests in flight after timeouts, passes since; cut_at
--
-- Of the key:
--
--   held               the reason why nobody sends until somebody resumes; resumed_at
--   hint               the last place that somebody waits for; clock: when somebody asked last
--   latency            of a pass; most: most requests in flight at all
--   size, certain      the search for the rest of a quota: most texts in a request; that it is a quota
--   trying             whether it is: 1 while a full request is tried, 2 while one as small as that which passed
--   parked             times that not even one text fitted; refused_size, passed_size: the last such
--   quota_limit, quota_resets_at, day, charged   what is known of the quota
--   set_next           the schedule of the configured rate; set_requests or set_texts: that rate, for people
local limit = require 'limit'
local outage = require 'outage'
local policy = {}

local HINT = 4000 -- nobody waits longer with work in hand
local FULL = 100 -- texts in a request
local LONGEST = 900000
local PARKED = 15000 -- ms of the first wait for a quota
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
  m.failing = m.failing and math.min(m.failing, now)
  s.endpoint.cut_at = s.endpoint.cut_at and math.min(s.endpoint.cut_at, now)
end

-- May one request be sent?
-- {now, permit, in_flight, probe_alive, model_probe_alive, most, per_second, in_texts}: in_flight is of the endpoint, the
-- last two are the configured rate
-- -> 'go', most texts | 'wait', ms, reason | 'full', ms, '' | 'halt', 0, reason
function policy.ask(s, e)
  local now, m = e.now, s.model
  keep_time(s, now)
  local halted = s.halted or m.halted
  if halted then return 'halt', 0, halted end
  if s.held then return 'wait', 60000, s.held end
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
  texts = math.min(texts, s.size or FULL)
  local cost = e.per_second and (e.in_texts and texts or 1) * 1000 / e.per_second or 0
  if e.per_second and (s.set_next or now) > now then
    return 'wait', queue(s, now, s.set_next, 1000 / e.per_second), ''
  end
  local place = limit.place(s, now, cost)
  if place then return 'wait', queue(s, now, place, gap), '' end
  if e.per_second then s.set_next = math.max(s.set_next or now, now - math.max(1000, cost)) + cost end
  s.most = e.most
  s.set_requests, s.set_texts = not e.in_texts and e.per_second or nil, e.in_texts and e.per_second or nil
  if s.canary or s.size then s.probe = e.permit end
  if m.canary then m.probe = e.permit end
  return 'go', texts
end

local function pause(s, now, ms, reason)
  s.paused_until = math.max(s.paused_until or 0, now + ms) -- never shortened by a later, earlier one
  s.paused_at, s.reason, s.canary, s.probe = math.floor(now), reason, 1, nil
  s.hint = nil -- whoever waits, waits for the end of this
end

-- The quota has no room for so many texts. A refused size costs nothing: half of it next, until not even one fits; then
-- one is tried at growing intervals, and when the quota returns.
local function over_quota(s, e)
  local now, day = e.now, 86400000
  s.certain, s.episode, s.refused_size = 1, nil, nil
  s.quota_limit = e.quota_limit or s.quota_limit
  s.quota_resets_at = (e.resets_at or 0) > now and e.resets_at or (math.floor(now / day) + 1) * day
  local half = math.floor(math.min(e.texts or FULL, s.size or FULL) / 2)
  if half >= 1 then
    s.size = half
    pause(s, now, 50, e.reason)
  else
    s.size, s.parked = 1, (s.parked or 0) + 1
    local wait = math.min(PARKED * 2 ^ math.min(s.parked - 1, 10), LONGEST)
    pause(s, now, clamp(s.quota_resets_at - now, 1000, wait), e.reason)
  end
end

local function deferred(s, e)
  local now = e.now
  local late = e.admitted <= (s.paused_at or 0) -- of a moment that is known
  limit.give_back(s, now, e.admitted)
  if not e.asked and (e.quota or s.certain) then
    if not late then over_quota(s, e) end
    return
  end
  if e.unavailable then return pause(s, now, e.asked, e.reason) end
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
  pause(s, now, e.asked and wait or math.min(wait, LONGEST), e.reason)
end

local function passed(s, e)
  local day = math.floor(e.now / 86400000)
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
  if e.admitted > (m.paused_at or 0) then
    outage.passed(m, e)
    m.canary, m.probe, m.paused_until, m.reason, m.hint = nil, nil, nil, nil, nil
  end
  if e.admitted <= (s.paused_at or 0) then return end
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

local function failed(s, e)
  local m, endpoint = s.model, s.endpoint
  if e.timeout and e.admitted > (endpoint.cut_at or 0) then
    endpoint.ceiling = math.max(1, math.floor((endpoint.ceiling or e.most) / 2))
    endpoint.cut_at, endpoint.calm = e.now, 0
  end
  if e.admitted <= math.max(s.paused_at or 0, m.paused_at or 0) then return end
  local wait = outage.failed(m, e)
  if wait then pause(m, e.now, wait, e.reason) end
end

-- What became of a request.
-- {now, admitted, outcome, asked, reason, most, texts, uncached, refused, charged, timeout, unavailable, give_back, quota, quota_limit,
--  resets_at, of_key: that a halt is of the key, with whatever model}
function policy.report(s, e)
  if e.give_back and s.set_next then s.set_next = s.set_next - e.give_back end
  if e.outcome == 'unused' then
    limit.give_back(s, e.now, e.admitted)
  elseif e.outcome == 'halted' then
    -- A refusal from before the last resume is of the account as it was.
    if e.admitted > (s.resumed_at or 0) then (e.of_key and s or s.model).halted = e.reason end
  elseif e.outcome == 'deferred' then
    deferred(s, e)
  elseif e.outcome == 'failed' then
    failed(s, e)
  else
    passed(s, e)
  end
end

return policy
