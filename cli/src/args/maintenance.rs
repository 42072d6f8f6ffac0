//! The arguments of commands that act on a store as a whole.

use std::path::PathBuf;
use std::time::Duration;

use annals::Position;
use clap::{Args, ValueEnum};

use super::Filter;
use crate::values::{UntilArg, age};

#[derive(Args)]
pub struct Checkpoint {
    /// Its name; without one, all are listed
    pub name: Option<String>,
    /// Why, for the record
    #[arg(long, requires = "name")]
    pub reason: Option<String>,
}

#[derive(Args)]
pub struct Verify {
    /// That it holds the history up to this head, unchanged; may be repeated
    #[arg(long)]
    pub head: Vec<annals::Head>,
    /// Goes on behind what an earlier run has verified, as it printed that
    #[arg(long, value_name = "HEAD")]
    pub after: Option<annals::Head>,
    /// Reads no more than this in a second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_second: Option<u64>,
    /// Compares index files with the log as well, which takes about a quarter longer
    #[arg(long)]
    pub indexes: bool,
    /// Looks whether the causes that events name by id are there, which may take reading the log once more
    #[arg(long)]
    pub causes: bool,
}

#[derive(Args)]
pub struct Backup {
    /// The directory: empty, or an earlier backup
    pub to: PathBuf,
    /// Copies every segment, also where both directories could share it
    #[arg(long)]
    pub without_sharing: bool,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}

#[derive(Args)]
pub struct Restore {
    /// The backup
    pub backup: PathBuf,
    /// The new store's directory: empty, or not there
    pub to: PathBuf,
    /// Up to where: end, @POSITION, a time, checkpoint:NAME
    #[arg(long, value_name = "PLACE", default_value = "end")]
    pub until: UntilArg,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}

#[derive(Args)]
pub struct Fork {
    /// The new store's directory: empty, or not there
    pub to: PathBuf,
    /// Up to where: end, @POSITION, a time, checkpoint:NAME
    #[arg(long, value_name = "PLACE", default_value = "end")]
    pub until: UntilArg,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}

#[derive(Args)]
pub struct Rollback {
    /// To where: @POSITION, a time, checkpoint:NAME
    #[arg(value_name = "PLACE")]
    pub to: UntilArg,
    /// Does it: the head that the store has, as `annals head` prints it
    #[arg(long, value_name = "HEAD")]
    pub cut: Option<annals::Head>,
    /// Why, for the record
    #[arg(long)]
    pub reason: String,
}

#[derive(Args)]
pub struct Erase {
    #[command(flatten)]
    pub filter: Filter,
    /// Why, for the record
    #[arg(long)]
    pub reason: String,
    /// Does it; without, it only says how many events match
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args)]
pub struct Compact {
    /// Removes the events of which all that is said below is true
    #[arg(long)]
    pub remove: bool,
    #[command(flatten)]
    pub filter: Filter,
    /// Recorded longer ago than this: 90d, 12h
    #[arg(long, value_name = "AGE", value_parser = age, requires = "remove")]
    pub older_than: Option<Duration>,
    /// In front of this position
    #[arg(long, value_name = "POSITION", requires = "remove")]
    pub before: Option<Position>,
    /// Not among this many newest
    #[arg(long, value_name = "EVENTS", requires_all = ["remove", "per"])]
    pub keep_newest: Option<u64>,
    /// Of what the newest are counted
    #[arg(long, value_enum, value_name = "WHAT", requires = "keep_newest")]
    pub per: Option<Per>,
    /// Only payload and metadata go
    #[arg(long, requires = "remove")]
    pub tombstones: bool,
    /// Acknowledgements of consumers go that have later ones
    #[arg(long)]
    pub replaced_checkpoints: bool,
    /// Small segments become larger ones
    #[arg(long)]
    pub merge: bool,
    /// Also what consumers have not handled: they miss it
    #[arg(long)]
    pub even_unhandled: bool,
    /// Reads no more than this in a second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub bytes_per_second: Option<u64>,
    /// Why, for the record
    #[arg(long)]
    pub reason: String,
    /// Does it; without, it only says what of the sealed segments would go
    #[arg(long)]
    pub yes: bool,
    /// Says that, and ends with 0
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Per {
    Entity,
    Kind,
    Scope,
}

impl From<Per> for annals::GroupBy {
    fn from(per: Per) -> annals::GroupBy {
        match per {
            Per::Entity => annals::GroupBy::Entity,
            Per::Kind => annals::GroupBy::Kind,
            Per::Scope => annals::GroupBy::Scope,
        }
    }
}

#[derive(Args)]
pub struct Export {
    #[command(flatten)]
    pub filter: Filter,
    /// After this position: what is new since the last export
    #[arg(long, value_name = "POSITION", default_value = "0", hide_default_value = true)]
    pub after: Position,
}

#[derive(Args)]
pub struct Import {
    /// The lines, or - for standard input
    pub file: PathBuf,
    /// The import's name, by which it goes on when it is run again [default: the file's name]; the same file
    /// under another name is refused
    #[arg(long)]
    pub name: Option<String>,
    /// Appends lines that cannot be imported to this file, and goes on
    #[arg(long, value_name = "FILE")]
    pub skip_bad: Option<PathBuf>,
    /// Lets versions follow on, where events were left out or the entity has others
    #[arg(long)]
    pub renumber: bool,
    /// Takes the nearest float for numbers that 64 bits cannot hold exactly, instead of refusing the line
    #[arg(long)]
    pub round_numbers: bool,
    /// Imports a file although it begins as one that was imported under another name: its events are in twice
    /// then, unless the lines name ids
    #[arg(long)]
    pub even_if_imported: bool,
    /// Creates the store if there is none
    #[arg(long)]
    pub create: bool,
    /// For lines of another format: the entity, with {/pointers} to values in the line
    #[arg(long, value_name = "TEXT", requires = "map_kind")]
    pub map_entity: Option<String>,
    /// The kind, likewise
    #[arg(long, value_name = "TEXT", requires = "map_entity")]
    pub map_kind: Option<String>,
    /// The scope, likewise
    #[arg(long, value_name = "TEXT", requires = "map_entity")]
    pub map_scope: Option<String>,
    /// A tag, likewise; may be repeated
    #[arg(long, value_name = "TEXT", requires = "map_entity")]
    pub map_tag: Vec<String>,
    /// Where the id stands: /id
    #[arg(long, value_name = "POINTER", requires = "map_entity")]
    pub map_id: Option<String>,
    /// Where the time stands: /at
    #[arg(long, value_name = "POINTER", requires = "map_entity")]
    pub map_time: Option<String>,
    /// How the time is written
    #[arg(long, value_enum, value_name = "FORM", default_value = "rfc3339", requires = "map_time")]
    pub map_time_form: TimeForm,
    /// Where the payload stands [default: the whole line]
    #[arg(long, value_name = "POINTER", requires = "map_entity")]
    pub map_payload: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum TimeForm {
    Rfc3339,
    Seconds,
    Millis,
    Micros,
}
