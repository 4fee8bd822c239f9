-- Fixed and calendar windows. Twin: twin_fixed.py.
-- Body: start I7, count I6.

local fixed = {}

-- Opens the counter; `at` is where its body begins in `state`, nil: there is none. Returns AGAIN or nothing.
function fixed.open(c, state, at)
  local start, count = -1, 0
  if at then
    start, count = unpack('<I7I6', state, at)
  end
  local time, begins, ends = max(now, start), nil, nil
  local starts = c.starts
  if starts then
    for i = 1, 4 do
      if starts[i] <= time and time < starts[i + 1] then
        begins, ends = starts[i], starts[i + 1]
      end
    end
    if not begins then
      return AGAIN
    end
  else
    begins = time - time % c.window
    ends = begins + c.window
  end
  if begins > start then
    start, count = begins, 0
  end
  reserve(c, start, max(now, start))
  c.counted_in, c.count = start, count
  c.until_end = ends - now
  keep(c, ends, ends - begins)
  c.most = max(0, c.requests - c.left_alone)
  c.room = c.most - count
end

function fixed.before(c)
  return c.count
end

function fixed.wait(c, hits)
  if max(hits, 1) > c.most then
    return NEVER
  end
  return c.until_end
end

function fixed.full(c)
  return c.count > 0 and c.until_end or 0
end

function fixed.spend(c, lease)
  return min(lease, c.until_end)
end

function fixed.charge(c, hits, _)
  c.count = min(c.count + hits, COUNT_LIMIT)
  c.room = c.most - c.count
end

function fixed.give_back(c, hits)
  c.count = max(0, c.count - hits)
  c.room = c.most - c.count
end

function fixed.give_back_to(c, window, hits)
  if window == c.counted_in then
    fixed.give_back(c, hits)
  end
end

function fixed.entry(c)
  if c.reserve > 0 then
    return entry(c, FIXED, pack('<I7I6', c.counted_in, c.count))
  end
  return pack('<c8BI2I7I7I6', c.mark, FIXED, 13, c.until_us, c.counted_in, c.count)
end

-- The body of an entry whose counts are gone, from the one that is.
function fixed.emptied(state, at, _)
  return sub(state, at, at + 6) .. pack('<I6', 0)
end
