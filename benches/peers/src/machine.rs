//! What the figures depend on.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::peer::Failure;
use crate::place::Place;

/// The machine in one line: processor, system, file system.
pub fn describe(place: &Place) -> Result<String, Failure> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let threads = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let gibibytes = memory.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 20;
    let (kernel, file_system) = (kernel.trim(), place.file_system());
    Ok(format!("{model}, {threads} threads, {gibibytes} GiB, Linux {kernel}, {file_system}"))
}

/// How many threads want a processor: more than none means that the figures are disturbed.
pub fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|one_minute| one_minute.parse().ok()).unwrap_or(f64::NAN)
}

/// The version of a package that this was built with.
pub fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let head = format!("name = \"{package}\"\nversion = \"");
    lock.split(&head).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("unknown")
}

/// Today, in Greenwich: year, month, day.
pub fn date() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date_of(since.as_secs() / 86_400)
}

/// The date, given in days since 1 January 1970.
fn date_of(days_since_1970: u64) -> String {
    // Days count from the first of March of year 0, so that a leap day is the last of its year. See Howard
    // Hinnant, "chrono-compatible low-level date algorithms".
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        for (days, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_777, "2026-11-20"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(super::date_of(days), date, "{days} days after 1970 began");
        }
    }
}
