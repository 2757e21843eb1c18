//! The manual pages.

use std::fs;

use super::support::Bench;

/// The page as a terminal shows it, 100 columns wide, and no complaint about it; `None`, and said, if there is no `man`.
fn shown(bench: &Bench, page: &str) -> Option<String> {
    if bench.script("command -v man").run().code != 0 {
        println!("skipped: there is no man");
        return None;
    }
    let done = bench.script(&format!("MANWIDTH=100 LC_ALL=C.UTF-8 man --warnings -l '{page}' | col -bx")).run();
    assert_eq!(done.stderr, "", "{page}");
    Some(done.ok())
}

#[test]
fn there_is_a_page_for_each_command_with_its_examples() {
    let bench = Bench::new();
    let told = bench.ok("man pages/man1");
    let folder = bench.path().join("pages/man1");
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(told.contains(&format!("{} pages written to pages/man1", names.len())), "{told}");
    for name in ["queuectl.1", "queuectl-run.1", "queuectl-worker.1", "queuectl-worker-start.1", "queuectl-man.1"] {
        assert!(names.iter().any(|page| page == name), "{name}: {names:?}");
    }
    for name in names.iter().filter(|name| *name != "queuectl.1") {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH EXAMPLES"] {
            assert!(text.contains(section), "{name} has no {section}");
        }
        let command = name.trim_start_matches("queuectl-").trim_end_matches(".1").replacen('-', " ", 1);
        let help = bench.ok(&format!("{command} --help"));
        let Some(page) = shown(&bench, &format!("pages/man1/{name}")) else { continue };
        for example in help.split("Example").nth(1).unwrap().lines().skip(1) {
            assert!(page.contains(example.trim()), "{name} lacks {example}: {page}");
        }
    }
    assert!(!bench.queue().exists());
}

#[test]
fn without_a_folder_it_is_the_page_of_queuectl_which_names_the_others() {
    let bench = Bench::new();
    bench.ok("man pages");
    let page = bench.ok("man");
    assert_eq!(page, fs::read_to_string(bench.path().join("pages/queuectl.1")).unwrap());
    let Some(page) = shown(&bench, "pages/queuectl.1") else { return };
    for part in [
        "queuectl [OPTIONS] <COMMAND>",
        "Queue jobs for later\n       queuectl-enqueue(1)\n              Add one job, or many at once",
        "--color <WHEN> [default: auto]\n              When to use colour: auto, always, never\n",
        "EXIT STATUS\n       0",
        "EXAMPLES\n       queuectl run -j 4 jobs.txt\n",
        "SEE ALSO\n       queuectl-run(1),",
    ] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    fs::write(bench.path().join("file"), "").unwrap();
    bench.run("man file/pages").says(7, &["cannot write to file/pages"]);
}
