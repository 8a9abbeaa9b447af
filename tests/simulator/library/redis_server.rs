//! A Redis server, in the simulator. The library's own store talks to it; only the connection is left out.

use super::resp::{Command, Value};
use crate::sys::simulation::{self, Nanos};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// The state of the server.
pub struct Server {
    /// How long an exchange takes.
    pub latency: [Nanos; 2],
    /// Until this world time it does not respond.
    pub hangs_until: Nanos,
    /// Until this world time it refuses connections.
    pub down_until: Nanos,
    /// How far its clock is off.
    pub clock_off: Nanos,
    /// Whether scripts are forbidden.
    pub no_scripts: bool,
    /// Values, and the times on its own clock at which they expire.
    keys: BTreeMap<Vec<u8>, (Vec<u8>, Nanos)>,
    /// The state as a replica had it.
    replica: BTreeMap<Vec<u8>, (Vec<u8>, Nanos)>,
    rng: simulation::Rng,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// An empty server.
pub fn make_server(seed: u64) {
    SERVER.set(Some(Server {
        latency: [200_000, 2_000_000],
        hangs_until: 0,
        down_until: 0,
        clock_off: 0,
        no_scripts: false,
        keys: BTreeMap::new(),
        replica: BTreeMap::new(),
        rng: simulation::Rng::new(seed, 3000),
    }));
}

/// Changes the server.
pub fn with_server<R>(change: impl FnOnce(&mut Server) -> R) -> R {
    SERVER.with_borrow_mut(|server| change(server.as_mut().expect("there is no Redis server")))
}

/// What can happen to its content.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// All keys are lost.
    Flush,
    /// The replica takes a copy.
    Copy,
    /// The replica takes over, with what it has.
    FailOver,
    /// One value is changed.
    Corrupt,
}

impl Server {
    /// Damages the content.
    pub fn damage(&mut self, damage: Damage) {
        match damage {
            Damage::Flush => self.keys.clear(),
            Damage::Copy => self.replica = self.keys.clone(),
            Damage::FailOver => self.keys = self.replica.clone(),
            Damage::Corrupt => {
                let rng = &mut self.rng;
                let Some(value) = self.keys.values_mut().next() else { return };
                if !value.0.is_empty() {
                    let at = rng.within(0..value.0.len() as i64) as usize;
                    value.0[at] ^= 1 << rng.within(0..8);
                }
            }
        }
    }

    fn now(&self) -> Nanos {
        simulation::EPOCH + simulation::now() + self.clock_off
    }

    fn get(&mut self, key: &[u8]) -> Option<(Vec<u8>, Nanos)> {
        let now = self.now();
        self.keys.retain(|_, (_, expires)| *expires > now);
        self.keys.get(key).cloned()
    }

    fn run(&mut self, command: Command) -> Value {
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        let now = self.now();
        match command {
            [b"TIME"] => Value::Time(now - now.rem_euclid(1000)),
            [b"GET", key] => self.get(key).map_or(Value::Nil, |(value, _)| Value::Bulk(value)),
            [b"PTTL", key] => Value::Integer(self.get(key).map_or(-2, |(_, expires)| (expires - now) / 1_000_000)),
            [b"SET", key, value, options @ ..] => {
                let only_new = options.contains(&&b"NX"[..]);
                let life =
                    options.iter().position(|option| *option == b"PX").and_then(|at| number(options.get(at + 1)?));
                let Some(life) = life else { return Value::Error("ERR syntax error".to_owned().into()) };
                if only_new && self.get(key).is_some() && !simulation::planted("lock-for-all") {
                    return Value::Nil;
                }
                self.keys.insert(key.to_vec(), (value.to_vec(), now.saturating_add(life.saturating_mul(1_000_000))));
                Value::Bulk(b"OK".to_vec())
            }
            [b"EVAL", ..] if self.no_scripts => Value::Error("NOPERM no permission".to_owned().into()),
            [b"EVAL", script, b"1", key, owner, rest @ ..] => {
                if self.get(key).is_none_or(|(value, _)| value != *owner) {
                    return Value::Integer(0);
                }
                let prolongs = script.windows(7).any(|part| part == b"pexpire");
                match rest.first().and_then(|life| number(life)) {
                    Some(life) if prolongs => {
                        let value = owner.to_vec();
                        self.keys.insert(key.to_vec(), (value, now.saturating_add(life.saturating_mul(1_000_000))));
                    }
                    _ => drop(self.keys.remove(*key)),
                }
                Value::Integer(1)
            }
            _ => Value::Error("ERR unknown command".to_owned().into()),
        }
    }
}

/// One exchange of the current process with the server.
pub(super) fn exchange(commands: &[Command], limit: Duration) -> io::Result<Vec<Value>> {
    if simulation::is_ending() {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let now = simulation::now();
    let (down, takes) = with_server(|server| {
        let takes = server.rng.within(server.latency[0]..server.latency[1].max(server.latency[0] + 1));
        (now < server.down_until, takes.max(server.hangs_until - now))
    });
    if down {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let takes = Duration::from_nanos(takes.unsigned_abs());
    if takes / 2 >= limit {
        simulation::sleep(limit);
        return Err(io::ErrorKind::TimedOut.into());
    }
    simulation::sleep(takes / 2);
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        replies.push(with_server(|server| server.run(command)));
        // The commands of others may come between those of a pipeline.
        simulation::preempt();
    }
    // The reply may be lost, when the commands had their effect.
    if takes >= limit {
        simulation::sleep(limit - takes / 2);
        return Err(io::ErrorKind::TimedOut.into());
    }
    simulation::sleep(takes - takes / 2);
    Ok(replies)
}
