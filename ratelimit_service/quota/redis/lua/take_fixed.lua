-- A take of one fixed window. Twin: twin_fixed.py.
-- State: form B, epoch I4, number I7, head c11 (mark, kind, length), until I7, start I7, count I6.

-- Returns nothing where the general way has to be gone.
local function take_fixed(c, key, raw, times, least, lease, want)
  local epoch, number, until_us, start, count = 0, 0, 0, -1, 0
  if raw then
    if #raw ~= 43 then
      return
    end
    local form, head
    form, epoch, number, head, until_us, start, count = unpack('<BI4I7c11I7I7I6', raw)
    if head ~= c.head or form ~= FORM then
      return
    end
  end
  local window = c.window
  local begins = start > now and start or now
  begins = begins - begins % window
  if begins > start then
    start, count = begins, 0
  end
  local ends, most, before = begins + window, c.requests, count
  local until_end = ends - now
  local granted, passed = grant(most - count, want, times, least)
  local wait, spend = until_end, 0
  if passed > 0 then
    number = (number < now and now or number + 1) + passed - 1
    count = count + granted * passed
    spend = lease < until_end and lease or until_end
    local needed, extended = ends + c.grace, nil
    if until_us < needed then
      until_us = needed + c.grace
      extended = until_us
    end
    store(key, raw, pack('<BI4I7c11I7I7I6', FORM, epoch, number, c.head, until_us, start, count), extended)
  end
  local room, denied_wait = most - count, 0
  if passed < times then
    local wanted = want > 0 and least or 1
    if wanted <= room then
      denied_wait = count == 0 and 0 or until_end
    else
      denied_wait = wanted > most and NEVER or until_end
    end
    if granted == 0 then
      wait = denied_wait
    end
  end
  if times == 1 then
    return told_one(number, epoch, granted, before, room, wait, spend, start)
  end
  return told(passed, number, epoch, granted, before, count, room, wait, denied_wait, spend, start)
end
