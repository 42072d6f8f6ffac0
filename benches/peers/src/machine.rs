//! What the figures depend on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::measure::{Failure, Unit, each, timed};

/// The machine in one line: processors, load, file system, what a sync takes.
pub fn describe(directory: &Path) -> Result<String, Failure> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let threads = std::thread::available_parallelism()?;
    let sync = Unit::Seconds.show(sync(directory)?);
    let file_system = file_system(directory);
    Ok(format!("{model}, {threads} threads, load {load}; {file_system}, fdatasync of 4 KiB {sync}"))
}

pub fn annals_version() -> &'static str {
    // Its manifest is two directories up: cargo tells a package only its own version.
    let manifest = include_str!("../../../Cargo.toml");
    manifest.split("version = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

/// Of a block written over another.
fn sync(directory: &Path) -> Result<f64, Failure> {
    use std::os::unix::fs::FileExt;
    let path = directory.join("sync");
    let mut file = File::create_new(&path)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    let time = each(100, || {
        file.write_all_at(&[1; 4096], 0)?;
        Ok(timed(|| Ok(file.sync_data()?))?.1)
    })?;
    fs::remove_file(path)?;
    Ok(time)
}

/// The type of the file system, as the kernel names it.
fn file_system(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let under = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        directory.starts_with(point).then_some((point.len(), kind))
    });
    under.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}
