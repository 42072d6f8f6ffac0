//! A deserializer that invents what it is asked for, so that a type can be looked at without a value of it.
//!
//! serde says which type it wants next; that gets a number, a text, one element, one variant. What cannot be known in
//! advance is tried: a run that fails leaves behind what was learnt from it (`Plan`), and the next one goes
//! another way. Types that take only some values (an e-mail address) may end all tries; then the
//! test gives a sample.
//! Row: app.

use serde::de::value::{BorrowedStrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::plan::{ANYTHING, Anything, Failure, Plan, TEXTS, Why};

/// So many tries for one value, and so many values for one type.
const TRIES_MAX: usize = 2000;
const VALUES_MAX: usize = 64;

/// Invents values until every variant of every enum inside was met. `variant` is that of the event, if
/// it is an enum. An error is the last try's.
pub(super) fn values<E: DeserializeOwned>(variant: Option<u32>) -> Result<Vec<E>, String> {
    let mut found = Vec::new();
    let mut plan = Plan::default();
    let mut nothing_new = 0;
    loop {
        let met = plan.met.len();
        found.push(value(variant, &mut plan)?);
        nothing_new = if plan.met.len() > met { 0 } else { nothing_new + 1 };
        if nothing_new >= plan.variants_max || found.len() == VALUES_MAX {
            return Ok(found);
        }
    }
}

fn value<E: DeserializeOwned>(variant: Option<u32>, plan: &mut Plan) -> Result<E, String> {
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
                if tries == TRIES_MAX || !plan.learn(&failure, &inventor) {
                    return Err(failure.text);
                }
            }
        }
    }
}

/// One run.
pub(super) struct Inventor {
    plan: Plan,
    /// The variant of the event, until it was asked for.
    event: Option<u32>,
    /// How many texts were asked for.
    pub(super) texts: usize,
    /// The types that are being made, by name.
    open: Vec<&'static str>,
    /// How many options, lists and maps there were, and those that are being filled.
    points: usize,
    pub(super) inside: Vec<usize>,
    /// The field of a struct that was asked for last.
    pub(super) field: Option<(&'static str, &'static str)>,
    /// The key of a map is asked for, the how manyth; taken if it is asked for as a name.
    key: Option<usize>,
    pub(super) is_flattening: bool,
    /// What the value behind a name gets if its type takes anything.
    anything: Option<usize>,
}

impl Inventor {
    fn new(plan: Plan, event: Option<u32>) -> Inventor {
        Inventor {
            plan,
            event,
            texts: 0,
            open: Vec::new(),
            points: 0,
            inside: Vec::new(),
            field: None,
            key: None,
            is_flattening: false,
            anything: None,
        }
    }

    fn text(&mut self) -> &'static str {
        let text = self.plan.texts.get(&self.texts).copied().unwrap_or_default();
        self.texts += 1;
        TEXTS[text]
    }

    /// Whether the next option, list or map holds something; if so it is open until `close`.
    fn fills(&mut self) -> bool {
        let point = self.points;
        self.points += 1;
        let fills = !self.plan.empty.contains(&point);
        if fills {
            self.inside.push(point);
        }
        fills
    }

    fn times_open(&self, name: &str) -> usize {
        self.open.iter().filter(|open| **open == name).count()
    }
}

macro_rules! one {
    ($($name:ident $visit:ident $value:expr;)*) => {
        $(fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for &mut Inventor {
    type Error = Failure;

    /// As payloads are.
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
        // As many as a UUID has.
        deserialize_bytes visit_bytes &[7; 16];
        deserialize_byte_buf visit_byte_buf vec![7; 16];
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_borrowed_str(self.text())
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match ANYTHING[self.anything.unwrap_or(self.plan.anything)] {
            Anything::Number => visitor.visit_u64(1),
            Anything::Text => visitor.visit_borrowed_str(self.text()),
            Anything::Flag => visitor.visit_bool(true),
            Anything::List => visitor.visit_seq(Elements { inventor: self, left: 0 }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if !self.fills() {
            return visitor.visit_none();
        }
        let value = visitor.visit_some(&mut *self)?;
        self.inside.pop();
        Ok(value)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if !self.fills() {
            return visitor.visit_seq(Elements { inventor: self, left: 0 });
        }
        let value = visitor.visit_seq(Elements { inventor: self, left: 1 })?;
        self.inside.pop();
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(Elements { inventor: self, left: length })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_seq(Elements { inventor: self, left: length })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let entries = usize::from(self.fills());
        let value = visitor.visit_map(Entries { inventor: self, at: 0, entries, by_name: false })?;
        if entries > 0 {
            self.inside.pop();
        }
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if self.times_open(name) > 1 {
            return Err(Failure {
                text: format!("{name} holds itself without end"),
                why: Why::EndlessStruct,
            });
        }
        self.open.push(name);
        let value = visitor.visit_map(Fields { inventor: self, name, fields: fields.iter() })?;
        self.open.pop();
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let pick = match (self.event.take(), self.times_open(name)) {
            (Some(number), _) => Pick::Number(number),
            (None, 0) => {
                let visits = self.plan.visits.entry(name).or_default();
                let pick = *visits % variants.len().max(1);
                *visits += 1;
                self.plan.met.insert((name, pick));
                self.plan.variants_max = self.plan.variants_max.max(variants.len());
                Pick::Name(variants.get(pick).copied().unwrap_or_default())
            }
            (None, 1) => {
                let pick = self.plan.inner_variant.get(name).copied().unwrap_or_default();
                Pick::Name(variants.get(pick).copied().unwrap_or_default())
            }
            (None, _) => {
                let text = format!("{name} holds itself without end");
                return Err(Failure { text, why: Why::EndlessEnum(name, variants.len()) });
            }
        };
        self.open.push(name);
        let value = visitor.visit_enum(Choice { inventor: self, pick })?;
        self.open.pop();
        Ok(value)
    }

    /// Keys of a struct into which another is flattened.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let Some(at) = self.key.take() else { return visitor.visit_borrowed_str(self.text()) };
        self.is_flattening = true;
        visitor.visit_borrowed_str(self.plan.flattened.get(at).map_or("any", |(name, _)| name))
    }
}

struct Elements<'a> {
    inventor: &'a mut Inventor,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.inventor).map(Some)
    }
}

/// One entry; or as many as fields of flattened structs are known, if keys are asked for as names.
struct Entries<'a> {
    inventor: &'a mut Inventor,
    at: usize,
    entries: usize,
    by_name: bool,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
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

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let known = self.inventor.plan.flattened.get(self.at - 1).filter(|_| self.by_name);
        self.inventor.anything = known.map(|(_, anything)| *anything);
        let value = seed.deserialize(&mut *self.inventor)?;
        self.inventor.anything = None;
        Ok(value)
    }
}

struct Fields<'a> {
    inventor: &'a mut Inventor,
    name: &'static str,
    fields: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let second_names = &self.inventor.plan.second_names;
        let Some(field) = self.fields.find(|field| !second_names.contains(&(self.name, field))) else {
            return Ok(None);
        };
        self.inventor.field = Some((self.name, field));
        seed.deserialize(BorrowedStrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(&mut *self.inventor)
    }
}

enum Pick {
    Number(u32),
    Name(&'static str),
}

struct Choice<'a> {
    inventor: &'a mut Inventor,
    pick: Pick,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Failure> {
        let variant = match self.pick {
            Pick::Number(number) => {
                let number: U32Deserializer<Failure> = number.into_deserializer();
                seed.deserialize(number)?
            }
            Pick::Name(name) => seed.deserialize(BorrowedStrDeserializer::new(name))?,
        };
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failure> {
        seed.deserialize(self.inventor)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Failure> {
        self.inventor.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_map(Fields { inventor: self.inventor, name: "", fields: fields.iter() })
    }
}
