-- A take of one sliding window. Twin: twin_sliding.py.
-- State: form B, epoch I4, number I7, head c9 (mark, kind), length I2, until I7, part reached I7, sum I6, then
-- (part I2, count I6) for each part that holds hits, oldest first. A part is written modulo 65536: it is never further
-- than that from the part reached. The sum is kept, so that a charge costs the same however many parts there are.

-- Part and count of the record at `at`.
local function record(c, at)
  local part, count = unpack('<I2I6', c.records, at)
  local ahead = (part - c.base) % 65536
  if ahead >= 32768 then
    ahead = ahead - 65536
  end
  return c.base + ahead, count
end

local function set(c, records, total)
  c.records, c.first, c.last = records, 1, #records
  c.total = total
  c.room = c.most - total
end

-- Begins with what was kept: the records from `first` to `last` of `records`, whose sum was `total` in part `base`.
local function begin(c, base, total, records, first, last)
  local width = c.width
  local reached = max(floor(now / width), base)
  c.base, c.records, c.last = base, records, last
  if reached > base then
    while first <= last do
      local part, count = record(c, first)
      if part >= reached - SUB_BUCKETS then
        break
      end
      total = total - count
      first = first + 8
    end
    c.base = reached
  end
  c.first, c.reached, c.counted_in, c.total = first, reached, reached, total
  c.at = max(now, reached * width)
end

local function leaves(c, part)
  return (part + SUB_BUCKETS + 1) * c.width - now
end

local function sliding_wait(c, hits)
  local wanted = max(hits, 1)
  if wanted > c.most then
    return NEVER
  end
  local left, leaving, at = c.room, c.reached, c.first
  while left < wanted do
    local count
    leaving, count = record(c, at)
    left = left + count
    at = at + 8
  end
  return leaves(c, leaving)
end

local function sliding_full(c)
  if c.first > c.last then
    return 0
  end
  return leaves(c, (record(c, c.last - 7)))
end

local function sliding_charge(c, hits, lease)
  local part = floor((c.at + min(lease, c.window)) / c.width)
  c.counted_in = part
  hits = min(hits, COUNT_LIMIT - c.total)
  if hits < 1 then
    return
  end
  -- From the newest back to where the part belongs: leases of different lengths end in any order.
  local at, count, found = c.last - 7, 0, -1
  while at >= c.first do
    found, count = record(c, at)
    if found <= part then
      break
    end
    at = at - 8
  end
  local before, after = at + 7, at + 8
  if at >= c.first and found == part then
    before, hits = at - 1, hits + count
  else
    count = 0
  end
  local written = pack('<I2I6', part % 65536, hits)
  local total = c.total + hits - count
  if after > c.last then
    set(c, sub(c.records, c.first, before) .. written, total)
  else
    set(c, sub(c.records, c.first, before) .. written .. sub(c.records, after, c.last), total)
  end
end

-- Returns nothing where the general way has to be gone.
local function take_sliding(c, key, raw, times, least, lease, want)
  local epoch, number, until_us, base, total, size = 0, 0, 0, -1, 0, 0
  if raw then
    local form, head, length
    size = #raw
    form, epoch, number, head, length, until_us, base, total = unpack('<BI4I7c9I2I7I7I6', raw)
    if head ~= c.head or form ~= FORM or size ~= 30 + length then
      return
    end
  end
  begin(c, base, total, raw or '', 44, size)
  c.most = c.requests
  local before = c.total
  c.room = c.most - before
  local granted, passed = grant(c.room, want, times, least)
  local wait, spend = 0, 0
  if passed > 0 then
    number = (number < now and now or number + 1) + passed - 1
    spend = lease < c.window and lease or c.window
    sliding_charge(c, granted * passed, lease)
    local width, reached = c.width, c.reached
    -- What was charged is the newest, unless a longer lease came before.
    local newest = max(c.counted_in, (record(c, c.last - 7))) + SUB_BUCKETS + 1
    wait = newest * width - now
    local needed, extended = newest * width + c.grace, nil
    if until_us < needed then
      until_us = needed + c.grace
      extended = until_us
    end
    local records = c.records
    store(
      key,
      raw,
      pack('<BI4I7c9I2I7I7I6', FORM, epoch, number, c.head, #records + 13, until_us, reached, c.total) .. records,
      extended
    )
  end
  local denied_wait = 0
  if passed < times then
    local wanted = want > 0 and least or 1
    denied_wait = wanted <= c.room and sliding_full(c) or sliding_wait(c, wanted)
    if granted == 0 then
      wait = denied_wait
    end
  end
  local room, window = c.room, c.counted_in
  if times == 1 then
    return told_one(number, epoch, granted, before, room, wait, spend, window)
  end
  return told(passed, number, epoch, granted, before, c.total, room, wait, denied_wait, spend, window)
end
