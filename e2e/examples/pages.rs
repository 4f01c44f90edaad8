//! Writes what a package has beside a daemon: a manual page for each command, and completions for three shells. Called by
//! `scripts/package` with the folder to write to: `man/PROGRAM/*.1`, `completions/PROGRAM.bash`, `_PROGRAM`, `PROGRAM.fish`. The
//! dashboard writes its own (`certwright man`, `certwright completion`); servers are spared the code for it.

use std::fs::{File, create_dir_all};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let out = std::env::args_os().nth(1).context("the folder to write to")?;
    let out = Path::new(&out);
    create_dir_all(out.join("completions"))?;
    for command in [controller::config::Cli::command(), agent::config::Args::command()] {
        let name = command.get_name().to_owned();
        let pages = out.join("man").join(&name);
        create_dir_all(&pages)?;
        clap_mangen::generate_to(command.clone(), &pages)?;
        let scripts = [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ];
        for (shell, file) in scripts {
            let mut file = File::create(out.join("completions").join(file))?;
            clap_complete::generate(shell, &mut command.clone(), &name, &mut file);
        }
    }
    Ok(())
}
