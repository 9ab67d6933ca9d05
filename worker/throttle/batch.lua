-- batch: how many texts may a request have, so that its answer comes before the timeout? A pure function of
-- (state of the model, event, now). A provider that computes text by text is slow for 100 and quick for 10.
--
-- The fields (`timely`, `lowered_at`, `one_ms`, `trial_at`, `trial_wait`) are listed in state.lua. Times are ms.
local batch = {}

local FULL = 100 -- texts: the API takes no more in a request
-- A request is to take half of its timeout, so that a batch of longer texts still comes in time.
local SHARE = 0.5
-- A batch that took less of its timeout than this is not too large, whatever is computed.
local IN_TIME = 0.8
-- From two answers the time of a text is known roughly: grow at most to this many times the batch.
local GROWTH = 4
-- ms to the first request that tries twice the batch, and at most. A trial that times out costs its texts.
local TRIAL, LONGEST_TRIAL = 60000, 900000

local function limit_to(m, texts, now)
  m.timely, m.trial_at, m.trial_wait = nil, nil, nil
  if texts >= FULL then return end
  m.timely, m.trial_at, m.trial_wait = math.max(1, math.floor(texts)), now + TRIAL, TRIAL
end

-- The most texts in the next request; `most`: the most for other reasons.
function batch.most(m, now, most)
  if not m.timely then return most end
  return math.min(now >= m.trial_at and 2 * m.timely or m.timely, most)
end

-- A request with this many texts is sent. If it is a trial, the next one comes later.
function batch.sent(m, now, texts)
  if not m.timely or texts <= m.timely then return end
  m.trial_wait = math.min(2 * m.trial_wait, LONGEST_TRIAL)
  m.trial_at = now + m.trial_wait
end

-- A request of several texts timed out: half as many next. Those that were in flight with it tell no more.
function batch.timed_out(m, e)
  if e.admitted <= (m.lowered_at or 0) or e.texts > (m.timely or FULL) then return end
  m.lowered_at = e.now
  limit_to(m, e.texts / 2, e.now)
end

-- The texts that take SHARE of the timeout, as this answer tells.
local function that_fit(m, e, texts, took)
  local fit = SHARE * e.timeout_ms / took * texts
  if texts > 1 and m.one_ms and took > m.one_ms then
    -- This answer and the one to a single text tell what a text takes, and what the request itself does.
    local of_text = (took - m.one_ms) / (texts - 1)
    fit = math.max(fit, math.min(texts + (SHARE * e.timeout_ms - took) / of_text, GROWTH * texts))
  end
  return took < IN_TIME * e.timeout_ms and math.max(fit, texts) or fit
end

-- A request passed. The first one of all has one text. Where a hundred might take too long at its pace, the next ones have
-- as many as that pace allows, and their answers tell more: a server that has just started is slow once, and most are
-- quicker with many texts.
function batch.passed(m, e)
  local texts, took = e.texts or FULL, math.max(1, e.now - e.admitted)
  local is_cached = 2 * (e.uncached or 0) < texts -- a cache is quick, whatever the provider is
  if not e.timeout_ms or is_cached then return end
  if texts == 1 then m.one_ms = took end
  local is_news = m.timely and texts >= m.timely and e.admitted > (m.lowered_at or 0)
  if m.begun and not is_news then return end
  local fit = math.floor(that_fit(m, e, texts, took))
  if not m.begun or fit > m.timely then limit_to(m, fit, e.now) end
end

return batch
