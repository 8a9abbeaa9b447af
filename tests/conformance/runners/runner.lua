-- The conformance runner of the LuaJIT recipe: ../README.md describes the commands and answers.
local directory = arg[0]:match '^(.*)/' .. '/'
package.path = directory .. '../../../bindings/recipes/luajit/?.lua;' .. package.path
local ffi = require 'ffi'
local amp_token = require 'amp_token'
ffi.cdef 'int fork(void); int waitpid(int, int *, int); void _exit(int);'

local C = amp_token.C
local err, out = ffi.new 'amp_error *[1]', ffi.new 'amp_token *[1]'
local cache, token

local function text(pointer, default) return pointer == nil and default or ffi.string(pointer) end

local function answer(status)
  if status == C.AMP_OK then
    token = ffi.gc(out[0], C.amp_token_free)
    return 'AMP_OK ' .. ffi.string(C.amp_token_value(token))
  end
  local object = ffi.gc(err[0], C.amp_error_free)
  return table.concat({
    ffi.string(C.amp_status_name(tonumber(ffi.cast('int', status)))),
    C.amp_error_http_status(object),
    tostring(C.amp_error_is_retryable(object)),
    tonumber(C.amp_error_retry_after_ms(object)),
    text(C.amp_error_oauth_code(object), '-'),
  }, ' ')
end

local function get() return answer(C.amp_token_cache_get(cache and cache.handle, out, err)) end

local commands = {}

function commands.open(rest)
  local settings = {}
  for name, value in rest:gmatch '([^ =]+)=([^ ]*)' do settings[name] = value end
  local done, result = pcall(amp_token.new, settings)
  if done then cache = result return 'AMP_OK' end
  return result.status .. ' 0 ' .. tostring(result.retryable) .. ' -1 -'
end

function commands.get(rest)
  return rest == '' and get() or answer(C.amp_token_cache_get_for(cache and cache.handle, tonumber(rest), out, err))
end

function commands.fork()
  local child = ffi.C.fork()
  if child == 0 then
    print(get())
    io.flush()
    ffi.C._exit(0)
  end
  ffi.C.waitpid(child, nil, 0)
end

function commands.token() return 'AMP_OK ' .. ffi.string(C.amp_token_value(token)) end
function commands.expires_in() return tonumber(C.amp_token_expires_in(token)) end
function commands.stat(rest) return cache:stat(rest) end

function commands.report(rest)
  local status, body = rest:match '^(%d+) ?(.*)$'
  return tostring(C.amp_token_cache_report(cache.handle, token, tonumber(status), body, #body))
end

function commands.invalidate()
  C.amp_token_cache_invalidate(cache.handle, token)
  return 'AMP_OK'
end

function commands.close()
  C.amp_token_cache_free(ffi.gc(cache.handle, nil))
  cache = nil
  return 'AMP_OK'
end

for line in io.lines() do
  local command, rest = line:match '^(%S+) ?(.*)$'
  local answer = not commands[command] and 'unsupported' or commands[command](rest)
  if answer then print(answer) end
  io.flush()
end
