-- Any order: opens the counters of its asks, changes them, writes the state. Twin: twin.py.

local SPEND, REFUND, RESET = 2, 3, 5
local NEWEST_FORM = 191
local LAWS = {[FIXED] = fixed, [SLIDING] = sliding, [BUCKET] = bucket, [CALENDAR] = fixed}

-- The state at hand: its bytes ('' where there is none), epoch and number.
local state, epoch, number

-- Takes in what the key holds; returns why it cannot be worked on, or nothing.
local function read(raw)
  if not raw then
    state, epoch, number = '', 0, 0
  else
    local form
    state = raw
    form, epoch, number = unpack('<BI4I7', state)
    if form ~= FORM then
      return form > FORM and form <= NEWEST_FORM and NEWER or DAMAGED
    end
  end
end

-- Opens every counter of the shape; returns AGAIN or nothing.
local function open(shape)
  for i = 1, shape.count do
    local c = shape[i]
    c.kept_reserve, c.kept_at, c.kept_until = 0, 0, 0
    local at, body, length = 13, nil, 0
    while at < #state do
      local mark, kind, kept_until
      mark, kind, length, kept_until = unpack('<c8BI2I7', state, at)
      if mark == c.mark and LAWS[kind % WITH_RESERVE] == LAWS[c.kind] then
        body, c.kept_until = at + 18, kept_until
        if kind >= WITH_RESERVE then
          c.kept_reserve, c.kept_at = unpack('<I4I7', state, body)
          body, length = body + 11, length - 11
        end
        break
      end
      at = at + 18 + length
    end
    c.law = LAWS[c.kind]
    if c.law.open(c, state, body, length) then
      return AGAIN
    end
  end
end

-- Writes the state with what the counters hold; entries that may be forgotten are.
local function write(key, shape)
  local counters, parts, until_us, is_extended = shape.count, {pack('<BI4I7', FORM, epoch, number)}, 0, false
  for i = 1, counters do
    local c = shape[i]
    c.packed = c.law.entry(c)
    until_us = max(until_us, c.until_us)
    is_extended = is_extended or c.is_extended
  end
  local at = 13
  while at < #state do
    local mark, _, length, forget = unpack('<c8BI2I7', state, at)
    local kept = forget > now
    if kept then
      for i = 1, counters do
        local c = shape[i]
        if c.mark == mark then
          parts[#parts + 1], c.packed = c.packed, nil
          kept = false
        end
      end
    end
    if kept then
      parts[#parts + 1] = sub(state, at, at + 17 + length)
      until_us = max(until_us, forget)
    end
    at = at + 18 + length
  end
  for i = 1, counters do
    parts[#parts + 1] = shape[i].packed
  end
  store(key, state ~= '' and state, table.concat(parts), is_extended and until_us)
end

-- Until `least` fits; where it does, until the budget is full.
local function wait_of(c, least)
  if max(1, least) <= c.room then
    return c.law.full(c)
  end
  return c.law.wait(c, least)
end

local function answer(answers, c, granted, before, wait, denied_wait, spend)
  local after = c.law.before(c)
  answers[#answers + 1] =
    pack('<i8i8i8i8i8i8i8i8', granted, before, after, c.room, wait, denied_wait, spend, c.counted_in)
end

local function answered(passed, answers)
  return pack('<BI4I8I4', 0, passed, number, epoch) .. table.concat(answers)
end

-- What each ask is granted, and how often: `times` takes one after another, of `want` each.
local function grants_of(shape, wants, times, least)
  local grants, equal = {}, nil
  if times > 1 then
    -- Only takes of all or nothing come several at once.
    local passed = times
    for i = 1, shape.count do
      if wants[i] > 0 then
        passed = min(passed, max(0, floor(shape[i].room / wants[i])))
      end
    end
    for i = 1, shape.count do
      grants[i] = passed > 0 and wants[i] or 0
    end
    return grants, passed
  end
  for i = 1, shape.count do
    grants[i] = max(0, min(wants[i], shape[i].room))
    if wants[i] > 0 then
      equal = min(equal or grants[i], grants[i])
    end
  end
  local passed = 0
  for i = 1, shape.count do
    if shape.equal and equal then
      grants[i] = wants[i] > 0 and equal or 0
    end
    if grants[i] < least then
      grants[i] = 0
    elseif grants[i] > 0 then
      passed = 1
    end
  end
  return grants, passed
end

local function take(key, shape, wants, times, least, lease)
  least = max(1, least)
  local grants, passed = grants_of(shape, wants, times, least)
  local answers, is_changed = {}, passed > 0
  if passed > 0 then
    number = max(number + 1, now) + passed - 1
  end
  for i = 1, shape.count do
    local c, granted = shape[i], grants[i]
    local law = c.law
    local before = law.before(c)
    local wait, denied_wait, spend = 0, 0, 0
    if granted > 0 then
      law.charge(c, granted * passed, lease)
      wait, spend = law.full(c), law.spend(c, lease)
    end
    if granted == 0 or passed < times then
      denied_wait = wait_of(c, wants[i] > 0 and least or 0)
    end
    if wants[i] > 0 and c.is_reserve_new then
      is_changed = true
    end
    answer(answers, c, granted, before, wait, denied_wait, spend)
  end
  if is_changed then
    write(key, shape)
  end
  return answered(passed, answers)
end

local function spend(key, shape, wants)
  local answers, is_changed = {}, false
  for i = 1, shape.count do
    is_changed = is_changed or wants[i] > 0
  end
  if is_changed then
    number = max(number + 1, now)
  end
  for i = 1, shape.count do
    local c, want = shape[i], wants[i]
    local law, fits, before = c.law, want <= c.room and c.room >= 1, c.law.before(c)
    local wait = 0
    if not fits then
      wait = law.wait(c, want)
    end
    if want > 0 then
      law.charge(c, want, 0)
    end
    if fits then
      wait = law.full(c)
    end
    answer(answers, c, fits and want or 0, before, wait, wait, 0)
  end
  if is_changed then
    write(key, shape)
  end
  return answered(1, answers)
end

-- `back` takes hits out of a counter.
local function give_back(key, shape, back)
  local answers, is_changed = {}, false
  for i = 1, shape.count do
    local c = shape[i]
    local before = c.law.before(c)
    back(c, i)
    local after = c.law.before(c)
    is_changed = is_changed or after < before
    local wait = wait_of(c, 0)
    answer(answers, c, before - after, after, wait, wait, 0)
  end
  if is_changed then
    write(key, shape)
  end
  return answered(1, answers)
end

local function reset(key)
  local found = state ~= ''
  if found then
    epoch = epoch + 1
    local parts, at = {pack('<BI4I7', FORM, epoch, number)}, 13
    while at < #state do
      local _, kind, length = unpack('<c8BI2', state, at)
      local body = at + 18 + (kind >= WITH_RESERVE and 11 or 0)
      local kept = sub(state, body - (kind >= WITH_RESERVE and 11 or 0) - 7, body - 1)
      local emptied = LAWS[kind % WITH_RESERVE].emptied(state, body)
      parts[#parts + 1] = sub(state, at, at + 8) .. pack('<I2', #kept - 7 + #emptied) .. kept .. emptied
      at = at + 18 + length
    end
    store(key, state, table.concat(parts))
  end
  local zeros = pack('<i8i8i8i8i8i8i8i8', found and 1 or 0, 0, 0, 0, 0, 0, 0, 0)
  return answered(1, {zeros})
end

-- An order with the shape's number taken off: three fields whose meaning is the operation's, then where its wants are.
return function(key, raw, shape, a, b, d, packed, at)
  local refusal = read(raw) or open(shape)
  if refusal then
    return pack('<B', refusal)
  end
  local operation = shape.operation
  if operation == RESET then
    return reset(key)
  end
  local wants = {}
  for i = 1, shape.count do
    wants[i], at = unpack('<I8', packed, at)
  end
  if operation == TAKE then
    return take(key, shape, wants, a, b, d)
  elseif operation == SPEND then
    return spend(key, shape, wants)
  elseif operation == REFUND then
    return give_back(key, shape, function(c, i) c.law.give_back(c, wants[i]) end)
  end
  return give_back(key, shape, function(c)
    -- Returned by take `b`, granted under epoch `a`, counted in window `d`.
    -- On a bucket a later charge may have begun at the arrival time that this take had left.
    if a == epoch and (c.kind ~= BUCKET or b == number) then
      c.law.give_back_to(c, d, wants[1])
    end
  end)
end
