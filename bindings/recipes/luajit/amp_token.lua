-- Amplience access tokens in LuaJIT: its FFI reads the declarations of the C interface.
local ffi = require 'ffi'

local declarations = assert(io.open(os.getenv 'AMP_TOKEN_I' or '/usr/include/amp_token.i'))
ffi.cdef(declarations:read '*a')
declarations:close()
local C = ffi.load 'libamp_token.so.0'

-- Where the functions put an error. A state of Lua has one thread.
local err = ffi.new 'amp_error *[1]'
local describe = { __tostring = function(self) return self.status .. ': ' .. self.message end }

-- Raises a table that describes the error, unless the status is that of success.
local function check(status)
  if status == C.AMP_OK then return end
  local object = ffi.gc(err[0], C.amp_error_free)
  error(setmetatable({
    status = ffi.string(C.amp_status_name(tonumber(ffi.cast('int', status)))),
    message = ffi.string(C.amp_error_message(object)),
    retryable = C.amp_error_is_retryable(object),
  }, describe), 0)
end

local Cache = {}
Cache.__index = Cache

-- The settings that are not given are read from the environment. Forked processes share the object.
local function new(settings)
  local config = ffi.gc(C.amp_config_new(), C.amp_config_free)
  for name, value in pairs(settings or {}) do check(C.amp_config_set(config, name, tostring(value), err)) end
  check(C.amp_config_load(config, err))
  local cache = ffi.new 'amp_token_cache *[1]'
  check(C.amp_token_cache_new(config, cache, err))
  return setmetatable({
    handle = ffi.gc(cache[0], C.amp_token_cache_free),
    buffer = ffi.new 'char[4096]',
    length = ffi.new 'size_t[1]',
  }, Cache)
end

function Cache:token() -- to be called for each request
  check(C.amp_token_cache_copy(self.handle, self.buffer, 4096, self.length, err))
  return ffi.string(self.buffer, self.length[0])
end

function Cache:stat(name) return tonumber(C.amp_token_cache_stat(self.handle, name)) end

function Cache:request(method, path) -- returns the status and the body
  local response, length = ffi.new 'amp_response *[1]', ffi.new 'size_t[1]'
  check(C.amp_api_request(self.handle, method, path, nil, nil, 0, response, err))
  local owned = ffi.gc(response[0], C.amp_response_free)
  local body = C.amp_response_body(owned, length)
  return C.amp_response_status(owned), ffi.string(body or '', length[0])
end

return { new = new, C = C, check = check, err = err }
