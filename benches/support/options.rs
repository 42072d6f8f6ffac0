//! The command line of a bench.

use std::path::PathBuf;
use std::time::Duration;

/// How large to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    Bench,
    /// Just enough to show that it still works, for `cargo test --benches`.
    Smoke,
}

pub struct Options {
    pub scale: Scale,
    /// The directory in which the bench makes its own.
    pub directory: PathBuf,
    /// How long a cell is measured in each round.
    pub time: Duration,
    pub rounds: u32,
    /// Only cells whose name contains this.
    pub only: String,
    /// Events in the store that is read or opened.
    pub events: u64,
    /// How many events an append of the read bench has; one store for each.
    pub append_sizes: Vec<u64>,
    /// Where the JSON lines go; `-` is standard output, and then the text goes to standard error.
    pub json: Option<String>,
}

const HELP: &str = "\
cargo bench --bench <append | read | open | scale | growth | mixed | follow | react> -- [options]
  --dir PATH     measure on the disk of this directory (default: under target/)
  --seconds S    time per cell and round (default: 1)
  --rounds N     rounds; cells are interleaved, the table shows medians (default: 3)
  --only TEXT    only cells whose name contains it
  --size EVENTS  events in the store to read or open (default: 1000000)
  --append-size LIST  events an append of the store to read, comma-separated (read only; default: 1)
  --json FILE    one JSON object per line and measurement; - for standard output";

impl Options {
    /// The options of this process. Ends it if they make no sense.
    ///
    /// `cargo bench` passes `--bench`. `cargo test` does not, and its arguments are those of its own harness.
    pub fn from_command_line() -> Options {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        let is_bench = arguments.iter().any(|argument| argument == "--bench");
        arguments.retain(|argument| argument != "--bench");
        if !is_bench {
            return Options::smoke();
        }
        Options::parse(arguments).unwrap_or_else(|what| {
            eprintln!("{what}\n{HELP}");
            std::process::exit(2)
        })
    }

    fn smoke() -> Options {
        Options {
            scale: Scale::Smoke,
            time: Duration::from_millis(10),
            rounds: 1,
            events: 2_000,
            append_sizes: vec![1, 100],
            ..Options::bench()
        }
    }

    fn bench() -> Options {
        Options {
            scale: Scale::Bench,
            directory: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
            time: Duration::from_secs(1),
            rounds: 3,
            only: String::new(),
            events: 1_000_000,
            append_sizes: vec![1],
            json: None,
        }
    }

    fn parse(arguments: Vec<String>) -> Result<Options, String> {
        let mut options = Options::bench();
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let wrong = || format!("{name} {value} makes no sense");
            match name.as_str() {
                "--dir" => options.directory = PathBuf::from(value),
                "--only" => options.only = value,
                "--json" => options.json = Some(value),
                "--seconds" => options.time = seconds(&value).ok_or_else(wrong)?,
                "--rounds" => options.rounds = positive(&value).ok_or_else(wrong)?,
                "--append-size" => options.append_sizes = sizes(&value).ok_or_else(wrong)?,
                "--size" => options.events = positive(&value).ok_or_else(wrong)?,
                _ => return Err(format!("{name} is no option")),
            }
        }
        Ok(options)
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok().filter(|time| !time.is_zero())
}

fn sizes(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(positive).collect()
}

fn positive<N: std::str::FromStr + Default + PartialOrd>(text: &str) -> Option<N> {
    text.parse().ok().filter(|number| *number > N::default())
}
