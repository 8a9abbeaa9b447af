//! The built-in HTTP client, in the simulator: the world answers.

use super::transport::{Request, Response, Transport};
use crate::config::NetworkOptions;
use crate::error::Result;
use crate::sys::simulation;
use std::time::Duration;

/// Sends requests to the simulated service.
pub struct HttpTransport;

impl HttpTransport {
    /// Reads nothing.
    pub fn new(_: &NetworkOptions) -> Result<Self> {
        Ok(HttpTransport)
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: &Request, timeout: Duration) -> Result<Response> {
        simulation::world().send(request, timeout)
    }
}
