//! A value as serde shows it, so that two of them can be compared field by field.
//!
//! Maps are in the order of their keys, so that it makes no difference in which order a `HashMap` gives its entries.
//! Row: app.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::event::codec;
use crate::types::{Error, ErrorKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Nothing,
    Truth(bool),
    Natural(u64),
    Integer(i64),
    /// By its bits: what is not a number is equal to itself here.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    /// By what the path to an entry ends with.
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    pub(super) fn of<T: Serialize + ?Sized>(value: &T) -> Result<Tree, Error> {
        let mut bytes = Vec::new();
        let failed = |error: String| {
            let name = std::any::type_name::<T>();
            Error::new(ErrorKind::Invalid, format!("{name} does not encode: {error}"))
        };
        codec::encode_unread(value, &mut bytes).map_err(|error| failed(error.to_string()))?;
        codec::decode(&bytes).map_err(|error| failed(error.to_string()))
    }

    /// What a path to an entry with this key ends with.
    fn step(&self) -> String {
        let is_plain = |name: &str| {
            !name.is_empty() && name.chars().all(|sign| sign.is_alphanumeric() || matches!(sign, '_' | '-'))
        };
        match self {
            Tree::Text(name) if is_plain(name) => format!(".{name}"),
            other => format!("[{other}]"),
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Nothing => f.write_str("nothing"),
            Tree::Truth(value) => value.fmt(f),
            Tree::Natural(value) => value.fmt(f),
            Tree::Integer(value) => value.fmt(f),
            Tree::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Tree::Text(value) => write!(f, "{value:?}"),
            Tree::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Tree::List(items) => {
                f.write_str("[")?;
                separated(f, items.iter(), |f, item| item.fmt(f))?;
                f.write_str("]")
            }
            Tree::Map(entries) => {
                f.write_str("{")?;
                separated(f, entries.iter(), |f, (step, value)| {
                    write!(f, "{}: {value}", step.strip_prefix('.').unwrap_or(step))
                })?;
                f.write_str("}")
            }
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
    mut show: impl FnMut(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (place, item) in items.enumerate() {
        if place > 0 {
            f.write_str(", ")?;
        }
        show(f, item)?;
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(Grow)
    }
}

struct Grow;

impl<'de> Visitor<'de> for Grow {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Truth(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::Integer(value), Tree::Natural))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Natural(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value.to_bits()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Bytes(value.to_vec()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<Tree, Tree>()? {
            map.insert(key.step(), value);
        }
        Ok(Tree::Map(map))
    }
}
