//! Points in time as people write and read them: in the local time zone.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::model::Millis;

/// What a time looks like, for messages.
pub(super) const TAKES: &str = "a time such as 22:00, 2026-12-01 22:00 or 2026-12-01T22:00:00+01:00";
/// Longest text that is looked at, in bytes: nothing longer is a time.
const TEXT_BYTES_MAX: usize = 40;

/// What time it is, and where.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    now: Millis,
    /// Only asked for when a time is written or read: finding it takes reading files.
    zone: fn() -> TimeZone,
}

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadTime {
    /// It does not look like one.
    Shape,
    /// It is one that does not exist in this zone, or exists twice; in words.
    Unclear(String),
}

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => write!(f, "it is {TAKES}"),
            Self::Unclear(why) => f.write_str(why),
        }
    }
}

impl Local {
    /// The zone of this process, and this time.
    pub(crate) fn here(now: Millis) -> Self {
        Self { now, zone: TimeZone::system }
    }

    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn at(now: Millis, zone: fn() -> TimeZone) -> Self {
        Self { now, zone }
    }

    /// The time that a text means: a date and a time of day here, or with an offset anywhere; a time of day alone is
    /// the next such time.
    pub(crate) fn parse(&self, text: &str) -> Result<Millis, BadTime> {
        let text = text.trim();
        let fits = |b: u8| b.is_ascii_digit() || b"-+:. TtZz".contains(&b);
        if text.len() > TEXT_BYTES_MAX || !text.bytes().all(fits) {
            return Err(BadTime::Shape);
        }
        if let Some(time) = strptime(["%H:%M", "%H:%M:%S"], |format| Time::strptime(format, text).ok()) {
            return self.next(time);
        }
        let spaced = text.replace(['T', 't'], " ");
        let formats = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"];
        if let Some(time) = strptime(formats, |format| DateTime::strptime(format, &spaced).ok()) {
            return self.only(time, (self.zone)().to_ambiguous_timestamp(time).offset());
        }
        text.parse().map(millis).map_err(|_| BadTime::Shape)
    }

    /// The next time that the clock shows this.
    fn next(&self, time: Time) -> Result<Millis, BadTime> {
        let zone = (self.zone)();
        let mut day = zone.to_datetime(timestamp(self.now)).date();
        loop {
            let local = day.to_datetime(time);
            let offset = zone.to_ambiguous_timestamp(local).offset();
            let last = match offset {
                AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { after: offset, .. } => offset,
                AmbiguousOffset::Gap { .. } => return self.only(local, offset),
            };
            if last.to_timestamp(local).is_ok_and(|last| millis(last) > self.now) {
                return self.only(local, offset);
            }
            day = day.tomorrow().map_err(|_| BadTime::Shape)?;
        }
    }

    /// The one time that the clock shows this.
    fn only(&self, local: DateTime, offset: AmbiguousOffset) -> Result<Millis, BadTime> {
        let zone = (self.zone)();
        let zone = zone.iana_name().unwrap_or("the local time zone");
        let shown = shown(local);
        match offset {
            AmbiguousOffset::Unambiguous { offset } => {
                offset.to_timestamp(local).map(millis).map_err(|_| BadTime::Shape)
            }
            AmbiguousOffset::Gap { .. } => {
                Err(BadTime::Unclear(format!("there is no {shown} in {zone}: the clocks are set forward over it")))
            }
            AmbiguousOffset::Fold { before, after } => Err(BadTime::Unclear(format!(
                "{shown} comes twice in {zone}, as the clocks are set back; say which: {local}{before} or {local}{after}"
            ))),
        }
    }

    /// A time for people: without the date if it is today.
    pub(crate) fn show(&self, at: Millis) -> String {
        let zone = (self.zone)();
        let local = zone.to_datetime(timestamp(at));
        let text = shown(local);
        if local.date() == zone.to_datetime(timestamp(self.now)).date() {
            text.split_once(' ').map_or_else(|| text.clone(), |(_, time)| time.to_owned())
        } else {
            text
        }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Millis {
        self.now
    }
}

/// What the first of these formats finds.
fn strptime<T>(formats: [&str; 2], parse: impl Fn(&str) -> Option<T>) -> Option<T> {
    formats.into_iter().find_map(parse)
}

/// To the second, if that is not the minute.
fn shown(local: DateTime) -> String {
    let format = if local.second() == 0 { "%Y-%m-%d %H:%M" } else { "%Y-%m-%d %H:%M:%S" };
    local.strftime(format).to_string()
}

/// Before 1970 counts as 1970: it has passed.
fn millis(time: Timestamp) -> Millis {
    Millis(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

/// The last time that there is stands for all that are later.
fn timestamp(time: Millis) -> Timestamp {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in Berlin since 1996.
    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// Noon on a Tuesday in November.
    fn noon() -> Local {
        Local::at(utc("2026-11-24T11:00:00Z"), berlin)
    }

    fn utc(text: &str) -> Millis {
        millis(text.parse().unwrap())
    }

    #[test]
    fn times_are_local_unless_they_say_where() {
        for (text, time) in [
            ("22:00", "2026-11-24T21:00:00Z"),
            ("22:00:30", "2026-11-24T21:00:30Z"),
            ("12:00", "2026-11-25T11:00:00Z"),
            ("11:59", "2026-11-25T10:59:00Z"),
            ("9:30", "2026-11-25T08:30:00Z"),
            ("2026-12-01 22:00", "2026-12-01T21:00:00Z"),
            ("2026-12-01T22:00", "2026-12-01T21:00:00Z"),
            ("2027-07-01 22:00:05", "2027-07-01T20:00:05Z"),
            ("2020-01-01 00:00", "2019-12-31T23:00:00Z"),
            ("2026-12-01T22:00:00+05:30", "2026-12-01T16:30:00Z"),
            ("2026-12-01T22:00:00.5Z", "2026-12-01T22:00:00.5Z"),
            ("2026-12-01 22:00Z", "2026-12-01T22:00:00Z"),
            ("1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(noon().parse(text), Ok(utc(time)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "soon",
            "22",
            "25:00",
            "22:60",
            "2026-12-01",
            "2026-02-29 10:00",
            "2026-13-01 10:00",
            "10m",
            "2026-12-01T22:00:00+01:00[Europe/Paris]",
            "22:00 2026-12-01",
            "+1",
            "-5:00",
            "1e9",
            "2026-12-01T22:00:00.0000000000000000000000000000Z",
        ] {
            assert_eq!(noon().parse(text), Err(BadTime::Shape), "{text}");
        }
    }

    #[test]
    fn daylight_saving_is_explained() {
        let why = |local: &Local, text| local.parse(text).unwrap_err().to_string();
        let gap = "there is no 2027-03-28 02:30 in the local time zone: the clocks are set forward over it";
        assert_eq!(why(&noon(), "2027-03-28 02:30"), gap);
        let fold = "2026-10-25 02:30 comes twice in the local time zone, as the clocks are set back; say which: \
                    2026-10-25T02:30:00+02 or 2026-10-25T02:30:00+01";
        assert_eq!(why(&noon(), "2026-10-25 02:30"), fold);
        assert_eq!(noon().parse("2026-10-25T02:30:00+02"), Ok(utc("2026-10-25T00:30:00Z")));
        assert_eq!(noon().parse("2026-10-25T02:30:00+01"), Ok(utc("2026-10-25T01:30:00Z")));
        let before = |text| Local::at(utc(text), berlin);
        assert_eq!(why(&before("2027-03-28T00:59:00Z"), "02:30"), gap);
        assert_eq!(why(&before("2026-10-24T23:00:00Z"), "02:30"), fold);
        assert_eq!(why(&before("2026-10-25T00:45:00Z"), "02:30"), fold, "the second is to come");
        assert_eq!(before("2026-10-25T01:30:00Z").parse("02:30"), Ok(utc("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn times_are_shown_short() {
        let shown = |text| noon().show(utc(text));
        assert_eq!(shown("2026-11-24T21:00:00Z"), "22:00");
        assert_eq!(shown("2026-11-24T21:00:07Z"), "22:00:07");
        assert_eq!(shown("2026-11-24T23:00:00Z"), "2026-11-25 00:00");
        assert_eq!(noon().show(Millis(u64::MAX)).get(..4), Some("9999"));
    }
}
