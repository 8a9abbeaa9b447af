# Nanoseconds for a variable, a clock and a cached token: see run.py.
require_relative '../../bindings/recipes/ruby/amp_token'

TIMES = 100_000
clock = Process::CLOCK_MONOTONIC

nanoseconds = lambda do |work|
  start = Process.clock_gettime(clock)
  TIMES.times { work.call }
  ((Process.clock_gettime(clock) - start) / TIMES * 1e9).round(1)
end

cache = AmpToken::Cache.new
variable = cache.token
puts [-> { variable }, -> { Process.clock_gettime(clock) }, -> { cache.token }].map(&nanoseconds).join(' ')
