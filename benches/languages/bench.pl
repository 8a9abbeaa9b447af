# As bench.c, in Perl.
use v5.32;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../../bindings/recipes/perl";
use AmpToken;
use List::Util 'min';
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my ($count, $cache) = ($ENV{COUNT}, AmpToken->new);
my ($kept, $until) = ($cache->token, clock_gettime(CLOCK_MONOTONIC) + 3600);
my $value;

sub best_of {
    my $work = shift;
    return min map {
        my $start = clock_gettime(CLOCK_MONOTONIC);
        $work->();
        (clock_gettime(CLOCK_MONOTONIC) - $start) / $count * 1e9;
    } 1 .. 7;
}

my $get = best_of(sub { for (1 .. $count) { $value = $cache->token } });
my $plain = best_of(sub { for (1 .. $count) { $value = $kept if clock_gettime(CLOCK_MONOTONIC) < $until } });
printf "%.1f %.1f\n", $get, $plain;
