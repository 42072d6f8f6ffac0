//! For the tests of those who build on annals.
//!
//! Row: app.
