-- answered: the answer to an admitted request is here; what it means is yet to be reported.
--
-- KEYS  1 flights  (see admit.lua)
-- ARGV  1 permit  2 ms until it must be reported  3 ANSWERED
local time = redis.call('TIME')
local last = time[1] * 1000 + time[2] / 1000 + ARGV[2]
return redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', ARGV[3] + last), ARGV[1])
