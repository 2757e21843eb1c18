//! Whose a process is, on tables that no machine can be made to show.

use super::*;

const ME: RawPid = 900;
const LEADER: RawPid = 100;
const TOKEN: &[u8] = b"1:2:ab:3";

const NONE: [RawPid; 0] = [];

/// A living process: pid, parent, group, session, start time.
fn row(pid: RawPid, parent: RawPid, group: RawPid, session: RawPid, started: u64) -> Process {
    let id = Identity { pid: Pid::from_raw(pid).unwrap(), started };
    let stat = Stat { alive: true, execing: false, parent, group, session, started };
    Process { id, stat, lease: None }
}

/// A process of another session.
fn elsewhere(pid: RawPid, parent: RawPid) -> Process {
    row(pid, parent, pid, pid, 1000)
}

impl Process {
    fn with_lease(mut self, lease: &[u8]) -> Self {
        self.lease = Some(lease.to_vec());
        self
    }

    fn dead(mut self) -> Self {
        self.stat.alive = false;
        self
    }
}

/// The run whose leader started between 500 and 502.
fn mark() -> Mark {
    let pid = Pid::from_raw(LEADER).unwrap();
    Mark { token: TOKEN.to_vec(), leader: Some(Leader { pid, born: 500..=502 }) }
}

fn select(marks: &[Mark], reach: Reach, table: &[Process]) -> Selection {
    select_with(marks, reach, table, &HashMap::new())
}

fn select_with(marks: &[Mark], reach: Reach, rows: &[Process], known: &HashMap<Identity, usize>) -> Selection {
    let table = procfs::Table { rows: rows.to_vec(), settled: true };
    Search::new(marks, reach).select(&table, known, Pid::from_raw(ME).unwrap())
}

fn pids(members: &[Member]) -> Vec<RawPid> {
    members.iter().map(|member| member.id.pid.as_raw_pid()).collect()
}

/// The pids that are ours in the group and in the tree; nothing may be spared.
fn ours(table: &[Process]) -> [Vec<RawPid>; 2] {
    [Reach::Group, Reach::Tree].map(|reach| {
        let selection = select(&[mark()], reach, table);
        assert_eq!(selection.spared, []);
        pids(&selection.ours)
    })
}

#[test]
fn a_leader_counts_if_it_started_when_it_should_have() {
    for (started, counts) in [(498, false), (499, true), (501, true), (503, true), (504, false)] {
        let expected = if counts { vec![LEADER] } else { vec![] };
        let table = [row(LEADER, 1, LEADER, LEADER, started)];
        assert_eq!(ours(&table), [expected.clone(), expected], "{started}");
    }
}

#[test]
fn group_session_and_descendants_are_told_apart() {
    let table = [
        row(LEADER, 1, LEADER, LEADER, 501),
        row(101, LEADER, LEADER, LEADER, 600),
        row(102, 1, 102, LEADER, 600),
        elsewhere(103, 102),
        elsewhere(104, 103),
        elsewhere(105, 1).with_lease(TOKEN),
        elsewhere(106, 1).with_lease(b"1:2:ab:33"),
        elsewhere(107, 1),
    ];
    let [group, tree] = ours(&table);
    assert_eq!(group, [LEADER, 101]);
    assert_eq!(tree, [LEADER, 101, 102, 103, 104, 105]);
}

#[test]
fn a_dead_leader_still_answers_for_its_group() {
    let zombie = row(LEADER, 1, LEADER, LEADER, 501).dead();
    let member = row(101, 1, LEADER, LEADER, 600);
    assert_eq!(ours(&[zombie, member]), [[101], [101]]);
}

#[test]
fn the_group_of_a_leader_who_is_gone_is_its_own() {
    assert_eq!(ours(&[row(101, 1, LEADER, LEADER, 499)]), [[101], [101]]);
    let too_old = row(101, 1, LEADER, LEADER, 498);
    let of_another_session = row(102, 1, LEADER, 7, 600);
    let of_another_lease = row(103, 1, LEADER, LEADER, 600).with_lease(b"other");
    assert_eq!(ours(&[too_old, of_another_session, of_another_lease]), [NONE, NONE]);
}

#[test]
fn a_group_whose_leader_is_another_is_ours_only_by_token() {
    let impostor = row(LEADER, 1, LEADER, LEADER, 9000);
    let theirs = row(101, LEADER, LEADER, LEADER, 9001);
    let marked = row(102, LEADER, LEADER, LEADER, 9002).with_lease(TOKEN);
    assert_eq!(ours(&[impostor, theirs, marked]), [[102], [102]]);
}

#[test]
fn zombies_are_not_ours_and_lead_to_nobody() {
    let table = [row(LEADER, 1, LEADER, LEADER, 501).dead(), elsewhere(101, 1).with_lease(TOKEN).dead()];
    assert_eq!(ours(&table), [NONE, NONE]);
}

#[test]
fn without_a_leader_only_the_token_counts() {
    let mark = Mark { leader: None, ..mark() };
    let table = [row(LEADER, 1, LEADER, LEADER, 501), elsewhere(101, 1).with_lease(TOKEN), elsewhere(102, 101)];
    let found = |reach| pids(&select(std::slice::from_ref(&mark), reach, &table).ours);
    assert_eq!(found(Reach::Group), NONE);
    assert_eq!(found(Reach::Tree), [101, 102]);
}

#[test]
fn this_process_and_what_it_descends_from_are_spared() {
    let table = [
        row(LEADER, 1, LEADER, LEADER, 501),
        row(101, LEADER, LEADER, LEADER, 600),
        elsewhere(ME, 101).with_lease(TOKEN),
        elsewhere(901, ME).with_lease(b"a job of this pool"),
        row(102, LEADER, LEADER, LEADER, 600),
        elsewhere(1, 0).with_lease(TOKEN),
    ];
    let selection = select(&[mark()], Reach::Tree, &table);
    assert_eq!(pids(&selection.ours), [102]);
    assert_eq!(pids(&selection.spared), [LEADER, 101, ME, 1]);
}

#[test]
fn each_goes_to_its_own_run() {
    let other = Mark { token: b"other".to_vec(), leader: None };
    let again = Leader { pid: Pid::from_raw(LEADER).unwrap(), born: 800..=801 };
    let third = Mark { token: b"third".to_vec(), leader: Some(again) };
    let table = [
        row(LEADER, 1, LEADER, LEADER, 800),
        row(101, LEADER, LEADER, LEADER, 850),
        elsewhere(102, 101).with_lease(b"other"),
        elsewhere(103, 102),
        elsewhere(104, 1).with_lease(TOKEN),
    ];
    let selection = select(&[mark(), other, third], Reach::Tree, &table);
    let marks: Vec<_> = selection.ours.iter().map(|member| (member.id.pid.as_raw_pid(), member.mark)).collect();
    assert_eq!(marks, [(LEADER, 2), (101, 2), (102, 1), (103, 1), (104, 0)]);
}

#[test]
fn who_is_known_stays_known_until_its_pid_is_another() {
    let known: HashMap<_, _> = [elsewhere(101, 1), elsewhere(102, 1)].map(|process| (process.id, 0)).into();
    let table = [elsewhere(101, 1), row(102, 1, 102, 102, 1001), elsewhere(103, 101)];
    assert_eq!(pids(&select_with(&[mark()], Reach::Tree, &table, &known).ours), [101, 103]);
}

#[test]
fn the_session_of_one_that_is_followed_is_ours() {
    let followed = Leader { pid: Pid::from_raw(200).unwrap(), born: 600..=600 };
    let marks = [mark()];
    let mut search = Search::new(&marks, Reach::Tree);
    search.follow(0, followed);
    let orphans = [row(201, 1, 200, 200, 700), row(202, 1, 202, 200, 700), row(203, 1, 200, 200, 598)];
    let table = procfs::Table { rows: orphans.to_vec(), settled: true };
    let selection = search.select(&table, &HashMap::new(), Pid::from_raw(ME).unwrap());
    assert_eq!(pids(&selection.ours), [201, 202]);
}

#[test]
fn environments_are_read_only_where_they_can_matter() {
    let marks = [mark()];
    let asked = |reach, process: &Process| Search::new(&marks, reach).asks_for_lease(process.id.pid, &process.stat);
    let (member, stranger) = (row(101, 1, LEADER, LEADER, 600), elsewhere(102, 1));
    assert_eq!([&member, &stranger].map(|process| asked(Reach::Group, process)), [true, false]);
    assert_eq!([&member, &stranger].map(|process| asked(Reach::Tree, process)), [true, true]);
    assert!(!asked(Reach::Tree, &member.dead()));
}
