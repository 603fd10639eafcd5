-- Tells how a log stands, and its end: as much as a node lacks and wants.
-- KEYS: meta, stream
-- ARGV: tag, epoch for a new log ('' makes none), epoch, head and time (µs) of the newest message
--   that the node has, most bytes of messages, seconds to keep a log that somebody watches
-- Returns tag, then nothing more if there is none, or: epoch, head, earliest, what the end said (or
--   ''), opened, latest (µs), bytes kept, the messages, oldest first: those after the node's or, if they are
--   too many, the newest
local meta, stream = KEYS[1], KEYS[2]
local tag, fresh, known, room = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[6])
local keep = tonumber(ARGV[7])
local function text(number) return string.format('%.0f', number) end

local found = redis.call('HMGET', meta,
    'epoch', 'head', 'earliest', 'ended', 'opened', 'latest', 'bytes')
local epoch = found[1]
if not epoch then
    if fresh == '' then return {tag} end
    local time = redis.call('TIME')
    epoch = fresh
    found = {epoch, '0', '1', false, text(tonumber(time[1]) * 1000000 + tonumber(time[2])), '0'}
    redis.call('HSET', meta, 'epoch', epoch, 'opened', found[5])
    redis.call('DEL', stream)
end
local head, earliest = tonumber(found[2] or 0), tonumber(found[3] or 1)
if fresh ~= '' then
    if keep > 0 or head == 0 then
        redis.call('PEXPIRE', meta, (keep > 0 and keep or 3600) * 1000)
    end
    if keep > 0 then redis.call('PEXPIRE', stream, keep * 1000) end
end

-- Has Redis lost what the node has (restarted from an older copy)? Then it is another log now,
-- though other messages may have got the offsets meanwhile.
if epoch == ARGV[3] and known > 0 and fresh ~= '' then
    local lost = head < known
    if not lost then
        local entry = redis.call('XRANGE', stream, text(known), text(known))[1]
        lost = entry and string.match(entry[2][2], '"at":(%d+)') ~= ARGV[5]
    end
    if lost then
        epoch = fresh
        redis.call('HSET', meta, 'epoch', epoch)
    end
end
if epoch ~= ARGV[3] then known = 0 end

local messages, count, stop = {}, 8, '+'
while room > 0 and head > known do
    local entries = redis.call('XREVRANGE', stream, stop, text(known + 1), 'COUNT', count)
    for _, entry in ipairs(entries) do
        room = room - #entry[2][2]
        if room < 0 and #messages > 0 then break end
        messages[#messages + 1] = entry[2][2]
    end
    if #entries < count then break end
    stop = '(' .. entries[#entries][1]
    count = math.min(count * 2, 256)
end
local ordered = {}
for number = #messages, 1, -1 do ordered[#ordered + 1] = messages[number] end
return {tag, epoch, head, earliest, found[4] or '', tonumber(found[5] or 0),
    tonumber(found[6] or 0), tonumber(found[7] or 0), ordered}
