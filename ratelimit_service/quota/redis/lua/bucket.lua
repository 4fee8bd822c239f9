-- Token buckets. Twin: twin_bucket.py.
-- Body: at I7, backlog I7, interval I6, shift B.

local bucket = {}

local function put(c, backlog)
  c.backlog = backlog
  c.room = floor((c.depth - backlog) / c.interval)
end

function bucket.open(c, state, at)
  local time, backlog, interval, shift = 0, 0, nil, nil
  if at then
    time, backlog, interval, shift = unpack('<I7I7I6B', state, at)
  end
  c.at = max(now, time)
  c.behind = c.at - now
  reserve(c, c.at - c.window, c.at)
  if c.rate_reserve ~= c.left_alone then
    set_rate(c, c.left_alone)
  end
  if at then
    backlog = max(0, backlog - (c.at - time) * 2 ^ shift)
    if interval ~= c.interval or shift ~= c.shift then
      local rest = backlog % interval
      local fractions = up(rest * 256, interval)
      backlog = min(BACKLOG_LIMIT, (backlog - rest) / interval * c.interval + up(fractions * c.interval, 256))
    end
  end
  c.counted_in = 0
  put(c, backlog)
end

function bucket.before(c)
  return c.most - c.room
end

function bucket.wait(c, hits)
  local wanted = max(hits, 1)
  if wanted > c.most then
    return NEVER
  end
  return up(c.backlog + wanted * c.interval - c.depth, c.unit) + c.behind
end

function bucket.full(c)
  if c.backlog == 0 then
    return 0
  end
  return up(c.backlog, c.unit) + c.behind
end

function bucket.spend(c, lease)
  return min(lease, c.window)
end

function bucket.charge(c, hits, lease)
  put(c, min(BACKLOG_LIMIT, max(min(lease, c.window) * c.unit, c.backlog) + hits * c.interval))
end

function bucket.give_back(c, hits)
  put(c, max(0, c.backlog - hits * c.interval))
end

function bucket.give_back_to(c, _, hits)
  bucket.give_back(c, hits)
end

function bucket.entry(c)
  local full = c.at + up(c.backlog, c.unit)
  keep(c, max(full, c.reserve_at + c.window), c.window)
  if c.reserve > 0 then
    return entry(c, BUCKET, pack('<I7I7I6B', c.at, c.backlog, c.interval, c.shift))
  end
  return pack('<c8BI2I7I7I7I6B', c.mark, BUCKET, 21, c.until_us, c.at, c.backlog, c.interval, c.shift)
end

function bucket.emptied(state, at, _)
  return sub(state, at, at + 6) .. pack('<I7', 0) .. sub(state, at + 14, at + 20)
end
