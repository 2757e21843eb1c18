//! Pure values and rules: what a job is, which states it can be in, what moves it between them, when a
//! failure is tried again. Nothing here does I/O or reads a clock.

mod edit;
mod filter;
mod ids;
mod job;
mod key;
mod label;
mod limits;
mod need;
mod outcome;
mod retention;
mod retry;
mod settings;
mod state;
mod time;
mod view;

pub use edit::Editable;
pub use filter::{Filter, Pattern};
pub use ids::{BadName, JobId, LaneId, Lease, PoolId, QueueName, Seq, WorkerId};
pub use job::{Attempt, BadSpec, Command, EnvChange, Environment, JobSpec, Start, TimeLimit, pool_variable};
pub use key::{BadKey, IfExists, JobKey};
pub use label::{BadLabel, JobName, Tags};
pub use limits::*;
pub use need::{Need, Verdict};
pub use outcome::{Ending, Kept, Outcome, Run};
pub use retention::Retention;
pub use retry::{Policy, retry_delay};
pub use settings::{BadValue, SettingKey, Settings, parse_age, parse_duration, show_duration};
pub use state::{CancelReason, Claimed, DeadReason, Progress, Refusal, State, StateKind};
pub use time::Millis;
pub use view::{Job, Output, Stream};
