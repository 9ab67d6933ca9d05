-- policy: when may the fleet send? A pure function of (state, event, now): no Redis, no clock. `admit` and `report`
-- are composed with it when they are loaded; the simulation runs this very file under a clock of its own.
--
-- The state is a flat table (the throttle's hash; numbers are numbers). Times are ms, rates requests/s.
--
--   halted, held       the reason why nobody sends until somebody resumes; resumed_at
--   paused_until       nobody sends before; paused_at: when that was told; reason; canary: then one goes first, and
--   probe              is this permit
--   base, step         the rate that the API was found to let through, and how much more is tried; none before the first
--                      refusal; due: requests after which no refusal means that the limit has risen; n, bound: requests
--                      between refusals as they should be
--   passes, passes_ms  what base was measured by: requests, in how long
--   next, hint         the next free place in the schedule; the last place that somebody waits for
--   since, sent, idle  the cycle: when the API last opened, what it let through since, ms without demand
--   from, rising, sent_before   when we went on sending; since when faster than base allows, and `sent` then
--   episode, lo        when the API closed, and when it was last seen closed; refused, probes: how many were; told: it
--                      said when to come back
--   per_episode        refusals an episode costs, on average; horizon: ms of the API's window, where it has one
--   holds, made_up     requests that the API takes at once after a pause; how many it was to take
--   failures, failing  in a row; since when
--   ceiling, calm      most requests in flight after timeouts, passes since; cut_at; latency of a pass; most: at all
--   size, certain      the search for the rest of a quota: most texts in a request; that it is a quota; trying: whether
--   parked             it is; parked: times that not even one text fitted; passed_size, opened
--   quota_limit, quota_resets_at, day, charged   what is known of the quota
--   set_next           the schedule of the configured rate; set_requests or set_texts: that rate, for people
--   rate, limit        for people: the rate in force, and base
local policy = {}

local CATCH_UP = 2200 -- ms of the schedule that may be made up for at once
local HINT = 4000 -- nobody waits longer with work in hand
local FULL = 100 -- texts in a request
local STARTING, GROWTH = 50, 1.6 -- ms of the first wait where no rate is known; of each wait over the one before
local LONGEST = 900000
local PARKED = 15000 -- ms of the first wait for a quota
local PERSISTENT = 8000 -- ms of refusals that may mean a quota
local LATENCY = 50

local function clamp(value, low, high) return math.max(low, math.min(value, high)) end

-- The rate now: a little above what the API let through, so that a refusal comes now and then. When none has come for
-- a good while the limit has risen: upwards then, twice as fast after each further `due`.
local function pace(s, now)
  if not s.base then return nil end
  local rate = s.base * (1 + s.step)
  local due = s.due * 1000 / s.base
  local over = (now - s.from - (s.idle or 0)) / due - 1
  if over > 0 then rate = rate * 4 ^ math.min(over * over, 5) end
  return rate
end

-- Wait until `place` or later: not all at the same moment.
local function queue(s, now, place, gap)
  local hint = math.max(place, (s.hint or 0) + clamp(gap, 5, 1000))
  if hint <= place + HINT then s.hint = hint else hint = place + HINT end
  return hint - now
end

-- May one request be sent?
-- {now, permit, in_flight, probe_alive, most, per_second, in_texts}: the last two are the configured rate
-- -> 'go', most texts | 'wait', ms, reason | 'halt', 0, reason
function policy.ask(s, e)
  local now = e.now
  if s.halted then return 'halt', 0, s.halted end
  if s.held then return 'wait', 60000, s.held end
  local rate = pace(s, now)
  local gap = rate and 1000 / rate or 20
  if (s.paused_until or 0) > now then
    return 'wait', queue(s, now, s.paused_until, gap), s.reason or ''
  end
  if (s.canary or s.size) and e.probe_alive then
    return 'wait', queue(s, now, now + clamp((s.latency or LATENCY) / 2, 10, 100), 5), s.reason or ''
  end
  if e.in_flight >= math.min(e.most, s.ceiling or e.most) then
    return 'wait', clamp((s.latency or LATENCY) / 8, 5, 100), ''
  end
  local texts = (s.failures or 0) >= 3 and 1 or s.size or FULL
  if e.per_second then
    local place = s.set_next or now
    if place > now then return 'wait', queue(s, now, place, 1000 / e.per_second), '' end
    local cost = (e.in_texts and texts or 1) * 1000 / e.per_second
    s.set_next = math.max(place, now - math.max(1000, cost)) + cost
  end
  if rate and not s.canary then
    local place = s.next or now
    if place > now then return 'wait', queue(s, now, place, gap), '' end
    -- A bucket may be small; a window takes what was missed, and so does what has just opened again.
    local made_up = (s.horizon or 0) >= 4000 or now - s.from < 2 * CATCH_UP and s.made_up >= 1
    local oldest = now - math.max(gap, made_up and CATCH_UP or 400)
    if place < oldest then
      s.idle = (s.idle or 0) + oldest - place -- nobody wanted to send
      place = oldest
    end
    s.next = place + gap
    if rate > 1.15 * s.base * (1 + s.step) and not s.rising then s.rising, s.sent_before = now, s.sent end
  end
  s.rate, s.most = rate, e.most
  s.set_requests, s.set_texts = not e.in_texts and e.per_second or nil, e.in_texts and e.per_second or nil
  s.since = s.since or now
  s.sent = (s.sent or 0) + 1
  if s.canary or s.size then s.probe = e.permit end
  -- A 500 charges its texts again: after failures one is enough to see.
  return 'go', texts
end

local function give_back(s, now, admitted)
  if admitted < (s.since or 0) then return end
  s.sent = math.max(0, (s.sent or 0) - 1)
  local rate = pace(s, now)
  if rate and s.next then s.next = s.next - 1000 / rate end
end

local function pause(s, now, ms, reason)
  s.paused_until = math.max(s.paused_until or 0, now + ms) -- never shortened by a later, earlier one
  s.paused_at, s.reason, s.canary, s.probe = math.floor(now), reason, 1, nil
end

-- The API opened again: what did it let through since it last did?
local function learn(s, now, open)
  local rate = pace(s, s.episode)
  if not rate and s.sent <= 3 then
    -- Too little was sent to tell a rate by.
    s.since, s.sent, s.idle, s.told = open, 1, 0, nil
    return
  end
  local took = math.max(1, open - s.since - (s.idle or 0))
  local silence = open - s.episode
  local sent = math.max(1, s.sent - 1) -- without the one that has just passed
  local lost, behind, doubt = 0, false, 0
  if not rate then
    s.per_episode = 1.5
  else
    s.per_episode = s.per_episode * 0.8 + s.refused * 0.2
    if s.told and s.made_up >= 3 then
      -- Refused while it made up for a pause: a small bucket.
      behind = sent <= 1.5 * s.made_up + 3
      if behind then s.holds = math.max(1, math.min(sent, s.made_up)) elseif s.holds then s.holds = s.holds * 1.02 end
    end
    if s.told and s.holds and took > 1.5 * silence then
      -- It held `holds` at the end of the silence, and filled while we sent.
      lost = math.max(0, (sent - s.holds) * took / (took - silence) - sent)
    end
  end
  local goodput = (sent + lost + (rate and (s.horizon or 0) >= 4000 and 0.5 or 0)) * 1000 / took
  local long = silence > (rate and 3000 or 1500) / goodput -- that of a window
  if not rate and long then doubt = math.min(0.5, (open - s.lo) / took) end
  if rate then goodput = math.min(goodput, rate) end
  if long then s.horizon = math.max(silence, math.min(s.horizon or took, took)) end
  local window = (s.horizon or 0) >= 4000 and math.max(1, s.horizon * goodput / 1000)
  local most = window and window * math.max(1, s.per_episode / 1.3) or 150 * s.per_episode
  most = math.max(most, lost / 0.012)
  local bound = s.bound or most
  if rate and s.rising then
    local lately = s.sent - s.sent_before
    if lately >= 10 then
      goodput = math.max(goodput, math.min(rate, lately * 1000 / math.max(1, open - s.rising)))
      sent = lately
    end
    bound = bound / 1.5
  elseif rate and not behind then
    bound = bound * clamp(most / sent, 0.7, 1.4)
  end
  s.bound = clamp(bound, most / 2, most * 3)
  local passes, ms = sent, sent * 1000 / goodput
  if not rate and not long then
    passes, ms = 1, 1000 / goodput -- the bucket was full
  elseif behind then
    passes, ms = s.passes, s.passes_ms * 1.05
  elseif rate and not s.rising then
    local due = s.base * took / 1000
    if math.abs(sent + lost - due) <= math.max(2, 0.1 * due) then
      local kept = math.min(1, 2 * most / (s.passes + sent))
      passes, ms = s.passes * kept + passes, s.passes_ms * kept + ms
    end
  end
  s.passes, s.passes_ms = passes, ms
  s.n = clamp(passes, window and 25 or 1, math.max(25, s.bound))
  s.base = passes * 1000 / ms
  s.limit = s.base
  s.step = math.max(1 / (1.3 * s.n), doubt, window and 0.5 / window or 0)
  -- It says when to come back: rather too early at the window's end than too late.
  if window and s.told and long then s.step = math.max(s.step, 0.2) end
  s.due = window and 1.4 * window or 1.3 * math.max(4, math.min(s.n, most))
  local gap = 1000 / (s.base * (1 + s.step))
  -- A bucket was empty when it refused: that place is gone. In a new window what was missed may be made up for.
  local missed = long and open - s.lo or 0
  if s.told then missed = math.min(CATCH_UP, 0.7 * (s.holds or 1e6) * gap) end
  s.next = math.max((s.next or 0) + (long and 0 or gap), open - missed) + gap
  s.made_up = math.max(0, (open - s.next) / gap)
  s.since, s.from, s.sent, s.idle = open, now, 1, 0
  s.rising, s.sent_before, s.told = nil, nil, nil
end

-- The quota has no room for so many texts. A refused size costs nothing: half of it next, until not even one fits; then
-- one is tried at growing intervals, and when the quota returns.
local function over_quota(s, e)
  local now, day = e.now, 86400000
  s.certain, s.trying, s.episode = 1, nil, nil
  s.quota_limit = e.quota_limit or s.quota_limit
  s.quota_resets_at = (e.resets_at or 0) > now and e.resets_at or (math.floor(now / day) + 1) * day
  local half = math.floor(math.min(e.texts or FULL, s.size or FULL) / 2)
  if half >= 1 then
    s.size = half
    pause(s, now, STARTING, e.reason)
  else
    s.size, s.parked = 1, (s.parked or 0) + 1
    local wait = math.min(PARKED * 2 ^ math.min(s.parked - 1, 10), LONGEST)
    pause(s, now, clamp(s.quota_resets_at - now, 1000, wait), e.reason)
  end
end

local function deferred(s, e)
  local now = e.now
  local late = e.admitted <= (s.paused_at or 0) -- of a moment that is known
  give_back(s, now, e.admitted)
  if not e.asked and (e.quota or s.certain or s.trying) then
    if not late then over_quota(s, e) end
    return
  end
  if e.unavailable then return pause(s, now, e.asked, e.reason) end
  local rate = pace(s, now)
  if s.episode then
    s.refused = s.refused + 1
  elseif not late then
    s.episode, s.refused, s.probes = now, 1, 0
  end
  if e.asked then
    if not late then s.lo = math.max(e.admitted, now + e.asked - 1000) end -- mostly it is rounded up
    s.told = 1
    pause(s, now, e.asked, e.reason)
  elseif not late then
    s.lo = e.admitted
    local first = rate and clamp(700 / rate, 20, 1000) or STARTING
    if (s.horizon or 0) >= 4000 then first = math.min(first, s.horizon / 20) end
    local wait = first * GROWTH ^ s.probes
    if s.horizon then wait = math.min(wait, math.max(first, s.horizon / 10)) end
    if not rate then wait = math.min(wait, math.max(first, (now - s.episode) / 5)) end
    s.probes = s.probes + 1
    -- A window, or a quota that does not say so? Fewer texts tell.
    if now - s.episode > PERSISTENT then s.size = math.max(1, math.floor((s.size or FULL) / 2)) end
    pause(s, now, math.min(wait, LONGEST), e.reason)
  end
end

local function passed(s, e)
  local day = math.floor(e.now / 86400000)
  if s.day ~= day then s.day, s.charged = day, 0 end
  s.charged = s.charged + (e.uncached or 0)
  if s.ceiling then
    s.calm = (s.calm or 0) + 1
    if s.calm >= 5 * s.ceiling then s.ceiling, s.calm = s.ceiling + 1, 0 end
    if s.ceiling >= e.most then s.ceiling, s.calm = nil, nil end
  end
  local took = e.now - e.admitted
  s.latency = s.latency and 0.9 * s.latency + 0.1 * took or took
  if e.admitted <= (s.paused_at or 0) then return end
  s.failures, s.failing, s.canary, s.probe, s.paused_until, s.reason = nil, nil, nil, nil, nil, nil
  if s.certain then
    if s.parked or s.size == s.passed_size then
      s.size = s.parked and FULL or math.min(FULL, 2 * s.size)
      s.parked, s.passed_size = nil, nil
    elseif s.size >= FULL then
      s.certain, s.size, s.passed_size, s.quota_resets_at = nil, nil, nil, nil
    else
      s.passed_size = s.size
    end
  elseif s.size and s.size < FULL then
    s.size, s.trying, s.canary = FULL, 1, 1
    s.opened = e.admitted
    return
  end
  s.trying = nil
  if not s.certain then s.size = nil end
  if s.episode then
    learn(s, e.now, s.opened or e.admitted)
    s.episode, s.opened = nil, nil
  end
end

local function failed(s, e)
  if e.timeout and e.admitted > (s.cut_at or 0) then
    s.ceiling = math.max(1, math.floor((s.ceiling or e.most) / 2))
    s.cut_at, s.calm = e.now, 0
  end
  if e.admitted <= (s.paused_at or 0) then return end
  s.failures = (s.failures or 0) + 1
  s.failing = s.failing or e.now
  -- One text that the API chokes on must not slow the fleet: only failures in a row do. The longer it fails, the
  -- longer are the waits, so that the return is found in a tenth of the time that it was away.
  if s.failures >= 3 then
    local wait = 500 * 2 ^ math.min(s.failures - 3, 10)
    pause(s, e.now, clamp((e.now - s.failing) / 10, 500, math.min(wait, 15000)), e.reason)
  end
end

-- What became of a request.
-- {now, admitted, outcome, asked, reason, most, texts, uncached, timeout, unavailable, give_back, quota, quota_limit, resets_at}
function policy.report(s, e)
  if e.give_back and s.set_next then s.set_next = s.set_next - e.give_back end
  if e.outcome == 'unused' then
    give_back(s, e.now, e.admitted)
  elseif e.outcome == 'halted' then
    -- A refusal from before the last resume is of the account as it was.
    if e.admitted > (s.resumed_at or 0) then s.halted = e.reason end
  elseif e.outcome == 'deferred' then
    deferred(s, e)
  elseif e.outcome == 'failed' then
    failed(s, e)
  else
    passed(s, e)
  end
end

-- The hash of the throttle as a table, and what to do to the hash after the table was changed.
local TEXTS = {halted = true, held = true, reason = true, probe = true}

function policy.read(flat)
  local s, before = {}, {}
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    s[name] = TEXTS[name] and value or tonumber(value)
    before[name] = s[name]
  end
  return s, before
end

function policy.changes(s, before)
  local set, gone = {}, {}
  for name, value in pairs(s) do
    if before[name] ~= value then
      set[#set + 1] = name
      set[#set + 1] = TEXTS[name] and value or string.format(value % 1 == 0 and '%.0f' or '%.6f', value)
    end
  end
  for name in pairs(before) do
    if s[name] == nil then gone[#gone + 1] = name end
  end
  return set, gone
end

return policy
