<?php // Amplience access tokens in PHP: its FFI reads the declarations of the C interface.

class AmpTokenError extends RuntimeException
{
    public string $status; // the name, such as AMP_TIMEOUT
    public bool $retryable;
}

class AmpToken
{
    private static ?FFI $library = null;
    private FFI\CData $cache;

    public static function library(): FFI
    {
        try {
            return self::$library ??= FFI::scope('AMP_TOKEN'); // of ffi.preload
        } catch (FFI\Exception) { // without it: for the command line
            $declarations = file_get_contents(getenv('AMP_TOKEN_I') ?: '/usr/include/amp_token.i');
            return self::$library = FFI::cdef($declarations, 'libamp_token.so.0');
        }
    }

    public function __construct(array $settings = []) // those that are not given are read from the environment
    {
        $config = self::library()->amp_config_new();
        try {
            foreach ($settings as $name => $value) {
                self::check('amp_config_set', $config, $name, (string) $value);
            }
            self::check('amp_config_load', $config);
            $this->cache = self::$library->new('amp_token_cache *');
            self::check('amp_token_cache_new', $config, FFI::addr($this->cache));
        } finally {
            self::$library->amp_config_free($config);
        }
    }

    public function token(): string // to be called for each request
    {
        $buffer = self::$library->new('char[4096]');
        self::check('amp_token_cache_copy', $this->cache, $buffer, 4096, null);
        return FFI::string($buffer);
    }

    public function apiUrl(): string { return self::$library->amp_token_cache_api_url($this->cache); }
    public function stat(string $name): int { return self::$library->amp_token_cache_stat($this->cache, $name); }
    public function __destruct() { self::$library->amp_token_cache_free($this->cache); }

    public static function check(string $function, mixed ...$arguments): void // throws the error, its last parameter
    {
        $error = self::library()->new('amp_error *');
        $status = self::$library->$function(...[...$arguments, FFI::addr($error)]);
        if ($status !== 0) {
            $failure = new AmpTokenError(self::$library->amp_error_message($error));
            $failure->status = self::$library->amp_status_name($status);
            $failure->retryable = self::$library->amp_error_is_retryable($error);
            self::$library->amp_error_free($error);
            throw $failure;
        }
    }
}
