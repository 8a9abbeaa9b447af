# Forked workers, as in a prefork server, a request and an error.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use AmpToken;
use HTTP::Tiny;

my $cache = AmpToken->new(timeout_ms => 10_000);
my $token = $cache->token;
for my $worker (1 .. 4) {
    next if fork;
    exit($cache->token eq $token ? 0 : 1);
}
my $same = 0;
while ((my $worker = wait) > 0) { $same++ if $? == 0 }
print "$same of 4 workers have the same token, ", $cache->stat('requests'), " request\n";
my $response = HTTP::Tiny->new->get($cache->api_url . '/v2/content/hubs', { headers => $cache->headers });
print "GET /v2/content/hubs: $response->{status}\n";
eval { AmpToken->new(client_secret => 'wrong')->token };
print "$@->{status}: $@->{message}\n";
