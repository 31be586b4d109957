use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000;

fn reader(start: Start, stop: Stop) -> ShardReader {
    let limits = Limits { settle: Duration::from_secs(2), failures: 3, ..Limits::default() };
    ShardReader::new(Task { shard: "s".into(), start, stop }, limits)
}

/// Records by sequence number and second of arrival.
fn records(places: &[(u64, i64)]) -> Vec<RawRecord> {
    let record = |&(sequence, second): &(u64, i64)| RawRecord {
        sequence: Position::from(sequence),
        arrival: second * SECOND,
        partition_key: "k".into(),
        data: Bytes::from_static(b"data"),
    };
    places.iter().map(record).collect()
}

fn answer(places: &[(u64, i64)], behind_ms: i64, second: i64) -> Event {
    let (records, next, now) = (records(places), Some("next".into()), second * SECOND);
    Event::Batch(Batch { records, next, children: vec![], behind_ms, now })
}

fn last_answer(places: &[(u64, i64)]) -> Event {
    Event::Batch(Batch { records: records(places), next: None, children: vec![], behind_ms: 0, now: 0 })
}

fn sequences(step: &Step) -> Vec<u64> {
    step.records.iter().map(|r| r.sequence.low()).collect()
}

fn after(sequence: u64) -> ShardPoint {
    ShardPoint::After { sequence: Position::from(sequence), sub: None }
}

#[test]
fn a_bound_of_time_ends_with_a_record_that_is_surely_behind_it() {
    let mut r = reader(Start::Horizon, Stop::Time(10 * SECOND));
    let step = r.next(answer(&[(1, 8), (2, 11), (3, 9)], 5_000, 20), 0.0).unwrap();
    // Record 2 came later than 10 s, but arrival times may be out of order by 2 s.
    assert_eq!((sequences(&step), step.command), (vec![1, 3], Command::Fetch("next".into())));
    assert_eq!(step.point, Some(after(3)));
    let step = r.next(answer(&[(4, 9), (5, 12)], 5_000, 20), 0.0).unwrap();
    assert_eq!((sequences(&step), step.command), (vec![4], Command::Finish(Ended::Bound)));
    assert_eq!(step.point, Some(ShardPoint::Time(10 * SECOND)));
}

#[test]
fn an_idle_shard_ends_at_the_tip_when_nothing_can_come_any_more() {
    let mut r = reader(Start::Horizon, Stop::Time(10 * SECOND));
    for (behind, second) in [(0, 9), (0, 11), (60_000, 30)] {
        let step = r.next(answer(&[], behind, second), 0.0).unwrap();
        assert_eq!(step.command, Command::Fetch("next".into()), "{behind} ms behind at {second} s");
    }
    let step = r.next(answer(&[(1, 9)], 0, 30), 0.0).unwrap();
    assert_eq!(step.command, Command::Fetch("next".into()), "records are no tip");
    let step = r.next(answer(&[], 0, 12), 0.0).unwrap();
    assert_eq!(step.command, Command::Finish(Ended::Bound));
}

#[test]
fn a_closed_shard_ends_with_its_last_record_though_none_was_of_the_range() {
    for places in [&[][..], &[(1, 1)][..]] {
        let mut r = reader(Start::Time(5 * SECOND), Stop::Time(10 * SECOND));
        let step = r.next(last_answer(places), 0.0).unwrap();
        assert_eq!((sequences(&step), step.command), (vec![], Command::Finish(Ended::Closed)));
        assert_eq!(step.point, Some(ShardPoint::End));
    }
}

#[test]
fn an_expired_iterator_is_made_again_behind_the_last_record_or_where_it_started() {
    for (start, first) in [
        (Start::Horizon, IteratorAt::Horizon),
        (Start::Time(10 * SECOND), IteratorAt::Time(8 * SECOND)),
        (Start::After { sequence: Position::from(1), sub: None }, IteratorAt::At(Position::from(1))),
    ] {
        let mut r = reader(start, Stop::End);
        assert_eq!(r.command(), Command::Iterator(first));
        r.next(Event::Iterator("i".into()), 0.0).unwrap();
        let step = r.next(Event::Failed(Failure::Expired), 0.0).unwrap();
        assert_eq!(step.command, Command::Iterator(first));
        r.next(answer(&[(1, 11), (2, 11)], 0, 12), 0.0).unwrap();
        let step = r.next(Event::Failed(Failure::Expired), 0.0).unwrap();
        assert_eq!(step.command, Command::Iterator(IteratorAt::After(Position::from(2))));
    }
}

#[test]
fn a_start_behind_a_record_leaves_it_out_and_one_within_an_aggregate_keeps_it() {
    for (sub, expected) in [(None, vec![6]), (Some(3), vec![5, 6])] {
        let mut r = reader(Start::After { sequence: Position::from(5), sub }, Stop::End);
        assert_eq!(sequences(&r.next(answer(&[(5, 1), (6, 1)], 0, 2), 0.0).unwrap()), expected);
    }
}

#[test]
fn a_start_behind_a_record_that_is_gone_is_an_error() {
    let mut r = reader(Start::After { sequence: Position::from(5), sub: None }, Stop::End);
    assert!(r.next(answer(&[], 5_000, 2), 0.0).is_ok());
    let error = r.next(answer(&[(7, 1)], 0, 2), 0.0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("retention"), "{error}");
}

#[test]
fn a_bound_of_position_ends_with_it_or_at_the_tip() {
    let stop = Stop::At { sequence: Position::from(5), sub: None };
    let step = reader(Start::Horizon, stop).next(answer(&[(4, 1), (5, 1), (6, 1)], 9, 1), 0.0).unwrap();
    assert_eq!((sequences(&step), step.command), (vec![4, 5], Command::Finish(Ended::Bound)));
    assert_eq!(step.point, Some(after(5)));
    let step = reader(Start::Horizon, stop).next(answer(&[], 0, 1), 0.0).unwrap();
    assert_eq!(step.command, Command::Finish(Ended::Bound));
}

#[test]
fn failures_are_waited_out_with_longer_and_longer_waits_then_given_up() {
    let mut r = reader(Start::Horizon, Stop::End);
    r.next(Event::Iterator("i".into()), 0.0).unwrap();
    let throttled = || Event::Failed(Failure::Throttled("slow".into()));
    let waits: Vec<Duration> = (0..3).map(|_| r.next(throttled(), 1.0).unwrap().wait).collect();
    assert!(waits.is_sorted_by(|a, b| a < b), "{waits:?}");
    assert_eq!(r.command(), Command::Fetch("i".into()));
    assert_eq!(r.next(throttled(), 1.0).unwrap_err().kind(), ErrorKind::Unavailable);
    // An answer in between starts the count again.
    let mut r = reader(Start::Horizon, Stop::End);
    for n in 0..20 {
        r.next(throttled(), 0.0).unwrap();
        r.next(answer(&[(n, 1)], 1, 1), 0.0).unwrap();
    }
}

#[test]
fn a_large_answer_is_paid_for_with_the_time_that_the_shard_needs_for_it() {
    let mut r = reader(Start::Horizon, Stop::End);
    let mut records = records(&[(1, 1)]);
    records[0].data = vec![0; 10 << 20].into();
    let batch = Batch { records, next: Some("n".into()), children: vec![], behind_ms: 0, now: 0 };
    assert_eq!(r.next(Event::Batch(batch), 0.0).unwrap().wait, Duration::from_secs(5));
    assert_eq!(r.next(answer(&[(2, 1)], 0, 1), 0.0).unwrap().wait, Duration::from_millis(200));
}

#[test]
fn empty_answers_without_progress_end_in_an_error() {
    let mut r = reader(Start::Horizon, Stop::End);
    let nearer = (0..5_000).map(|n| answer(&[], 10_000 - n, 1));
    assert!(nearer.map(|a| r.next(a, 0.0)).all(|step| step.is_ok()));
    let stuck = (0..5_000).map(|_| answer(&[], 9_999, 1));
    assert!(stuck.map(|a| r.next(a, 0.0)).any(|step| step.is_err()));
}

#[test]
fn waits_grow_up_to_a_hundred_times_the_first() {
    let first = Duration::from_millis(100);
    assert_eq!(backoff(first, 1, 1.0), Duration::from_millis(200));
    assert_eq!(backoff(first, 1, 0.0), Duration::from_millis(100));
    assert_eq!(backoff(first, 40, 1.0), Duration::from_secs(10));
}

proptest! {
    /// However answers are cut, disturbed, repeated or empty: what is given is the range, once and in order.
    #[test]
    fn any_cut_and_any_disturbance_gives_the_range_once(
        arrivals in prop::collection::vec(0_i64..3, 0..40),
        cuts in prop::collection::vec((0_usize..6, 0_u8..5), 300),
        from in 0_i64..40, len in 0_i64..40,
    ) {
        let arrivals: Vec<i64> = arrivals.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
        let all: Vec<(u64, i64)> = (1..).zip(arrivals).collect();
        let (from, to) = (from, from + len);
        let mut r = reader(Start::Time(from * SECOND), Stop::Time(to * SECOND));
        let (mut at, mut given, mut done) = (0, Vec::new(), false);
        for (count, disturbance) in cuts {
            let event = match r.command() {
                Command::Finish(_) => { done = true; break }
                Command::Iterator(iterator) => {
                    at = match iterator {
                        IteratorAt::Time(t) => all.iter().position(|r| r.1 * SECOND >= t).unwrap_or(all.len()),
                        IteratorAt::After(s) => all.iter().position(|r| r.0 > s.low()).unwrap_or(all.len()),
                        other => panic!("{other:?}"),
                    };
                    Event::Iterator("i".into())
                }
                Command::Fetch(_) => match disturbance {
                    0 => Event::Failed(Failure::Expired),
                    1 => answer(&[], 1_000, 200),
                    _ => {
                        let end = (at + count).min(all.len());
                        let some = &all[at..end];
                        at = end;
                        answer(some, if at == all.len() { 0 } else { 1_000 }, 200)
                    }
                },
            };
            let step = match r.next(event, 0.5) {
                Ok(step) => step,
                // Four failures in a row.
                Err(e) => { prop_assert_eq!(e.kind(), ErrorKind::Unavailable); return Ok(()) }
            };
            given.extend(sequences(&step));
        }
        let wanted: Vec<u64> = all.iter().filter(|r| (from..to).contains(&r.1)).map(|r| r.0).collect();
        if done {
            prop_assert_eq!(given, wanted);
        } else {
            prop_assert!(wanted.starts_with(&given));
        }
    }
}
