# Nanoseconds for a variable, a clock and a cached token: see run.py.
use v5.32;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../../bindings/recipes/perl";
use AmpToken;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my $times = 100_000;

sub nanoseconds {
    my $work = shift;
    my $start = clock_gettime(CLOCK_MONOTONIC);
    $work->() for 1 .. $times;
    return sprintf '%.1f', (clock_gettime(CLOCK_MONOTONIC) - $start) / $times * 1e9;
}

my $cache = AmpToken->new;
my $variable = $cache->token;
say join ' ', map { nanoseconds($_) } sub { $variable }, sub { clock_gettime(CLOCK_MONOTONIC) }, sub { $cache->token };
