//! A deserializer that invents the values it is asked for. So a type can be inspected without a value of it.
//!
//! At each step serde says which type it wants next, and the deserializer gives a number, a text, one
//! element, one variant. If the try fails, the plan changes (`plan.rs`), and the next try goes another way.
//! Types that accept certain values only (an e-mail address) may fail all tries; then the test gives a
//! sample.

use serde::de::value::{BorrowedStrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::plan::{ANYTHING, Anything, FailureReason, InventFailure, InventionPlan, TEXTS, TryProgress};

/// The most tries for one value.
const TRIES_MAX: usize = 2000;
/// The most values of one type.
const VALUES_MAX: usize = 64;

/// Invents values until each variant of each enum inside was met. `variant` is the variant of the event, if
/// the event type is an enum. The error is that of the last try.
pub(super) fn invent_values<E: DeserializeOwned>(variant: Option<u32>) -> Result<Vec<E>, String> {
    let mut found = Vec::new();
    let mut plan = InventionPlan::default();
    let mut nothing_new = 0;
    loop {
        let met = plan.met.len();
        found.push(invent_value(variant, &mut plan)?);
        nothing_new = if plan.met.len() > met { 0 } else { nothing_new + 1 };
        if nothing_new >= plan.variants_max || found.len() == VALUES_MAX {
            return Ok(found);
        }
    }
}

fn invent_value<E: DeserializeOwned>(variant: Option<u32>, plan: &mut InventionPlan) -> Result<E, String> {
    let mut tries = 0;
    loop {
        let mut inventor = Inventor::new(plan.clone(), variant);
        match E::deserialize(&mut inventor) {
            Ok(value) => {
                *plan = inventor.plan;
                plan.empty.clear();
                plan.texts.clear();
                return Ok(value);
            }
            Err(failure) => {
                tries += 1;
                if tries == TRIES_MAX || !plan.learn(&failure, &inventor.progress) {
                    return Err(failure.text);
                }
            }
        }
    }
}

/// One try.
struct Inventor {
    plan: InventionPlan,
    progress: TryProgress,
    /// The variant of the event, until it was asked for.
    event: Option<u32>,
    /// The names of the types that are being made.
    open: Vec<&'static str>,
    /// The number of options, lists and maps so far.
    points: usize,
    /// The index of the map's key that is asked for. Taken if the key is asked for as a name.
    key: Option<usize>,
    /// The index into [`ANYTHING`] for the value of a flattened field.
    anything: Option<usize>,
}

impl Inventor {
    fn new(plan: InventionPlan, event: Option<u32>) -> Inventor {
        Inventor {
            plan,
            progress: TryProgress::default(),
            event,
            open: Vec::new(),
            points: 0,
            key: None,
            anything: None,
        }
    }

    fn text(&mut self) -> &'static str {
        let text = self.plan.texts.get(&self.progress.texts).copied().unwrap_or_default();
        self.progress.texts += 1;
        TEXTS[text]
    }

    /// Whether the next option, list or map is filled. If so, its number stays in `inside` until it is done.
    fn fills(&mut self) -> bool {
        let point = self.points;
        self.points += 1;
        let fills = !self.plan.empty.contains(&point);
        if fills {
            self.progress.inside.push(point);
        }
        fills
    }

    fn times_open(&self, name: &str) -> usize {
        self.open.iter().filter(|open| **open == name).count()
    }
}

macro_rules! one {
    ($($name:ident $visit:ident $value:expr;)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Inventor {
    type Error = InventFailure;

    /// As for payloads.
    fn is_human_readable(&self) -> bool {
        true
    }

    one! {
        deserialize_bool visit_bool true;
        deserialize_i8 visit_i8 1;
        deserialize_i16 visit_i16 1;
        deserialize_i32 visit_i32 1;
        deserialize_i64 visit_i64 1;
        deserialize_i128 visit_i128 1;
        deserialize_u8 visit_u8 1;
        deserialize_u16 visit_u16 1;
        deserialize_u32 visit_u32 1;
        deserialize_u64 visit_u64 1;
        deserialize_u128 visit_u128 1;
        deserialize_f32 visit_f32 1.5;
        deserialize_f64 visit_f64 1.5;
        deserialize_char visit_char 'a';
        // As many bytes as a UUID has.
        deserialize_bytes visit_bytes &[7; 16];
        deserialize_byte_buf visit_byte_buf vec![7; 16];
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        match ANYTHING[self.anything.unwrap_or(self.plan.anything)] {
            Anything::Number => visitor.visit_u64(1),
            Anything::Text => visitor.visit_borrowed_str(self.text()),
            Anything::Flag => visitor.visit_bool(true),
            Anything::List => visitor.visit_seq(InventedElements { inventor: self, left: 0 }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        if !self.fills() {
            return visitor.visit_none();
        }
        let value = visitor.visit_some(&mut *self)?;
        self.progress.inside.pop();
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        if !self.fills() {
            return visitor.visit_seq(InventedElements { inventor: self, left: 0 });
        }
        let value = visitor.visit_seq(InventedElements { inventor: self, left: 1 })?;
        self.progress.inside.pop();
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        visitor.visit_seq(InventedElements { inventor: self, left: length })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        visitor.visit_seq(InventedElements { inventor: self, left: length })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        let entries = usize::from(self.fills());
        let value = visitor.visit_map(InventedEntries { inventor: self, at: 0, entries, by_name: false })?;
        if entries > 0 {
            self.progress.inside.pop();
        }
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        if self.times_open(name) > 1 {
            return Err(InventFailure {
                text: format!("{name} holds itself without end"),
                reason: FailureReason::EndlessStruct,
            });
        }
        self.open.push(name);
        let value = visitor.visit_map(InventedFields { inventor: self, name, fields: fields.iter() })?;
        self.open.pop();
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        let pick = match (self.event.take(), self.times_open(name)) {
            (Some(number), _) => VariantPick::Number(number),
            (None, 0) => {
                let visits = self.plan.visits.entry(name).or_default();
                let pick = *visits % variants.len().max(1);
                *visits += 1;
                self.plan.met.insert((name, pick));
                self.plan.variants_max = self.plan.variants_max.max(variants.len());
                VariantPick::Name(variants.get(pick).copied().unwrap_or_default())
            }
            (None, 1) => {
                let pick = self.plan.inner_variant.get(name).copied().unwrap_or_default();
                VariantPick::Name(variants.get(pick).copied().unwrap_or_default())
            }
            (None, _) => {
                let text = format!("{name} holds itself without end");
                return Err(InventFailure { text, reason: FailureReason::EndlessEnum(name, variants.len()) });
            }
        };
        self.open.push(name);
        let value = visitor.visit_enum(InventedVariant { inventor: self, pick })?;
        self.open.pop();
        Ok(value)
    }

    /// The keys of a struct into which another one is flattened.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, InventFailure> {
        let Some(at) = self.key.take() else { return visitor.visit_borrowed_str(self.text()) };
        self.progress.is_flattening = true;
        visitor.visit_borrowed_str(self.plan.flattened.get(at).map_or("any", |(name, _)| name))
    }
}

struct InventedElements<'a> {
    inventor: &'a mut Inventor,
    left: usize,
}

impl<'de> SeqAccess<'de> for InventedElements<'_> {
    type Error = InventFailure;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, InventFailure> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.inventor).map(Some)
    }
}

/// The entries of a map: one; or all known fields of flattened structs, if keys are asked for as names.
struct InventedEntries<'a> {
    inventor: &'a mut Inventor,
    at: usize,
    entries: usize,
    by_name: bool,
}

impl<'de> MapAccess<'de> for InventedEntries<'_> {
    type Error = InventFailure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, InventFailure> {
        let entries = if self.by_name { self.inventor.plan.flattened.len() } else { self.entries };
        if self.at >= entries {
            return Ok(None);
        }
        self.inventor.key = Some(self.at);
        let key = seed.deserialize(&mut *self.inventor)?;
        self.by_name = self.inventor.key.take().is_none();
        self.at += 1;
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, InventFailure> {
        let known = self.inventor.plan.flattened.get(self.at - 1).filter(|_| self.by_name);
        self.inventor.anything = known.map(|(_, anything)| *anything);
        let value = seed.deserialize(&mut *self.inventor)?;
        self.inventor.anything = None;
        Ok(value)
    }
}

struct InventedFields<'a> {
    inventor: &'a mut Inventor,
    name: &'static str,
    fields: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for InventedFields<'_> {
    type Error = InventFailure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, InventFailure> {
        let second_names = &self.inventor.plan.second_names;
        let Some(field) = self.fields.find(|field| !second_names.contains(&(self.name, field))) else {
            return Ok(None);
        };
        self.inventor.progress.field = Some((self.name, field));
        seed.deserialize(BorrowedStrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, InventFailure> {
        seed.deserialize(&mut *self.inventor)
    }
}

enum VariantPick {
    Number(u32),
    Name(&'static str),
}

struct InventedVariant<'a> {
    inventor: &'a mut Inventor,
    pick: VariantPick,
}

impl<'de> EnumAccess<'de> for InventedVariant<'_> {
    type Error = InventFailure;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), InventFailure> {
        let variant = match self.pick {
            VariantPick::Number(number) => {
                let number: U32Deserializer<InventFailure> = number.into_deserializer();
                seed.deserialize(number)?
            }
            VariantPick::Name(name) => seed.deserialize(BorrowedStrDeserializer::new(name))?,
        };
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for InventedVariant<'_> {
    type Error = InventFailure;

    fn unit_variant(self) -> Result<(), InventFailure> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, InventFailure> {
        seed.deserialize(self.inventor)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, InventFailure> {
        self.inventor.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, InventFailure> {
        visitor.visit_map(InventedFields { inventor: self.inventor, name: "", fields: fields.iter() })
    }
}
