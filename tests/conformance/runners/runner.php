<?php
// The conformance runner of the PHP recipe: ../README.md describes the commands and answers.
require __DIR__ . '/../../../bindings/recipes/php/AmpToken.php';

$ffi = AmpToken::library();
$cache = $token = null;

/** The native handle of a cache, which the recipe keeps to itself. */
function handle(?AmpToken $cache): ?FFI\CData
{
    return $cache === null ? null : Closure::bind(fn () => $this->cache, $cache, AmpToken::class)();
}

function get(?int $milliseconds = null): string
{
    global $ffi, $cache, $token;
    [$result, $error] = [$ffi->new('amp_token *'), $ffi->new('amp_error *')];
    $status = $milliseconds === null
        ? $ffi->amp_token_cache_get(handle($cache), FFI::addr($result), FFI::addr($error))
        : $ffi->amp_token_cache_get_for(handle($cache), $milliseconds, FFI::addr($result), FFI::addr($error));
    if ($status === 0) {
        $ffi->amp_token_free($token);
        $token = $result;
        return 'AMP_OK ' . $ffi->amp_token_value($token);
    }
    $answer = implode(' ', [
        $ffi->amp_status_name($status),
        $ffi->amp_error_http_status($error),
        $ffi->amp_error_is_retryable($error) ? 'true' : 'false',
        $ffi->amp_error_retry_after_ms($error),
        $ffi->amp_error_oauth_code($error) ?? '-',
    ]);
    $ffi->amp_error_free($error);
    return $answer;
}

function run(string $command, string $rest): ?string
{
    global $ffi, $cache, $token;
    switch ($command) {
        case 'open':
            $settings = [];
            foreach (array_filter(explode(' ', $rest)) as $setting) {
                [$name, $value] = explode('=', $setting, 2);
                $settings[$name] = $value;
            }
            try {
                $cache = new AmpToken($settings);
                return 'AMP_OK';
            } catch (AmpTokenError $e) {
                return "$e->status 0 " . ($e->retryable ? 'true' : 'false') . ' -1 -';
            }
        case 'get':
            return $rest === '' ? get() : get((int) $rest);
        case 'fork':
            $child = pcntl_fork();
            if ($child === 0) {
                echo get(), "\n";
                exit(0);
            }
            pcntl_waitpid($child, $status);
            return null;
        case 'token':
            return 'AMP_OK ' . $ffi->amp_token_value($token);
        case 'expires_in':
            return (string) $ffi->amp_token_expires_in($token);
        case 'report':
            [$status, $body] = explode(' ', "$rest ", 2);
            $body = substr($body, 0, -1);
            $bytes = $ffi->new('char[' . (strlen($body) + 1) . ']');
            FFI::memcpy($bytes, $body . "\0", strlen($body) + 1);
            return $ffi->amp_token_cache_report(handle($cache), $token, (int) $status, $bytes, strlen($body)) ? 'true' : 'false';
        case 'invalidate':
            $ffi->amp_token_cache_invalidate(handle($cache), $token);
            return 'AMP_OK';
        case 'stat':
            return (string) $cache->stat($rest);
        case 'close':
            $cache = null;
            return 'AMP_OK';
        default:
            return 'unsupported'; // PHP has no threads
    }
}

while (($line = fgets(STDIN)) !== false) {
    [$command, $rest] = explode(' ', rtrim($line, "\n") . ' ', 2);
    $answer = run($command, rtrim($rest, ' '));
    if ($answer !== null) {
        echo $answer, "\n";
    }
}
