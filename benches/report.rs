//! Figures, bars and tables.

use std::fmt::Write;

use serde_json::{Value, json};

use super::args::Args;
use super::machine::Machine;
use super::statistics::{Pairs, median};
use super::{Error, Result};

/// What has to be reached.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure.
#[derive(Debug)]
pub struct Row {
    what: String,
    values: Vec<f64>,
    unit: &'static str,
    bar: Option<Bar>,
    /// What the figure was made from.
    from: String,
    how: String,
}

impl Row {
    /// The median of `values`.
    pub fn new(what: impl Into<String>, values: &[f64], unit: &'static str) -> Self {
        let (what, values) = (what.into(), values.to_vec());
        Self { what, values, unit, bar: None, from: String::new(), how: String::new() }
    }

    /// The median ratio of pairs.
    pub fn ratio(what: impl Into<String>, pairs: &Pairs, unit: &str) -> Self {
        let (ours, theirs) = (number(median(&pairs.ours)), number(median(&pairs.theirs)));
        Self { from: format!("{ours} against {theirs} {unit}"), ..Self::new(what, &pairs.ratios(), "×") }
    }

    pub fn bar(self, bar: Bar) -> Self {
        Self { bar: Some(bar), ..self }
    }

    pub fn from(self, from: impl Into<String>) -> Self {
        Self { from: from.into(), ..self }
    }

    /// The command line, or what was done.
    pub fn how(self, how: impl Into<String>) -> Self {
        Self { how: how.into(), ..self }
    }

    fn value(&self) -> f64 {
        median(&self.values)
    }

    fn figure(&self) -> String {
        let figure = format!("{} {}", number(self.value()), self.unit);
        let (low, high) = self.values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        if self.values.len() > 1 { format!("{figure} ({}–{})", number(low), number(high)) } else { figure }
    }

    fn bar_text(&self) -> String {
        match self.bar {
            None => String::new(),
            Some(Bar::AtLeast(bar)) => format!("≥ {} {}", number(bar), self.unit),
            Some(Bar::AtMost(bar)) => format!("≤ {} {}", number(bar), self.unit),
        }
    }

    fn is_reached(&self) -> Option<bool> {
        self.bar.map(|bar| match bar {
            Bar::AtLeast(bar) => self.value() >= bar,
            Bar::AtMost(bar) => self.value() <= bar,
        })
    }

    fn line(&self) -> String {
        let mark = match self.is_reached() {
            Some(true) => "✓",
            Some(false) => "✗",
            None => "·",
        };
        let mut line = format!("{mark} {}: {}", self.what, self.figure());
        for (before, text) in [("; bar ", self.bar_text()), ("; ", self.from.clone())] {
            if !text.is_empty() {
                let _ = write!(line, "{before}{text}");
            }
        }
        if !self.how.is_empty() {
            let _ = write!(line, "\n    {}", self.how);
        }
        line
    }

    fn json(&self, benchmark: &str) -> Value {
        let bar = self.bar.map(|bar| match bar {
            Bar::AtLeast(bar) => json!({"at_least": bar}),
            Bar::AtMost(bar) => json!({"at_most": bar}),
        });
        json!({
            "benchmark": benchmark, "what": self.what, "median": self.value(), "values": self.values,
            "unit": self.unit, "bar": bar, "reached": self.is_reached(), "from": self.from, "how": self.how,
        })
    }

    fn markdown(&self) -> String {
        let from = if self.from.is_empty() { String::new() } else { format!("; {}", self.from) };
        let cells = [self.what.clone(), format!("**{}**{from}", self.figure()), self.bar_text(), self.how.clone()];
        format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
    }
}

/// A number with three digits or so; thousands are separated.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value.fract() == 0.0 {
        let digits = format!("{size:.0}");
        let grouped: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
        return format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped.join(","));
    }
    let decimals = if size >= 10.0 {
        1
    } else if size >= 0.1 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

/// A count, with its thousands separated.
pub fn count(count: usize) -> String {
    number(count as f64)
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    machine: Machine,
    benchmark: &'static str,
    rows: Vec<(&'static str, Row)>,
    notes: Vec<String>,
    has_failed: bool,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self { machine, benchmark: "", rows: Vec::new(), notes: Vec::new(), has_failed: false }
    }

    pub fn begin(&mut self, benchmark: &'static str) {
        self.benchmark = benchmark;
    }

    pub fn row(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push((self.benchmark, row));
    }

    /// Something that is not measured, and why.
    pub fn skip(&mut self, what: &str) {
        println!("- skipped: {what}");
        self.notes.push(format!("{}: {what}", self.benchmark));
    }

    /// What makes figures doubtful.
    pub fn warn(&mut self, what: &str) {
        println!("! warning: {what}");
        self.notes.push(format!("{}: {what}", self.benchmark));
    }

    pub fn failed(&mut self, error: &Error) {
        println!("! failed: {error}");
        self.notes.push(format!("{} failed: {error}", self.benchmark));
        self.has_failed = true;
    }

    /// Writes the files that were asked for. Says whether nothing failed.
    pub fn finish(self, args: &Args) -> Result<bool> {
        if args.quick {
            println!("\nThese sizes are too small for figures: they show that the benchmarks work.");
        }
        if let Some(path) = &args.json {
            let rows: Vec<Value> = self.rows.iter().map(|(benchmark, row)| row.json(benchmark)).collect();
            let machine: serde_json::Map<_, _> =
                self.machine.facts.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
            let all = json!({"machine": machine, "quick": args.quick, "rows": rows, "notes": self.notes});
            std::fs::write(path, format!("{all:#}\n"))?;
        }
        if let Some(path) = &args.markdown {
            std::fs::write(path, self.markdown())?;
        }
        Ok(!self.has_failed)
    }

    fn markdown(&self) -> String {
        let mut text = format!("{}\n\n| what | measured | bar | how |\n|---|---|---|---|\n", self.machine.sentence());
        for (_, row) in &self.rows {
            let _ = writeln!(text, "{}", row.markdown());
        }
        if !self.notes.is_empty() {
            let _ = writeln!(text, "\nNotes: {}.", self.notes.join("; "));
        }
        text
    }
}
