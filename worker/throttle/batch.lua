-- batch: how many texts may a request have, so that its answer comes before the timeout? A pure function of
-- (state of the model, event, now). A provider that computes text by text is slow for 100 and quick for 10.
--
-- Fields of the state; times are ms:
--
--   timely       most texts in a request after timeouts, or where the first answer was slow; nil: as many as may be
--   lowered_at   when a timeout last lowered it
--   one_ms       how long a request with one new text took
--   trial_at     when one request with twice as many texts is tried; trial_wait: ms from one such trial to the next
local batch = {}

local FULL = 100 -- texts in a request
local TRIAL, LONGEST = 60000, 900000 -- ms to the first trial, and at most

local function limit_to(m, texts, now)
  m.timely = texts >= 1 and math.floor(math.min(texts, FULL)) or 1
  m.trial_at, m.trial_wait = now + TRIAL, TRIAL
  if m.timely == FULL then m.timely, m.trial_at, m.trial_wait = nil, nil, nil end
end

-- Most texts in the next request, `most` at all.
function batch.most(m, now, most)
  return m.timely and math.min(now >= m.trial_at and 2 * m.timely or m.timely, most) or most
end

-- A request with so many texts goes out.
function batch.sent(m, now, texts)
  if not m.timely or texts <= m.timely then return end
  m.trial_wait = math.min(2 * m.trial_wait, LONGEST)
  m.trial_at = now + m.trial_wait
end

-- A request of several texts timed out. Those that were under way at the same time are one reason.
function batch.timed_out(m, e)
  if e.admitted <= (m.lowered_at or 0) or e.texts > (m.timely or FULL) then return end
  m.lowered_at = e.now
  limit_to(m, e.texts / 2, e.now)
end

-- A request passed: how many texts would be answered in half of the time that there is? What a text takes is told by this
-- answer and that to one text.
-- -> whether that is known well enough to send more than one
function batch.passed(m, e)
  local texts, took = e.texts or FULL, e.now - e.admitted
  if not e.timeout_ms or 2 * (e.uncached or 0) < texts then return true end -- an answer from the cache is quick
  local before = m.one_ms
  if texts == 1 then m.one_ms = took end
  local half = e.timeout_ms / 2
  if not m.begun then
    if took * FULL <= half then return true end
    if not before then return false end -- the first answer of a server that has just started is slow: ask again
    limit_to(m, half / took, e.now)
  elseif m.timely and texts >= m.timely and e.admitted > (m.lowered_at or 0) then
    local each = texts > 1 and m.one_ms and math.max(0, took - m.one_ms) / (texts - 1) or took / texts
    local more = each > 0 and (half - took) / each or took < half and FULL or 0
    local fits = math.min(texts + math.floor(more), 4 * m.timely)
    -- As many as have just passed with time to spare are not too many.
    if took < 0.8 * e.timeout_ms then fits = math.max(fits, texts) end
    if fits > m.timely then limit_to(m, fits, e.now) end
  end
  return true
end

return batch
