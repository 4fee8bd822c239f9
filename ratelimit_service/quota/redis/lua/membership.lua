-- A heartbeat: renews a replica's slot and the form, or takes a free slot.
-- KEYS[1] form; KEYS[2] until when slots of each form may own anything; KEYS[3..] the slots, in order; one hash slot.
-- ARGV[1] the replica's id, ARGV[2] its form, ARGV[3] time to live in ms, ARGV[4] '1' to leave instead, ARGV[5] '1' if
-- slots of its form own anything.
-- Returns {slot from 0 or -1, live slots below it, live slots, 1 if the form is the replica's, seconds, microseconds,
-- until when slots of another form may own anything, in microseconds, or 0}.
local id, form, ttl, leave, owns = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1', ARGV[5] == '1'
-- Longer than any window: by then nothing that a form owned counts any more.
local KEPT_MS = 367 * 86400000
local FIRST = 3
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local in_form = 0
local found = redis.call('GET', KEYS[1])
if found == form or not found then
  in_form = 1
  if not leave then
    redis.call('SET', KEYS[1], form, 'PX', ttl)
    if owns then
      redis.call('HSET', KEYS[2], form, string.format('%.0f', now + ttl * 1000))
      redis.call('PEXPIRE', KEYS[2], KEPT_MS)
    end
  end
end
local other = 0
local owned = redis.call('HGETALL', KEYS[2])
for i = 1, #owned, 2 do
  local until_us = tonumber(owned[i + 1])
  if until_us < now - KEPT_MS * 1000 then
    redis.call('HDEL', KEYS[2], owned[i])
  elseif owned[i] ~= form and until_us > other then
    other = until_us
  end
end
local mine, free, live, below = -1, -1, 0, 0
for i = FIRST, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder == id then
    mine = i - FIRST
    below = live
    live = live + 1
  elseif holder then
    live = live + 1
  elseif free < 0 then
    free = i - FIRST
  end
end
if leave then
  if mine >= 0 then
    redis.call('DEL', KEYS[mine + FIRST])
  end
  return {-1, 0, live, in_form, time[1], time[2], other}
end
if mine < 0 and free >= 0 then
  mine = free
  below = 0
  for i = FIRST, mine + FIRST - 1 do
    if redis.call('EXISTS', KEYS[i]) == 1 then below = below + 1 end
  end
  live = live + 1
end
if mine >= 0 then
  redis.call('SET', KEYS[mine + FIRST], id, 'PX', ttl)
end
return {mine, below, live, in_form, time[1], time[2], other}
