# Amplience access tokens in Ruby: the C interface by Fiddle, which is a part of Ruby.
require 'fiddle/import'

module AmpToken
  extend Fiddle::Importer
  dlload 'libamp_token.so.0'
  extern 'void *amp_config_new()'
  extern 'int amp_config_set(void *, char *, char *, void *)'
  extern 'int amp_config_load(void *, void *)'
  extern 'void amp_config_free(void *)'
  extern 'int amp_token_cache_new(void *, void *, void *)'
  extern 'int amp_token_cache_copy(void *, char *, size_t, void *, void *)'
  extern 'char *amp_token_cache_api_url(void *)'
  extern 'long long amp_token_cache_stat(void *, char *)'
  FREE_CACHE = extern 'void amp_token_cache_free(void *)'
  extern 'char *amp_status_name(int)'
  extern 'char *amp_error_message(void *)'
  extern 'int amp_error_is_retryable(void *)' # a bool of the library fills an int
  FREE_ERROR = extern 'void amp_error_free(void *)'

  class Error < StandardError
    attr_reader :status, :object # the object is an amp_error, which is freed with this exception

    def initialize(status, object)
      @status, @object = AmpToken.amp_status_name(status).to_s, Fiddle::Pointer.new(object.to_i, 0, FREE_ERROR)
      super(AmpToken.amp_error_message(object).to_s.force_encoding('UTF-8'))
    end
  end

  def self.place = Fiddle::Pointer.malloc(8, Fiddle::RUBY_FREE) # for an output of a C function

  def self.check(function, *arguments)
    error = (Thread.current[:AmpTokenError] ||= place)
    status = public_send(function, *arguments, error)
    raise Error.new(status, error.ptr) unless status.zero?
  end

  class Cache # threads and forked processes share it; freed by the garbage collector
    def initialize(**settings) # the others are read from the environment
      config = AmpToken.amp_config_new
      settings.each { |name, value| AmpToken.check(:amp_config_set, config, name.to_s, value.to_s) }
      AmpToken.check(:amp_config_load, config)
      AmpToken.check(:amp_token_cache_new, config, place = AmpToken.place)
      @handle = Fiddle::Pointer.new(place.ptr.to_i, 0, FREE_CACHE)
    ensure
      AmpToken.amp_config_free(config)
    end

    def token # to be called for each request
      buffer = (Thread.current[:AmpTokenBuffer] ||= Fiddle::Pointer.malloc(4096, Fiddle::RUBY_FREE))
      AmpToken.check(:amp_token_cache_copy, @handle, buffer, 4096, nil)
      buffer.to_s
    end

    def headers = { 'Authorization' => "Bearer #{token}" }
    def api_url = AmpToken.amp_token_cache_api_url(@handle).to_s
    def stat(name) = AmpToken.amp_token_cache_stat(@handle, name)
    attr_reader :handle
  end
end
