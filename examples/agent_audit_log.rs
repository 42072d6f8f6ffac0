//! An audit log of an agent's tool calls that stands up to an auditor.
//!
//! What to learn: a gate decides what the agent may do, and the store records its denials. Every call names
//! the prompt that caused it. A head that is kept elsewhere later proves that no event was changed, removed
//! or inserted.

use annals::{
    Append, Denial, DomainEvent, Error, ErrorKind, GateDecision, Head, Proposed, Query, RecordedEvent, Store,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, DomainEvent)]
#[event(prefix = "agent")]
enum AgentEvent {
    Prompted { text: String },
    ToolCalled { tool: String, argument: String },
    ToolReturned { output: String },
}

/// What the session of the agent may do. The gate gets it as context; it is never stored.
struct Rights {
    tools: &'static [&'static str],
}

#[derive(Deserialize)]
struct ToolCall {
    tool: String,
}

/// Allows only tools that the session may use, and only calls that name their cause.
fn tools(proposed: &Proposed<'_>, _: &Store) -> Result<GateDecision, Denial> {
    let allowed = proposed.context::<Rights>().map_or(&[][..], |rights| rights.tools);
    for event in proposed.events().filter(|event| event.kind() == "agent.tool_called") {
        let call: ToolCall = event.decode()?;
        if !allowed.contains(&call.tool.as_str()) {
            return Err(Denial::new(format!("this session may not use {}", call.tool)));
        }
        if event.cause().is_none() {
            return Err(Denial::new("a tool call must name what brought it about"));
        }
    }
    Ok(GateDecision::always())
}

fn call(store: &Store, prompt: &RecordedEvent, tool: &str, argument: &str) -> Result<RecordedEvent, Error> {
    let called = AgentEvent::ToolCalled { tool: tool.to_owned(), argument: argument.to_owned() };
    let receipt = Append::to(prompt.entity())
        .context(Rights { tools: &["search", "read_file"] })
        .caused_by(prompt)
        .metadata("model-4")
        .event(&called)
        .commit(store)?;
    Ok(store.get(receipt.id())?.expect("it was just appended"))
}

fn main() -> Result<(), Error> {
    let directory = std::env::temp_dir().join(format!("annals-agent-{}", std::process::id()));
    let store = Store::builder(&directory).gate("tools", tools).record_denials().open()?;

    let prompted = AgentEvent::Prompted { text: "Which of our licences are copyleft?".to_owned() };
    let prompt = store.get(store.append("session:1", &prompted)?.id())?.expect("it was just appended");
    let search = call(&store, &prompt, "search", "GPL")?;
    let returned = AgentEvent::ToolReturned { output: "3 files".to_owned() };
    Append::to("session:1").caused_by(&search).event(&returned).commit(&store)?;
    let denied = call(&store, &prompt, "shell", "rm -r licences").unwrap_err();
    assert_eq!((denied.kind(), denied.denial().unwrap().gate.as_str()), (ErrorKind::Denied, "tools"));
    println!("{denied}\n\n{}", store.story(prompt.correlation())?);

    // The denial is recorded beside the calls, with the name of the gate and without the argument.
    assert_eq!(store.count(Query::entity("$gate/tools").kind("$gate.denied"))?, 1);
    assert_eq!(search.metadata::<&str>()?, Some("model-4"));
    assert_eq!(store.ancestors(search.id()).next().unwrap()?.id(), prompt.id());

    // About 100 characters stand for the whole history. Print them, mail them, or put them into another log.
    let kept: String = store.head()?.to_string();
    call(&store, &prompt, "read_file", "LICENSE")?;
    store.close()?;

    // Much later: the store is sound, and its history up to the kept head is the same.
    let store = Store::open(&directory)?;
    let kept: Head = kept.parse()?;
    assert!(store.verify()?.is_clean());
    assert_eq!(store.at(kept.position())?.expect("not cut").chain(), kept.chain());
    store.close()?;

    // An edit of a single byte in the log is found.
    let segment = directory.join("segments/00000000000000000001.0.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(3).position(|three| three == b"GPL").unwrap();
    bytes[at] = b'L';
    std::fs::write(&segment, bytes).unwrap();
    let report = Store::builder(&directory).verify()?;
    println!("{report}");
    assert!(!report.is_clean());
    std::fs::remove_dir_all(directory).unwrap();
    Ok(())
}
