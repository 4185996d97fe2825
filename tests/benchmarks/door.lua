-- Events as KServe's agent sends them, 19 headers: `wrk -s door.lua URL -- KIND`.
-- single: requests of 1x20; pairs: requests and responses in turn; wide: requests of 64x20;
-- batch: 64 requests of 1x20 in a POST. Prints its figures as one line of JSON.
local ATTRIBUTES = {
  {"specversion", "1.0"}, {"source", "http://localhost:9081/"}, {"inferenceservicename", "flights"},
  {"namespace", "production"}, {"component", "predictor"}, {"endpoint", "default"}, {"metadata", "{}"},
  {"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
}

local function numbers(n)
  local values = {}
  for i = 1, n do values[i] = math.random(0, 9999) / 1000 end
  return table.concat(values, ",")
end

local function v2(rows)
  return '{"inputs":[{"name":"x","shape":[' .. rows .. ',20],"datatype":"FP64","data":[' ..
    numbers(20 * rows) .. ']}]}'
end

local function answer()
  return '{"model_name":"flights","outputs":[{"name":"y","shape":[1],"datatype":"FP64","data":[' ..
    numbers(1) .. ']}]}'
end

local function head_of(kind, body)
  local before = "POST / HTTP/1.1\r\nHost: collector.sidelight.svc.cluster.local\r\n" ..
    "User-Agent: Go-http-client/1.1\r\nContent-Length: " .. #body .. "\r\nCe-Id: "
  local after = "\r\nCe-Time: 2026-01-01T00:00:00.123456789Z\r\nCe-Recordedtime: 2026-01-01T00:00:00.12Z" ..
    "\r\nCe-Type: org.kubeflow.serving.inference." .. kind
  for _, attribute in ipairs(ATTRIBUTES) do
    after = after .. "\r\nCe-" .. attribute[1]:gsub("^%l", string.upper) .. ": " .. attribute[2]
  end
  after = after .. "\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n" .. body
  return {before, after}
end

local function batch(number)
  local members = {}
  for i = 1, 64 do
    local member = '{"id":"' .. number .. "-" .. i ..
      '","type":"org.kubeflow.serving.inference.request","time":"2026-01-01T00:00:00.123456789Z"'
    for _, attribute in ipairs(ATTRIBUTES) do
      member = member .. ',"' .. attribute[1] .. '":"' .. attribute[2] .. '"'
    end
    members[i] = member .. ',"data":' .. v2(1) .. "}"
  end
  local body = "[" .. table.concat(members, ",") .. "]"
  return "POST / HTTP/1.1\r\nHost: collector\r\nContent-Type: application/cloudevents-batch+json\r\n" ..
    "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

local made, halves, number = {}, 1, 0

function init(args)
  local kind = args[1]
  math.randomseed(7)
  if kind == "batch" then
    for i = 1, 32 do made[i] = batch(i) end
    request = function()
      number = number + 1
      return made[number % 32 + 1]
    end
    return
  end
  for i = 1, 64 do
    made[i] = head_of("request", v2(kind == "wide" and 64 or 1))
    if kind == "pairs" and i % 2 == 0 then made[i] = head_of("response", answer()) end
  end
  if kind == "pairs" then halves = 2 end
  request = function()
    number = number + 1
    local parts = made[number % 64 + 1]
    return parts[1] .. string.format("6ba7b810-9dad-11d1-80b4-%012d", math.floor(number / halves)) .. parts[2]
  end
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed))
end
