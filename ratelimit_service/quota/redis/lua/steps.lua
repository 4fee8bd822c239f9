-- What the steps of the laws share. Twin: twin_state.py.
-- A counter is the table of its ask: what the caller says of a limit, and, once opened, what the store holds of it.

-- Until when to keep a counter whose counts matter until `counts_until`; see `kept_until_us`.
local function keep(c, counts_until, window)
  local kept, needed = c.kept_until, counts_until + grace(window)
  c.is_extended = kept < needed
  c.until_us = c.is_extended and needed + grace(window) or kept
end

-- The reserve in force, given what was kept and since when it counts; `left_alone`: what grants leave alone, which is
-- more where a reserve is asked for that is not kept.
local function reserve(c, horizon, at)
  local kept = c.kept_reserve
  if kept > 0 and c.kept_at < horizon then
    kept = 0
  end
  if c.asked_reserve > 0 and c.asked_reserve >= kept and not c.is_passing then
    c.reserve, c.reserve_at = c.asked_reserve, at
  else
    c.reserve, c.reserve_at = kept, kept > 0 and c.kept_at or 0
  end
  c.is_reserve_new = c.reserve > kept
  c.left_alone = max(c.reserve, c.asked_reserve)
end

-- Mark, kind, length of the body, when it may be forgotten, and the body's first fields.
local function entry(c, kind, body)
  if c.reserve > 0 then
    return pack('<c8BI2I7I4I7', c.mark, kind + WITH_RESERVE, #body + 11, c.until_us, c.reserve, c.reserve_at) .. body
  end
  return pack('<c8BI2I7', c.mark, kind, #body, c.until_us) .. body
end
