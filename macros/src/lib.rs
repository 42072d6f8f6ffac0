//! The derive macro of annals. Use it through the `annals` crate: `use annals::DomainEvent;` imports the
//! macro and the trait of the same name, whose documentation lists every attribute.
//!
//! `parse` reads the attributes into a model, and reports all errors in them at once. `names` checks the
//! names of kinds. `emit` writes the code. The macro reads no fields: serde alone decides the form of a
//! payload.

mod emit;
mod names;
mod parse;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum or a struct an event type; see the trait of the same name in `annals`.
#[proc_macro_derive(DomainEvent, attributes(event))]
pub fn derive_domain_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    match parse::events(&input) {
        Ok(events) => emit::code(&events).into(),
        Err(errors) => errors.into_compile_error().into(),
    }
}
