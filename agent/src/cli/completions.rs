//! `evenkeel completions`: what a shell needs to complete these commands.

use super::output::print;
use anyhow::Result;
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell as Generator;
use std::process::ExitCode;

/// What `evenkeel completions` takes.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    /// source <(evenkeel completions bash)
    Bash,
    // No doc comment, in which the brackets would be a link.
    #[value(help = "evenkeel completions zsh > \"${fpath[1]}/_evenkeel\"")]
    Zsh,
    /// evenkeel completions fish > ~/.config/fish/completions/evenkeel.fish
    Fish,
}

/// Runs it.
pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    print(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Shell) -> String {
    let generator = match shell {
        Shell::Bash => Generator::Bash,
        Shell::Zsh => Generator::Zsh,
        Shell::Fish => Generator::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut super::Cli::command(), "evenkeel", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn every_shell_learns_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for command in super::super::Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell:?} {}", command.get_name());
            }
        }
    }

    #[test]
    fn bash_takes_its_script_and_completes_by_it() {
        let mut bash = Command::new("bash")
            .args(["--norc", "--noprofile", "-e", "-u"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let completed = "COMP_WORDS=(evenkeel expl); COMP_CWORD=1; _evenkeel evenkeel expl evenkeel; printf '%s\\n' \"${COMPREPLY[@]}\"\n";
        // Its script sets variables that it was not given.
        let input = script(Shell::Bash) + "\nset +u\n" + completed;
        bash.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let said = bash.wait_with_output().unwrap();
        assert!(said.status.success());
        assert_eq!(String::from_utf8_lossy(&said.stdout), "explain\n");
    }
}
