//! Threads of the store's own: a signal to sleep on, and a background thread that runs jobs.

mod background;
mod signal;

pub(crate) use background::{BackgroundThread, Job, once};
pub(crate) use signal::Signal;
