-- Requests and responses of inferences in V2 JSON, rows of 20 features: one event a request as KServe's
-- agent sends them, or batches as our proxy does. Arguments: prefix of ids, deployments, rows, events a batch.
local thread_number = 0
function setup(thread) thread:set("number", thread_number); thread_number = thread_number + 1 end
function init(args)
  counter = 0
  prefix = (args[1] or "w") .. "-" .. number .. "-"
  deployments = tonumber(args[2] or "1")
  rows = tonumber(args[3] or "1")
  batch = tonumber(args[4] or "1")
  response_half = false
  math.randomseed(number + 7)
  -- Numbers are made once: what is measured is not how fast Lua writes them.
  asked, answered = {}, {}
  for place = 1, 256 do
    local values, totals = {}, {}
    for row = 1, rows do
      local total = 0
      for _ = 1, 20 do
        local v = math.random(0, 9999) / 1000
        values[#values + 1] = v
        total = total + v
      end
      totals[row] = total
    end
    asked[place] = ',"inputs":[{"name":"x","shape":[' .. rows .. ',20],"datatype":"FP64","data":[' ..
      table.concat(values, ",") .. ']}]}'
    answered[place] = ',"outputs":[{"name":"y","shape":[' .. rows .. '],"datatype":"FP64","data":[' ..
      table.concat(totals, ",") .. ']}]}'
  end
end
local function headers(kind, id)
  return {
    ["Ce-Id"] = id, ["Ce-Specversion"] = "1.0", ["Ce-Source"] = "http://localhost:9081/",
    ["Ce-Type"] = "org.kubeflow.serving.inference." .. kind,
    ["Ce-Time"] = "2026-05-01T10:00:00.123456Z", ["Ce-Recordedtime"] = "2026-05-01T10:00:00.1239Z",
    ["Ce-Inferenceservicename"] = "bench" .. counter % deployments, ["Ce-Namespace"] = "prod", ["Ce-Component"] = "predictor",
    ["Ce-Endpoint"] = "", ["Ce-Metadata"] = "{}", ["Content-Type"] = "application/json",
  }
end
local function body(kind, id)
  local place = counter % 256 + 1
  if kind == "request" then return '{"id":"' .. id .. '"' .. asked[place] end
  return '{"model_name":"bench","model_version":"1","id":"' .. id .. '"' .. answered[place]
end
local function member(kind, id)
  return '{"specversion":"1.0","id":"' .. id .. '","source":"http://proxy:9081/","type":"org.kubeflow.serving.inference.' ..
    kind .. '","time":"2026-05-01T10:00:00.123456Z","datacontenttype":"application/json","namespace":"prod","inferenceservicename":"bench' ..
    counter % deployments .. '","component":"predictor","requestpath":"/v2/models/bench/infer","requestmethod":"POST","statuscode":"200","latencyms":"1.234","data":' ..
    body(kind, id) .. '}'
end
function request()
  if batch > 1 then
    local members = {}
    for place = 1, batch, 2 do
      counter = counter + 1
      local id = prefix .. counter
      members[place], members[place + 1] = member("request", id), member("response", id)
    end
    return wrk.format("POST", "/", {["Content-Type"] = "application/cloudevents-batch+json"}, "[" .. table.concat(members, ",") .. "]")
  end
  response_half = not response_half
  if response_half then counter = counter + 1 end
  local kind, id = response_half and "request" or "response", prefix .. counter
  return wrk.format("POST", "/", headers(kind, id), body(kind, id))
end
