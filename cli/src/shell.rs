//! `annals completions` and `annals man`, generated from the definition of the command line.

use clap::Command;
use clap_mangen::Man;

use crate::args::{self, Completions};
use crate::failure::{Answer, CODES, Failure};
use crate::output::Output;

pub fn completions(completions: Completions, out: &mut Output) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut args::command(), "annals", &mut script);
    out.text(&String::from_utf8_lossy(&script))?;
    Ok(Answer::Yes)
}

/// One page: the command and the options of every command, then each of its commands.
pub fn man(out: &mut Output) -> Result<Answer, Failure> {
    // The manual page also has the options that only `--help` shows.
    let mut command =
        args::command().mut_args(|arg| arg.hide_short_help(false)).disable_help_subcommand(true);
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone());
    whole.render_title(&mut page).map_err(failed)?;
    whole.render_name_section(&mut page).map_err(failed)?;
    whole.render_synopsis_section(&mut page).map_err(failed)?;
    whole.render_options_section(&mut page).map_err(failed)?;
    out.text(&String::from_utf8_lossy(&page))?;
    command.get_subcommands().try_for_each(|command| section(command, out))?;
    let codes = CODES.replace('-', "\\-");
    out.text(&format!(".SH \"EXIT STATUS AND ENVIRONMENT\"\n.nf\n{codes}\n.fi\n"))?;
    Ok(Answer::Yes)
}

/// The section of a command, and then those of its own commands.
fn section(command: &Command, out: &mut Output) -> Result<(), Failure> {
    let hide_common = |arg: clap::Arg| {
        let is_common = arg.is_global_set() || arg.get_id() == "help";
        arg.hide(is_common)
    };
    let man = Man::new(command.clone().mut_args(hide_common));
    let mut page = Vec::new();
    man.render_description_section(&mut page).map_err(failed)?;
    man.render_synopsis_section(&mut page).map_err(failed)?;
    man.render_options_section(&mut page).map_err(failed)?;
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let page = String::from_utf8_lossy(&page).replace(".SH DESCRIPTION\n", "").replace(".SH ", ".SS ");
    out.text(&format!(".SH \"{name}\"\n{page}"))?;
    command.get_subcommands().try_for_each(|command| section(command, out))
}

fn failed(error: std::io::Error) -> Failure {
    Failure::system("cannot write the manual page", &error)
}
