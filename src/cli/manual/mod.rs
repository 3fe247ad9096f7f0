//! `completions` and `manual`: what shells and `man` show, made from the definition of the command line and from
//! docs/config.md.

mod page;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, roman};

/// `countersign completions`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign completions bash > /usr/share/bash-completion/completions/countersign
  countersign completions zsh > /usr/share/zsh/vendor-completions/_countersign
  countersign completions fish > /usr/share/fish/vendor_completions.d/countersign.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// `countersign manual`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  countersign manual --dir /usr/local/share/man
  man countersign-init                 afterwards; and: man countersign.toml")]
pub(super) struct Manual {
    /// The folder for man1 and man5
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
}

/// Prints the completions for a shell.
pub(super) fn completions(args: &Completions, mut command: Command) -> Result<bool> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "countersign", &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(true)
}

/// Writes the man pages of all subcommands, and of the config file.
pub(super) fn manual(args: &Manual, command: Command) -> Result<bool> {
    let pages = pages(command)?;
    for (name, text) in &pages {
        let section = name.rsplit('.').next().unwrap_or_default();
        let folder = args.dir.join(format!("man{section}"));
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        write(&folder.join(name), text)?;
    }
    anstream::println!("Wrote {} man pages below {}.", pages.len(), args.dir.display());
    Ok(true)
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// All man pages, each with the name of its file.
fn pages(command: Command) -> Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    // Subcommands know their whole names only when the command line is built.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    of_command(&command, &mut pages)?;
    let config = page::from_markdown("countersign.toml", "5", include_str!("../../../docs/config.md"));
    pages.push(("countersign.toml.5".to_owned(), config.into_bytes()));
    Ok(pages)
}

fn of_command(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let version = format!("countersign {}", env!("CARGO_PKG_VERSION"));
    // Without a date, the same program makes the same page.
    let man = Man::new(command.clone()).title(name.clone()).date("").source(version).manual("Countersign");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(examples(command).into_bytes());
    pages.push((format!("{name}.1"), text));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        of_command(sub, pages)?;
    }
    Ok(())
}

/// What stands below the options in the help, line by line as it is there.
fn examples(command: &Command) -> String {
    let Some(help) = command.get_after_help().map(ToString::to_string) else { return String::new() };
    let mut page = Roff::new();
    page.control("SH", ["EXAMPLES AND NOTES"]).control("EX", []);
    for line in help.lines().filter(|line| *line != "Examples:") {
        page.text([roman(line)]);
    }
    page.control("EE", []);
    page.to_roff()
}
