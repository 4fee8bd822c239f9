-- Carries out orders on counted keys, one after another, at one instant. Layouts: packing.py.
--
-- KEYS: a counted key for each order; a key may come several times.
-- ARGV[1]: the time, for tests; '': the server's own.
-- ARGV[2]: how many shapes follow: operation and limits, which many orders have in common.
-- Then the shapes, then an order for each key.
-- Returns the time, and for each order its packed answer.

local SHORTEST = 43
local TAKES = {[FIXED] = take_fixed, [SLIDING] = take_sliding, [BUCKET] = take_bucket}
local HEADS = {[FIXED] = pack('<BI2', FIXED, 13), [SLIDING] = pack('<B', SLIDING), [BUCKET] = pack('<BI2', BUCKET, 21)}

if ARGV[1] == '' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end

local function shape_of(packed)
  local operation, equal, count, at = unpack('<BBB', packed)
  local shape = {operation = operation, equal = equal == 1, count = count}
  for i = 1, count do
    local mark, kind, requests, asked_reserve, window, burst, is_passing
    mark, kind, requests, asked_reserve, window, burst, at = unpack('<c8BI4I4I7I4', packed, at)
    if kind >= PASSING then
      kind, is_passing = kind - PASSING, true
    end
    local c = {
      mark = mark, kind = kind, requests = requests, asked_reserve = asked_reserve, window = window, burst = burst,
      width = up(window, SUB_BUCKETS), grace = grace(window), is_passing = is_passing,
    }
    if kind == CALENDAR then
      c.starts = {}
      for start = 1, 5 do
        c.starts[start], at = unpack('<I7', packed, at)
      end
    elseif operation == TAKE and count == 1 and asked_reserve == 0 then
      shape.take, c.head = TAKES[kind], mark .. HEADS[kind]
    end
    shape[i] = c
  end
  return shape
end

local shapes = {}
local SHAPES = tonumber(ARGV[2])
for i = 1, SHAPES do
  shapes[i] = shape_of(ARGV[2 + i])
end

local any
local replies, at = {now}, 0

-- Carries out what is left. An error is of the order at hand: bytes that begin as a state and are none.
local function carry_out()
  while at < #KEYS do
    at = at + 1
    local key, packed, said = KEYS[at], ARGV[2 + SHAPES + at], nil
    -- The first want is read with the rest; where there is none it is 0.
    local index, a, b, d, want, after = unpack('<I2I4I7I7I7', packed)
    local shape, raw = shapes[index + 1], pcall('GET', key)
    if raw and (type(raw) ~= 'string' or #raw < SHORTEST) then
      said = pack('<B', DAMAGED)
    elseif shape.take then
      said = shape.take(shape[1], key, raw, a, b > 1 and b or 1, d, want)
    end
    if not said then
      any = any or make_any()
      said = any(key, raw, shape, a, b, d, packed, after - 7)
    end
    replies[at + 1] = said
  end
end

while at < #KEYS do
  local is_whole, problem = try(carry_out)
  if not is_whole then
    if is_storing then
      -- What is raised again would lose its code; before Redis 7 its place comes before the code.
      return {err = string.match(problem, '%-(%u+ .*)') or problem}
    end
    replies[at + 1] = pack('<B', DAMAGED)
  end
end
return replies
