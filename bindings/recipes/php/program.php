<?php
// Four workers that each serve a page view, as those of php-fpm do, a request and an error.
class_exists('AmpToken') || require __DIR__ . '/AmpToken.php'; // it may be preloaded

function view(): array { $cache = new AmpToken(['store' => 'file']); return [$cache->token(), $cache->stat('requests')]; }

[$token, $requests] = view();
for ($worker = 1; $worker <= 4; $worker++) {
    if (pcntl_fork() === 0) {
        exit(view() === [$token, 0] ? 0 : 1);
    }
}
for ($same = 0; pcntl_wait($status) > 0;) {
    $same += $status === 0;
}
echo "$same of 4 workers have the token of the store, $requests request\n";
$cache = new AmpToken();
$context = stream_context_create(['http' => ['header' => 'Authorization: Bearer ' . $cache->token()]]);
$hubs = json_decode(file_get_contents($cache->apiUrl() . '/v2/content/hubs', false, $context));
echo "GET /v2/content/hubs: {$hubs->page->totalElements} hubs\n";
try {
    (new AmpToken(['client_secret' => 'wrong']))->token();
} catch (AmpTokenError $e) {
    echo "$e->status: {$e->getMessage()}\n";
}
