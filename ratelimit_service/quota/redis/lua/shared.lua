-- What every order needs. Twin: twin_state.py.
--
-- There are two ways. `take_<law>` is the whole of a take of one limit, without reserves, on a key that holds no other:
-- nearly every order, so it spares every table and call that it can. The steps of `<law>.lua`, which any.lua puts
-- together for any order, are made when they are first needed: a call of a script begins by making every function that
-- is not inside another one.
--
-- A counter, `c`, is the table of its ask: what the caller says of a limit, and, once opened, what the store holds.
-- Every number is an integer below 2^53, so that doubles are exact.

local floor, max, min = math.floor, math.max, math.min
local spread, pack, unpack, sub = unpack, struct.pack, struct.unpack, string.sub
local try, call, pcall = pcall, redis.call, redis.pcall
local KEYS, ARGV = KEYS, ARGV
local TAKE = 1

local COUNT_LIMIT = 2^48 - 1
local BACKLOG_LIMIT = 2^52
local NEVER = -1
local SUB_BUCKETS = 60
local FIXED, SLIDING, BUCKET, CALENDAR = 1, 2, 3, 4
local WITH_RESERVE, PASSING = 128, 64
local AGAIN, NEWER, DAMAGED, ONE = 1, 2, 3, 128
local FORM = 177

-- The time of this call; orders.lua reads it.
local now

local function up(a, b)
  return -floor(-a / b)
end

local function grace(window)
  return min(max(window, 5000000), 60000000)
end

-- Whether an error is the server's, which takes no writes: it ends the call, since no other order can be carried out.
local is_storing = false

-- Writes bytes in place of those that were read; `until_us` is given where the key's time to live does not suffice.
local function store(key, raw, bytes, until_us)
  is_storing = true
  if not until_us then
    call('SET', key, bytes, 'KEEPTTL')
    is_storing = false
  elseif raw then
    call('SET', key, bytes, 'PX', up(until_us - now, 1000))
    is_storing = false
  else
    -- What was read with other keys, and is no string, looked as if it was not there.
    local is_new = call('SET', key, bytes, 'PX', up(until_us - now, 1000), 'NX')
    is_storing = false
    if not is_new then
      error('not a string')
    end
  end
end

-- What a take of one limit is granted, and how many of `times` such takes pass.
local function grant(room, want, times, least)
  if times > 1 then
    local passed = min(times, max(0, floor(room / want)))
    return passed > 0 and want or 0, passed
  end
  local granted = room < want and room or want
  if granted < least then
    return 0, 0
  end
  return granted, 1
end

-- The answer to one take of one limit, marked as such by its first byte.
local function told_one(number, epoch, granted, before, room, wait, spend, window)
  return pack('<BI8I4i8i8i8i8i8i8', ONE, number, epoch, granted, before, room, wait, spend, window)
end

-- The answer to takes of one limit that came as one.
local function told(passed, number, epoch, granted, before, after, room, wait, denied_wait, spend, window)
  return pack(
    '<BI4I8I4i8i8i8i8i8i8i8i8',
    0, passed, number, epoch, granted, before, after, room, wait, denied_wait, spend, window
  )
end
