//! Empty, because cargo wants a package to have more than a benchmark: see `benches/cache.rs`.
