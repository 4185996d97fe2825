-- Requests and responses of inferences as KServe's agent sends them: V2 JSON, one row of 20 features.
local thread_number = 0
function setup(thread) thread:set("number", thread_number); thread_number = thread_number + 1 end
function init(args)
  counter = 0
  prefix = (args[1] or "w") .. "-" .. number .. "-"
  deployments = tonumber(args[2] or "1")
  response_half = false
  math.randomseed(number + 7)
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
function request()
  if response_half then
    response_half = false
    local id = prefix .. counter
    local body = '{"model_name":"bench","model_version":"1","id":"' .. id ..
      '","outputs":[{"name":"y","shape":[1],"datatype":"FP64","data":[' .. total .. ']}]}'
    return wrk.format("POST", "/", headers("response", id), body)
  end
  counter = counter + 1
  response_half = true
  local id = prefix .. counter
  local values = {}
  total = 0
  for i = 1, 20 do
    local v = math.random(0, 9999) / 1000
    values[i] = v
    total = total + v
  end
  local body = '{"id":"' .. id .. '","inputs":[{"name":"x","shape":[1,20],"datatype":"FP64","data":[' ..
    table.concat(values, ",") .. ']}]}'
  return wrk.format("POST", "/", headers("request", id), body)
end
