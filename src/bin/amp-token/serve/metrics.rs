//! What is counted, in the text format of Prometheus.
//!
//! The statistics of the token are those of the library ([`STATISTICS`]), under the same names with `amp_token_` before
//! them, so that they mean the same as `amp_token_cache_stat` in a program. What only a server has is added here. Nothing
//! of it is about one client, and no label is chosen by a client: the number of series has a bound.

use amp_token::error::Error;
use amp_token::token::cache::{STATISTICS, TokenCache};
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TEXT_FORMAT,
    TextEncoder,
};

/// The media type of the text.
pub const CONTENT_TYPE: &str = TEXT_FORMAT;

/// The limits of the buckets of a refresh, in seconds. A request to the service usually takes 0.1 to 1 s, and the service
/// ends one after 10 s; 30 s is the default of `timeout_ms`.
const REFRESH_BUCKETS: [f64; 10] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The statistics of the library that only grow; the others are gauges.
const COUNTERS: [&str; 6] = ["hits", "waits", "refreshes", "failures", "requests", "invalidations"];

/// All metrics.
pub struct Metrics {
    registry: Registry,
    /// By endpoint and HTTP status.
    requests: IntCounterVec,
    /// By class of the API's status: `2xx`, or `error` if there was no response.
    proxied: IntCounterVec,
    /// By status of the library, as `AMP_TIMEOUT`.
    refresh_failures: IntCounterVec,
    refresh_duration: Histogram,
    /// Requests in progress, with the bodies of their responses.
    pub in_flight: IntGauge,
    /// Open connections of clients.
    pub connections: IntGauge,
    /// Requests of the proxy that were repeated with another token.
    pub repeated: IntCounter,
    seconds_left: Gauge,
    counters: Vec<(&'static str, IntCounter)>,
    gauges: Vec<(&'static str, IntGauge)>,
}

impl Metrics {
    /// Everything at zero. A metric that is named twice is an error of this module, and a test calls this.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let add = |metric: Box<dyn prometheus::core::Collector>| registry.register(metric);
        let vector = |name: &str, help: &str, labels: &[&str]| {
            let vector = IntCounterVec::new(Opts::new(name, help), labels)?;
            add(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            add(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            add(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let refresh_duration = Histogram::with_opts(
            HistogramOpts::new("amp_token_refresh_duration_seconds", "how long successful requests for a token took")
                .buckets(REFRESH_BUCKETS.to_vec()),
        )?;
        add(Box::new(refresh_duration.clone()))?;
        let seconds_left = Gauge::new("amp_token_seconds_left", "seconds until the token expires; -1: there is none")?;
        add(Box::new(seconds_left.clone()))?;
        let (mut counters, mut gauges) = (Vec::new(), Vec::new());
        for (name, help) in STATISTICS {
            if COUNTERS.contains(name) {
                counters.push((*name, counter(&format!("amp_token_{name}_total"), help)?));
            } else {
                gauges.push((*name, gauge(&format!("amp_token_{name}"), help)?));
            }
        }
        Ok(Metrics {
            requests: vector("amp_token_serve_requests_total", "requests of clients", &["endpoint", "status"])?,
            proxied: vector("amp_token_serve_proxied_total", "responses of the API, by class of status", &["class"])?,
            refresh_failures: vector(
                "amp_token_refresh_failures_total",
                "failed attempts to fetch a token, by status of the library",
                &["status"],
            )?,
            in_flight: gauge("amp_token_serve_in_flight", "requests in progress, with the bodies of their responses")?,
            connections: gauge("amp_token_serve_connections", "open connections of clients")?,
            repeated: counter("amp_token_serve_repeated_total", "requests that were sent again with another token")?,
            refresh_duration,
            seconds_left,
            counters,
            gauges,
            registry,
        })
    }

    /// Counts a request of a client.
    pub fn request(&self, endpoint: &str, status: u16) {
        self.requests.with_label_values(&[endpoint, &status.to_string()]).inc();
    }

    /// Counts a response of the API; `None` if there was none.
    pub fn proxied(&self, status: Option<u16>) {
        let class = match status.map(|status| status / 100) {
            Some(1) => "1xx",
            Some(2) => "2xx",
            Some(3) => "3xx",
            Some(4) => "4xx",
            Some(_) => "5xx",
            None => "error",
        };
        self.proxied.with_label_values(&[class]).inc();
    }

    /// Counts a failed attempt to get a token.
    pub fn refresh_failed(&self, error: &Error) {
        self.refresh_failures.with_label_values(&[error.kind().name()]).inc();
    }

    /// Records a successful one.
    pub fn refreshed(&self, cache: &TokenCache) {
        if let Some(milliseconds) = cache.statistic("last_refresh_ms").filter(|duration| *duration >= 0) {
            self.refresh_duration.observe(milliseconds as f64 / 1000.0);
        }
    }

    /// All metrics as text.
    pub fn text(&self, cache: &TokenCache) -> Result<Vec<u8>, prometheus::Error> {
        for (name, counter) in &self.counters {
            let now = u64::try_from(cache.statistic(name).unwrap_or(0)).unwrap_or(0);
            counter.inc_by(now.saturating_sub(counter.get()));
        }
        for (name, gauge) in &self.gauges {
            gauge.set(cache.statistic(name).unwrap_or(-1));
        }
        self.seconds_left.set(match cache.statistic("expires_in").unwrap_or(-1) {
            // A personal access token.
            i64::MAX => f64::INFINITY,
            seconds => seconds as f64,
        });
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amp_token::error::Kind;

    #[test]
    fn statuses_are_named_as_in_the_header() {
        let header = include_str!("../../../../include/amp_token.h");
        for kind in [
            Kind::InvalidArgument,
            Kind::Config,
            Kind::NoCredentials,
            Kind::CredentialsRejected,
            Kind::Resolve,
            Kind::Connect,
            Kind::Tls,
            Kind::Proxy,
            Kind::Timeout,
            Kind::RateLimited,
            Kind::Server,
            Kind::Protocol,
            Kind::Io,
            Kind::BufferTooSmall,
            Kind::Pending,
            Kind::Internal,
        ] {
            assert!(header.contains(&format!("{} = {},", kind.name(), kind.number())), "{kind:?}");
        }
        assert!(Metrics::new().is_ok());
    }
}
