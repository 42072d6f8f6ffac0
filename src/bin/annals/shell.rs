//! Completions and the manual page, made of what the command line knows of itself.

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::failure::{Done, Failure};
use crate::output::Output;

pub fn completions(completions: Completions, out: &mut Output) -> Result<Done, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "annals", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Done::Yes)
}

/// One page: the command, then each of its commands.
pub fn man(out: &mut Output) -> Result<Done, Failure> {
    let failed = |error| Failure::system("cannot write the manual page", &error);
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let section = clap_mangen::Man::new(subcommand.clone());
        section.render_synopsis_section(&mut page).map_err(failed)?;
        section.render_description_section(&mut page).map_err(failed)?;
        section.render_options_section(&mut page).map_err(failed)?;
    }
    out.text(&String::from_utf8_lossy(&page))?;
    Ok(Done::Yes)
}
