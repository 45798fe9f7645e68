-- The requests of wrk, and its report. Requires wrk with a single thread.
--
--   wrk … URL -- turns METHOD HEADER CONTENT_TYPE PATH BODY [PATH BODY …]
--     Sends these requests in turn. Unused arguments are empty. The requests are built once, to
--     keep the load of the generator small.
--     A path or a body may contain `0000000`, which is replaced by the number of the request.
--   wrk … URL -- paced MILLISECONDS METHOD HEADER CONTENT_TYPE PATH BODY [PATH BODY …]
--     The same, but each connection waits for a random time before a request, with this mean. Many
--     connections then send at random, as many clients do.
--   wrk … URL -- chains PATH TOKEN [TOKEN …]
--     Refresh tokens of one session per connection, in a FIFO queue. A request sends the first
--     token of the queue, and the token of the response is appended. No session has concurrent
--     requests, and each token is sent once.

local NUMBER = "0000000"
local requests, turn, sent = {}, 0, 0
local path, queue, first, last = nil, {}, 1, 0
local is_started = false
failures = 0     -- responses without a token
sessions = {}    -- the latest token by session

local function enqueue(token)
  last = last + 1
  queue[last] = token
  sessions["of " .. token:match("^prt_(%d+)_")] = token
end

local function send_in_turn()
  turn = turn % #requests + 1
  local before, after = requests[turn][1], requests[turn][2]
  if not after then return before end
  sent = sent + 1
  return before .. string.format("%07d", sent) .. after
end

local function send_next_token()
  local token = queue[first] or "none-left"
  if is_started then
    queue[first] = nil
    first = first + 1
  end
  is_started = true  -- wrk requests one request at startup that it does not send
  return wrk.format("POST", path, nil, '{"refresh_token":"' .. token .. '"}')
end

local function receive_token(status, headers, body)
  local token = status == 200 and body:match('"refresh_token":%s*"(prt_%d+_[%w_-]+)"')
  if token then
    enqueue(token)
  else
    failures = failures + 1
  end
end

function init(args)
  if args[1] == "paced" then
    local mean = tonumber(table.remove(args, 2))
    args[1] = "turns"
    delay = function() return math.floor(0.5 - mean * math.log(1 - math.random())) end
  end
  if args[1] == "turns" then
    local method, headers = args[2], {}
    local name, value = args[3]:match("^(%S+): (.*)$")
    if name then headers[name] = value end
    if args[4] ~= "" then headers["Content-Type"] = args[4] end
    for index = 5, #args, 2 do
      local body = args[index + 1]
      local text = wrk.format(method, args[index], headers, body ~= "" and body or nil)
      local first, last = text:find(NUMBER, 1, true)
      requests[#requests + 1] = first and {text:sub(1, first - 1), text:sub(last + 1)} or {text}
    end
    request = send_in_turn
  else
    path = args[2]
    wrk.headers["Content-Type"] = "application/json"
    for index = 3, #args do enqueue(args[index]) end
    request, response = send_next_token, receive_token
  end
end

local thread

function setup(only_thread)
  thread = only_thread
end

-- Print the report as the last line of wrk's output, in JSON. Times are in microseconds. `status`
-- counts responses with status 400 and above. load.py detects other wrong responses by their size.
function done(summary, latency)
  local tokens = {}
  for _, token in pairs(thread:get("sessions")) do tokens[#tokens + 1] = '"' .. token .. '"' end
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "bytes": %.0f, "p50": %d, "p99": %d, "mean": %.0f, "deviation": %.0f, '
      .. '"tokens": [%s], '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, '
      .. '"token": %d}}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), latency.mean, latency.stdev, table.concat(tokens, ", "),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    thread:get("failures")))
end
