//! Which shards are read, from where to where, and in what order: pure decisions over the stream's lineage.
//!
//! ```text
//!          ┌─ shard 1 ──(closed)─┬─ shard 3 ──── …        from                     to
//!  shard 0 ┤                     │ merged                  │                        │
//!          └─ shard 2 ──(closed)─┘                         ▼                        ▼
//!                                         shard 0 ──end──▶ shards 1, 2 ──both end──▶ shard 3 ──bound──▶ done
//! ```
//! A child starts when all its parents ended by being closed. A parent that ended at the bound instead has nothing left
//! for its children: all they hold came later.

use std::collections::{BTreeMap, BTreeSet};

use featurectl_core::{Error, Position, Result};

use super::position::{Positions, ShardPoint};

/// A shard as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id, such as `shardId-000000000000`.
    pub id: String,
    /// The shards it was split or merged from; they may have been forgotten by the service.
    pub parents: Vec<String>,
    /// The hash keys it takes, both inclusive.
    pub hash_keys: (u128, u128),
    /// Whether no record can be put into it any more.
    pub closed: bool,
}

/// Where a read starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// With the oldest record that the stream still has.
    Horizon,
    /// With what arrived at or after this instant, microseconds UTC.
    Time(i64),
    /// After these records; shards that are neither named nor above a named one are read from their oldest record.
    Positions(Positions),
}

/// Where a read ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Before what arrived at or after this instant, microseconds UTC.
    Time(i64),
    /// With these records.
    Positions(Positions),
}

/// Where the read of one shard starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With its oldest record.
    Horizon,
    /// With what arrived at or after this instant.
    Time(i64),
    /// After this record, or after this part of an aggregate.
    After {
        /// The record's sequence number.
        sequence: Position,
        /// The last part that was read; `None`: all.
        sub: Option<u64>,
    },
}

/// Where the read of one shard ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Before what arrived at or after this instant.
    Time(i64),
    /// With this record, or with this part of an aggregate.
    At {
        /// The record's sequence number.
        sequence: Position,
        /// The last part that is wanted; `None`: all.
        sub: Option<u64>,
    },
    /// With its last record: the shard is closed.
    End,
}

/// One shard to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The shard's id.
    pub shard: String,
    /// Where to start.
    pub start: Start,
    /// Where to end.
    pub stop: Stop,
}

/// How the read of a shard ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The shard is closed and read to its end.
    Closed,
    /// The end of the range was reached first.
    Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Ended(Ended),
}

/// The shards of a stream and how far each is.
#[derive(Debug)]
pub struct Plan {
    from: From,
    to: To,
    shards: BTreeMap<String, (Shard, State)>,
}

impl Plan {
    /// A plan of what to read of `shards`, all that the service lists.
    ///
    /// Errors: [`NotFound`](featurectl_core::ErrorKind::NotFound) if a position names a shard that the stream does not
    /// have (any more), [`Invalid`](featurectl_core::ErrorKind::Invalid) if the range ends before it starts, or ends
    /// with the end of a shard that is open.
    pub fn new(from: From, to: To, shards: Vec<Shard>) -> Result<Self> {
        let mut plan = Self { from, to, shards: BTreeMap::new() };
        plan.learn(shards);
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<()> {
        if let (From::Time(from), To::Time(to)) = (&self.from, &self.to)
            && from > to
        {
            return Err(Error::invalid("the range ends before it starts: exchange `from` and `to`"));
        }
        let (starts, stops) = (self.starts(), self.stops());
        let missing = |id: &&String| !self.shards.contains_key(*id);
        let lost = starts.0.iter().filter(|(_, point)| **point != ShardPoint::End).map(|(id, _)| id).find(missing);
        let unread = stops.0.keys().find(|id| missing(id) && starts.0.get(*id) != stops.0.get(*id));
        if let Some(id) = lost.or(unread) {
            return Err(Error::not_found(format!(
                "the stream has no shard `{id}`: it is of another stream, or its records are past the retention; read \
                 from a time or from `trim_horizon`"
            )));
        }
        let open = |id: &String| self.shards.get(id).is_some_and(|(s, _)| !s.closed);
        match stops.0.iter().find(|(id, point)| **point == ShardPoint::End && open(id)) {
            Some((id, _)) => Err(Error::invalid(format!("shard `{id}` is open, so it has no end yet: end at a time"))),
            None => Ok(()),
        }
    }

    fn starts(&self) -> Positions {
        match &self.from {
            From::Positions(p) => p.clone(),
            _ => Positions::default(),
        }
    }

    fn stops(&self) -> Positions {
        match &self.to {
            To::Positions(p) => p.clone(),
            To::Time(_) => Positions::default(),
        }
    }

    /// Adds what is new in a later list of all shards. A parent that is not in it is forgotten by the service.
    pub fn learn(&mut self, shards: Vec<Shard>) {
        for shard in shards {
            self.shards.entry(shard.id.clone()).or_insert((shard, State::Waiting));
        }
        self.settle();
    }

    /// Decides on the shards that need no read, until nothing changes.
    fn settle(&mut self) {
        loop {
            let decided: Vec<(String, Ended)> = self
                .shards
                .values()
                .filter(|(_, state)| *state == State::Waiting)
                .filter_map(|(shard, _)| self.without_read(shard).map(|ended| (shard.id.clone(), ended)))
                .collect();
            if decided.is_empty() {
                return;
            }
            decided.into_iter().for_each(|(id, ended)| self.set(&id, State::Ended(ended)));
        }
    }

    fn without_read(&self, shard: &Shard) -> Option<Ended> {
        if self.already_read(shard) {
            return Some(Ended::Closed);
        }
        let bound = |id: &String| self.shards.get(id).is_some_and(|(_, s)| *s == State::Ended(Ended::Bound));
        (shard.parents.iter().any(bound) || self.stop(shard).is_none()).then_some(Ended::Bound)
    }

    fn already_read(&self, shard: &Shard) -> bool {
        let From::Positions(starts) = &self.from else { return false };
        match starts.0.get(&shard.id) {
            Some(point) => *point == ShardPoint::End,
            None => self.is_above(&shard.id, starts),
        }
    }

    /// Whether `id` is an ancestor of a named shard.
    fn is_above(&self, id: &str, named: &Positions) -> bool {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&String> = named.0.keys().collect();
        while let Some(next) = todo.pop() {
            let parents = self.shards.get(next).map(|(s, _)| s.parents.as_slice()).unwrap_or_default();
            if parents.iter().any(|p| p == id) {
                return true;
            }
            todo.extend(parents.iter().filter(|p| seen.insert(p.as_str())));
        }
        false
    }

    fn start(&self, shard: &Shard) -> Start {
        match &self.from {
            From::Horizon => Start::Horizon,
            From::Time(at) => Start::Time(*at),
            From::Positions(starts) => match starts.0.get(&shard.id) {
                Some(ShardPoint::After { sequence, sub }) => Start::After { sequence: *sequence, sub: *sub },
                Some(ShardPoint::Time(at)) => Start::Time(*at),
                Some(ShardPoint::End) | None => Start::Horizon,
            },
        }
    }

    fn stop(&self, shard: &Shard) -> Option<Stop> {
        let stops = match &self.to {
            To::Time(at) => return Some(Stop::Time(*at)),
            To::Positions(stops) => stops,
        };
        match stops.0.get(&shard.id) {
            Some(ShardPoint::After { sequence, sub }) => Some(Stop::At { sequence: *sequence, sub: *sub }),
            Some(ShardPoint::Time(at)) => Some(Stop::Time(*at)),
            Some(ShardPoint::End) => Some(Stop::End),
            None => self.is_above(&shard.id, stops).then_some(Stop::End),
        }
    }

    /// The shards that can be read now, each given once.
    pub fn ready(&mut self) -> Vec<Task> {
        let blocked = |id: &String| self.shards.get(id).is_some_and(|(_, s)| *s != State::Ended(Ended::Closed));
        let waiting = self.shards.values().filter(|(_, state)| *state == State::Waiting);
        let free = waiting.filter(|(shard, _)| !shard.parents.iter().any(blocked));
        let task =
            |shard: &Shard| Some(Task { shard: shard.id.clone(), start: self.start(shard), stop: self.stop(shard)? });
        let tasks: Vec<Task> = free.filter_map(|(shard, _)| task(shard)).collect();
        tasks.iter().for_each(|t| self.set(&t.shard, State::Running));
        tasks
    }

    /// Notes that a shard's read ended.
    pub fn ended(&mut self, shard: &str, how: Ended) {
        self.set(shard, State::Ended(how));
        self.settle();
    }

    fn set(&mut self, shard: &str, state: State) {
        if let Some((_, s)) = self.shards.get_mut(shard) {
            *s = state;
        }
    }

    /// Whether a child of `shard` is known. One that was closed has at least one.
    pub fn has_child(&self, shard: &str) -> bool {
        self.shards.values().any(|(s, _)| s.parents.iter().any(|p| p == shard))
    }

    /// Whether `shard` was listed.
    pub fn knows(&self, shard: &str) -> bool {
        self.shards.contains_key(shard)
    }

    /// Whether every shard that is known has ended.
    pub fn finished(&self) -> bool {
        self.shards.values().all(|(_, state)| matches!(state, State::Ended(_)))
    }

    /// How far each shard is read before the first record: what a read that breaks off at once goes on from.
    pub fn positions(&self) -> Positions {
        match &self.from {
            From::Horizon => Positions::default(),
            From::Time(at) => Positions(self.shards.keys().map(|id| (id.clone(), ShardPoint::Time(*at))).collect()),
            From::Positions(p) => p.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
