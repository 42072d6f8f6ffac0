//! Encodes an append into the request that the writer gets: checks, records, hashes and the checksum.
//!
//! All work per byte is done here, on the caller's thread. The writer only copies the result.

use std::collections::HashSet;
use std::time::Instant;

use parking_lot::Mutex;

use crate::engine::decide::{KeyHash, LookedUp, StreamTarget};
use crate::format::{
    BODY_BYTES_MAX, BodyLayout, Hash, NewRecord, RecordFields, body_content, padded_body_bytes, record,
};
use crate::types::{
    Cause, DEFAULT_SCOPE, Durability, Error, ErrorKind, EventId, Expected, Limits, Position, is_system,
};

use super::draft::{AppendDraft, CommandHash, Conditions, NewEvent};

/// An encoded append, as the writer gets it.
pub(crate) struct Request {
    pub(crate) targets: Vec<StreamTarget>,
    /// The target of each event; empty if there is only one target.
    pub(crate) target_of: Vec<u16>,
    pub(crate) events: u16,
    /// How many events at the end are system events. The receipt does not show them.
    pub(crate) system_events: u16,
    /// How many events at the end record that gates were bypassed. A retry may have other ones.
    pub(crate) bypass_events: u16,
    pub(crate) key: Option<KeyHash>,
    /// The command that a retry with this key must repeat.
    pub(crate) command: Option<CommandHash>,
    /// How far the caller has looked, and what it found of the key. Each target has its own head.
    pub(crate) known: LookedUp,
    /// `None` for most appends.
    pub(crate) conditions: Option<Box<Conditions>>,
    /// `None` for most appends.
    pub(crate) brought: Option<Box<Brought>>,
    pub(crate) durability: Option<Durability>,
    /// When a sampled append was encoded. To time each would cost a good part of encoding.
    pub(crate) encoded_at: Option<Instant>,
    pub(crate) body: Vec<u8>,
    pub(crate) content: Hash,
}

impl Request {
    /// How many records the body has, and whether they have room for versions.
    pub(crate) fn layout(&self) -> BodyLayout {
        BodyLayout { events: self.events, has_versions: self.targets.len() > 1 }
    }
}

/// The foreign ids of an append. No other event may have one of them.
pub(crate) struct Brought {
    /// Each id with the index of its event, in the order of the events.
    pub(crate) ids: Vec<(u16, EventId)>,
    /// The position up to which the caller looked for the ids.
    pub(crate) looked_up_to: Position,
    /// The first id that an event already has, and the event's position.
    pub(crate) taken: Option<(EventId, Position)>,
}

impl AppendDraft {
    /// Checks the append against the limits, and encodes it.
    pub(super) fn encode(self, limits: &Limits, salts: &Salts) -> Result<Request, Error> {
        self.check_targets_used()?;
        self.check_sizes(limits)?;
        let command = self.key_and_command()?;
        let mut body = Vec::with_capacity(self.bytes.len() + 128 * self.count());
        let mut contents = Vec::with_capacity(self.count());
        let layout = BodyLayout { events: narrow(self.count()), has_versions: self.targets.len() > 1 };
        for event in self.all() {
            let start = body.len();
            self.write_record(event, &mut body, layout)?;
            // Only the first record of the append carries the trace of the command.
            let command = command.as_ref().filter(|_| start == 0);
            contents.push(seal_record(event, &mut body, start, layout, salts, command));
        }
        body.resize(padded_body_bytes(body.len(), self.key.is_some(), layout.events), 0);
        if body.len() > BODY_BYTES_MAX {
            return Err(Error::too_large("the append", body.len(), "the format", BODY_BYTES_MAX));
        }
        let brought = self.brought()?;
        let target_of = match self.targets.len() {
            1 => Vec::new(),
            _ => self.all().map(|event| narrow(event.target)).collect(),
        };
        Ok(Request {
            events: layout.events,
            system_events: narrow(self.system.len()),
            bypass_events: self.bypass_events,
            targets: self.targets,
            target_of,
            key: self.key,
            command: self.command,
            known: LookedUp::default(),
            conditions: self.conditions,
            durability: self.durability,
            encoded_at: is_sampled(&body, layout).then(Instant::now),
            brought,
            content: body_content(&contents),
            body,
        })
    }

    /// Refuses an entity that has neither an event nor an expectation.
    fn check_targets_used(&self) -> Result<(), Error> {
        if self.targets.len() == 1 && self.count() > 0 {
            return Ok(());
        }
        let mut used = vec![false; self.targets.len()];
        self.all().for_each(|event| used[event.target] = true);
        match (0..used.len()).find(|at| !used[*at] && self.targets[*at].expected == Expected::Any) {
            _ if self.count() == 0 => Err(Error::invalid("the append has no event; add one")),
            Some(at) => Err(Error::invalid(format!(
                "{} gets no event in this append; add one",
                self.targets[at].entity
            ))),
            None => Ok(()),
        }
    }

    fn check_sizes(&self, limits: &Limits) -> Result<(), Error> {
        let count = self.count().max(self.targets.len());
        if count > limits.events_per_append_max {
            let max = limits.events_per_append_max;
            let text = format!(
                "the append has {count} events, more than the {max} that events_per_append_max allows"
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        // System events must not fail for a limit that was set for the user's events.
        for target in self.targets.iter().filter(|target| !is_system(&target.entity)) {
            check_size("the entity", target.entity.len(), "entity_bytes_max", limits.entity_bytes_max)?;
        }
        for event in &self.events {
            let attributes = event.attributes();
            let scope_bytes = event.scope.as_deref().map_or(0, str::len);
            check_size("the scope", scope_bytes, "scope_bytes_max", limits.scope_bytes_max)?;
            check_size("the kind", event.kind.len(), "kind_bytes_max", limits.kind_bytes_max)?;
            for tag in record::tags(&attributes.tags) {
                check_size("a tag", tag.len(), "tag_bytes_max", limits.tag_bytes_max)?;
            }
            if attributes.tag_count > limits.tags_max {
                let text = format!(
                    "the event has {} tags, more than the {} that tags_max allows",
                    attributes.tag_count, limits.tags_max
                );
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
            let private = event.payload.len() + attributes.metadata.len();
            check_size("the payload", private, "payload_bytes_max", limits.payload_bytes_max)?;
            self.check_cause(event)?;
        }
        Ok(())
    }

    fn check_cause(&self, event: &NewEvent) -> Result<(), Error> {
        match event.attributes().cause {
            Some(Cause::InAppend(index)) if usize::from(index) >= self.numbered() => Err(Error::invalid(
                format!("the cause is event {index} of an append that has {}", self.numbered()),
            )),
            _ => Ok(()),
        }
    }

    /// The key and the command, if the append has both.
    fn key_and_command(&self) -> Result<Option<(KeyHash, CommandHash)>, Error> {
        match (self.key, self.command) {
            (None, Some(_)) => {
                Err(Error::invalid("the append has a command and no idempotency key; give it a key, too"))
            }
            (key, command) => Ok(key.zip(command)),
        }
    }

    /// The foreign ids of the events; `None` if there are none.
    fn brought(&self) -> Result<Option<Box<Brought>>, Error> {
        let ids = self.all().map(|event| event.attributes().foreign_id).zip(0..);
        let ids: Vec<(u16, EventId)> = ids.filter_map(|(id, index)| Some((index, id?))).collect();
        let mut known = HashSet::with_capacity(ids.len());
        match ids.iter().find(|(_, id)| !known.insert(*id)) {
            Some((_, id)) => Err(Error::invalid(format!(
                "two events of the append bring the id {id} along; an id names one event, so give one of them another"
            ))),
            None if ids.is_empty() => Ok(None),
            None => Ok(Some(Box::new(Brought { ids, looked_up_to: Position::START, taken: None }))),
        }
    }

    fn write_record(&self, event: &NewEvent, body: &mut Vec<u8>, layout: BodyLayout) -> Result<(), Error> {
        let attributes = event.attributes();
        let new = NewRecord {
            fields: RecordFields {
                schema_version: event.schema_version,
                entity: &self.targets[event.target].entity,
                scope: event.scope.as_deref().filter(|scope| *scope != DEFAULT_SCOPE).unwrap_or_default(),
                kind: self.kind(event),
                tag_bytes: &attributes.tags,
                correlation: attributes.correlation,
                occurred_at: attributes.occurred_at,
                foreign_id: attributes.foreign_id,
                cause: attributes.cause,
                has_metadata: !attributes.metadata.is_empty(),
            },
            metadata: &attributes.metadata,
            payload: &self.bytes[event.payload.clone()],
        };
        record::write(body, &new, layout.has_versions)
            .map_err(|long| Error::too_large(long.what, long.bytes, "the format", long.max))
    }
}

/// Fills in salt and checksum of the record at `start`. Returns the content hash, which goes into the chain.
fn seal_record(
    event: &NewEvent,
    body: &mut Vec<u8>,
    start: usize,
    layout: BodyLayout,
    salts: &Salts,
    command: Option<&(KeyHash, CommandHash)>,
) -> Hash {
    if let Some(hash) = &event.attributes().erased {
        record::leave_hash(body, start, layout, hash);
        record::seal(&mut body[start..]);
        return record::read(body, start, layout).expect("written just before").content();
    }
    let salt = record::salt_place(body, start, layout);
    salts.fill(&mut body[salt.clone()]);
    if let Some((key, command)) = command {
        command.sign(key, &mut body[salt]);
    }
    record::seal(&mut body[start..]);
    record::content(&body[start..], layout)
}

/// One append in sixteen, by its first random byte.
fn is_sampled(body: &[u8], layout: BodyLayout) -> bool {
    body.get(record::salt_place(body, 0, layout).start).is_some_and(|random| *random < 16)
}

fn check_size(what: &str, size: usize, limit: &str, max: usize) -> Result<(), Error> {
    if size > max { Err(Error::too_large(what, size, limit, max)) } else { Ok(()) }
}

/// A number of events or targets, checked against `events_per_append_max`.
fn narrow(count: usize) -> u16 {
    u16::try_from(count).expect("checked against 65,535")
}

/// Random bytes for the salts of records.
///
/// A salt keeps an erased payload from being guessed from its hash. The bytes are the output of BLAKE3, keyed
/// with randomness of the disk, and made some pages at a time: that makes them cheap.
pub(crate) struct Salts(Mutex<SaltPool>);

struct SaltPool {
    stream: blake3::OutputReader,
    bytes: Vec<u8>,
    used: usize,
}

const POOL_BYTES: usize = 256 * record::SALT;

impl Salts {
    pub(crate) fn new(key: [u8; 32]) -> Salts {
        let stream = blake3::Hasher::new_keyed(&key).finalize_xof();
        Salts(Mutex::new(SaltPool { stream, bytes: vec![0; POOL_BYTES], used: POOL_BYTES }))
    }

    fn fill(&self, salt: &mut [u8]) {
        let mut pool = self.0.lock();
        let SaltPool { stream, bytes, used } = &mut *pool;
        if *used == POOL_BYTES {
            stream.fill(bytes);
            *used = 0;
        }
        salt.copy_from_slice(&bytes[*used..*used + record::SALT]);
        *used += record::SALT;
    }
}
