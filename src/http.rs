//! stub
use crate::error::{Error, Kind, Result};
use crate::transport::{Request, Response, Transport};
/// stub
pub struct HttpTransport;
impl HttpTransport {
    /// stub
    pub fn new(_: &crate::settings::Network) -> Result<Self> {
        Ok(HttpTransport)
    }
}
impl Transport for HttpTransport {
    fn send(&self, _: &Request, _: std::time::Duration) -> Result<Response> {
        Err(Error::new(Kind::Internal, "stub"))
    }
}
