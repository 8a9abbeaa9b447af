# Amplience access tokens in Perl: the C interface by FFI::Platypus (Debian: libffi-platypus-perl).
package AmpToken;
use v5.32;
use warnings;
use FFI::Platypus 2.00;

my $ffi = FFI::Platypus->new(api => 2, lib => 'libamp_token.so.0');
$ffi->attach(@$_) for
    ['amp_config_new', [], 'opaque'],
    ['amp_config_set', ['opaque', 'string', 'string', 'opaque*'], 'int'],
    ['amp_config_load', ['opaque', 'opaque*'], 'int'],
    ['amp_config_free', ['opaque'], 'void'],
    ['amp_token_cache_new', ['opaque', 'opaque*', 'opaque*'], 'int'],
    ['amp_token_cache_get', ['opaque', 'opaque*', 'opaque*'], 'int'],
    ['amp_token_cache_api_url', ['opaque'], 'string'],
    ['amp_token_cache_stat', ['opaque', 'string'], 'sint64'],
    ['amp_token_cache_free', ['opaque'], 'void'],
    ['amp_token_value', ['opaque'], 'string'],
    ['amp_token_free', ['opaque'], 'void'],
    ['amp_status_name', ['int'], 'string'],
    ['amp_error_message', ['opaque'], 'string'],
    ['amp_error_is_retryable', ['opaque'], 'bool'],
    ['amp_error_free', ['opaque'], 'void'];

sub check { # calls a function whose last parameter is the error, and dies with a hash that describes it
    my $function = shift;
    my $status = $function->(@_, \my $error) or return;
    my %failure = (status => amp_status_name($status), message => amp_error_message($error));
    $failure{retryable} = amp_error_is_retryable($error);
    amp_error_free($error);
    die \%failure;
}

sub new { # settings that are not given are read from the environment
    my ($class, %settings) = @_;
    my $config = amp_config_new();
    my $done = eval {
        check(\&amp_config_set, $config, $_, $settings{$_}) for keys %settings;
        check(\&amp_config_load, $config);
        check(\&amp_token_cache_new, $config, \my $cache);
        $cache;
    };
    amp_config_free($config);
    return $done ? bless(\$done, $class) : die $@;
}

sub token { # to be called for each request
    check(\&amp_token_cache_get, ${ $_[0] }, \my $handle);
    my $value = amp_token_value($handle);
    amp_token_free($handle);
    $value;
}

sub headers { return { Authorization => 'Bearer ' . $_[0]->token } }
sub api_url { return amp_token_cache_api_url(${ $_[0] }) }
sub stat    { return amp_token_cache_stat(${ $_[0] }, $_[1]) }
sub DESTROY { amp_token_cache_free(${ $_[0] }) }
sub CLONE_SKIP { 1 } # a new thread of Perl gets undef in place of a second owner
1;
