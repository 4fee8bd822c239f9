-- A take of one token bucket. Twin: twin_bucket.py.
-- State: form B, epoch I4, number I7, head c11 (mark, kind, length), until I7, at I7, backlog I7, rate c7 (interval I6,
-- shift B).

-- Units per hit and units per microsecond, as `token_bucket.rate_of`.
local function rate_of(requests, window)
  local scaled, shift = window, 0
  while scaled < 1000 * requests do
    scaled, shift = scaled * 2, shift + 1
  end
  return up(scaled, requests), shift
end

-- What a limit is worth while `reserved` of it are others'; kept for the rest of the call.
local function set_rate(c, reserved)
  local requests = c.requests - reserved
  c.rate_reserve = reserved
  c.interval, c.shift = rate_of(max(1, requests), c.window)
  c.unit = 2 ^ c.shift
  c.most = requests > 0 and max(0, c.burst - reserved) or 0
  c.most = min(c.most, floor(BACKLOG_LIMIT / c.interval))
  c.depth = c.most * c.interval
  c.rate = pack('<I6B', c.interval, c.shift)
end

-- Returns nothing where the general way has to be gone.
local function take_bucket(c, key, raw, times, least, lease, want)
  if c.rate_reserve ~= 0 then
    set_rate(c, 0)
  end
  local epoch, number, until_us, at, backlog = 0, 0, 0, 0, 0
  if raw then
    if #raw ~= 51 then
      return
    end
    local form, head, rate
    form, epoch, number, head, until_us, at, backlog, rate = unpack('<BI4I7c11I7I7I7c7', raw)
    if head ~= c.head or rate ~= c.rate or form ~= FORM then
      return
    end
  end
  local step, unit, most, depth = c.interval, c.unit, c.most, c.depth
  local behind = at > now and at - now or 0
  if behind == 0 then
    backlog = backlog - (now - at) * unit
    if backlog < 0 then
      backlog = 0
    end
    at = now
  end
  local room = floor((depth - backlog) / step)
  local before = most - room
  local granted, passed = grant(room, want, times, least)
  local wait, spend = 0, 0
  if passed > 0 then
    local window = c.window
    number = (number < now and now or number + 1) + passed - 1
    spend = lease < window and lease or window
    backlog = min(BACKLOG_LIMIT, max(spend * unit, backlog) + granted * passed * step)
    room = floor((depth - backlog) / step)
    local full = up(backlog, unit)
    wait = full + behind
    local needed, extended = at + full + c.grace, nil
    if until_us < needed then
      until_us = needed + c.grace
      extended = until_us
    end
    store(key, raw, pack('<BI4I7c11I7I7I7c7', FORM, epoch, number, c.head, until_us, at, backlog, c.rate), extended)
  end
  local denied_wait = 0
  if passed < times then
    local wanted = want > 0 and least or 1
    if wanted <= room then
      denied_wait = backlog == 0 and 0 or up(backlog, unit) + behind
    elseif wanted > most then
      denied_wait = NEVER
    else
      denied_wait = up(backlog + wanted * step - depth, unit) + behind
    end
    if granted == 0 then
      wait = denied_wait
    end
  end
  if times == 1 then
    return told_one(number, epoch, granted, before, room, wait, spend, 0)
  end
  return told(passed, number, epoch, granted, before, most - room, room, wait, denied_wait, spend, 0)
end
