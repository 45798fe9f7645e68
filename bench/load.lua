-- What wrk sends, and how it reports. It needs one thread of wrk.
--
--   wrk … URL -- turns METHOD HEADER CONTENT_TYPE PATH BODY [PATH BODY …]
--     These requests in turn; an argument that does not apply is empty. They are built once, so that
--     the generator does next to nothing for each.
--   wrk … URL -- chains PATH TOKEN [TOKEN …]
--     Refresh tokens of as many sessions as there are connections: a request takes the one that has
--     waited longest, and the answer's token gets in line. So no session has two requests under way,
--     and each token is sent once.

local requests, turn = {}, 0
local path, waiting, first, last = nil, {}, 1, 0
local rehearsed = false
failures = 0     -- answers without a next token
sessions = {}    -- the last token that was sent or received, by its session

local function wait_in_line(token)
  last = last + 1
  waiting[last] = token
  sessions["of " .. token:match("^prt_(%d+)_")] = token
end

local function send_in_turn()
  turn = turn % #requests + 1
  return requests[turn]
end

local function send_next_token()
  local token = waiting[first] or "none-left"
  if rehearsed then
    waiting[first] = nil
    first = first + 1
  end
  rehearsed = true  -- wrk asks for one request that it does not send
  return wrk.format("POST", path, nil, '{"refresh_token":"' .. token .. '"}')
end

local function take_next_token(status, headers, body)
  local token = status == 200 and body:match('"refresh_token":%s*"(prt_%d+_[%w_-]+)"')
  if token then
    wait_in_line(token)
  else
    failures = failures + 1
  end
end

function init(args)
  if args[1] == "turns" then
    local method, headers = args[2], {}
    local name, value = args[3]:match("^(%S+): (.*)$")
    if name then headers[name] = value end
    if args[4] ~= "" then headers["Content-Type"] = args[4] end
    for index = 5, #args, 2 do
      local body = args[index + 1]
      requests[#requests + 1] = wrk.format(method, args[index], headers, body ~= "" and body or nil)
    end
    request = send_in_turn
  else
    path = args[2]
    wrk.headers["Content-Type"] = "application/json"
    for index = 3, #args do wait_in_line(args[index]) end
    request, response = send_next_token, take_next_token
  end
end

local thread

function setup(only_thread)
  thread = only_thread
end

-- One line of JSON, the last that wrk prints. Times are in microseconds. `status` counts answers
-- of 400 and above; load.py finds other wrong ones by their size.
function done(summary, latency)
  local tokens = {}
  for _, token in pairs(thread:get("sessions")) do tokens[#tokens + 1] = '"' .. token .. '"' end
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "bytes": %.0f, "p50": %d, "p99": %d, "tokens": [%s], '
      .. '"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, '
      .. '"token": %d}}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99), table.concat(tokens, ", "),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    thread:get("failures")))
end
