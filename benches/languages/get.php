<?php
// Nanoseconds for a variable, a clock and a cached token: see run.py.
require __DIR__ . '/../../bindings/recipes/php/AmpToken.php';

const TIMES = 100000;

function nanoseconds(callable $work): string
{
    $start = hrtime(true);
    for ($i = 0; $i < TIMES; $i++) {
        $work();
    }
    return sprintf('%.1f', (hrtime(true) - $start) / TIMES);
}

$cache = new AmpToken();
$variable = $cache->token();
echo nanoseconds(fn () => $variable), ' ', nanoseconds(fn () => hrtime(true)), ' ', nanoseconds(fn () => $cache->token()), "\n";
