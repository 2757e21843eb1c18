//! Signals while a large batch is stored: the process ends at once, and says that nothing was enqueued.
//!
//! What it stored nobody sees, and whoever finds its maker dead takes it away: so nothing has to be undone here, and
//! the wait for a turn does not hold the end up. Only when all of it is about to appear a signal has to wait.

use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::say;
use super::exit::Exit;
use crate::worker::StopListener;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Storing,
    Publishing,
    /// The same, and a signal came.
    Asked,
}

/// See the module.
pub(super) struct Stop {
    stage: Arc<Mutex<Stage>>,
    /// None if the system does not let it listen: then a signal ends the process in silence.
    _listener: Option<StopListener>,
}

impl Stop {
    /// Listens from now on, as long as it is there.
    pub(super) fn listen() -> Self {
        let stage = Arc::new(Mutex::new(Stage::Storing));
        let asked = Arc::clone(&stage);
        let listener = StopListener::start(move || {
            let mut stage = asked.lock().unwrap_or_else(PoisonError::into_inner);
            match *stage {
                Stage::Storing => end("stopped: nothing was enqueued"),
                Stage::Publishing => *stage = Stage::Asked,
                Stage::Asked => end("stopped while it was about to appear: `queuectl status` tells whether it did"),
            }
        });
        Self { stage, _listener: listener.ok() }
    }

    /// From now on the first signal is only noted.
    pub(super) fn hold_back(&self) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = Stage::Publishing;
    }

    /// Whether a signal came since.
    pub(super) fn was_asked(&self) -> bool {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) == Stage::Asked
    }
}

fn end(why: &str) {
    say(format_args!("{why}"));
    exit(u8::from(Exit::Stopped).into());
}
