-- What wrk sends, and how it reports:  wrk … URL -- METHOD FORM PATH [PATH …]
-- FORM is a url-encoded body, empty for none. Several paths are asked for in turn.
-- The requests are built once, so that the generator does next to nothing for each.

local requests, turn = {}, 0

function init(args)
  local method, form = args[1], args[2]
  local headers = {}
  if form == "" then
    form = nil
  else
    headers["Content-Type"] = "application/x-www-form-urlencoded"
  end
  for index = 3, #args do
    requests[#requests + 1] = wrk.format(method, args[index], headers, form)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

-- One line of JSON, the last that wrk prints. Times are in microseconds. `status` counts answers
-- of 400 and above; run.py finds other wrong ones by their size.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "bytes": %.0f, "p50": %d, "p99": %d, "errors": '
      .. '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
