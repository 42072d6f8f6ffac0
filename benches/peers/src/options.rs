//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::peer::Kind;

pub const HELP: &str = "\
annals beside its peers, in one process and in turns; medians of the rounds as a table.

cargo run --release --manifest-path benches/peers/Cargo.toml -- [options]
  --rounds N       rounds; peers take turns, in changing order (default: 3)
  --size EVENTS    events in the stores that are read and opened (default: 1000000)
  --sizes LIST     sizes at which opening is measured (default: SIZE/100,SIZE/10,SIZE)
  --seconds S      time of each cell of throughput, per peer and round (default: 1)
  --only WHAT      CELLS or CELLS/PEERS: beginnings of their names, with commas between them:
                   W1,W2-8/annals,tephra or /annals
  --dir PATH       measure on the disk of this directory (default: this package's target/)
  --json FILE      one JSON object per line: every measurement of every round, then every row
  --pictures DIR   SVG pictures: latency, throughput by threads, time to open by size
  --quick          one round, 20000 events, 0.1 seconds: shows that everything works, no more
  --cells          names all cells and peers, and ends";

/// How large to measure, where, and what.
#[derive(Clone)]
pub struct Options {
    pub rounds: u32,
    pub size: u64,
    /// At which opening is measured, rising; `size` is one of them.
    pub sizes: Vec<u64>,
    pub time: Duration,
    pub directory: PathBuf,
    pub json: Option<PathBuf>,
    pub pictures: Option<PathBuf>,
    pub is_quick: bool,
    pub names_only: bool,
    cells: Vec<String>,
    peers: Vec<String>,
}

impl Options {
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut sizes = None;
        let mut arguments = arguments.peekable();
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--quick" => options.quick(),
                "--cells" => options.names_only = true,
                _ => {
                    let value =
                        arguments.next().ok_or_else(|| format!("{name} is no option, or needs a value"))?;
                    let wrong = || format!("{name} {value} makes no sense");
                    match name.as_str() {
                        "--rounds" => options.rounds = positive(&value).ok_or_else(wrong)?,
                        "--size" => options.size = positive(&value).ok_or_else(wrong)?,
                        "--sizes" => sizes = Some(numbers(&value).ok_or_else(wrong)?),
                        "--seconds" => options.time = seconds(&value).ok_or_else(wrong)?,
                        "--only" => options.only(&value),
                        "--dir" => options.directory = value.into(),
                        "--json" => options.json = Some(value.into()),
                        "--pictures" => options.pictures = Some(value.into()),
                        _ => return Err(format!("{name} is no option")),
                    }
                }
            }
        }
        // Every stream has a thousand events, so that those of stores of any size can be compared.
        options.size = options.size.next_multiple_of(1_000);
        let sizes = sizes.unwrap_or_else(|| vec![options.size / 100, options.size / 10]);
        options.sizes =
            sizes.into_iter().chain([options.size]).map(|size| size.next_multiple_of(1_000)).collect();
        options.sizes.sort_unstable();
        options.sizes.dedup();
        Ok(options)
    }

    fn quick(&mut self) {
        self.is_quick = true;
        self.rounds = 1;
        self.size = 20_000;
        self.time = Duration::from_millis(100);
    }

    fn only(&mut self, what: &str) {
        let names = |list: &str| -> Vec<String> {
            list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let (cells, peers) = what.split_once('/').unwrap_or((what, ""));
        (self.cells, self.peers) = (names(cells), names(peers));
    }

    /// By the beginning of a word of its name.
    pub fn wants_cell(&self, name: &str) -> bool {
        let is_meant = |cell: &String| name.split(' ').any(|word| begins_with(word, cell));
        self.cells.is_empty() || self.cells.iter().any(is_meant)
    }

    pub fn wants_peer(&self, kind: &Kind) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| kind.name.starts_with(peer))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            rounds: 3,
            size: 1_000_000,
            sizes: Vec::new(),
            time: Duration::from_secs(1),
            directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target"),
            json: None,
            pictures: None,
            is_quick: false,
            names_only: false,
            cells: Vec::new(),
            peers: Vec::new(),
        }
    }
}

/// Whether a name begins so; but W1 is not the beginning of W10.
fn begins_with(name: &str, beginning: &str) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let rest = name.strip_prefix(beginning).map(str::as_bytes);
    rest.is_some_and(|rest| !(is_digit(rest.first()) && is_digit(beginning.as_bytes().last())))
}

fn positive<N: std::str::FromStr + Default + PartialOrd>(text: &str) -> Option<N> {
    text.parse().ok().filter(|number| *number > N::default())
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split(',').map(positive).collect()
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok().filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn sizes_rise_and_hold_whole_streams() {
        for (line, sizes) in [
            ("", vec![10_000, 100_000, 1_000_000]),
            ("--quick", vec![1_000, 2_000, 20_000]),
            ("--size 1500", vec![1_000, 2_000]),
            ("--size 5000 --sizes 7000,1", vec![1_000, 5_000, 7_000]),
        ] {
            assert_eq!(parse(line).unwrap().sizes, sizes, "{line}");
        }
    }

    #[test]
    fn only_means_beginnings_of_names() {
        for (only, cell, is_wanted) in [
            ("W1", "W1", true),
            ("W1", "W10", false),
            ("W1", "W1-x", true),
            ("W", "W10", true),
            ("W2", "W2-64", true),
            ("W2-6", "W2-64", false),
            ("W4", "W4p", true),
            ("W6", "W5 W6 W7", true),
            ("W3,W9/annals", "W9-durable", true),
            ("/annals", "S1 rebuild, cold", true),
        ] {
            let options = parse(&format!("--only {only}")).unwrap();
            assert_eq!(options.wants_cell(cell), is_wanted, "{cell} by --only {only}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (line, what) in [
            ("--rounds", "--rounds is no option, or needs a value"),
            ("--rounds 0", "--rounds 0 makes no sense"),
            ("--seconds -1", "--seconds -1 makes no sense"),
            ("--sizes 1,x", "--sizes 1,x makes no sense"),
            ("--fast yes", "--fast is no option"),
        ] {
            assert_eq!(parse(line).err().as_deref(), Some(what), "{line}");
        }
    }
}
