-- wake: how many wake-ups are worth sending now. A wake-up is a hint: one that no worker
-- acknowledged within `expiry` ms counts as lost, and is sent again.
--
-- KEYS  1 jobs  2 wakeups (zset: token -> ms sent)  3 info
-- ARGV  1 threads worth having  2 batch size  3 expiry in ms  4 alive-key prefix  5 ms that a heartbeat lasts
-- ->    tokens to send
local threads, batch, expiry, alive_prefix, lasts = unpack(ARGV)
return require 'wakeups'(KEYS[1], KEYS[2], KEYS[3])(threads, batch, expiry, alive_prefix, lasts)
