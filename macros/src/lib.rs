//! The derive macro of annals. Use it through the `annals` crate: `use annals::DomainEvent;` brings the
//! trait, whose documentation lists every attribute, and the macro of the same name.
//!
//! `parse` reads attributes into a model and says what is wrong with them, all at once; `names` knows what a
//! kind may be called; `emit` writes the code. Nothing else of a program is looked at: what a payload looks
//! like is between the type and serde.

mod emit;
mod names;
mod parse;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum or a struct an event type: see the trait of the same name in `annals`.
#[proc_macro_derive(DomainEvent, attributes(event))]
pub fn derive_domain_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    match parse::events(&input) {
        Ok(events) => emit::code(&events).into(),
        Err(errors) => errors.into_compile_error().into(),
    }
}
