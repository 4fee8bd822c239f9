-- Sliding windows. Twin: twin_sliding.py.
-- Body: reached I7, total I6, then (part I2, count I6) for each part that holds hits, oldest first. A part is written
-- modulo 65536: it is never further than that from the part reached. The total saves summing, so a charge costs the
-- same however many parts there are.

local sliding = {wait = sliding_wait, full = sliding_full, charge = sliding_charge}

function sliding.open(c, state, at, length)
  local base, total = -1, 0
  if at then
    base, total = unpack('<I7I6', state, at)
    begin(c, base, total, state, at + 13, at + length - 1)
  else
    begin(c, base, total, '', 1, 0)
  end
  local reached, width = c.reached, c.width
  total = c.total
  reserve(c, (reached - SUB_BUCKETS) * width, c.at)
  c.most = max(0, c.requests - c.left_alone)
  c.room = c.most - total
end

function sliding.before(c)
  return c.total
end

function sliding.spend(c, lease)
  return min(lease, c.window)
end

-- Takes up to `hits` out of the record at `at`; returns how many.
local function take_out(c, at, hits)
  local part, count = record(c, at)
  local out = min(count, hits)
  local left = ''
  if out < count then
    left = pack('<I2I6', part % 65536, count - out)
  end
  set(c, sub(c.records, c.first, at - 1) .. left .. sub(c.records, at + 8, c.last), c.total - out)
  return out
end

function sliding.give_back(c, hits)
  while hits > 0 and c.first <= c.last do
    hits = hits - take_out(c, c.last - 7, hits)
  end
end

function sliding.give_back_to(c, window, hits)
  if hits < 1 then
    return
  end
  for at = c.first, c.last, 8 do
    if record(c, at) == window then
      take_out(c, at, hits)
      return
    end
  end
end

function sliding.entry(c)
  local newest = c.reached
  if c.first <= c.last then
    newest = max(newest, (record(c, c.last - 7)))
  end
  keep(c, (newest + SUB_BUCKETS + 1) * c.width, c.window)
  return entry(c, SLIDING, pack('<I7I6', c.reached, c.total) .. sub(c.records, c.first, c.last))
end

function sliding.emptied(state, at, _)
  return sub(state, at, at + 6) .. pack('<I6', 0)
end
