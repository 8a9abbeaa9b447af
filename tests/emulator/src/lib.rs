//! A local server that stands in for Amplience.
