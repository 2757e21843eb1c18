//! How fast queuectl is, measured by whoever likes to: `cargo bench`, or `cargo bench -- NAME…`.
//!
//! Figures are ratios wherever there is something to compare with: A and B run in turn, A B A B …, so that what else
//! the machine does meets both; the ratio of each pair is taken, and the median and range of these are told. The
//! commands that are measured run in folders of their own, with an environment of a few variables.
//!
//! | file | what it is |
//! |---|---|
//! | `args` | what can be asked for |
//! | `machine` | where this was measured: what is told above the figures |
//! | `report` | figures, bars and tables |
//! | `statistics` | medians and pairs |
//! | `process` | starting programs, timing them, ending them |
//! | `room` | a folder with a queue, its pool, and looking into it through the library |
//! | `preload` | small programs built on the way: counting and slowing fdatasync |
//! | `peers` | other programs, each a small description |
//!
//! The other files are the benchmarks, by theme; [`ALL`] names them.

#![allow(unreachable_pub, missing_docs, reason = "a benchmark has no outside")]
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]
#![allow(clippy::disallowed_methods, reason = "clocks are read, and programs started while no queue is open")]
#![allow(clippy::cast_precision_loss, reason = "figures have three digits")]

mod args;
mod batch;
mod bulk;
mod engine;
mod enqueue;
mod flat;
mod gzip;
mod look;
mod machine;
mod memory;
mod peers;
mod preload;
mod process;
mod report;
mod room;
mod size;
mod slots;
mod start;
mod statistics;
mod syncs;
mod wakeups;

use std::process::ExitCode;

use args::Args;
use report::Report;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// A benchmark.
struct Benchmark {
    name: &'static str,
    about: &'static str,
    run: fn(&Args, &mut Report) -> Result<()>,
}

const ALL: [Benchmark; 15] = [
    Benchmark { name: "batch", about: "`run` against `xargs -P` on the same lines", run: batch::run },
    Benchmark {
        name: "peers",
        about: "`run` against task-spooler, nq, GNU parallel, pueue, HyperQueue",
        run: peers::run,
    },
    Benchmark { name: "syncs", about: "fdatasync calls a job in `run`", run: syncs::count },
    Benchmark { name: "slow-disk", about: "`run` on a disk whose fdatasync takes 5 ms more", run: syncs::slow_disk },
    Benchmark { name: "enqueue", about: "one `enqueue`, beside an idle and a busy pool", run: enqueue::run },
    Benchmark { name: "bulk", about: "`enqueue --file` of a million jobs, and how long others wait", run: bulk::run },
    Benchmark { name: "engine", about: "the library alone against plainjob and litequeue", run: engine::run },
    Benchmark { name: "flat", about: "jobs/s with a million waiting (with --huge ten)", run: flat::run },
    Benchmark { name: "look", about: "`status` and `list` of a million jobs", run: look::run },
    Benchmark {
        name: "wakeups",
        about: "wake-ups of `wait`, `logs -f` and a pool when nothing happens",
        run: wakeups::run,
    },
    Benchmark { name: "start", about: "from the end of `enqueue` to the start of the job", run: start::run },
    Benchmark { name: "memory", about: "memory of a pool with a million jobs waiting", run: memory::run },
    Benchmark { name: "size", about: "file size of a completed job, and space that is used again", run: size::run },
    Benchmark { name: "slots", about: "how busy 64 and 512 workers are", run: slots::run },
    Benchmark { name: "gzip", about: "compressing 2,000 real files, against xargs and GNU parallel", run: gzip::run },
];

fn main() -> ExitCode {
    let args = Args::read();
    if args.list {
        for benchmark in ALL {
            println!("{:<10} {}", benchmark.name, benchmark.about);
        }
        return ExitCode::SUCCESS;
    }
    match measure(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for. Says whether all of it could be measured; bars that were not reached are no failure.
fn measure(args: &Args) -> Result<bool> {
    let machine = machine::look(args)?;
    println!("{machine}");
    let mut report = Report::new(machine);
    for benchmark in ALL.iter().filter(|benchmark| args.wants(benchmark.name)) {
        println!("\n## {}: {}", benchmark.name, benchmark.about);
        report.begin(benchmark.name);
        if let Some(trouble) = if args.quick { None } else { machine::trouble()? } {
            report.warn(&trouble);
        }
        if let Err(error) = (benchmark.run)(args, &mut report) {
            report.failed(&error);
        }
    }
    report.finish(args)
}
