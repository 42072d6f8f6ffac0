//! Partitioned consumption.
//!
//! Row: app.
