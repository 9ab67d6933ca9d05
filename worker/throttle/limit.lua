-- limit: how fast does the API let us send? Learned from what it refuses, as a pure function of (state, event, now).
-- docs/throttle.md describes the model, and which test moves with which rule. The fields are in state.lua. Times are ms,
-- rates requests/s.
--
-- Two kinds of limit are told apart by the silence after a refusal:
--
--   window  a number of requests per period, then none until the period is over (fixed or sliding). It is known by its
--           `count` and `period`. We spread the count over most of the period and send one request more, which is to be
--           refused; then we wait for the end. If it is not refused, the limit has risen.
--   bucket  requests evenly, at a rate. It is known by its rate. We send a little faster, so that about one request in a
--           hundred is refused; between two refusals exactly as much passed as the API allows.
local limit = {}

-- What is a window?
local FEWEST = 3 -- requests: a smaller window is used up as well by sending evenly
local SHORTEST = 300 -- ms of silence
local LONG = 2.5 -- the silence of a window is longer than this many of its requests took before

-- The pace in a window.
local QUICK = 0.3 -- the part of a period to send in until it was seen twice: a higher limit is found early
local REST, LONGEST_REST = 0.1, 3000 -- the part of a period, and ms, that are left for the refusal and for lateness
local GUARD, LONGEST_GUARD = 60, 250 -- ms that one request may be longer under way than another
local USED_UP = 0.95 -- a refusal after so large a part of the count is the end of the window
local SURPLUS = 1.04 -- so many times the count, and one, was never refused: the limit has risen

-- The pace in a bucket.
local APART = 160 -- requests between two refusals: fewer than one in a hundred is refused
local SMALLEST = 10 -- requests between them while the rate is known roughly
local EXCESS = 1.3 -- one request too many in EXCESS * n
local UNSURE, SURE = 4, 15 -- requests, and seconds of requests, without a refusal after which the limit may have risen
local RISE, HIGHEST = 4, 5 -- then the rate grows as RISE ^ (overdue ^ 2), at most as RISE ^ HIGHEST
local CHANGED = 0.1 -- a cycle that let through so much more or less than it should: the limit is another
local ANEW = 20 -- requests: what such a cycle counts for, so that a limit that rose is soon tried again
local AT_ONCE = 4 -- requests' time of silence that is usual
local QUIET = 1000 -- ms without a request, and more where answers or a configured rate are slow: there was no demand
local LATE = 400 -- ms of our own lateness that are made up for

-- Looking whether it is open again, where the API names no time.
local STARTING, GROWTH = 50, 1.6 -- ms of the first wait, and of each over the one before
local SOONEST, LATEST = 20, 1000 -- ms of the first wait, where a pace is known

local NEARLY = 0.7 -- of the time of one request: the bucket may have one again
local OFTEN, SELDOM = 3, 10 -- the wait is at most this part of the silence: before the end of a period, and after it
local AT_END = 100 -- at its end the first waits are this part of a period

local USUAL = 1.5 -- periods of silence that are usual

local SECOND = 1000 -- a wait in whole seconds was rounded up, by as much as this

local function clamp(value, low, high) return math.max(low, math.min(value, high)) end

local function allowed(s) return s.count * (s.rising or 1) end

-- ms of a period in which its requests are sent.
local function span(s)
  if not s.proven then return QUICK * s.period end
  if s.whole and s.period >= 3 * SECOND then
    -- Its end is known to a second alone.
    return s.period - (s.period >= 5 * SECOND and 2 or 1) * SECOND + (s.guard or GUARD)
  end
  return s.period - math.min(REST * s.period, LONGEST_REST)
end

-- How many times as fast as the bucket allows, after so long without a refusal.
local function haste(s, now)
  local due = 1000 * EXCESS * clamp(math.min(s.passes, s.n), UNSURE, SURE * s.base) / s.base
  local overdue = (now - s.from - (s.idle or 0)) / due - 1
  return (1 + 1 / (EXCESS * s.n)) * (overdue > 0 and RISE ^ math.min(overdue * overdue, HIGHEST) or 1)
end

-- ms from one request to the next; nil where nothing is known: as fast as the API answers.
function limit.gap(s, now)
  if s.period then return span(s) / allowed(s) end
  return s.base and 1000 / (s.base * haste(s, now))
end

-- The period is over without a refusal: another one begins.
local function roll(s, now)
  if s.sent > allowed(s) then s.rising = 2 * (s.rising or 1) end
  s.since = now - (now - s.since) % s.period
  s.sent, s.rolled, s.holes = 0, 1, nil
  s.next = math.max(s.next or 0, s.since)
end

-- Take the next turn in the schedule: nil, or the time of the turn if it is still to come.
local function take_turn(s, now, gap)
  local turn = s.next or now
  if turn > now then return turn end
  local oldest = now - math.max(gap, LATE)
  if s.base and turn < oldest then
    s.idle = (s.idle or 0) + oldest - turn -- there was no demand
    turn = oldest
  end
  s.next = turn + gap
end

-- Nothing is known of a limit. After a time without demand, only what comes now tells how fast the API is.
local function note_demand(s, now, apart)
  local quiet = math.max(QUIET, 4 * (s.latency or QUIET), 3 * apart)
  if s.last and now - s.last > quiet then s.since, s.sent = nil, nil end
  s.last = math.floor(now)
end

-- May one request be sent now? nil, or the time of its turn in the schedule. `apart`: ms between requests for another
-- reason.
function limit.turn(s, now, apart)
  if s.period and not s.episode and now >= s.since + s.period then roll(s, now) end
  local gap = limit.gap(s, now)
  if not s.canary then
    local turn
    if gap then turn = take_turn(s, now, gap) else note_demand(s, now, apart) end
    if turn then return turn end
  end
  s.since = s.since or math.floor(now) -- as requests are admitted in whole ms
  s.sent = (s.sent or 0) + 1
  if s.period and s.sent > SURPLUS * allowed(s) + 1 then
    s.rising = 2 * (s.rising or 1)
    s.next = now + limit.gap(s, now)
  end
  s.rate = gap and 1000 / gap
end

-- A turn was not used, or refused.
function limit.give_back(s, now, admitted)
  if admitted < (s.since or 0) then return end
  s.sent = math.max(0, (s.sent or 0) - 1)
  local gap = limit.gap(s, now)
  if gap and s.next then s.next = s.next - gap end
end

-- ms of silence that are usual.
function limit.silence(s) return s.period and USUAL * s.period or s.base and AT_ONCE * 1000 / s.base or 0 end

-- It does not say when to come back: ms until we look.
local function look(s, now)
  local gap = limit.gap(s, now)
  local first = gap and clamp(NEARLY * gap, SOONEST, LATEST) or STARTING
  local left = s.period and s.since + s.period - now or 0
  if left > 0 and s.probes == 0 and s.sent >= USED_UP * s.count then return left + (s.slack or 0) + (s.shift or 0) end
  -- At the end that was expected it may be open any moment.
  if s.period and left <= 0 then first = math.max(s.period / AT_END, SOONEST) end
  local longest = math.max(first, (now - s.episode) / (left > 0 and OFTEN or SELDOM))
  local wait = math.min(first * GROWTH ^ s.probes, longest)
  return left > 0 and math.min(wait, left + (s.slack or 0)) or wait
end

-- It says when to come back: ms to wait.
local function told(s, now, asked, late)
  if not late then
    -- It says too little, where it refuses again after so long.
    if s.refused > 1 then asked = math.max(asked, look(s, now)) end
    s.probes = s.probes + 1
  end
  s.told, s.whole = math.max(s.told or 0, now + asked), asked % SECOND == 0 and 1 or nil
  if s.base then return math.max(asked, NEARLY * limit.gap(s, now)) end
  local ends = s.period and s.sent >= USED_UP * s.count
  return asked + (s.slack or 0) + (ends and s.shift or 0)
end

-- It refused: ms to wait; nil where that is no news. `late`: the request was sent before the pause that is on.
function limit.refused(s, e, late)
  local now = e.now
  if s.episode then
    s.refused = s.refused + 1
  elseif not late then
    s.episode, s.refused, s.probes = now, 1, 0
  end
  if e.asked then return told(s, now, e.asked, late) end
  if late then return nil end
  local wait = look(s, now)
  s.probes, s.lo = s.probes + 1, e.admitted
  return wait
end

-- More of them, and it is no window.
local function most_holes(s) return math.max(3, s.count / 8) end

local function is_window(s, n, took, silence)
  if n < FEWEST then return false end
  if s.period then return (s.holes or 0) <= most_holes(s) end
  if s.told and s.whole then silence = silence - SECOND end
  return silence >= SHORTEST and silence >= LONG * took / n
end

-- The period, where the API said when it ends.
local function learn_told_period(s)
  local took = s.told - s.since
  if s.whole then took = math.max(SECOND, took - took % SECOND) end
  if s.whole and s.period and took > s.period and not s.early then
    -- Perhaps the last request came before the second that it was meant for.
    s.early, s.guard = 1, math.min(1.7 * (s.guard or GUARD), LONGEST_GUARD)
  elseif not s.rolled then
    s.early, s.period = nil, took
    s.guard = s.guard and s.guard > GUARD and 0.98 * s.guard or nil
  end
end

-- The period, where we looked for its end.
local function learn_seen_period(s, open)
  if s.period and s.probes == 1 and open >= s.since + s.period then
    s.period = (s.holes and 1.002 or 0.999) * s.period -- it was open at once: since when?
  elseif not s.rolled then
    -- Mostly soon after it was last seen closed.
    s.period = s.lo - s.since + math.min(0.3 * (open - s.lo), 0.006 * (open - s.since))
  end
end

local function learn_window(s, n, open)
  if s.told then learn_told_period(s) else learn_seen_period(s, open) end
  if s.slack and not s.holes then s.slack = s.slack > 5 and (s.whole and 0.97 or 0.9) * s.slack or nil end
  s.proven = (s.count or n >= 20 and not s.told) and 1 or nil
  s.count = s.rolled and math.max(n, s.count) or n -- a period that began unseen may have begun elsewhere
  s.base, s.n, s.passes = nil, nil, nil
  s.limit = 1000 * n / s.period
end

-- A cycle is from one refusal to the next. Of a bucket it lets through exactly what the API allows in that time.
local function learn_cycle(s, n)
  local took = math.max(1, s.episode - (s.closed or s.since) - (s.idle or 0))
  local due = s.base * took / 1000
  if math.abs(n - due) <= math.max(2, CHANGED * due) then
    local kept = math.min(1, APART / (s.passes + n))
    s.passes, s.passes_ms = s.passes * kept + n, s.passes_ms * kept + took
  else
    -- The limit changed. Where it rose, this cycle was too slow at first: more is soon tried again.
    s.passes = n > due and math.min(n, ANEW) or n
    s.passes_ms = s.passes * took / n
  end
end

local function learn_bucket(s, n, open)
  local before = s.episode
  if s.period then
    s.passes, s.passes_ms = UNSURE, UNSURE * s.period / s.count
    before = nil -- a silence that was no window's is of another cause, and in no cycle
  elseif not s.base then
    s.passes, s.passes_ms = 1, math.max(1, open - s.since) / n
  else
    learn_cycle(s, n)
  end
  s.base = s.passes * 1000 / s.passes_ms
  s.limit, s.n = s.base, clamp(s.passes, SMALLEST, APART)
  s.closed, s.from = before, open
  s.period, s.count = nil, nil
end

-- It is open again: a cycle begins.
local function begin_cycle(s, open)
  s.since, s.sent, s.idle = open, 1, 0
  s.holes, s.shift, s.rolled, s.rising, s.told = nil, nil, nil, nil, nil
end

-- It opened again, and what was before says nothing of what is now.
function limit.begin(s, open)
  s.episode, s.closed, s.next = nil, nil, nil
  begin_cycle(s, open)
end

-- Open again long before its end: no end of a period.
local function is_hole(s, open)
  if not s.period or s.rolled or s.rising or open >= s.since + 0.97 * s.period then return false end
  return open - s.episode - (s.told and s.whole and SECOND or 0) < s.period / 5
end

local function note_hole(s, open)
  s.holes = (s.holes or 0) + 1
  s.slack = math.min((s.slack or 0) + 0.01 * s.period, 0.02 * s.period)
  -- It would be a hole in the next period too: wait as long before that.
  s.shift = (s.shift or 0) + open - s.episode
end

-- It opened again: what did it let through since it last did?
function limit.learn(s, now, open)
  local n = math.max(1, s.sent - 1) -- without the one that has just passed
  local took = math.max(1, open - s.since - (s.idle or 0))
  if not s.base and not s.period and (s.sent <= 1 or n < FEWEST and (s.told or took < 2000)) then
    s.told = nil -- too little was let through to tell anything by: continue as before
    return
  end
  if is_hole(s, open) then
    note_hole(s, open)
    if s.holes <= most_holes(s) then
      s.next, s.told = open + limit.gap(s, now), nil
      return
    end
  end
  if s.rolled and not s.told and s.probes > 3 then
    -- It did not open where it was expected: forget it all.
    s.period, s.count, s.proven, s.limit = nil, nil, nil, nil
    return limit.begin(s, open)
  end
  if is_window(s, n, took, open - s.episode) then learn_window(s, n, open) else learn_bucket(s, n, open) end
  begin_cycle(s, open)
  s.next = open + limit.gap(s, now)
end

return limit
