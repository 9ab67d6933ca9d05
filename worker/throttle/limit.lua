-- limit: how fast does the API let us send? Learned from what it refuses, as a pure function of (state, event, now).
--
-- Two kinds of limit are told apart by the silence after a refusal:
--
--   window  some requests a period, then none until it is over (a fixed or a sliding window). It is known by its
--           `count` and `period`. We spread the count over nearly all of the period and send one more, which is to be
--           refused; then we wait for the period's end. Were it not refused, the limit would have risen.
--   bucket  so many requests a second, evenly. It is known by its rate. We send a little faster, so that a refusal
--           comes every hundred requests or so, and between two refusals exactly as much has passed as it allows.
--
-- Times are ms, rates requests/s. Fields of the state:
--
--   period, count      the window; proven: it was seen twice; rolled: its present period began unseen
--   rising             how many times `count` is tried in this period, as it took more
--   holes, slack       refusals in the midst of a period, as a sliding window has them where little was sent a period ago;
--   shift              ms by which the next periods begin later for it, and ms for the next one alone
--   base               the bucket's rate; passes, passes_ms: what it was measured by; n: requests between refusals
--   closed, silence    when it last refused, and for how long
--   holds              requests that a small bucket takes at once; made_up: those that it was to take after a pause
--   behind             ms of the schedule that may be made up for
--   from, faster       when we went on sending; since when faster than base allows; sent_before: `sent` then
--   since, sent, idle  the cycle: when the API opened, what it let through since, ms without demand
--   next               the next free place in the schedule; last: when a request went while there was none
--   episode, refused   when the API closed, and how many were refused; per_episode: on average
--   probes, lo         how often we looked whether it is open; when it was last seen closed
--   told, whole        until when it said to wait; it says so in whole seconds; guard: ms that the last request of a
--   early              period is sent after the second that it is meant for; whether it came before it all the same
--   rate, limit        for people: the rate in force, and the one learned
local limit = {}

local LATE = 400 -- ms of lateness of our own that is made up for
local CATCH_UP = 2200 -- ms of a pause that is made up for
local SHORTEST = 300 -- ms of silence that are a window's
local FEWEST = 3 -- requests in a window: a smaller one is as well sent to evenly
local STARTING, GROWTH = 50, 1.6 -- ms of the first wait where nothing is known; of each wait over the one before
local GUARD = 60 -- ms that a request may be longer under way than another
local APART = 160 -- requests between refusals of a bucket: fewer than one in a hundred

local function clamp(value, low, high) return math.max(low, math.min(value, high)) end

-- The part of a period in which its requests are sent.
local function span(s)
  -- Not yet seen twice: quickly, so that a higher limit is found early.
  if not s.proven then return 0.3 * s.period end
  -- A wait in whole seconds is rounded up: so long before the end it is nearly exact.
  if s.whole and s.period >= 3000 then return s.period - (s.period >= 5000 and 2000 or 1000) + (s.guard or GUARD) end
  return s.period - math.min(0.1 * s.period, 3000)
end

-- ms from one request to the next; nil where nothing is known: as fast as the API answers.
local function gap(s, now)
  if s.period then return span(s) / (s.count * (s.rising or 1)) end
  if not s.base then return nil end
  local rate = s.base * (1 + 1 / (1.3 * s.n))
  -- No refusal for a good while: the limit has risen. Upwards, ever faster.
  local due = 1300 * clamp(math.min(s.passes, s.n), 4, math.max(15 * s.base, 25)) / s.base
  local over = (now - s.from - (s.idle or 0)) / (due + math.min(s.silence or 0, 2000)) - 1
  if over > 0 then rate = rate * 4 ^ math.min(over * over, 5) end
  return 1000 / rate
end
limit.gap = gap

-- Take the next place in the schedule; the place, where it is still to come. `apart`: ms between requests by what else
-- they are kept to.
function limit.place(s, now, apart)
  if s.period and not s.episode and now >= s.since + s.period then
    if s.sent > s.count * (s.rising or 1) then s.rising = 2 * (s.rising or 1) end
    s.since = now - (now - s.since) % s.period
    s.sent, s.rolled, s.holes = 0, 1, nil
    s.next = math.max(s.next or 0, s.since)
  end
  local step = gap(s, now)
  if step and not s.canary then
    local place = s.next or now
    if place > now then return place end
    if s.base then
      local oldest = now - math.max(step, s.behind or LATE)
      if place < oldest then
        s.idle = (s.idle or 0) + oldest - place -- nobody wanted to send
        place = oldest
      end
      if not s.faster and step < 0.87 * 1000 / s.base then s.faster, s.sent_before = now, s.sent end
    end
    s.next = place + step
  end
  if not step and not s.canary then
    local quiet = math.max(1000, 4 * (s.latency or 1000), 3 * apart)
    -- Nobody wanted to send: what comes now tells how fast the API is, not what came before.
    if s.last and now - s.last > quiet then s.since, s.sent = nil, nil end
    s.last = math.floor(now)
  end
  s.since = s.since or math.floor(now) -- as requests are admitted in whole ms
  s.sent = (s.sent or 0) + 1
  if s.period and s.sent > 1.04 * s.count * (s.rising or 1) + 1 then
    s.rising = 2 * (s.rising or 1)
    s.next = now + gap(s, now)
  end
  s.rate = step and 1000 / step
  return nil
end

-- A place was not used, or refused.
function limit.give_back(s, now, admitted)
  if admitted < (s.since or 0) then return end
  s.sent = math.max(0, (s.sent or 0) - 1)
  local step = gap(s, now)
  if step and s.next then s.next = s.next - step end
end

-- ms of silence that are nothing unusual.
function limit.silence(s)
  return s.period and 1.5 * s.period or s.base and 4000 / s.base or 0
end

-- It does not say when to come back: ms until we look.
local function look(s, now)
  local step = gap(s, now)
  local first = step and clamp(0.7 * step, 20, 1000) or STARTING
  local left = s.period and s.since + s.period - now or 0
  if left > 0 and s.probes == 0 and s.sent >= 0.95 * s.count then return left + (s.slack or 0) + (s.shift or 0) end
  -- At the end that was expected it may be open any moment.
  if s.period and left <= 0 then first = math.max(s.period / 100, 20) end
  local longest = math.max(first, (now - s.episode) / (left > 0 and 3 or 10))
  local wait = math.min(first * GROWTH ^ s.probes, longest)
  return left > 0 and math.min(wait, left + (s.slack or 0)) or wait
end

-- It refused: ms to wait. nil where that is no news. `late`: the request was sent before the pause that is on.
function limit.refused(s, e, late)
  local now = e.now
  if s.episode then
    s.refused = s.refused + 1
  elseif not late then
    s.episode, s.refused, s.probes = now, 1, 0
  end
  if e.asked then
    local asked = e.asked
    if not late then
      -- It says too little, where it refuses again after so long.
      if s.refused > 1 then asked = math.max(asked, look(s, now)) end
      s.probes = s.probes + 1
    end
    s.told, s.whole = math.max(s.told or 0, now + asked), asked % 1000 == 0 and 1 or nil
    if s.base then return math.max(asked, 0.7 * gap(s, now)) end
    local ends = s.period and s.sent >= 0.95 * s.count
    return asked + (s.slack or 0) + (ends and s.shift or 0)
  elseif not late then
    local wait = look(s, now)
    s.probes, s.lo = s.probes + 1, e.admitted
    return wait
  end
end

-- More of them, and it is no window.
local function most_holes(s) return math.max(3, s.count / 8) end

local function is_window(s, n, took, silence)
  if s.told and s.whole then silence = silence - 1000 end
  if not s.period then return n >= FEWEST and silence >= SHORTEST and silence >= 2.5 * took / n end
  return n >= FEWEST and (s.holes or 0) <= most_holes(s)
end

local function learn_window(s, n, open)
  local took = open - s.since
  if s.told then
    took = s.told - s.since
    if s.whole then took = math.max(1000, took - took % 1000) end
    if s.whole and s.period and took > s.period and not s.early then
      -- Perhaps the last request came before the second that it was meant for.
      s.early, s.guard = 1, math.min(1.7 * (s.guard or GUARD), 250)
    elseif not s.rolled then
      s.early, s.period = nil, took
      s.guard = s.guard and s.guard > GUARD and 0.98 * s.guard or nil
    end
  elseif s.period and s.probes == 1 and open >= s.since + s.period then
    s.period = (s.holes and 1.002 or 0.999) * s.period -- it was open at once: since when?
  elseif not s.rolled then
    -- Mostly soon after it was last seen closed.
    s.period = s.lo - s.since + math.min(0.3 * (open - s.lo), 0.006 * took)
  end
  if s.slack and not s.holes then s.slack = s.slack > 5 and (s.whole and 0.97 or 0.9) * s.slack or nil end
  s.proven = (s.count or n >= 20 and not s.told) and 1 or nil
  s.count = s.rolled and math.max(n, s.count) or n -- a period that began unseen may have begun elsewhere
  s.base, s.n, s.passes = nil, nil, nil
  s.limit = 1000 * n / s.period
end

local function learn_bucket(s, n, open)
  local silence = open - s.episode
  local took = math.max(1, s.episode - (s.closed or s.since) - (s.idle or 0))
  local lost = 0
  if s.period then
    s.passes, s.passes_ms = 4, 4 * s.period / s.count
  elseif not s.base then
    s.passes, s.passes_ms = 1, math.max(1, open - s.since) / n
  elseif s.faster and s.sent - s.sent_before >= 4 then
    local lately = (s.sent - s.sent_before - (s.made_up or 0)) * 1000 / math.max(1, s.episode - s.faster)
    local rate = clamp(lately, 1.02 * s.base, 1000 / gap(s, s.episode))
    s.passes, s.passes_ms = 20, 20000 / rate
  elseif s.told and (s.made_up or 0) >= 3 and n <= 1.3 * s.made_up + 2 then
    -- Refused while it made up for a pause: it holds little, or the rate is too high.
    local least = n * 1000 / took
    if not s.holds and s.base > 1.1 * least then s.passes, s.passes_ms = n, took end
    s.holds = 0.6 * n
  else
    if s.silence and s.holds and s.silence * s.base > 1000 * s.holds then
      lost = s.silence * s.base / 1000 - s.holds -- while it was full
    end
    local due = s.base * took / 1000
    if math.abs(n + lost - due) > math.max(2, 0.1 * due) then s.passes, s.passes_ms = 0, 0 end
    local kept = math.min(1, APART / (s.passes + n))
    local rate = (n + lost) / took
    -- Where within the time of one request it refused is not known.
    if n < 3 and s.passes < 10 then rate = clamp(s.base / 1000, rate - 0.7 / took, rate + 0.7 / took) end
    s.passes, s.passes_ms = s.passes * kept + n, s.passes_ms * kept + n / rate
    if lost > 0 and n < s.n / 4 then s.passes_ms = s.passes_ms * 1.03 end
    if s.holds then s.holds = 1.02 * s.holds end -- unless it is refused, more is tried
  end
  s.base = s.passes * 1000 / s.passes_ms
  s.limit = s.base
  local costs = s.told and s.holds and math.max(0, silence * s.base / 1000 - s.holds) or 0
  s.n = clamp(s.passes, 10, math.max(APART * s.per_episode, costs / 0.015))
  s.closed, s.silence = s.episode, silence
  s.period, s.count = nil, nil
end

-- It opened again, and what was before says nothing of what is now.
function limit.begin(s, open)
  s.episode, s.closed, s.told, s.next = nil, nil, nil, nil
  s.since, s.sent, s.idle = open, 1, 0
  s.holes, s.shift, s.rolled, s.rising, s.faster, s.sent_before = nil, nil, nil, nil, nil, nil
end

-- Open again long before its end: no end of a period.
local function is_hole(s, open)
  if not s.period or s.rolled or s.rising or open >= s.since + 0.97 * s.period then return false end
  return open - s.episode - (s.told and s.whole and 1000 or 0) < s.period / 5
end

-- It opened again: what did it let through since it last did?
function limit.learn(s, now, open)
  local n = math.max(1, s.sent - 1) -- without the one that has just passed
  local took = math.max(1, open - s.since - (s.idle or 0))
  if not s.base and not s.period and (s.sent <= 1 or n < FEWEST and (s.told or took < 2000)) then
    s.told = nil -- too little was let through to tell anything by: go on as before
    return
  end
  if is_hole(s, open) then
    s.holes = (s.holes or 0) + 1
    s.slack = math.min((s.slack or 0) + 0.01 * s.period, 0.02 * s.period)
    -- It would be a hole in the next period too: wait as long before that.
    s.shift = (s.shift or 0) + open - s.episode
    if s.holes <= most_holes(s) then
      s.next, s.told = open + gap(s, now), nil
      return
    end
  end
  if s.rolled and not s.told and s.probes > 3 then
    -- It did not open where it was expected: forget it all.
    s.period, s.count, s.proven, s.limit = nil, nil, nil, nil
    return limit.begin(s, open)
  end
  s.per_episode = s.per_episode and 0.8 * s.per_episode + 0.2 * s.refused or 1.5
  local silence = open - s.episode
  if is_window(s, n, took, silence) then
    learn_window(s, n, open)
    s.next = open + gap(s, now)
  else
    learn_bucket(s, n, open)
    s.from = now
    local step = 1000 / (s.base * (1 + 1 / (1.3 * s.n)))
    local most = 0
    if s.told and silence > 3 * step then
      most = math.min(CATCH_UP, 0.7 * silence, (s.holds or 1e9) * step)
    end
    s.next = open - most + step
    s.made_up = most / step
    s.behind = math.max(most, math.min(LATE, (s.holds or 1e9) * step))
  end
  s.since, s.sent, s.idle = open, 1, 0
  s.holes, s.shift, s.rolled, s.rising, s.faster, s.sent_before, s.told = nil, nil, nil, nil, nil, nil, nil
end

return limit
