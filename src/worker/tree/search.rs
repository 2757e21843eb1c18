//! Which processes of a table belong to which run: a pure function.

use std::collections::{HashMap, HashSet};

use rustix::process::{Pid, RawPid};

use super::procfs::{self, Stat};
use super::{Leader, Mark, Reach};

/// How far a start time may lie outside what was recorded, in clock ticks: the kernel reads its clock on its own.
const BORN_SLACK_TICKS: u64 = 1;

/// A process, for ever: a pid alone comes to mean another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) pid: Pid,
    /// Clock ticks since boot.
    pub(super) started: u64,
}

/// A row of the process table.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) id: Identity,
    pub(super) stat: Stat,
    /// The lease in its environment, if that was asked for and could be read.
    pub(super) lease: Option<Vec<u8>>,
}

/// A process that belongs to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: Identity,
    /// Which of the marks.
    pub(super) mark: usize,
}

/// The living processes of the runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Those that may be ended, the oldest first: a parent that is to heed a signal must get it before it sees what the
    /// signal does to its children, and one that is to die before it can replace them.
    pub(super) ours: Vec<Member>,
    /// Those that may not: this process and what it descends from.
    pub(super) spared: Vec<Member>,
    /// Whether these are all that there were.
    pub(super) settled: bool,
}

/// The marks, made ready to be looked up for each process.
pub(super) struct Search<'a> {
    reach: Reach,
    tokens: HashMap<&'a [u8], usize>,
    /// By pid; two runs can have had the same one, one after the other.
    leaders: HashMap<RawPid, Vec<(usize, Leader)>>,
}

impl<'a> Search<'a> {
    pub(super) fn new(marks: &'a [Mark], reach: Reach) -> Self {
        let tokens = marks.iter().enumerate().map(|(mark, of)| (of.token.as_slice(), mark)).collect();
        let mut search = Self { reach, tokens, leaders: HashMap::new() };
        for (mark, of) in marks.iter().enumerate() {
            of.leader.iter().for_each(|leader| search.follow(mark, leader.clone()));
        }
        search
    }

    /// How much of a run is meant.
    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// From now on what is in the group or session of this process belongs to the run, too.
    pub(super) fn follow(&mut self, mark: usize, leader: Leader) {
        self.leaders.entry(leader.pid.as_raw_pid()).or_default().push((mark, leader));
    }

    /// Whether the environment of this process is worth reading.
    pub(super) fn asks_for_lease(&self, pid: Pid, stat: &Stat) -> bool {
        let by_leader = self.leaders.contains_key(&pid.as_raw_pid()) || self.leaders.contains_key(&stat.group);
        stat.alive && (self.reach == Reach::Tree || by_leader)
    }

    /// The members among the living; `known` ones are members whatever the rest says.
    pub(super) fn select(&self, table: &procfs::Table, known: &HashMap<Identity, usize>, me: Pid) -> Selection {
        let settled = table.settled;
        let table = ByPid::new(&table.rows);
        let seeds = table.living().filter_map(|process| {
            let mark = known.get(&process.id).copied().or_else(|| self.mark_of(process, &table))?;
            Some(Member { id: process.id, mark })
        });
        let members = match self.reach {
            Reach::Group => seeds.collect(),
            Reach::Tree => table.with_descendants(seeds.collect(), me),
        };
        let protected = table.lineage(me);
        let (spared, mut ours): (_, Vec<_>) =
            members.into_iter().partition(|member| protected.contains(&member.id.pid));
        ours.sort_by_key(|member| (member.id.started, member.id.pid.as_raw_pid()));
        Selection { ours, spared, settled }
    }

    /// The run that a process belongs to by what it is itself.
    fn mark_of(&self, process: &Process, table: &ByPid<'_>) -> Option<usize> {
        let by_token = process.lease.as_deref().and_then(|lease| self.tokens.get(lease)).copied();
        match self.reach {
            Reach::Group => self.mark_by_leader(process.stat.group, process, by_token, table),
            Reach::Tree => by_token.or_else(|| {
                let by_leader = |of| self.mark_by_leader(of, process, None, table);
                by_leader(process.stat.group).or_else(|| by_leader(process.stat.session))
            }),
        }
    }

    /// The run whose leader gave its pid as `id` to the group or session of `process`. Its token settles it.
    fn mark_by_leader(&self, id: RawPid, process: &Process, token: Option<usize>, table: &ByPid<'_>) -> Option<usize> {
        let mut leaders = self.leaders.get(&id)?.iter();
        let (mark, _) = leaders.find(|(mark, leader)| token == Some(*mark) || table.leads(leader, process))?;
        Some(*mark)
    }
}

/// The processes at one moment, by pid.
struct ByPid<'a> {
    rows: &'a [Process],
    by_pid: HashMap<Pid, &'a Process>,
}

impl<'a> ByPid<'a> {
    fn new(rows: &'a [Process]) -> Self {
        Self { rows, by_pid: rows.iter().map(|row| (row.id.pid, row)).collect() }
    }

    fn living(&self) -> impl Iterator<Item = &'a Process> {
        self.rows.iter().filter(|row| row.stat.alive)
    }

    /// Whether the group or session that `process` has from the leader's pid is really that leader's. The kernel gives
    /// no pid away while a group or session has it for its id: so a leader who is gone has left them to nobody else.
    fn leads(&self, leader: &Leader, process: &Process) -> bool {
        if let Some(row) = self.by_pid.get(&leader.pid) {
            return was_born(leader, row.id.started);
        }
        // Unless all of them ended, and another session of the same pid has lost its leader too: its members may tell.
        let in_session = process.stat.session == leader.pid.as_raw_pid();
        in_session && process.id.started >= earliest_birth(leader) && process.lease.is_none()
    }

    /// The members and all that descend from them, in the run of the nearest. Not from this process: what it runs are
    /// other jobs.
    fn with_descendants(&self, seeds: Vec<Member>, me: Pid) -> Vec<Member> {
        let mut children = HashMap::<RawPid, Vec<Identity>>::new();
        for process in self.living() {
            children.entry(process.stat.parent).or_default().push(process.id);
        }
        let mut seen: HashSet<Identity> = seeds.iter().map(|member| member.id).collect();
        let mut members = seeds;
        let mut next = 0;
        while let Some(member) = members.get(next).copied() {
            next += 1;
            let parent = member.id.pid;
            let below = children.get(&parent.as_raw_pid()).filter(|_| parent != me).into_iter().flatten();
            members.extend(below.filter(|id| seen.insert(**id)).map(|id| Member { id: *id, mark: member.mark }));
        }
        members
    }

    /// Pid 1, this process and all that it descends from.
    fn lineage(&self, me: Pid) -> HashSet<Pid> {
        let mut lineage = HashSet::from([Pid::INIT]);
        let mut above = Some(me);
        while let Some(pid) = above.filter(|pid| lineage.insert(*pid)) {
            above = self.by_pid.get(&pid).and_then(|row| Pid::from_raw(row.stat.parent));
        }
        lineage
    }
}

/// Whether a process that started then can be the leader.
fn was_born(leader: &Leader, started: u64) -> bool {
    (earliest_birth(leader)..=leader.born.end().saturating_add(BORN_SLACK_TICKS)).contains(&started)
}

/// The earliest start time that the leader can have, and so that anything in its session can have.
fn earliest_birth(leader: &Leader) -> u64 {
    leader.born.start().saturating_sub(BORN_SLACK_TICKS)
}

#[cfg(test)]
mod tests;
