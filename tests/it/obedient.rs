//! A process that has a store open and does with it, line by line, what a test says.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use annals::{Append, Appended, Durability, Error, Raw, Store};

use crate::support::FOREVER;

const DIRECTORY: &str = "ANNALS_OBEY";
const SEGMENT_BYTES: &str = "ANNALS_OBEY_SEGMENT";
const TEST: &str = "obedient::obey";
/// The test harness prints lines of its own.
const SAID: &str = "said: ";

/// Another process, which is killed at the latest when the test ends.
pub(crate) struct Obedient {
    child: Child,
    orders: ChildStdin,
    said: Receiver<String>,
}

impl Obedient {
    /// Starts one, which opens the store.
    pub(crate) fn new(store: &Path) -> Obedient {
        Obedient::prepared(store, |_| {})
    }

    pub(crate) fn prepared(store: &Path, prepare: impl FnOnce(&mut Command)) -> Obedient {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--nocapture", "--test-threads=1"]).env(DIRECTORY, store);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let (orders, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines {
                // The harness names the test first, in the same line.
                let Some((_, said)) = line.split_once(SAID) else { continue };
                if sender.send(said.to_owned()).is_err() {
                    break;
                }
            }
        });
        Obedient { child, orders, said }
    }

    /// One that could open the store, with small segments.
    pub(crate) fn opened(store: &Path) -> Obedient {
        Obedient::opened_with(store, 2_000)
    }

    pub(crate) fn opened_with(store: &Path, segment_bytes_max: u32) -> Obedient {
        let mut other = Obedient::prepared(store, |command| {
            command.env(SEGMENT_BYTES, segment_bytes_max.to_string());
        });
        assert_eq!(other.hear(), "open");
        other
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says next.
    pub(crate) fn hear(&mut self) -> String {
        self.said.recv_timeout(FOREVER).expect("it neither speaks nor ends")
    }

    /// What it says within some time, if anything.
    pub(crate) fn hear_within(&mut self, time: Duration) -> Option<String> {
        self.said.recv_timeout(time).ok()
    }

    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.hear()
    }

    /// Has it append, and gives the position.
    pub(crate) fn append(&mut self) -> u64 {
        let said = self.ask("append");
        said.strip_prefix("ack ").unwrap_or_else(|| panic!("{said}")).parse().unwrap()
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Obedient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{SAID}{what}").and_then(|()| out.flush()).unwrap();
}

fn say_outcome(outcome: Result<Appended, Error>) {
    match outcome {
        Ok(receipt) => say(&format!("ack {}", receipt.position())),
        Err(error) => say_error(&error),
    }
}

fn say_error(error: &Error) {
    say(&format!("{error:?}"));
}

/// The other process. Run with all the tests it does nothing.
#[test]
fn obey() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = PathBuf::from(directory);
    let segment_bytes = std::env::var(SEGMENT_BYTES).map_or(2_000, |bytes| bytes.parse().unwrap());
    let mut store = match Store::builder(&path).segment_bytes_max(segment_bytes).open() {
        Ok(store) => Some(store),
        Err(error) => return say_error(&error),
    };
    say("open");
    let event = || Append::to("e").event(&Raw("k", &()));
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let own = || store.clone().expect("it is open");
        match order.as_str() {
            "append" => say_outcome(event().commit(&own())),
            "buffered" => {
                let buffered = event().durability(Durability::Buffered { flush_every: FOREVER });
                say_outcome(buffered.commit(&own()));
            }
            // Until an append fails.
            "stream" => loop {
                let outcome = event().commit(&own());
                let has_failed = outcome.is_err();
                say_outcome(outcome);
                if has_failed {
                    break;
                }
            },
            // Buffered and as fast as it can; says how long that went on.
            "pour" => {
                let began = Instant::now();
                let mut count = 0_u32;
                let error = loop {
                    let buffered = event().durability(Durability::Buffered { flush_every: FOREVER });
                    match buffered.commit(&own()) {
                        Ok(_) if count == 0 => say("pouring"),
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                    count += 1;
                };
                say(&format!("{} ms, {count} acknowledged, {error:?}", began.elapsed().as_millis()));
            }
            "close" => match store.take().expect("it is open").close() {
                Ok(()) => say("closed"),
                Err(error) => say_error(&error),
            },
            // The child keeps what it was given, and does nothing with it.
            "fork" => {
                let child = fork::fork().unwrap();
                if child.is_child() {
                    loop {
                        std::thread::sleep(FOREVER);
                    }
                }
                say(&format!("forked {}", child.child_pid().unwrap()));
            }
            // The child drops what it was given, and ends.
            "fork and drop" => {
                let child = fork::fork().unwrap();
                if child.is_child() {
                    drop(store);
                    std::process::exit(0);
                }
                let ended = fork::waitpid(child.child_pid().unwrap()).unwrap();
                say(&format!("it ended with {ended}"));
            }
            // The child opens the store once it can.
            "fork and open" => {
                let child = fork::fork().unwrap();
                if child.is_child() {
                    match Store::builder(&path).open_within(FOREVER / 2) {
                        Ok(own) => {
                            say_outcome(event().commit(&own).inspect(|_| own.clone().close().unwrap()))
                        }
                        Err(error) => say_error(&error),
                    }
                    std::process::exit(0);
                }
                say(&format!("forked {}", child.child_pid().unwrap()));
            }
            other => panic!("no such order: {other}"),
        }
    }
}
