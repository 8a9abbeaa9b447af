-- A forked worker, as in nginx and OpenResty, a request and an error.
local ffi = require 'ffi'
local amp_token = require 'amp_token'
ffi.cdef 'int fork(void); int waitpid(int, int *, int); void _exit(int);'

local cache = amp_token.new { timeout_ms = 10000 }
local token = cache:token()
local worker = ffi.C.fork()
if worker == 0 then ffi.C._exit(cache:token() == token and 0 or 1) end
local status = ffi.new 'int[1]'
ffi.C.waitpid(worker, status, 0)
print('a forked worker: ' .. (status[0] == 0 and 'the same token' or 'another token') .. ', ' .. cache:stat 'requests' .. ' request')
print('GET /v2/content/hubs: ' .. cache:request('GET', '/v2/content/hubs'))
local _, failure = pcall(function() return amp_token.new { client_secret = 'wrong' }:token() end)
print(failure)
