//! The bodies of requests and responses, with their limits.

use super::listener::Busy;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use prometheus::IntGauge;
use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A body of any kind.
pub type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that fails if nothing of it arrives for some time.
pub struct Timed<B> {
    inner: B,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    /// Counts the request as in progress until the body has ended.
    _in_flight: Option<InFlight>,
}

impl<B> Timed<B> {
    pub fn new(inner: B, idle: Duration, in_flight: Option<InFlight>) -> Self {
        Timed { inner, idle, sleep: Box::pin(sleep(idle)), _in_flight: in_flight }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Timed<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(frame) => {
                let next = Instant::now() + self.idle;
                self.sleep.as_mut().reset(next);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if self.sleep.as_mut().poll(context).is_ready() => {
                let message = format!("nothing of a body arrived for {} s", self.idle.as_secs());
                Poll::Ready(Some(Err(message.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why the body of a request could not be passed on: the client's doing.
#[derive(Debug)]
pub struct RequestBodyError(pub BoxError);

impl std::fmt::Display for RequestBodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the body of the request is not complete: {}", self.0)
    }
}

impl StdError for RequestBodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

/// A body that begins with bytes that were read from it before.
pub struct Resumed<B> {
    pub start: Option<Bytes>,
    pub rest: B,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Resumed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.start.take() {
            Some(start) => Poll::Ready(Some(Ok(Frame::data(start)))),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.start.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, start) = (self.rest.size_hint(), self.start.as_ref().map_or(0, |start| start.len() as u64));
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + start);
        }
        hint.set_lower(rest.lower() + start);
        hint
    }
}

/// A request in progress, and its connection.
pub struct InFlight {
    gauge: IntGauge,
    _busy: Busy,
}

impl InFlight {
    pub fn begin(gauge: &IntGauge, busy: Busy) -> Self {
        gauge.inc();
        InFlight { gauge: gauge.clone(), _busy: busy }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
