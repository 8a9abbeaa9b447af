# The conformance runner of the Perl recipe: ../README.md describes the commands and answers.
use v5.32;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../../../bindings/recipes/perl";
use AmpToken;
use FFI::Platypus;

my $ffi = FFI::Platypus->new(api => 2, lib => 'libamp_token.so.0');
$ffi->attach(@$_) for
    ['amp_token_cache_get', ['opaque', 'opaque*', 'opaque*'], 'int'],
    ['amp_token_cache_get_for', ['opaque', 'sint64', 'opaque*', 'opaque*'], 'int'],
    ['amp_token_cache_report', ['opaque', 'opaque', 'sint32', 'string', 'size_t'], 'bool'],
    ['amp_token_cache_invalidate', ['opaque', 'opaque'], 'void'],
    ['amp_token_value', ['opaque'], 'string'],
    ['amp_token_expires_in', ['opaque'], 'sint64'],
    ['amp_token_free', ['opaque'], 'void'],
    ['amp_error_status', ['opaque'], 'int'],
    ['amp_error_http_status', ['opaque'], 'sint32'],
    ['amp_error_is_retryable', ['opaque'], 'bool'],
    ['amp_error_retry_after_ms', ['opaque'], 'sint64'],
    ['amp_error_oauth_code', ['opaque'], 'string'],
    ['amp_error_free', ['opaque'], 'void'];

$| = 1;
my ($cache, $token);

# The recipe's exception has no more than a program needs, so failed calls are answered from the error itself.
sub answer {
    my ($status, $result, $error) = @_;
    if ($status == 0) {
        amp_token_free($token) if defined $token;
        $token = $result;
        return 'AMP_OK ' . amp_token_value($token);
    }
    my @words = (AmpToken::amp_status_name($status), amp_error_http_status($error), amp_error_is_retryable($error) ? 'true' : 'false');
    push @words, amp_error_retry_after_ms($error), amp_error_oauth_code($error) // '-';
    amp_error_free($error);
    return "@words";
}

sub get {
    my $handle = $cache ? $$cache : undef;
    my ($result, $error);
    my $status = @_
        ? amp_token_cache_get_for($handle, $_[0], \$result, \$error)
        : amp_token_cache_get($handle, \$result, \$error);
    return answer($status, $result, $error);
}

sub run {
    my ($command, $rest) = @_;
    if ($command eq 'open') {
        $cache = eval { AmpToken->new(map { split /=/, $_, 2 } split ' ', $rest) };
        return $cache ? 'AMP_OK' : "$@->{status} 0 " . ($@->{retryable} ? 'true' : 'false') . ' -1 -';
    }
    return $rest eq '' ? get() : get($rest) if $command eq 'get';
    return 'AMP_OK ' . amp_token_value($token) if $command eq 'token';
    return amp_token_expires_in($token) if $command eq 'expires_in';
    if ($command eq 'report') {
        my ($status, $body) = split / /, "$rest ", 2;
        chop $body;
        return amp_token_cache_report($$cache, $token, $status, $body, length $body) ? 'true' : 'false';
    }
    return amp_token_cache_invalidate($$cache, $token) // 'AMP_OK' if $command eq 'invalidate';
    return $cache->stat($rest) if $command eq 'stat';
    if ($command eq 'close') {
        undef $cache;
        return 'AMP_OK';
    }
    if ($command eq 'fork') {
        my $child = fork;
        if ($child == 0) {
            say get();
            require POSIX;
            POSIX::_exit(0);
        }
        waitpid $child, 0;
        return undef;
    }
    return 'unsupported'; # a thread of Perl cannot share a cache
}

while (my $line = <STDIN>) {
    chomp $line;
    my ($command, $rest) = split / /, $line, 2;
    my $answer = run($command, $rest // '');
    say $answer if defined $answer;
}
