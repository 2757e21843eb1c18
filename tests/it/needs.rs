//! Jobs that wait for others: `--after`, `--after-any`, and what becomes of them.

use serde_json::{Value, json};

use super::support::Bench;

fn waits_for(bench: &Bench, id: &str) -> Value {
    bench.json(&format!("show {id} --json"))["why"].clone()
}

#[test]
fn a_chain_runs_in_its_order() {
    let bench = Bench::new();
    bench.add(r#"{"id":"dump","command":"sleep 0.2; echo dump >> ran"}"#);
    bench.add(r#"{"id":"copy","command":"echo copy >> ran","after":"dump","priority":100}"#);
    let said = bench.cmd(["enqueue", "--id", "tidy", "--after", "dump,copy", "-c", "echo tidy >> ran"]).run().ok();
    assert_eq!(said, "✓ Job tidy enqueued, waits for 2 jobs\n");
    assert_eq!(waits_for(&bench, "tidy"), "waits for dump and copy; no pool serves its queue; queuectl worker start");
    let tidy = bench.json("show tidy --json");
    let needs = json!([
        {"id": "dump", "any": false, "state": "pending"},
        {"id": "copy", "any": false, "state": "blocked"},
    ]);
    assert_eq!((&tidy["state"], &tidy["needs"]), (&json!("blocked"), &needs));
    assert_eq!(bench.json("show dump --json")["needed_by"], json!(["copy", "tidy"]));
    let shown = bench.ok("show tidy");
    assert!(shown.contains("After     dump (pending), copy (blocked)"), "{shown}");
    assert!(bench.ok("list").contains("waits for 2 jobs"));
    bench.run("worker start --count 3 --until-empty");
    assert_eq!(bench.text("ran"), "dump\ncopy\ntidy\n");
    bench.check();
}

#[test]
fn a_death_cancels_what_waits_for_a_success_and_nothing_else() {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    bench.add(r#"{"id":"bad","command":"test -e mended"}"#);
    bench.add(r#"{"id":"next","command":"echo next >> ran","after":["bad"]}"#);
    bench.add(r#"{"id":"last","command":"echo last >> ran","after":["next"]}"#);
    bench.add(r#"{"id":"report","command":"echo report >> ran","after_any":["bad","last"]}"#);
    assert_eq!(bench.work().code, 1);
    assert_eq!(bench.text("ran"), "report\n");
    for id in ["next", "last"] {
        let shown = bench.json(&format!("show {id} --json"));
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("cancelled"), &json!("need_failed")), "{id}");
    }
    assert_eq!(waits_for(&bench, "next"), "job bad, which it needed, is dead; queuectl retry bad");
    bench.run("retry last").says(4, &["job next is cancelled", "queuectl retry next"]);
    bench.cmd(["enqueue", "--after", "bad", "-c", "true"]).run().says(4, &["job bad is dead", "queuectl retry bad"]);
    // What died is mended: all that it took with it comes back.
    std::fs::write(bench.file("mended"), "").unwrap();
    bench.ok("dlq retry bad");
    assert_eq!([bench.state("next"), bench.state("last")], ["blocked", "blocked"]);
    bench.work().ok();
    assert_eq!(bench.text("ran"), "report\nnext\nlast\n");
    bench.check();
}

#[test]
fn commands_settle_without_a_pool() {
    let bench = Bench::new();
    let line = |n: u32| json!({"id": format!("w{n}"), "command": "true", "after": "a"}).to_string() + "\n";
    let lines = (0..700).map(line).collect::<Vec<_>>().concat();
    bench.add(r#"{"id":"a","command":"true"}"#);
    bench.cmd(["enqueue", "-"]).stdin(lines).run().ok();
    bench.add(r#"{"id":"z","command":"true","after_any":["w3","w699"]}"#);
    let count = |state: &str| bench.json("status --json")["jobs"][state].as_u64().unwrap();
    assert_eq!((count("pending"), count("blocked")), (1, 701));
    bench.ok("cancel a");
    assert_eq!((count("cancelled"), count("pending")), (701, 1));
    assert_eq!(bench.state("z"), "pending");
    bench.ok("retry a");
    assert_eq!((count("pending"), count("blocked")), (2, 700));
    bench.check();
    bench.ok("cancel a");
    bench.ok("remove a");
    bench.ok("retry w3");
    assert_eq!(bench.state("w3"), "pending", "what it needed is gone");
    bench.check();
}

#[test]
fn what_would_never_run_is_refused_as_a_whole() {
    let bench = Bench::new();
    let enqueue = |lines: &str| bench.cmd(["enqueue", "--file", "-"]).stdin(lines).run();
    let job = |id: &str, after: &str| json!({"id": id, "command": "true", "after": after}).to_string() + "\n";
    bench.enqueue("true");
    enqueue(&(job("a", "1") + &job("b", "b"))).says(2, &["line 2", "waits for itself"]);
    enqueue(&(job("a", "b") + &job("b", "1"))).says(2, &["line 1", "waits for the job of line 2"]);
    enqueue(&(job("a", "1") + &job("b", "nobody"))).says(3, &["line 2", "there is no job nobody"]);
    bench.cmd(["enqueue", "--id", "a", "--after", "a", "-c", "true"]).run().says(2, &["waits for itself"]);
    bench.cmd(["enqueue", r#"{"command":"true","after":3}"#]).run().says(2, &["`after` takes an id"]);
    bench.cmd(["enqueue", r#"{"command":"true","needs":"1"}"#]).run().says(2, &["did you mean `after`?"]);
    assert_eq!(bench.json("list --json").as_array().unwrap().len(), 1);
    enqueue(&(job("a", "1") + &job("b", "a") + &job("c", "b"))).ok();
    bench.work().ok();
    bench.check();
}

#[test]
fn a_large_batch_needs_what_is_there_and_what_is_in_it() {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    bench.add(r#"{"id":"first","command":"exit 3"}"#);
    bench.add(r#"{"id":"good","command":"true"}"#);
    let mut lines = "{\"id\":\"j0\",\"command\":\"true\",\"after\":\"good\"}\n".to_owned();
    for n in 1..3_000 {
        let after = format!("j{}", n - 1);
        lines += &(json!({"id": format!("j{n}"), "command": "true", "after": after, "after_any": "first"}).to_string()
            + "\n");
    }
    let refused = lines.clone() + "{\"command\":\"true\",\"after\":\"nobody\"}\n";
    bench.cmd(["enqueue", "-"]).stdin(refused).run().says(3, &["line 3001", "there is no job nobody"]);
    bench.cmd(["enqueue", "-"]).stdin(lines).run().ok();
    assert_eq!(bench.json("status --json")["jobs"]["blocked"], 3_000);
    bench.check();
    // The whole chain goes with its beginning, one after the other.
    bench.ok("cancel good");
    assert_eq!(bench.json("status --json")["jobs"]["cancelled"], 3_001);
    bench.check();
}

#[test]
fn a_run_whose_jobs_fail_those_after_them_ends_with_1() {
    let bench = Bench::new();
    let lines = [
        r#"{"id":"a","command":"exit 3","max_retries":0}"#,
        r#"{"id":"b","command":"echo b >> ran","after":"a"}"#,
        r#"{"id":"c","command":"echo c >> ran","after_any":["b"]}"#,
    ];
    std::fs::write(bench.file("jobs"), lines.join("\n")).unwrap();
    bench.run("run jobs").says(1, &["1 completed, 1 dead, 1 cancelled", "queuectl retry a"]);
    assert_eq!(bench.text("ran"), "c\n");
    bench.check();
}

#[test]
fn a_job_that_waits_for_others_and_a_time_waits_for_both() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"true"}"#);
    bench.cmd(["enqueue", "--id", "b", "--after-any", "a", "--delay", "2h", "-c", "true"]).run().ok();
    bench.ok("cancel a");
    let shown = bench.json("show b --json");
    assert_eq!(shown["state"], "scheduled");
    let why = shown["why"].as_str().unwrap();
    assert!(why.starts_with("starts at ") && why.contains(" (in 1h 59m)"), "{shown}");
    bench.check();
}

#[test]
fn show_says_what_keeps_a_job_from_running() {
    let bench = Bench::new();
    bench.ok("config set --queue gpu parallel 1");
    bench.add(r#"{"id":"runs","command":"echo > started; exec sleep 1000","queue":"gpu","timeout":"none"}"#);
    bench.add(r#"{"id":"limited","command":"true","queue":"gpu"}"#);
    assert_eq!(waits_for(&bench, "limited"), "no pool serves its queue; queuectl worker start --queue gpu");
    let _pool = bench.pool("--queue gpu");
    bench.until_file("started");
    assert_eq!(waits_for(&bench, "runs"), Value::Null);
    assert_eq!(waits_for(&bench, "limited"), "its queue's limit of 1 is reached");
    bench.ok("config unset --queue gpu parallel");
    assert_eq!(waits_for(&bench, "limited"), "next in its queue");
    bench.add(r#"{"id":"behind","command":"true","queue":"gpu"}"#);
    assert_eq!(waits_for(&bench, "behind"), "behind 1 other");
    bench.ok("pause --queue gpu");
    assert_eq!(waits_for(&bench, "behind"), "its queue gpu is paused; queuectl resume --queue gpu");
    bench.ok("worker stop --now");
    bench.check();
}

#[test]
fn needs_go_out_and_come_back() {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    bench.add(r#"{"id":"good","command":"true"}"#);
    bench.work().ok();
    bench.add(r#"{"id":"bad","command":"false"}"#);
    bench.add(r#"{"id":"a","command":"true","after":["good","bad"]}"#);
    bench.work();
    bench.add(r#"{"id":"open","command":"true"}"#);
    bench.add(r#"{"id":"b","command":"true","after":["good","open"],"delay":3600}"#);
    bench.ok("pause open b");
    bench.ok("export --output all.jsonl");
    bench.ok("--db ./new import all.jsonl");
    for id in ["a", "b", "open", "good"] {
        let mut shown = bench.json(&format!("show {id} --json"));
        let again = bench.json(&format!("--db ./new show {id} --json"));
        shown["history"] = again["history"].clone();
        assert_eq!(shown, again);
    }
    bench.ok("--db ./new retry bad");
    assert_eq!(bench.json("--db ./new show a --json")["state"], "blocked");
    bench.ok("--db ./new check");
    bench.ok("backup copy");
    // What was cancelled for a need keeps its start time and its pause, wherever it goes.
    bench.ok("--db copy cancel open");
    assert_eq!(bench.json("--db copy show b --json")["reason"], "need_failed");
    bench.ok("--db copy export --output copied.jsonl");
    bench.ok("--db again import copied.jsonl");
    bench.ok("--db again backup third");
    bench.ok("--db third retry open");
    let b = bench.json("--db third show b --json");
    assert_eq!((&b["state"], &b["held"]), (&json!("blocked"), &json!(true)));
    assert!(b["why"].as_str().unwrap().contains("(in 59m"), "{b}");
    for db in ["copy", "again", "third"] {
        bench.ok(&format!("--db {db} check"));
    }
}

#[test]
fn what_comes_back_waits_for_its_time_and_stays_paused() {
    let bench = Bench::new();
    bench.ok("config set max-retries 0");
    bench.add(r#"{"id":"bad","command":"test -e mended"}"#);
    bench.add(r#"{"id":"now","command":"echo now >> ran","after":"bad"}"#);
    bench.add(r#"{"id":"later","command":"echo later >> ran","after":"bad","delay":7200}"#);
    bench.add(r#"{"id":"held","command":"echo held >> ran","after":"bad"}"#);
    bench.add(r#"{"id":"second","command":"echo second >> ran","after":"held"}"#);
    bench.ok("pause held");
    bench.ok("edit second --delay 3h");
    assert_eq!(bench.work().code, 1);
    let dead = "job bad, which it needed, is dead; queuectl retry bad";
    assert_eq!(waits_for(&bench, "held"), format!("{dead}; once retried it is held"));
    let later = waits_for(&bench, "later");
    assert!(later.as_str().unwrap().starts_with(&format!("{dead}; once retried it starts at ")), "{later}");
    assert!(later.as_str().unwrap().contains(" (in 1h 59m"), "{later}");
    std::fs::write(bench.file("mended"), "").unwrap();
    // Named with those that it took with it, or alone: the same.
    bench.ok("retry bad held");
    assert_eq!(["now", "later", "held", "second"].map(|id| bench.state(id)), ["blocked"; 4]);
    let _pool = bench.pool("");
    bench.until("what has no time runs", || bench.state("now") == "completed");
    assert_eq!(["later", "held", "second"].map(|id| bench.state(id)), ["scheduled", "scheduled", "blocked"]);
    bench.ok("worker stop");
    assert!(waits_for(&bench, "held").as_str().unwrap().starts_with("held; queuectl resume held"));
    assert!(waits_for(&bench, "second").as_str().unwrap().contains("(in 2h 59m"));
    bench.ok("resume held");
    bench.ok("edit later --delay 0s");
    bench.ok("cancel second");
    bench.work().ok();
    assert_eq!(bench.text("ran"), "now\nlater\nheld\n");
    bench.check();
}

/// A keyed job that is retried because it is enqueued again, or whose need is gone, comes back as it was, too.
#[test]
fn what_is_retried_by_its_key_waits_for_its_time() {
    let bench = Bench::new();
    bench.add(r#"{"id":"a","command":"true"}"#);
    bench.add(r#"{"id":"b","command":"true","after":"a","delay":7200,"key":"k"}"#);
    bench.ok("cancel a");
    bench.ok("remove a");
    assert!(
        waits_for(&bench, "b").as_str().unwrap().starts_with("once retried it starts at "),
        "what it needed is gone"
    );
    bench.ok("enqueue --key k --if-exists retry -- true");
    assert_eq!(bench.state("b"), "scheduled");
    assert!(waits_for(&bench, "b").as_str().unwrap().contains(" (in 1h 59m"));
    bench.check();
}

/// What a filter lets through and a verb cannot take is told with its reason.
#[test]
fn jobs_that_cannot_be_retried_for_what_they_need_are_told_apart() {
    let bench = Bench::new();
    bench.add(r#"{"id":"base","command":"false","max_retries":0}"#);
    for n in 0..5 {
        bench.add(&format!(r#"{{"command":"true","after":"base","tags":{{"t":"{}"}}}}"#, n % 2));
    }
    bench.add(r#"{"id":"other","command":"true","tags":{"t":"0"}}"#);
    bench.ok("cancel other");
    assert_eq!(bench.work().code, 1);
    let refused = bench.run("retry --tag t=1");
    assert!(refused.stderr.contains("left out: 2 jobs that cannot be retried; of the first: "), "{refused:?}");
    assert!(refused.stderr.contains("job base"), "{refused:?}");
    assert_eq!(refused.ok(), "Nothing was retried\n");
    let some = bench.run("retry --tag t=0");
    assert!(some.stderr.contains("left out: 3 jobs that cannot be retried"), "{some:?}");
    assert_eq!(some.ok(), "✓ 1 job will run again\n");
    bench.check();
}
