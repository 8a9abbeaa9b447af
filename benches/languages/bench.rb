# As bench.c, in Ruby.
require_relative '../../bindings/recipes/ruby/amp_token'

count = Integer(ENV.fetch('COUNT'))
cache = AmpToken::Cache.new
kept = cache.token
now = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
until_ = now.call + 3600
clock = Process::CLOCK_MONOTONIC

best_of = lambda do |&work|
  7.times.map do
    start = now.call
    work.call
    (now.call - start) / count * 1e9
  end.min
end

get = best_of.call { count.times { cache.token } }
plain = best_of.call { count.times { kept if Process.clock_gettime(clock) < until_ } }
puts format('%.1f %.1f', get, plain)
