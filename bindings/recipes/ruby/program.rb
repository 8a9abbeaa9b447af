# Threads, a forked process, a request and an error.
require 'net/http'
require_relative 'amp_token'

cache = AmpToken::Cache.new(timeout_ms: 10_000)
tokens = 8.times.map { Thread.new { cache.token } }.map(&:value).uniq
puts "8 threads: #{tokens.size} token, #{cache.stat('requests')} request"
Process.wait(fork { puts "a forked process: #{cache.token == tokens[0] ? 'the same token' : 'another token'}" })
puts "GET /v2/content/hubs: #{Net::HTTP.get_response(URI(cache.api_url + '/v2/content/hubs'), cache.headers).code}"
begin
  AmpToken::Cache.new(client_secret: 'wrong').token
rescue AmpToken::Error => e
  puts "#{e.status}: #{e.message}"
end
