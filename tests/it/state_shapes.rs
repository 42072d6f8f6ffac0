//! States saved by code whose projection had another shape, and no other `REVISION`: they are folded anew.
//!
//! serde fills in a new field that has a default, and passes over one that is gone. So a saved state once
//! came back with a 0 that folding does not give, and new events were added to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use annals::disk::MemDisk;
use annals::{At, Meta, Projection, Query, Store, Version};
use serde::{Deserialize, Serialize};

use crate::state::{Filled, fill_at_once};
use crate::support::FOREVER;

const MANY: u64 = 40;

/// Two versions of a projection: whether what the first saved may be found by the second.
macro_rules! versions {
    ($($(#[$doc:meta])* $case:ident $is_found:literal:
        $(#[$old_attribute:meta])* { $($old:tt)* } $old_apply:expr;
        $(#[$new_attribute:meta])* { $($new:tt)* } $new_apply:expr;
    )*) => {
        $(
            $(#[$doc])*
            mod $case {
                use super::*;

                #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
                $(#[$old_attribute])*
                pub(super) struct Old { $($old)* }

                impl Projection for Old {
                    type Event = Filled;
                    const NAME: &'static str = "shape";

                    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
                        let apply: fn(&mut Old, u64) = $old_apply;
                        apply(self, number);
                    }
                }

                #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
                $(#[$new_attribute])*
                pub(super) struct New { $($new)* }

                impl Projection for New {
                    type Event = Filled;
                    const NAME: &'static str = "shape";

                    fn apply(&mut self, Filled(number): Filled, _: &Meta<'_>) {
                        let apply: fn(&mut New, u64) = $new_apply;
                        apply(self, number);
                    }
                }
            }
        )*

        const CASES: &[(&str, bool, fn(bool) -> Vec<String>)] =
            &[$((stringify!($case), $is_found, faults::<$case::Old, $case::New>)),*];
    };
}

versions! {
    nothing_changed true:
        { sum: u64, names: BTreeMap<String, Vec<u8>> } |s, n| { s.sum += n; s.names.entry(n.to_string()).or_default().push(1); };
        { sum: u64, names: BTreeMap<String, Vec<u8>> } |s, n| { s.sum += n; s.names.entry(n.to_string()).or_default().push(1); };
    fields_in_another_order true:
        { sum: u64, count: u8 } |s, n| { s.sum += n; s.count += 1; };
        { count: u8, sum: u64 } |s, n| { s.sum += n; s.count += 1; };
    a_newtype_around_a_field true:
        { sum: u64 } |s, n| s.sum += n;
        { sum: Cents } |s, n| s.sum.0 += n;
    in_no_order true:
        { set: HashSet<u64>, map: HashMap<u64, u64> } |s, n| { s.set.insert(n); *s.map.entry(n).or_default() += 1; };
        { set: HashSet<u64>, map: HashMap<u64, u64> } |s, n| { s.set.insert(n); *s.map.entry(n).or_default() += 1; };
    floats true:
        { mean: f64, none: f32 } |s, n| { s.mean += 0.1; s.none = if n == 0 { 0.5 } else { 0.25 }; };
        { mean: f64, none: f32 } |s, n| { s.mean += 0.1; s.none = if n == 0 { 0.5 } else { 0.25 }; };
    /// As it was found.
    added_with_a_default false:
        { sum: u64 } |s, n| s.sum += n;
        { sum: u64, #[serde(default)] count: u64 } |s, n| { s.sum += n; s.count += 1; };
    added_as_an_option false:
        { sum: u64 } |s, n| s.sum += n;
        { sum: u64, last: Option<u64> } |s, n| { s.sum += n; s.last = Some(n); };
    /// While it is 0 the new field is not even written.
    added_and_left_out false:
        { sum: u64 } |s, n| s.sum += n;
        { sum: u64, #[serde(default, skip_serializing_if = "is_zero")] count: u64 } |s, n| { s.sum += n; s.count += 1; };
    added_with_container_default false:
        { sum: u64 } |s, n| s.sum += n;
        #[serde(default)]
        { sum: u64, count: u64 } |s, n| { s.sum += n; s.count += 1; };
    removed false:
        { sum: u64, count: u64 } |s, n| { s.sum += n; s.count += 1; };
        { sum: u64 } |s, n| s.sum += n;
    renamed_with_an_alias false:
        { sum: u64 } |s, n| s.sum += n;
        { #[serde(alias = "sum")] total: u64 } |s, n| s.total += n;
    swapped_with_an_alias false:
        { one: u64, two: u64 } |s, n| { s.one += n; s.two += 1; };
        { #[serde(rename = "two")] one: u64, #[serde(rename = "one")] two: u64, #[serde(default)] more: u8 } |s, n| { s.one += n; s.two += 1; s.more = 1; };
    a_wider_number false:
        { sum: u32 } |s, n| s.sum += u32::try_from(n).unwrap();
        { sum: u64 } |s, n| s.sum += n;
    a_signed_number false:
        { sum: u64 } |s, n| s.sum += n;
        { sum: i64 } |s, n| s.sum -= i64::try_from(n).unwrap();
    no_option_any_more false:
        { last: Option<u64> } |s, n| s.last = Some(n);
        { last: u64 } |s, n| s.last += n;
    a_set_for_a_list true:
        { all: Vec<u64> } |s, n| if !s.all.contains(&n) { s.all.push(n) };
        { all: HashSet<u64> } |s, n| { s.all.insert(n); };
    a_set_for_a_list_with_repeats false:
        { all: Vec<u64> } |s, _| s.all.push(7);
        { all: HashSet<u64> } |s, _| { s.all.insert(7); };
    added_inside_a_list false:
        { items: Vec<Item> } |s, n| s.items.push(Item { number: n });
        { items: Vec<ItemWithCount> } |s, n| s.items.push(ItemWithCount { number: n, count: 1 });
    added_inside_a_map false:
        { items: HashMap<u64, Item> } |s, n| { s.items.insert(n, Item { number: n }); };
        { items: HashMap<u64, ItemWithCount> } |s, n| { s.items.insert(n, ItemWithCount { number: n, count: 1 }); };
    added_inside_flatten false:
        { #[serde(flatten)] item: Item } |s, n| s.item.number += n;
        { #[serde(flatten)] item: ItemWithCount } |s, n| { s.item.number += n; s.item.count += 1; };
    a_variant_renamed_with_an_alias false:
        { level: Level } |s, n| s.level = if n.is_multiple_of(2) { Level::Low } else { Level::High };
        { level: LevelRenamed } |s, n| s.level = if n.is_multiple_of(2) { LevelRenamed::Low } else { LevelRenamed::Top };
    a_variant_that_got_a_field false:
        { level: Option<Filling> } |s, n| s.level = Some(Filling::At { number: n });
        { level: Option<FillingWithCount> } |s, n| s.level = Some(FillingWithCount::At { number: n, count: 5 });
    /// What does not come back was once taken for what it is not.
    lost_on_the_way false:
        { last: Option<Option<u64>> } |s, _| s.last = Some(None);
        { last: Option<Option<u64>> } |s, _| s.last = Some(None);
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cents(u64);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Item {
    number: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ItemWithCount {
    number: u64,
    #[serde(default)]
    count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Level {
    #[default]
    Low,
    High,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum LevelRenamed {
    #[default]
    Low,
    #[serde(alias = "High")]
    Top,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Filling {
    At { number: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum FillingWithCount {
    At {
        number: u64,
        #[serde(default)]
        count: u64,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What folding gives where nothing was saved.
fn folded<P: Projection<Event = Filled>>(store: &Store) -> P {
    store.stream("e").fold(P::default(), |mut state, event| {
        let event = event.unwrap();
        state.apply(event.to().unwrap(), &Meta::of(&event));
        state
    })
}

/// What is wrong with the states that the new code gets after the old code saved its own.
fn faults<Old, New>(is_found: bool) -> Vec<String>
where
    Old: Projection<Event = Filled>,
    New: Projection<Event = Filled> + PartialEq + Debug,
{
    let disk = MemDisk::new();
    let open = || Store::on(disk.clone()).open().unwrap();
    let wait = |store: &Store| store.head().unwrap().position();
    let store = open();
    fill_at_once(&store, "e", MANY);
    store.load::<Old>("e").unwrap();
    let model = store.project::<Old>(Query::all()).unwrap();
    assert!(model.wait_for(wait(&store), FOREVER).unwrap());
    model.stop();
    store.close().unwrap();

    let mut faults = Vec::new();
    let mut expect = |what: &str, is: &New, want: &New| {
        if is != want {
            faults.push(format!("{what} is {is:?}, folded it is {want:?}"));
        }
    };
    let store = open();
    let want = folded::<New>(&store);
    let at = At::Version(Version::from(MANY));
    expect("the past", &store.load_at::<New>("e", at).unwrap(), &want);
    expect("the state", &store.load::<New>("e").unwrap(), &want);
    let model = store.project::<New>(Query::all()).unwrap();
    let position = wait(&store);
    assert!(model.wait_for(position, FOREVER).unwrap());
    expect("the read model", &model.state(), &want);
    fill_at_once(&store, "e", 1);
    let want = folded::<New>(&store);
    assert!(model.wait_for(wait(&store), FOREVER).unwrap());
    expect("the read model with one event more", &model.state(), &want);
    expect("the state with one event more", &store.load::<New>("e").unwrap(), &want);
    let hits = store.stats().cache.disk_hits;
    if (hits == 1) != is_found {
        faults.push(format!("{hits} states were found in the file"));
    }
    faults
}

#[test]
fn a_state_of_another_shape_is_folded_anew() {
    let mut wrong = Vec::new();
    for (case, is_found, faults) in CASES {
        wrong.extend(faults(*is_found).into_iter().map(|fault| format!("{case}: {fault}")));
    }
    assert!(wrong.is_empty(), "{} faults in {} cases:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
    assert_eq!(CASES.len(), 23);
}
