//! pueue.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::Result;
use super::super::process::{Background, program, text, timed};
use super::tsp::repeated;
use super::{Given, Peer};

pub const PUEUE: Peer = Peer {
    name: "pueue",
    program: "pueue",
    needs: None,
    slower: 50,
    how: "`pueue parallel 2`, `pueue add -- true` for each job, `pueue wait`",
    run,
};

/// How long its server may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

fn run(given: &Given) -> Result<Duration> {
    // Its socket is here, since the name of a socket is short.
    let runtime = TempDir::new()?;
    let (config, state) = (given.folder.join("pueue.yml"), given.folder.join("pueue"));
    std::fs::create_dir(&state)?;
    let text_of_config = format!(
        "shared:\n  pueue_directory: {}\n  runtime_directory: {}\n  use_unix_socket: true\n",
        state.display(),
        runtime.path().display()
    );
    std::fs::write(&config, text_of_config)?;
    let server = given.program.with_file_name("pueued");
    let server = Background::start(configured(&mut program(server, given.folder), &config))?;
    let client = |words: &[&str]| {
        let mut command = program(&given.program, given.folder);
        configured(&mut command, &config).args(words);
        command
    };
    let began = Instant::now();
    while text(&mut client(&["status"])).is_err() {
        if began.elapsed() > PATIENCE {
            return Err("its server does not answer".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    text(&mut client(&["parallel", "2"]))?;
    let began = Instant::now();
    let config = config.to_string_lossy();
    timed(&mut repeated(&given.program, &["-c", &config, "add", "--", "true"], given.jobs, given.folder))?;
    text(&mut client(&["wait", "--quiet"]))?;
    let took = began.elapsed();
    server.stop()?;
    Ok(took)
}

fn configured<'c>(command: &'c mut Command, config: &Path) -> &'c mut Command {
    command.arg("-c").arg(config)
}
