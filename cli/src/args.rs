//! The command line: commands, arguments and options. Their doc comments are the help texts.

mod maintenance;

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use annals::{Durability, EventId, Expected, Position, Query};
use anstream::ColorChoice;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use maintenance::{
    Backup, Checkpoint, Compact, Erase, Export, Fork, Import, Restore, Rollback, TimeForm, Verify,
};

use crate::failure::{CODES, CODES_SHORT};
use crate::values::{EventRef, TimeRange, VersionRange, duration, expected, time};

/// Keeps events: what happened, in order, for good.
#[derive(Parser)]
#[command(name = "annals", version, after_help = CODES, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The command line for clap. The help of every command ends with the exit codes.
pub fn command() -> clap::Command {
    fn with_codes(command: clap::Command) -> clap::Command {
        command.mut_subcommands(|command| with_codes(command.after_help(CODES_SHORT)))
    }
    with_codes(Cli::command())
}

#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The store's directory (or ANNALS_DIR)
    #[arg(long, short, global = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// JSON: one document, or one a line for lists; docs/command.md has the schema
    #[arg(long, global = true)]
    pub json: bool,
    /// Tables even if the output is no terminal
    #[arg(long, global = true, conflicts_with = "json")]
    pub table: bool,
    /// Colours: auto means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_enum)]
    pub color: Color,
    /// When appends are acknowledged: synced, buffered, buffered:250ms (or ANNALS_DURABILITY) [default:
    /// synced]
    #[arg(long, global = true, value_name = "HOW", hide_short_help = true)]
    pub durability: Option<Durability>,
    /// How many appends wait for the writer at most (or ANNALS_QUEUE) [default: 4096]
    #[arg(long, global = true, value_name = "APPENDS", hide_short_help = true)]
    pub queue: Option<NonZero<usize>>,
    /// How long commands that write wait for another writer to close the store
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub wait: Duration,
    /// Who does it, for the record [default: the user's name]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub by: Option<String>,
    /// Opens even if others may write to the directory
    #[arg(long, global = true, hide_short_help = true)]
    pub allow_shared_directory: bool,
    /// Opens even on a network file system
    #[arg(long, global = true, hide_short_help = true)]
    pub allow_network_file_system: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// Sets the colours of all output from now on.
    pub fn write_global(self) {
        match self {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
        .write_global();
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Creates a store; nothing happens if there is one
    Init,
    /// Appends an event, or many, one a line; durable when it returns
    Append(Append),
    /// Shows one event
    Get(Get),
    /// Shows events, oldest first
    Read(Read),
    /// Shows the newest events
    Tail(Tail),
    /// Lists entities: events, first and last position
    Entities(Names),
    /// Lists kinds
    Kinds(Names),
    /// Lists scopes
    Scopes(Names),
    /// Lists tags
    Tags(Names),
    /// Counts: events, bytes, segments, entities
    Stats,
    /// Shows everything that belongs to a correlation as a tree by cause
    Story(Story),
    /// Shows what brought an event about, nearest first
    Ancestors(Related),
    /// Shows what an event brought about
    Descendants(Related),
    /// Shows an event with its causes in the same entity, oldest first
    Path(Related),
    /// Lists an entity's leaves: events that no other event of it names as its cause
    Leaves(Leaves),
    /// Checks everything: checksums, chain, positions, versions, files; lists every break
    Verify(Verify),
    /// Prints position and chain hash: all history in one line, to be kept elsewhere
    Head(Head),
    /// Shows consumers and reactors, or moves one
    Consumers(Consumers),
    /// Names the place where the log stands, to go back to it; or lists such places
    Checkpoint(Checkpoint),
    /// Copies the store into a directory, beside running appends; again into the same one, what is new
    Backup(Backup),
    /// Makes a store of a backup, up to a place
    Restore(Restore),
    /// Makes another store of the history up to a place, with an id of its own
    Fork(Fork),
    /// Sets the store back to a place; the old history is kept in quarantine/
    Rollback(Rollback),
    /// Erases payload and metadata of events; that they happened stays provable
    Erase(Erase),
    /// Removes events that are needed no more, and makes small segments into larger ones
    Compact(Compact),
    /// Prints events as JSONL, with everything there is to know of them
    Export(Export),
    /// Reads JSONL into the store; run again, it goes on behind what went in
    Import(Import),
    /// Builds all index files again
    Reindex,
    /// Says what an open would find and do; or copies what can be read of a damaged store
    Recover(Recover),
    /// Looks for what could go wrong, and advises
    Doctor,
    /// Measures appends, replay and opening on this disk, in a temporary directory beside the store
    Bench(Bench),
    /// Says where everything of the store lives, and why
    Describe,
    /// Prints completions for a shell
    Completions(Completions),
    /// Prints the manual page
    Man,
}

#[derive(Args)]
pub struct Append {
    /// The entity: order:42
    #[arg(required_unless_present = "lines", requires = "kind")]
    pub entity: Option<String>,
    /// The kind: order.placed
    pub kind: Option<String>,
    /// The payload as JSON; @FILE reads a file, - standard input [default: null]
    #[arg(conflicts_with = "lines", allow_negative_numbers = true)]
    pub payload: Option<String>,
    /// One event a line from a file, or - for standard input: {"entity", "kind", "payload", ...}; with ENTITY
    /// and KIND each line is a payload. Each line stands for itself, and which lines are in is said, however
    /// it ends
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// All lines are one append, all or nothing
    #[arg(long, requires = "lines")]
    pub atomic: bool,
    /// Makes it idempotent: the same append with the same key is written once
    #[arg(long)]
    pub key: Option<String>,
    /// What the stream must be: any, none, exists, or a version
    #[arg(long, value_name = "VERSION", value_parser = expected, conflicts_with = "lines")]
    pub expect: Option<Expected>,
    /// A label, indexed; may be repeated
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// The scope [default: default]
    #[arg(long)]
    pub scope: Option<String>,
    /// JSON kept beside the payload
    #[arg(long, value_name = "JSON")]
    pub metadata: Option<String>,
    /// What brought it about: an event's id, or "previous" for the one before it in its stream
    #[arg(long, value_name = "ID")]
    pub cause: Option<String>,
    /// What it belongs to [default: the id of the append's first event]
    #[arg(long, value_name = "ID")]
    pub correlation: Option<EventId>,
    /// When it happened: 2026-11-28T15:00:00Z, 2026-11-28 (UTC), 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub occurred: Option<std::time::SystemTime>,
    /// Creates the store if there is none
    #[arg(long)]
    pub create: bool,
}

#[derive(Args)]
pub struct Get {
    /// Its id, or its position (17 or @17)
    #[arg(value_name = "ID|POSITION")]
    pub event: EventRef,
}

#[derive(Args)]
pub struct Filter {
    /// Of this entity
    #[arg(long, short, conflicts_with_all = ["prefix", "correlation"])]
    pub entity: Option<String>,
    /// Of entities whose name begins so; $ finds the store's own events
    #[arg(long, conflicts_with = "correlation")]
    pub prefix: Option<String>,
    /// In this scope
    #[arg(long)]
    pub scope: Option<String>,
    /// Of this kind, or of kinds that begin so: order.*; may be repeated, one must fit
    #[arg(long, short)]
    pub kind: Vec<String>,
    /// With this tag; may be repeated, all must be there
    #[arg(long, short)]
    pub tag: Vec<String>,
    /// Of this correlation
    #[arg(long, value_name = "ID")]
    pub correlation: Option<EventId>,
}

impl Filter {
    /// True if the filter is empty and matches every event.
    pub fn is_everything(&self) -> bool {
        let Filter { entity, prefix, scope, kind, tag, correlation } = self;
        let names = [entity, prefix, scope];
        names.iter().all(|name| name.is_none()) && kind.is_empty() && tag.is_empty() && correlation.is_none()
    }

    /// The query that the options stand for.
    pub fn query(&self) -> Query {
        let mut base = match (&self.entity, &self.prefix, self.correlation) {
            (Some(entity), ..) => Query::entity(entity),
            (None, Some(prefix), _) => Query::entity_prefix(prefix),
            (None, None, Some(id)) => Query::correlation(id),
            (None, None, None) => Query::all(),
        };
        if let Some(scope) = &self.scope {
            base = base.scope(scope);
        }
        base = self.tag.iter().fold(base, Query::tag);
        let (prefixes, kinds): (Vec<&String>, Vec<&String>) =
            self.kind.iter().partition(|kind| kind.ends_with('*'));
        let exact = (!kinds.is_empty()).then(|| base.clone().kinds(kinds));
        let begun = prefixes.iter().map(|kind| base.clone().kind_prefix(kind.trim_end_matches('*')));
        exact.into_iter().chain(begun).reduce(Query::or).unwrap_or(base)
    }
}

#[derive(Args)]
pub struct Read {
    #[command(flatten)]
    pub filter: Filter,
    /// After this position
    #[arg(long, value_name = "POSITION", default_value = "0", hide_default_value = true)]
    pub after: Position,
    /// Newest first
    #[arg(long, short, conflicts_with = "follow")]
    pub backwards: bool,
    /// Recorded in this time: 2026-11-01..2026-12-01, 2h.. (times are UTC)
    #[arg(long, value_name = "FROM..TO", conflicts_with = "follow", allow_hyphen_values = true)]
    pub between: Option<TimeRange>,
    /// Happened in this time, as the application said
    #[arg(long, value_name = "FROM..TO", conflicts_with = "follow", allow_hyphen_values = true)]
    pub occurred: Option<TimeRange>,
    /// Of these versions: 2..5, 3; needs --entity alone
    #[arg(long, value_name = "FROM..TO", conflicts_with = "follow")]
    pub versions: Option<VersionRange>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "EVENTS")]
    pub limit: Option<u64>,
    /// Goes on with the events that come
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Args)]
pub struct Tail {
    #[command(flatten)]
    pub filter: Filter,
    /// How many
    #[arg(long, short = 'n', value_name = "EVENTS", default_value_t = 10)]
    pub limit: u64,
    /// Goes on with the events that come
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Args)]
pub struct Names {
    /// Names that begin so; $ for the store's own
    #[arg(long)]
    pub prefix: Option<String>,
    /// Names after this one
    #[arg(long, value_name = "NAME")]
    pub after: Option<String>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "NAMES")]
    pub limit: Option<u64>,
}

#[derive(Args)]
pub struct Story {
    /// The correlation; an event's id or position stands for the one it belongs to
    #[arg(value_name = "ID|POSITION")]
    pub correlation: EventRef,
    /// How to draw it
    #[arg(long, value_enum, default_value = "text")]
    pub form: StoryForm,
    /// At most this many events
    #[arg(long, short = 'n', value_name = "EVENTS", default_value_t = 10_000)]
    pub limit: u64,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum StoryForm {
    Text,
    Dot,
    Mermaid,
}

#[derive(Args)]
pub struct Related {
    /// The event: its id, or its position (17 or @17)
    #[arg(value_name = "ID|POSITION")]
    pub event: EventRef,
    /// At most this many
    #[arg(long, short = 'n', value_name = "EVENTS")]
    pub limit: Option<u64>,
}

#[derive(Args)]
pub struct Leaves {
    /// The entity
    pub entity: String,
}

#[derive(Args)]
pub struct Head {
    /// The newest position that survives a power cut
    #[arg(long)]
    pub durable: bool,
}

#[derive(Args)]
pub struct Consumers {
    #[command(subcommand)]
    pub what: Option<ConsumerCommand>,
}

#[derive(Subcommand)]
pub enum ConsumerCommand {
    /// Shows how each is doing (the default)
    List,
    /// Goes back to the beginning: everything is handled again
    Reset(Move),
    /// Goes back to a position: everything after it is handled again
    Rewind(MoveTo),
    /// Passes over everything up to and with a position, and goes on
    Skip(MoveTo),
    /// Goes on: tries the event again at which it was halted
    Resume(Resume),
    /// Handles nothing more until it is resumed
    Halt(Move),
}

#[derive(Args)]
pub struct Move {
    /// The consumer's name
    pub name: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: String,
}

#[derive(Args)]
pub struct MoveTo {
    /// The consumer's name
    pub name: String,
    /// The position
    pub position: Position,
    /// Why, for the record
    #[arg(long)]
    pub reason: String,
}

#[derive(Args)]
pub struct Resume {
    /// The consumer's name
    pub name: String,
}

#[derive(Args)]
pub struct Recover {
    /// Copies what can be read into a new store there
    #[arg(long, value_name = "DEST")]
    pub salvage: Option<PathBuf>,
}

#[derive(Args)]
pub struct Bench {
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub time: Duration,
    /// Bytes of a payload, up to 100,000
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub payload: u32,
}

#[derive(Args)]
pub struct Completions {
    /// For which shell
    pub shell: Shell,
}
