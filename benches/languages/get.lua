-- Nanoseconds for a variable, a clock and a cached token: see run.py.
local directory = arg[0]:match '^(.*)/' .. '/'
package.path = directory .. '../../bindings/recipes/luajit/?.lua;' .. package.path
local ffi = require 'ffi'
local amp_token = require 'amp_token'
ffi.cdef 'typedef struct { long seconds, nanoseconds; } bench_time; int clock_gettime(int, bench_time *);'

local TIMES = 300000
local time = ffi.new 'bench_time'

local function now()
  ffi.C.clock_gettime(1, time) -- CLOCK_MONOTONIC
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

used = nil -- a global, so that no work is removed as useless

local function nanoseconds(work)
  local start = now()
  for _ = 1, TIMES do used = work() end
  return ('%.1f'):format((now() - start) / TIMES * 1e9)
end

local cache = amp_token.new()
variable = cache:token()
print(nanoseconds(function() return variable end), nanoseconds(now), nanoseconds(function() return cache:token() end))
