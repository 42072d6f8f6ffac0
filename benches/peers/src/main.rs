//! annals beside its peers: the same operations on the same events with the same promise, in one process, in
//! turns.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --rounds 3
//! ```
//!
//! [`peer`] is the interface of a store, [`peers`] its implementations. [`cells`] has the measurements,
//! [`rows`] the rows of the table with their goals. [`accounts`] compares states and reactions, which only
//! batpak has as well.

mod accounts;
mod cells;
mod child;
mod filled;
mod goal;
mod limits;
mod machine;
mod measure;
mod options;
mod peer;
mod peers;
mod pictures;
mod place;
mod report;
mod results;
mod rounds;
mod rows;
mod sample;

use std::fs::File;
use std::io::Write;

use cells::Bench;
use filled::Filled;
use options::{HELP, Options};
use peer::Failure;
use place::Place;
use report::Journal;
use sample::Sample;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        ["child", rest @ ..] => child::act(rest),
        _ => Options::parse(arguments.into_iter())
            .map_err(|what| {
                eprintln!("{what}\n{HELP}");
                std::process::exit(2)
            })
            .and_then(|options| run(&options)),
    };
    if let Err(failure) = ended {
        eprintln!("stopped: {failure}");
        std::process::exit(1)
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let mut out = take_standard_output()?;
    let mut cells = cells::all(options);
    if options.names_only {
        return names(&mut out, &cells);
    }
    cells.retain(|cell| options.wants_cell(&cell.name));
    std::fs::create_dir_all(&options.directory)?;
    let place = Place::new(&options.directory)?;
    let machine = machine::describe(&place)?;
    let mut journal = Journal::new(options, &machine)?;
    let filled = Filled::new(place.path());
    let bench = Bench { options, place: &place, sample: Sample::new(1_000), filled };
    let results = rounds::run(&bench, &cells, &mut journal)?;
    if let Some(directory) = &options.pictures {
        pictures::draw(directory, options, &results)?;
    }
    report::finish(&mut out, options, &machine, &rows::all(options), &results, journal)
}

fn names(out: &mut File, cells: &[cells::Cell]) -> Result<(), Failure> {
    let peers: Vec<&str> = peers::ALL.iter().map(|kind| kind.name).collect();
    for cell in cells {
        writeln!(out, "{}", cell.name)?;
    }
    Ok(writeln!(out, "peers: {}", peers.join(", "))?)
}

/// Standard output, which from now on is ours alone: UmaDB prints lines of its own, and they would
/// stand in the middle of the table.
fn take_standard_output() -> Result<File, Failure> {
    let ours = rustix::io::dup(std::io::stdout())?;
    let nowhere = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere)?;
    Ok(File::from(ours))
}
