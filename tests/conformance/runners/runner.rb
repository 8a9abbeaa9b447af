# The conformance runner of the Ruby recipe: ../README.md describes the commands and answers.
require_relative '../../../bindings/recipes/ruby/amp_token'

module AmpToken
  extern 'int amp_token_cache_get(void *, void *, void *)'
  extern 'int amp_token_cache_get_for(void *, long long, void *, void *)'
  extern 'int amp_token_cache_report(void *, void *, int, void *, size_t)'
  extern 'void amp_token_cache_invalidate(void *, void *)'
  extern 'char *amp_token_value(void *)'
  extern 'long long amp_token_expires_in(void *)'
  FREE_TOKEN = extern 'void amp_token_free(void *)'
  extern 'int amp_error_http_status(void *)'
  extern 'long long amp_error_retry_after_ms(void *)'
  extern 'char *amp_error_oauth_code(void *)'
end

$stdout.sync = true
cache = token = started = nil

fetch = lambda do |name, *arguments|
  AmpToken.check(name, cache&.handle, *arguments, place = AmpToken.place)
  Fiddle::Pointer.new(place.ptr.to_i, 0, AmpToken::FREE_TOKEN)
end

attempt = lambda do |&call|
  result = call.call
  next 'AMP_OK' unless result.is_a?(Fiddle::Pointer)
  token = result
  "AMP_OK #{AmpToken.amp_token_value(result)}"
rescue AmpToken::Error => e
  code = AmpToken.amp_error_oauth_code(e.object)
  retryable = AmpToken.amp_error_is_retryable(e.object) != 0
  [e.status, AmpToken.amp_error_http_status(e.object), retryable, AmpToken.amp_error_retry_after_ms(e.object), code.null? ? '-' : code.to_s].join(' ')
end

get = -> { attempt.call { fetch.call(:amp_token_cache_get) } }

while (line = gets)
  command, rest = line.chomp.split(' ', 2)
  answer = case command
           when 'open'
             attempt.call do
               cache = AmpToken::Cache.new(**rest.to_s.split.to_h { |one| one.split('=', 2) }.transform_keys(&:to_sym))
               nil
             end
           when 'get' then rest ? attempt.call { fetch.call(:amp_token_cache_get_for, rest.to_i) } : get.call
           when 'threads'
             answers = rest.to_i.times.map { Thread.new { get.call } }.map(&:value)
             answers.find { |answer| !answer.start_with?('AMP_OK ') } || "AMP_OK #{answers.uniq.size}"
           when 'fork'
             Process.wait(fork do
               puts get.call
               exit!(0)
             end)
             next
           when 'start'
             started = Thread.new { get.call }
             'AMP_OK'
           when 'join' then started.value
           when 'token' then "AMP_OK #{AmpToken.amp_token_value(token)}"
           when 'expires_in' then AmpToken.amp_token_expires_in(token)
           when 'report'
             status, body = rest.split(' ', 2)
             AmpToken.amp_token_cache_report(cache.handle, token, status.to_i, body.to_s, body.to_s.bytesize) != 0
           when 'invalidate' then attempt.call { AmpToken.amp_token_cache_invalidate(cache.handle, token) }
           when 'stat' then cache.stat(rest)
           when 'close' # the garbage collector frees the cache when no call has it
             cache = nil
             'AMP_OK'
           else 'unsupported'
           end
  puts answer
end
exit!(0) # exit would wait for a call that start began
