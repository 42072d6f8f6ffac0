//! One decision over many streams: a dynamic consistency boundary.
//!
//! What to learn: a course has a number of seats, and a student takes at most two courses. No single stream
//! holds the events of both rules. `Store::decide` reads the events that the decision depends on. It appends
//! only if no new event among them was appended since.

use annals::{Append, DomainEvent, Error, Meta, Outcome, Projection, Query, Refused, Store};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "course")]
enum CourseEvent {
    Opened { seats: usize },
    Joined { student: String },
}

/// What a decision to join a course depends on.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Enrolment {
    seats: usize,
    /// Student and course of every enrolment in this course, and of every enrolment of this student.
    joined: Vec<(String, String)>,
}

impl Projection for Enrolment {
    type Event = CourseEvent;
    const NAME: &'static str = "enrolment";

    fn apply(&mut self, event: CourseEvent, meta: &Meta<'_>) {
        match event {
            CourseEvent::Opened { seats } => self.seats = seats,
            CourseEvent::Joined { student } => self.joined.push((student, meta.entity().to_owned())),
        }
    }
}

#[derive(Debug, PartialEq)]
enum No {
    Full,
    TooManyCourses,
}

fn join(store: &Store, student: &str, course: &str) -> Result<Outcome, Refused<No>> {
    let tag = format!("student:{student}");
    // All events of this course, and all enrolments of this student.
    let boundary =
        Query::entity(course).kind_prefix("course.").or(Query::all().kind("course.joined").tag(&tag));
    let done = store.decide(boundary, |known: &Enrolment| {
        let joined = &known.joined;
        if joined.iter().any(|(who, what)| who == student && what == course) {
            return Ok(None); // The student is already in the course.
        }
        if joined.iter().filter(|(_, what)| what == course).count() == known.seats {
            return Err(No::Full);
        }
        if joined.iter().filter(|(who, _)| who == student).count() == 2 {
            return Err(No::TooManyCourses);
        }
        Ok(Some(Append::to(course).event(&CourseEvent::Joined { student: student.to_owned() }).tag(&tag)))
    })?;
    Ok(done.outcome())
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join(format!("annals-courses-{}", std::process::id()));
    let store = Store::open(&directory)?;
    for (course, seats) in [("course:math", 3), ("course:music", 30), ("course:art", 30)] {
        store.append(course, &CourseEvent::Opened { seats })?;
    }
    assert_eq!(join(&store, "ada", "course:math").unwrap(), Outcome::Applied);
    assert_eq!(join(&store, "ada", "course:math").unwrap(), Outcome::Nothing);
    assert_eq!(join(&store, "ada", "course:music").unwrap(), Outcome::Applied);
    assert_eq!(join(&store, "ada", "course:art").unwrap_err().domain(), Some(&No::TooManyCourses));

    // Eight students compete for the last two seats. Two get one, in any order of the threads.
    let results: Vec<_> = std::thread::scope(|scope| {
        let store = &store;
        let threads: Vec<_> = (0..8)
            .map(|n| scope.spawn(move || join(store, &format!("student {n}"), "course:math")))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let seated = results.iter().filter(|result| result.is_ok()).count();
    let full = results.iter().filter(|r| r.as_ref().is_err_and(|no| no.domain() == Some(&No::Full))).count();
    println!("{seated} of 8 got a seat, {full} were told that the course is full");
    assert_eq!((seated, full), (2, 6));
    assert_eq!(store.count(Query::entity("course:math").kind("course.joined"))?, 3);
    store.close()?;
    std::fs::remove_dir_all(directory).unwrap();
    Ok(())
}
