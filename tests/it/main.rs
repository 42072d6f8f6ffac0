//! Every test of annals through its public API: one binary, one link, parallel threads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod forge; // checksums and chains that fit what was changed in a segment
mod maintenance; // maintenance on a disk that fails, and what must hold afterwards
mod obedient; // another process that has a store open, and does what a test says
#[cfg(feature = "jsonl")]
mod samples; // hidden characters, and JSON that is kept or refused; shared with cli/tests/it
mod sim_spy; // a simulated disk that records its calls, and runs code between them
mod sim_support; // seeds, planned appends and whole groups for the tests on simulated disks
mod source; // Rust source as words, signs, texts, comments, paths and functions
mod support; // the scenario language, payloads, seeded random numbers, the tally

mod account; // an account, the aggregate of several modules
mod api; // the public API, item by item, against tests/golden/api.txt
mod append; // versions, every expected version, keys, several entities, limits
mod archive; // backup, restore, fork and rollback
mod archive_crash; // the same, stopped after every operation of the disk
mod causes; // ancestors, descendants, stories and paths against a naive walk; names in formats
mod checking; // SPEC.md "Checking a store", row by row; forgeries; seals, attestations
mod checkpoints; // named places in history, and the ledger they stand in
mod clocks; // which clock counts, and what is done when it was wrong
mod close; // close and drop in every order, handles, tickets
mod compact; // compacting: what goes, what never goes, beside appends
mod condition; // append conditions: order, groups, a naive store, one of eight claims
mod consumers; // consumers: acknowledgements, moves, states, waiting; partitions
mod corrupt; // every byte flipped, every truncation, files swapped, removed, from another store
mod corrupt_files; // files cut, swapped, removed, from another store; damage to an open store
mod corrupt_forged; // right checksums over wrong fields; several breaks; damage under an open store
mod counts; // writes, syncs and reads of the hot paths
mod crash; // crash after every operation of the simulated disk, nested crashes in recovery
mod decide; // aggregates and boundaries: conflicts, keys, turns, mischief in the middle of a decision
mod diagnostics; // counters, lags, descriptions, metrics
mod durability; // synced and buffered, sync, the clock, heads
mod erase; // erasing: what goes, what stays, what is left
mod fault; // every operation fails once or from then on; short writes; full disks
mod fault_space; // the disk is full, and writes are short, at every byte
mod follow; // subscriptions: where they begin, what they find; notifications: groups and losses
mod follow_end; // every end of following; who is woken; wakers that panic, close, are replaced
mod follow_load; // a million events to slow and fast followers; crashes, faults and damage under them
mod gates; // gates: what they see and answer, misbehaviour, denials and bypasses on record
mod golden; // tests/golden/v1 <-> SPEC.md <-> the store
mod house; // figures of the code and the documents; none may get worse
mod identity; // which id is an event's at every door; ids that come twice; names that show nothing
mod idle; // no thread of an idle store runs
mod interrupted; // every system call is interrupted by signals
#[cfg(feature = "jsonl")]
mod jsonl; // export, import: every payload, names of events, mappings, whole stores at random
#[cfg(feature = "jsonl")]
mod jsonl_stops; // imports of bad lines, and imports that are stopped anywhere and run again
#[cfg(feature = "jsonl")]
mod jsonl_values; // times, numbers, names and texts in lines, at their bounds
mod kit; // annals::test: what it says when a promise does not hold
mod lent; // direct appends: the caller writes in place of the writer thread
mod lifecycle; // progress of opening, a writer that panics, forks
mod maintenance_faults; // every call of maintenance fails once, or finds no room from then on
mod maintenance_promises; // promises of maintenance that no other module tests
mod mark_slots; // either slot of MARK may be lost, after every operation
mod model; // random operations against a naive model, on every disk, with reopening
mod open; // locks, reports, permissions, links, read-only
mod open_checked; // what is checked of sealed segments before a writer is let in, and right after
mod owner; // whose the files are when root works on another user's store
mod ownership; // who may write: LOCK, the directory, a file, a process goes away; forks; readers that look
mod part_index; // the index of the open segment: every MARK beside every index, stops, damage, readers
mod policies; // compacting that runs by itself; segments that are not worth it
mod processes; // two processes; kill -9 with crash_me
mod queries; // counts, last and exists, windows both ways, listings of names
mod racing; // a writer comes while a read-only open is looking
mod reactors; // reactors: outputs, failures and halts, moves, cycles, the end of the store
mod reactors_crash; // an order system of two reactors, stopped at every operation of the disk
mod read; // order, ranges, queries, backwards, limits, reading while writing
mod read_alone; // events of large appends, read without the rest of them
mod read_along; // a store opened to read goes along with its writer
mod read_beside; // opened to read while the writer rewrites, and while it appends to a damaged store
mod read_models; // the state of a query: keeping up, rebuilding, failing, ending
mod refusals; // what is refused is in no ledger
mod resume; // tokens and positions to go on from, over restores, rollbacks and power cuts
mod retry_storm; // commands with keys over a disk that dies again and again
mod rewrite_crash; // erasing and compacting, stopped after every operation of the disk
mod rewrite_states; // states folded while history is changed, and how often it is another one
mod salvage; // what can be read of a damaged store
mod scale; // what does not grow with the log, and index files in every state
mod shapes; // every form serde knows, in every surrounding: it comes back, or is refused
mod shrink; // what a store takes after events were removed, and what a dry run says before
mod state; // loading states: the same as folding from the first event
mod state_disk; // states in cache/: found again, never believed; flips, crashes, budgets
mod state_past; // states as they were, differences, checking by replay
mod state_shapes; // states saved by code of another shape
mod stories; // what crash, fault and corrupt once found, made small
mod threads; // many appenders and readers; no thread waits for ever after a failure
mod tidy; // layers, doors, ratchets, licences
mod timers; // set, fired, cancelled, failed; once, by any runner and after any stop
mod transitions; // entities in states: chains, restarts, what only the log can say
mod tree; // heads and proofs of the tree over all events, tree files in every state, the line
mod typed; // #[derive(DomainEvent)]: bytes, shapes, upcasters, errors
mod typed_lock; // the lock of stored shapes
mod verify; // against heads, in parts, slowly, beside a writer, in the background
mod verify_causes; // causes that are not there, or were removed
mod verify_indexes; // index files forged, damaged, exchanged, of a part: told apart from what the log says
mod verify_rewritten; // what was compacted, merged, erased, set back, forked: in parts, against heads, every byte flipped
