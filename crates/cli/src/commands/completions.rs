//! `cortex completions`: what shells complete with.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Cli;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cortex completions bash > ~/.local/share/bash-completion/completions/cortex
  cortex completions zsh > ~/.zfunc/_cortex
  cortex completions fish > ~/.config/fish/completions/cortex.fish
  cortex completions powershell >> $PROFILE")]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args) {
    clap_complete::generate(args.shell, &mut Cli::command(), "cortex", &mut std::io::stdout());
}
