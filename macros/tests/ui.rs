//! What does not compile, and what the compiler says then.

/// All of tests/ui in one go: each run builds the crate anew. Where texts have changed on purpose,
/// `TRYBUILD=overwrite` writes them down.
#[test]
fn what_does_not_compile_says_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
