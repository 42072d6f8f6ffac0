//! What `#[derive(DomainEvent)]` refuses, and what it says to write instead.

use annals::DomainEvent;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
enum NoPrefix {
    Opened,
}

#[derive(Serialize, Deserialize, DomainEvent)]
struct NoKind;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
struct PrefixOfStruct;

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account.")]
enum DottedPrefix {
    Opened,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "$account")]
enum SystemPrefix {
    Opened,
}

#[derive(Serialize, Deserialize, DomainEvent)]
enum BadKinds {
    #[event(kind = "")]
    Empty,
    #[event(kind = "line\nfeed")]
    Control,
    #[event(kind = "$consumer.acked")]
    System,
    #[event(kind = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
    Long,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum SameKinds {
    HTTPDone,
    #[event(kind = "account.http_done")]
    Other,
    #[event(alias = "account.other_too")]
    Alias,
    OtherToo,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum Versions {
    #[event(version = 0)]
    Zero,
    #[event(version = 70000)]
    Many,
    #[event(version = 3, upcast(1 = "one"))]
    Hole,
    #[event(upcast(1 = "one"))]
    NothingOld,
    #[event(version = 2, upcast(1 = "one", 2 = "two"))]
    NotOld,
    #[event(version = 2, upcast(1 = "one", 1 = "two"))]
    Twice,
    #[event(version = 2, version = 3)]
    SaidTwice,
    #[event(version = 2, upcast(1 = "not a path"))]
    NoPath,
    #[event(version = 2, upcast(1 = one))]
    NoQuotes,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum Aliases {
    #[event(alias(kind = "account.created", upcast(1 = "one")))]
    NoTarget,
    #[event(alias(kind = "account.begun", upcast(1 = "one"), to = 2))]
    NoSuchTarget,
    #[event(alias(kind = "account.started", to = 1))]
    NoUpcaster,
    #[event(alias(kind = "account.initiated", upcast(2 = "two"), to = 1))]
    NoFirst,
    #[event(alias(upcast(1 = "one"), to = 1))]
    NoKind,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account", version = 2)]
enum Misplaced {
    #[event(prefix = "other")]
    Opened,
    #[event(name = "account.closed")]
    Closed {
        #[event(kind = "x")]
        field: u8,
    },
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
#[serde(tag = "type")]
enum Tagged {
    Opened,
}

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "account")]
enum Variants {
    #[serde(skip)]
    Skipped,
    #[serde(other)]
    Other,
}

#[derive(Serialize, DomainEvent)]
#[event(prefix = "account")]
enum Borrowed<'a> {
    Opened(&'a str),
}

#[derive(DomainEvent)]
#[event(prefix = "account")]
enum Nothing {}

#[derive(Clone, Copy, DomainEvent)]
#[event(kind = "account.opened")]
union Union {
    bits: u64,
}

#[derive(DomainEvent)]
#[event(kind = "\u{a0}\u{200b}")]
struct Unseen;

fn main() {}
