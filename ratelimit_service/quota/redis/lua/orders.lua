-- Carries out orders on counted keys, one after another, at one instant. Layouts: packing.py.
--
-- KEYS: a counted key for each order; a key may come several times.
-- ARGV[1]: the time, for tests; '': the server's own.
-- ARGV[2]: whether a key comes several times, how many shapes follow, the shapes (operation and limits, which many
-- orders have in common), then an order for each key. One argument, since each costs the server a tenth of an order.
-- Returns the time, and the packed answers to all orders in one string.

local SHORTEST = 43
local TAKES = {[FIXED] = take_fixed, [SLIDING] = take_sliding, [BUCKET] = take_bucket}
local HEADS = {[FIXED] = pack('<BI2', FIXED, 13), [SLIDING] = pack('<B', SLIDING), [BUCKET] = pack('<BI2', BUCKET, 21)}

if ARGV[1] == '' then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
else
  now = tonumber(ARGV[1])
end

local ASKED = ARGV[2]
local repeats, count, from = unpack('<BI2', ASKED)

local function shape_of()
  local operation, equal, asks
  operation, equal, asks, from = unpack('<BBB', ASKED, from)
  local shape = {operation = operation, equal = equal == 1, count = asks}
  for i = 1, asks do
    local mark, kind, requests, asked_reserve, window, burst, is_passing
    mark, kind, requests, asked_reserve, window, burst, from = unpack('<c8BI4I4I7I4', ASKED, from)
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
        c.starts[start], from = unpack('<I7', ASKED, from)
      end
    elseif operation == TAKE and asks == 1 and asked_reserve == 0 then
      shape.take, c.head = TAKES[kind], mark .. HEADS[kind]
    end
    shape[i] = c
  end
  return shape
end

local shapes = {}
for i = 1, count do
  shapes[i] = shape_of()
end

-- One read for all keys is a third of one for each. A key that comes again has to be read again.
local ORDERS = #KEYS
local raws = ORDERS > 1 and repeats == 0 and call('MGET', spread(KEYS))
local any
local answers, at = {}, 0

-- Carries out what is left. An error is of the order at hand: bytes that begin as a state and are none.
local function carry_out()
  while at < ORDERS do
    at = at + 1
    local key, said, raw = KEYS[at], nil, nil
    -- The first want is read with the rest; where there is none it is 0.
    local index, a, b, d, want, after = unpack('<I2I4I8I8I8', ASKED, from)
    local shape = shapes[index + 1]
    from = after
    if shape.count > 1 then
      from = from + 8 * (shape.count - 1)
    end
    if raws then
      raw = raws[at]
    else
      raw = pcall('GET', key)
    end
    if raw and (type(raw) ~= 'string' or #raw < SHORTEST) then
      said = pack('<B', DAMAGED)
    elseif shape.take then
      said = shape.take(shape[1], key, raw, a, b > 1 and b or 1, d, want)
    end
    if not said then
      any = any or make_any()
      said = any(key, raw, shape, a, b, d, ASKED, after - 8)
    end
    answers[at] = said
  end
end

while at < ORDERS do
  local is_whole, problem = try(carry_out)
  if not is_whole then
    if is_storing then
      -- What is raised again would lose its code; before Redis 7 its place comes before the code.
      return {err = string.match(problem, '%-(%u+ .*)') or problem}
    end
    answers[at] = pack('<B', DAMAGED)
  end
end
return {now, table.concat(answers)}
