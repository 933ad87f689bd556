//! `evenkeel man`: the manual, a page for each command, as made from the same words as `--help`.

use super::output::print;
use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::Man;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `evenkeel man` takes.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The folder to write the pages into, as /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Runs it.
pub(super) fn run(args: &ManArgs) -> Result<ExitCode> {
    let pages = pages()?;
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make {}", args.folder.display()))?;
    for (name, page) in &pages {
        write(&args.folder.join(name), page)?;
    }
    print(&format!(
        "{} pages in {}: man -l {}/evenkeel.1\n",
        pages.len(),
        args.folder.display(),
        args.folder.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, page: &[u8]) -> Result<()> {
    std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Each page with its file's name.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = super::Cli::command().disable_help_subcommand(true);
    all.build();
    let mut pages = vec![page("evenkeel", &all)?];
    for command in all.get_subcommands().filter(|command| !command.is_hide_set()) {
        pages.push(page(&format!("evenkeel-{}", command.get_name()), command)?);
    }
    Ok(pages)
}

fn page(name: &str, command: &Command) -> Result<(String, Vec<u8>)> {
    let mut text = Vec::new();
    let command = command.clone().display_name(name.to_owned());
    Man::new(command).render(&mut text).context("a page of the manual")?;
    Ok((format!("{name}.1"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_renders_without_a_warning() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"evenkeel.1") && names.contains(&"evenkeel-explain.1"), "{names:?}");
        let folder = tempfile::tempdir().unwrap();
        for (name, page) in &pages {
            let text = String::from_utf8(page.clone()).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
            let path = folder.path().join(name);
            write(&path, page).unwrap();
            renders_without_warning(&path);
        }
    }

    /// Where there is a program that reads manuals.
    fn renders_without_warning(path: &Path) {
        for (program, arguments) in
            [("groff", &["-man", "-wmac", "-z", "-rLL=200n"][..]), ("mandoc", &["-T", "lint", "-W", "error"])]
        {
            let said = match std::process::Command::new(program).args(arguments).arg(path).output() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                said => said.unwrap(),
            };
            let text = [said.stdout, said.stderr].concat();
            assert!(
                said.status.success() && text.is_empty(),
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&text)
            );
        }
    }
}
